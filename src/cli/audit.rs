//! `merch-store audit`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::storage::Audit;

use super::Common;
use super::database::{ToolDatabase, spinner};

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
pub struct AuditArgs {
    #[command(flatten)]
    common: Common,
}

/// Prints totals and lies: exit code 0 if the books are honest, 1 if they lie or cannot be read.
pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let config = args.common.load_for_tool()?;
    let database = ToolDatabase::open(&config).await?;
    let progress = spinner("reading the books");
    let audit = Audit::run(&database.options).await?;
    progress.finish_and_clear();
    database.close().await;

    let totals = &audit.totals;
    println!("users        {:>20}", totals.users);
    println!("movements    {:>20}", totals.movements);
    println!("granted      {:>20} coins", totals.granted);
    println!("held         {:>20} coins", totals.held);
    println!("spent        {:>20} coins on {} items", totals.spent, totals.items);
    println!("transferred  {:>20} coins", totals.transferred);
    for lie in &audit.lies {
        println!("LIE: {}", lie.0);
    }
    let seconds = started.elapsed().as_secs_f64();
    if audit.lies.is_empty() {
        println!("the books are honest ({seconds:.1} s)");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("the books lie in {} places or more ({seconds:.1} s)", audit.lies.len());
        Ok(ExitCode::FAILURE)
    }
}
