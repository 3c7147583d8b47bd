//! `merch-store audit`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::lifecycle::Signals;
use crate::storage::{Audit, DatabaseOptions, Migrations};

use super::Common;
use super::database::{ToolDatabase, check_schema, check_shop_is_there};
use super::terminal::{print, spinner};

/// Flags of `audit`: the common ones.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store audit
  merch-store audit --database-url postgres://merch@db/shop

Reads one snapshot while the shop goes on working: every user's coins are the sum of the
history, every inventory is what was bought, nothing is negative, nobody was granted coins
twice, and the coins granted are the coins held and the coins spent. Exits with 1 if any of
that is not so.")]
pub struct AuditArgs {}

/// Prints totals and lies: exit code 0 if the books are honest, 1 if they lie or cannot be read.
pub async fn run(common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let (config, _logging) = common.load_for_tool()?;
    check_shop_is_there(&config)?;
    let reading = async |options: &DatabaseOptions| {
        let mut migrations = Migrations::connect(options).await?;
        check_schema(&migrations.status().await?, &options.location())?;
        migrations.close().await;
        let progress = spinner("reading the books");
        let audit = Audit::run(options).await?;
        progress.finish_and_clear();
        Ok(audit)
    };
    let audit = ToolDatabase::lend(&config, signals, reading).await?;

    print(&report(&audit, started.elapsed()))?;
    Ok(if audit.lies.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(audit: &Audit, took: Duration) -> String {
    let totals = &audit.totals;
    let mut lines = vec![
        format!("users        {:>20}", totals.users),
        format!("movements    {:>20}", totals.movements),
        format!("granted      {:>20} coins", totals.granted),
        format!("corrected    {:>20} coins", totals.corrected),
        format!("held         {:>20} coins", totals.held),
        format!("spent        {:>20} coins on {} items", totals.spent, totals.items),
        format!("refunded     {:>20} coins", totals.refunded),
        format!("transferred  {:>20} coins", totals.transferred),
    ];
    lines.extend(audit.lies.iter().map(|lie| format!("LIE: {}", lie.0)));
    let seconds = took.as_secs_f64();
    lines.push(match audit.lies.len() {
        0 => format!("the books are honest ({seconds:.1} s)"),
        lies => format!("the books lie in {lies} places or more ({seconds:.1} s)"),
    });
    lines.join("\n") + "\n"
}
