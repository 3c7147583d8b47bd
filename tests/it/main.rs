//! One test binary: the real program against a real PostgreSQL, a fresh database a test.
//!
//! Files mirror the routes; `support` speaks the shop's language, so that a test reads as
//! what it says: `alice.sends(&bob, 50)`.

mod support;

mod access_log;
mod arguments;
mod audit;
mod auth;
mod bank;
mod buy;
mod caching;
mod connections;
mod cors;
mod database;
mod docs;
mod engine;
mod errors;
mod faults;
mod gateway;
mod growth;
mod hang_ups;
mod heads;
mod health;
mod history;
mod idempotency;
mod identity;
mod info;
mod limits;
mod log;
mod logs;
mod merch;
mod metrics;
mod migrations;
mod model;
mod names;
mod numbering;
mod odd_places;
mod outage;
mod printing;
mod program;
mod references;
mod requests;
mod scripts;
mod seed;
mod send_coin;
mod settings;
mod signals;
mod structure;
mod tokens;
mod tools;
mod up;
