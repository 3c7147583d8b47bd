//! `merch-store openapi`.

use std::process::ExitCode;

use clap::Args;

use crate::http;

/// Flags of `openapi`: none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store openapi > openapi.json
  merch-store openapi | jq '.paths | keys'")]
pub struct OpenapiArgs {}

/// Prints the document to standard output; needs neither settings nor a database.
pub fn run(_: OpenapiArgs) -> anyhow::Result<ExitCode> {
    super::print(&(http::openapi().to_pretty_json()? + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
