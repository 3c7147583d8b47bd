//! What a command says to the person or the script that runs it. Nothing else in this crate
//! prints, so that a terminal that is gone, or a disk that is full, has one answer.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::sync::oneshot;

use crate::lifecycle::Lifecycle;

/// Prints a result to standard output. A reader who has seen enough (`| head -1`) is no error;
/// a result that is lost in any other way is one, also where the work behind it is done.
pub fn print(text: &str) -> anyhow::Result<()> {
    printed(io::stdout().lock().write_all(text.as_bytes()))
}

/// What [`print`] makes of `written`, which somebody else wrote to standard output.
pub fn printed(written: io::Result<()>) -> anyhow::Result<()> {
    match written.and_then(|()| io::stdout().lock().flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

/// Prints where a server can be reached. If that is lost nobody finds it, so it is asked to end.
pub fn announce(text: &str, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    print(text).inspect_err(|_| lifecycle.end())
}

/// What somebody at a terminal answers; `None` where nobody can.
pub async fn ask(question: &str) -> anyhow::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    write!(io::stderr(), "{question} ").context("cannot write to standard error")?;
    let (told, answered) = oneshot::channel();
    // A thread of its own: the runtime would not end at a signal while one of its own is reading.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        // Who asked may be gone.
        let _ = told.send(read.map(|_| answer.trim().to_owned()));
    });
    Ok(Some(answered.await?.context("cannot read the answer")?))
}

/// Says on standard error why a command failed. Where even that cannot be written the exit code
/// has to do.
pub fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "error: {error:#}");
}

/// Shows that something is going on; at a terminal only.
pub fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
