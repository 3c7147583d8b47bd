//! `merch-store identity`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::lifecycle::Signals;
use crate::shop::BooksId;
use crate::storage::{DatabaseOptions, Migrations, renew_identity};

use super::Common;
use super::database::{ToolDatabase, check_schema, check_shop_is_there};
use super::terminal::print;

/// What `identity` is to do.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store identity renew
  merch-store identity renew --database-url postgres://merch@db/shop

Tokens name the database that they were issued for. A database that came out of a dump gets a
new identity by itself, when a shop first connects to it. One that was put back by copying the
server's files, or to a point in time, has the old one: renew it before anybody uses it, and
everybody has to log in again. A shop may be running.")]
pub struct IdentityArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give the database a new identity: no token from before is valid any longer.
    Renew,
}

/// Prints the identity before and after.
pub async fn run(args: IdentityArgs, common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    let (config, _logging) = common.load_for_tool()?;
    check_shop_is_there(&config)?;
    let Action::Renew = args.action;
    let (old, new) = ToolDatabase::lend(&config, signals, renew).await?;
    print(&format!("old  {}\nnew  {}\n", old.0, new.0))?;
    Ok(ExitCode::SUCCESS)
}

async fn renew(options: &DatabaseOptions) -> anyhow::Result<(BooksId, BooksId)> {
    let mut migrations = Migrations::connect(options).await?;
    check_schema(&migrations.status().await?, &options.location())?;
    migrations.close().await;
    Ok(renew_identity(options).await?)
}
