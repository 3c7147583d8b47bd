//! What tests are written with.

pub mod database;
pub mod person;
pub mod process;
pub mod proxy;
pub mod shop;

pub use database::TestDatabase;
pub use person::{Person, Reply};
pub use process::Process;
pub use shop::TestShop;
