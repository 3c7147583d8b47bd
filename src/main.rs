//! Parses the command line, runs the command, turns its end into an exit code.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Context;
use merch_store::cli;
use mimalloc::MiMalloc;

/// Gives the 19 MiB of a hashed password back to the system, which glibc's keeps for each of
/// its threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(exit_code) => exit_code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    cli::environment::leave_libpq_behind()
        .context("cannot start without PGHOST and its like; unset what begins with PG")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli::run())
}
