//! merch-store: a company's internal merch shop.
//!
//! A tour, from the law to the street. Calls and imports go one way, upwards in this list:
//!
//! - [`shop`]: the law, pure. Coins, names, and what a batch of commands comes to.
//! - [`storage`]: the only SQL. Reads, and the one door to a transaction.
//! - [`engine`]: the queue and the writer. The only place where balances change.
//! - [`auth`]: passwords and tokens.
//! - [`limits`]: token buckets, who a client is, where limits live.
//! - [`http`]: the public contract, one file a route.
//! - [`gateway`]: in front of replicas; it knows nothing of the shop.
//! - [`cli`]: one file a subcommand; puts the rest together.
//!
//! Beside them stand what any service needs: [`accept`], [`web`], [`config`], [`lifecycle`],
//! [`telemetry`], and for a shop without a database of its own [`data_folder`] and [`private_postgres`].
//! `docs/ARCHITECTURE.md` has the map, the invariants and the way of a purchase.

#![warn(missing_docs)]
#![forbid(unsafe_code)]
// What is printed goes through one door: cli/terminal.rs, where a closed pipe and a full disk
// have their answers.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod shop;

pub mod storage;

pub mod engine;

pub mod auth;

pub mod limits;

pub mod http;

pub mod gateway;

pub mod cli;

pub mod accept;
pub mod config;
pub mod data_folder;
pub mod lifecycle;
pub mod private_postgres;
pub mod telemetry;
pub mod web;
