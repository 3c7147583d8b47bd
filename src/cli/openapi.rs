//! `merch-store openapi`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::gateway::admin;
use crate::http;

use super::postman::{self, Step};

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

/// Everything once, by somebody who has a colleague to thank.
const SHOP_STEPS: [Step; 12] = [
    ("login", r#"{"username": "bob", "password": "bob's secret"}"#),
    ("login", ""),
    ("listMerch", ""),
    ("getInfo", ""),
    ("buy", ""),
    ("buyByPost", ""),
    ("sendCoin", ""),
    ("getHistory", ""),
    ("getMovement", ""),
    ("getHistorySummary", ""),
    ("getLiveness", ""),
    ("getReadiness", ""),
];

/// Everything once, and nothing is left of it. A backend that was drained is gone by itself, so
/// it is added again for its removal.
const ADMIN_STEPS: [Step; 15] = [
    ("addBackend", ""),
    ("listBackends", ""),
    ("drainBackend", ""),
    ("addBackend", ""),
    ("removeBackend", ""),
    ("createLimit", ""),
    ("getLimit", ""),
    ("updateLimit", ""),
    ("listLimits", ""),
    ("deleteLimit", ""),
    ("putClient", ""),
    ("deleteClient", ""),
    ("getLogLevel", ""),
    ("setLogLevel", ""),
    ("reload", ""),
];

/// Prints the document to standard output; needs neither settings nor a database.
pub fn run(args: OpenapiArgs) -> anyhow::Result<ExitCode> {
    let (document, base_url, steps) = match args.api {
        Api::Shop => (http::openapi(), "http://localhost:8080", &SHOP_STEPS[..]),
        Api::Admin => (admin::openapi(), "http://localhost:8001", &ADMIN_STEPS[..]),
    };
    let text = match args.format {
        Format::Openapi => document.to_pretty_json()?,
        Format::Postman => {
            let document = serde_json::to_value(&document)?;
            serde_json::to_string_pretty(&postman::collection(&document, base_url, steps))?
        }
    };
    super::terminal::print(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
