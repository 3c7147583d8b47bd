//! `merch-store seed`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;

use crate::auth::password::{self, Password};
use crate::lifecycle::Signals;
use crate::shop::Amount;
use crate::storage::{DatabaseOptions, Migrations, Seed};

use super::Common;
use super::database::{ToolDatabase, check_not_foreign, check_shop_is_there};
use super::terminal::print;

/// Users in one transaction: enough to be fast, few enough for sales to go on in between.
const CHUNK: u32 = 1_000;

/// A hundred times the largest company that this was measured with.
const MOST_USERS: i64 = 10_000_000;

/// Flags of `seed`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store seed
  merch-store seed --users 100000 --coins 10000000 --password password

Users that exist already are left as they are.")]
pub struct SeedArgs {
    /// How many users: user1 to userN.
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(..=MOST_USERS))]
    users: u32,
    /// What each of them is granted.
    #[arg(long, value_name = "COINS", default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    coins: i64,
    /// The password of all of them.
    #[arg(long, default_value = "password")]
    password: SecretString,
}

/// Migrates a shop that is there, then creates the users that are not there, so many in a transaction.
pub async fn run(args: SeedArgs, common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let (config, _logging) = common.load_for_tool()?;
    let password = Password::parse(args.password).and_then(|password| password.prepared());
    let password = password.context("--password")?;
    let coins = Amount::new(args.coins).context("--coins must be at least 1")?;
    check_shop_is_there(&config)?;
    let hash = password::hash(&password);

    let seeding = async |options: &DatabaseOptions| seed(options, args.users, coins, &hash).await;
    let created = ToolDatabase::lend(&config, signals, seeding).await?;

    print(&format!(
        "created {created} users with {} coins each in {:.1} s; {} were there already\n",
        args.coins,
        started.elapsed().as_secs_f64(),
        u64::from(args.users) - created,
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// How many of the first `users` were not there.
async fn seed(
    options: &DatabaseOptions,
    users: u32,
    coins: Amount,
    hash: &str,
) -> anyhow::Result<u64> {
    let mut migrations = Migrations::connect(options).await?;
    check_not_foreign(&migrations.status().await?, &options.location())?;
    migrations.up().await?;
    migrations.close().await;

    let mut seed = Seed::connect(options).await?;
    let progress = ProgressBar::new(users.into());
    progress.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} users, {eta} left")?);
    let mut created = 0;
    let mut first = 1;
    while first <= users {
        let last = first.saturating_add(CHUNK - 1).min(users);
        created += seed.users_insert_many(first, last, coins, hash).await?;
        progress.set_position(last.into());
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    progress.finish_and_clear();
    seed.finish().await?;
    Ok(created)
}
