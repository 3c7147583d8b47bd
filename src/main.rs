//! Parses the command line, runs the command, turns its end into an exit code.

use std::process::ExitCode;

use merch_store::cli;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run().await {
        Ok(exit_code) => exit_code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
