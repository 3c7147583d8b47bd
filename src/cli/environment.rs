//! What the program does not want to inherit.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts the program again, in this process, without libpq's settings: a PGPASSWORD,
/// PGOPTIONS or PGSSLKEY that is meant for `psql` must not reach a database that our own
/// settings name, nor the private one. Returns if there are none.
///
/// The driver reads them wherever it makes its options, and no program may take a variable
/// from its own environment once it has threads.
pub fn leave_libpq_behind() -> io::Result<()> {
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).filter(is_libpq).collect();
    if names.is_empty() {
        return Ok(());
    }
    start_again_without(&names).map(|never| match never {})
}

fn is_libpq(name: &OsString) -> bool {
    name.to_str().and_then(|name| name.strip_prefix("PG")).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    })
}

fn start_again_without(names: &[OsString]) -> io::Result<Infallible> {
    let mut arguments = std::env::args_os();
    let mut program = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        program.arg0(name);
    }
    program.args(arguments);
    for name in names {
        program.env_remove(name);
    }
    Err(program.exec())
}
