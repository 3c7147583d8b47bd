//! `merch-store openapi`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::gateway::admin;
use crate::http;

use super::postman;

/// Flags of `openapi`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store openapi > openapi.json
  merch-store openapi | jq '.paths | keys'
  merch-store openapi --api admin --format postman > gateway-admin.postman_collection.json")]
pub struct OpenapiArgs {
    /// Whose API.
    #[arg(long, value_enum, default_value_t = Api::Shop)]
    api: Api,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Format::Openapi)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Api {
    /// The shop's.
    Shop,
    /// The gateway's admin API.
    Admin,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An OpenAPI 3.1 document.
    Openapi,
    /// A Postman collection, version 2.1.
    Postman,
}

/// Prints the document to standard output; needs neither settings nor a database.
pub fn run(args: OpenapiArgs) -> anyhow::Result<ExitCode> {
    let (document, base_url) = match args.api {
        Api::Shop => (http::openapi(), "http://localhost:8080"),
        Api::Admin => (admin::openapi(), "http://localhost:8001"),
    };
    let text = match args.format {
        Format::Openapi => document.to_pretty_json()?,
        Format::Postman => {
            let document = serde_json::to_value(&document)?;
            serde_json::to_string_pretty(&postman::collection(&document, base_url))?
        }
    };
    super::terminal::print(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
