//! `merch-store migrate`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::lifecycle::Signals;
use crate::storage::{AppliedMigration, DatabaseOptions, MigrationState, Migrations};

use super::Common;
use super::database::{ToolDatabase, check_not_foreign, check_shop_is_there};
use super::terminal::{ask, print};

/// Flags of `migrate`: a direction, and the common ones.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store migrate status
  merch-store migrate up
  merch-store migrate down               revert the newest migration
  merch-store migrate down --all --yes   revert everything: all data is lost

`down` asks first where there are people in the database; without a terminal it needs --yes. It
does not go on while a shop or a gateway is connected.")]
pub struct MigrateArgs {
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Debug, Subcommand)]
enum Direction {
    /// Apply every pending migration.
    Up,
    /// Revert the newest migration. What its tables held is lost.
    Down {
        /// Revert so many.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
        count: usize,
        /// Revert all of them.
        #[arg(long, conflicts_with = "count")]
        all: bool,
        /// Do not ask, though there are people who lose what they have.
        #[arg(long)]
        yes: bool,
    },
    /// List migrations; exits with 1 unless all are applied.
    Status,
}

/// Changes or shows the schema: exit code 1 if that fails or `status` finds one not applied.
pub async fn run(args: MigrateArgs, common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    let (config, _logging) = common.load_for_tool()?;
    if !matches!(args.direction, Direction::Up) {
        check_shop_is_there(&config)?;
    }
    let migrating = async |options: &DatabaseOptions| migrate(&args.direction, options).await;
    let (report, exit_code) = ToolDatabase::lend(&config, signals, migrating).await?;
    print(&report)?;
    Ok(exit_code)
}

/// What there is to say of it, and the exit code.
async fn migrate(
    direction: &Direction,
    options: &DatabaseOptions,
) -> anyhow::Result<(String, ExitCode)> {
    let mut migrations = Migrations::connect(options).await?;
    let mut exit_code = ExitCode::SUCCESS;
    if let Direction::Down { .. } = direction {
        // Before anything else is looked at, for which the role may lack the right.
        nobody_is_connected(&mut migrations, &options.location()).await?;
    }
    let status = migrations.status().await?;
    if !matches!(direction, Direction::Status) {
        check_not_foreign(&status, &options.location())?;
    }
    let report = match *direction {
        Direction::Up => match migrations.up().await? {
            applied if applied.is_empty() => "nothing to do: the schema is up to date\n".into(),
            applied => applied.iter().map(|version| format!("applied {version:04}\n")).collect(),
        },
        Direction::Down { count, all, yes } => {
            let place = options.location();
            if is_meant(migrations.people().await?, &place, yes).await? {
                // Somebody may have taken their time to say so.
                nobody_is_connected(&mut migrations, &place).await?;
            }
            match migrations.down(if all { usize::MAX } else { count }).await? {
                reverted if reverted.is_empty() => "nothing to do: the schema is empty\n".into(),
                reverted => reverted.iter().map(|it| format!("reverted {it:04}\n")).collect(),
            }
        }
        Direction::Status => {
            if status.iter().any(|migration| migration.state != MigrationState::Applied) {
                exit_code = ExitCode::FAILURE;
            }
            table(&status)
        }
    };
    migrations.close().await;
    Ok((report, exit_code))
}

/// Fails while a shop, or anything else of this program, is connected to the database: its
/// statements would meet a schema that they do not know.
async fn nobody_is_connected(migrations: &mut Migrations, place: &str) -> anyhow::Result<()> {
    // What has just been stopped may not have left yet.
    if migrations.other_sessions().await?.is_empty() {
        return Ok(());
    }
    let sessions = migrations.other_sessions().await?;
    anyhow::ensure!(
        sessions.is_empty(),
        "merch-store is connected to {place} ({}); stop it first",
        sessions.join(", ")
    );
    Ok(())
}

/// Fails unless whoever runs this wants to take from `people` what they have: whether they were
/// asked.
async fn is_meant(people: i64, place: &str, yes: bool) -> anyhow::Result<bool> {
    if people == 0 || yes {
        return Ok(false);
    }
    let loss = format!("{place} holds people ({people}); what is reverted is lost for ever");
    match ask(&format!("{loss}. Type yes to go on:")).await?.as_deref() {
        Some("yes") => Ok(true),
        Some(_) => anyhow::bail!("nothing was changed"),
        None => anyhow::bail!("{loss}; say --yes if that is meant"),
    }
}

/// A line each, in columns.
fn table(status: &[AppliedMigration]) -> String {
    let digits = |migration: &AppliedMigration| format!("{:04}", migration.version).len();
    let longest = status.iter().map(digits).max().unwrap_or(0);
    let widest = status.iter().map(|migration| migration.name.chars().count()).max().unwrap_or(0);
    let line = |migration: &AppliedMigration| {
        let state = match migration.state {
            MigrationState::Applied => "applied",
            MigrationState::Pending => "pending: `merch-store migrate up` applies it",
            MigrationState::Altered => "ALTERED: the file was edited after it had landed",
            MigrationState::Unknown => "UNKNOWN: of a newer release",
        };
        let version = format!("{:04}", migration.version);
        format!("{version:<longest$} {:<widest$} {state}\n", migration.name)
    };
    status.iter().map(line).collect()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number, at least 1".into()),
        Ok(count) => Ok(count),
    }
}
