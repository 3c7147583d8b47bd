//! Parses the command line, runs the command, turns its end into an exit code.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use merch_store::cli;
use mimalloc::MiMalloc;

/// Gives the 19 MiB of a hashed password back to the system, which glibc's keeps for each of
/// its threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run().await {
        Ok(exit_code) => exit_code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
