//! `merch-store migrate`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::storage::{AppliedMigration, MigrationState, Migrations};

use super::Common;
use super::database::ToolDatabase;

/// Flags of `migrate`: a direction, and the common ones.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store migrate status
  merch-store migrate up
  merch-store migrate down               revert the newest migration
  merch-store migrate down --all         revert everything: all data is lost

After `down --all` change auth.jwt_secret (or remove jwt-secret from the data folder): tokens
name accounts by number, and numbers start again.")]
pub struct MigrateArgs {
    #[command(subcommand)]
    direction: Direction,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Direction {
    /// Apply every pending migration.
    Up,
    /// Revert the newest migration. What its tables held is lost.
    Down {
        /// Revert so many.
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: usize,
        /// Revert all of them.
        #[arg(long, conflicts_with = "count")]
        all: bool,
    },
    /// List migrations; exits with 1 unless all are applied.
    Status,
}

/// Changes or shows the schema: exit code 1 if that fails or `status` finds one not applied.
pub async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let config = args.common.load_for_tool()?;
    let database = ToolDatabase::open(&config).await?;
    let mut migrations = Migrations::connect(&database.options).await?;
    let mut exit_code = ExitCode::SUCCESS;
    match args.direction {
        Direction::Up => match migrations.up().await? {
            applied if applied.is_empty() => println!("nothing to do: the schema is up to date"),
            applied => applied.iter().for_each(|version| println!("applied {version:04}")),
        },
        Direction::Down { count, all } => {
            match migrations.down(if all { usize::MAX } else { count }).await? {
                reverted if reverted.is_empty() => println!("nothing to do: the schema is empty"),
                reverted => reverted.iter().for_each(|version| println!("reverted {version:04}")),
            }
        }
        Direction::Status => {
            let status = migrations.status().await?;
            status.iter().for_each(print);
            if status.iter().any(|migration| migration.state != MigrationState::Applied) {
                exit_code = ExitCode::FAILURE;
            }
        }
    }
    migrations.close().await;
    database.close().await;
    Ok(exit_code)
}

fn print(migration: &AppliedMigration) {
    let state = match migration.state {
        MigrationState::Applied => "applied",
        MigrationState::Pending => "pending: `merch-store migrate up` applies it",
        MigrationState::Altered => "ALTERED: the file was edited after it had landed",
        MigrationState::Unknown => "UNKNOWN: applied by a newer release",
    };
    println!("{:04} {:<12} {state}", migration.version, migration.name);
}
