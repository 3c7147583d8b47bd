//! The real program, in a process of its own.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The longest that anything a process is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands before a program's URL in its banner, and how the banner's last line begins.
pub const SHOP: (&str, &str) = ("  shop  ", "\n  data  ");
pub const GATEWAY: (&str, &str) = ("  gateway   ", "\n  admin  ");
pub const UP: (&str, &str) = ("  gateway    ", "\n  data  ");

/// A program that serves in a process of its own; killed with this.
pub struct Process {
    pub base: String,
    /// What it said when it started.
    pub banner: String,
    child: Child,
    // Read to its end by nobody, but open: a closed one would be an error to print to.
    _stdout: BufReader<ChildStdout>,
}

/// Where the program is.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_merch-store")
}

/// A command line of the program, its environment free of settings.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("MERCH__")) {
        command.env_remove(key);
    }
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts `merch-store serve` with `arguments` on a free port and waits until it serves.
    pub async fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        Process::serve_at("127.0.0.1:0", arguments, environment).await
    }

    async fn serve_at(address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = command(&["serve", "--address", address]);
        command.args(arguments);
        command.env("MERCH__LOG__LEVEL", "error").envs(environment.iter().copied());
        Process::start(command, SHOP).await
    }

    /// The same, with its log in `file`.
    pub async fn serve_logging_to(file: File, environment: &[(&str, &str)]) -> Process {
        let mut command = command(&["serve", "--address", "127.0.0.1:0"]);
        command.envs(environment.iter().copied()).stderr(file);
        Process::start(command, SHOP).await
    }

    /// Starts `merch-store gateway` with `arguments` on a free port and waits until it serves;
    /// its admin API must be on.
    pub async fn gateway(arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = command(&["gateway", "--address", "127.0.0.1:0"]);
        command.args(arguments);
        command.env("MERCH__LOG__LEVEL", "error").envs(environment.iter().copied());
        Process::start(command, GATEWAY).await
    }

    /// Starts `merch-store up` with `arguments` on a free port and waits until it serves.
    pub async fn up(arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = command(&["up", "--address", "127.0.0.1:0"]);
        command.args(arguments);
        command.env("MERCH__LOG__LEVEL", "error").envs(environment.iter().copied());
        Process::start(command, UP).await
    }

    pub async fn start(mut command: Command, (url, last): (&str, &str)) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        let reading = async {
            while !banner.contains(last) || !banner.ends_with('\n') {
                let read = stdout.read_line(&mut banner).await.unwrap();
                assert_ne!(read, 0, "the program ended at start; it said: {banner}");
            }
        };
        timeout(PATIENCE, reading).await.expect("the program starts");
        let url = said(&banner, url).unwrap();
        Process { base: url, banner, child, _stdout: stdout }
    }

    /// A replica on the database at `url`.
    pub async fn replica(url: &str) -> Process {
        Process::replica_at("127.0.0.1:0", url, "500").await
    }

    /// One that waits for its database for as long as a busy machine may need.
    pub async fn patient_replica(url: &str) -> Process {
        let environment = [
            ("MERCH__DATABASE__URL", url),
            ("MERCH__DATABASE__MAX_CONNECTIONS", "4"),
            ("MERCH__DATABASE__ACQUIRE_TIMEOUT_MS", "30000"),
            ("MERCH__DATABASE__STATEMENT_TIMEOUT_MS", "30000"),
            ("MERCH__HTTP__REQUEST_TIMEOUT_MS", "60000"),
            ("MERCH__AUTH__JWT_SECRET", super::shop::SECRET),
        ];
        Process::serve_at("127.0.0.1:0", &[], &environment).await
    }

    /// A replica at `address`, which serves for `grace_ms` after it was asked to end.
    pub async fn replica_at(address: &str, url: &str, grace_ms: &str) -> Process {
        let environment = [
            ("MERCH__DATABASE__URL", url),
            ("MERCH__DATABASE__MAX_CONNECTIONS", "4"),
            ("MERCH__AUTH__JWT_SECRET", super::shop::SECRET),
            ("MERCH__SHUTDOWN__GRACE_MS", grace_ms),
        ];
        Process::serve_at(address, &[], &environment).await
    }

    /// Where its admin API is, if it has one.
    pub fn admin(&self) -> String {
        let docs = said(&self.banner, "  admin     ").expect("it has an admin API");
        docs.trim_end_matches("/docs").to_owned()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        send_signal(signal, self.pid());
    }

    /// The exit code, once it has ended by itself.
    pub async fn exit_code(mut self) -> Option<i32> {
        self.ends().await
    }

    /// The same, of one that is to be replaced.
    pub async fn ends(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the program ends").unwrap();
        status.code()
    }
}

/// The URL behind `label` in a banner, with an address instead of a name.
fn said(banner: &str, label: &str) -> Option<String> {
    let url = banner.lines().find_map(|line| line.strip_prefix(label))?;
    Some(url.replace("localhost", "127.0.0.1"))
}

/// Sends `signal` ("TERM", "KILL", ...) to process `pid`.
pub fn send_signal(signal: &str, pid: i32) {
    let mut kill = std::process::Command::new("kill");
    let status = kill.arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "cannot send {signal} to {pid}");
}

/// The process id of the private PostgreSQL that runs in the data folder at `path`, if one
/// does.
pub fn postmaster_pid(path: &Path) -> Option<i32> {
    let pid_file = std::fs::read_to_string(path.join("postgres/postmaster.pid")).ok()?;
    pid_file.lines().next()?.parse().ok()
}

/// The processes that process `pid` started, and those that they started.
pub fn descendants(pid: i32) -> Vec<i32> {
    let ps = std::process::Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output().unwrap();
    let text = String::from_utf8(ps.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
        Some((numbers.next()?, numbers.next()?))
    });
    let pairs: Vec<(i32, i32)> = pairs.collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child));
        at += 1;
    }
    found.split_off(1)
}

/// Whether process `pid` is there.
pub fn is_running(pid: i32) -> bool {
    let ps = std::process::Command::new("ps").arg("-p").arg(pid.to_string()).output().unwrap();
    ps.status.success()
}
