//! A PostgreSQL of the shop's own, from the server programs on the machine, for whoever has
//! not set one up. Durable like any other: only its configuration is ours.
//!
//! It listens on a Unix socket in a folder that nobody else may enter, and ends with the
//! process that started it, however that ends.

mod door;
mod programs;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::data_folder::DataFolder;
use crate::lifecycle::Lifecycle;

use door::Door;
use programs::Programs;

/// The oldest major version that the shop is tested with.
const OLDEST_MAJOR: u32 = 15;

/// How long to wait for the server to recover and open its socket.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long to try again when it gives up by itself.
const RETRY_FOR: Duration = Duration::from_secs(10);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Between the death of a server and its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(10);

/// A log file that is longer than this at start is put aside.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// Connections that the server takes at once.
pub const MAX_CONNECTIONS: u32 = 200;

/// Durability is PostgreSQL's default: every commit is on disk before it is answered.
const SETTINGS: [&str; 5] = [
    "listen_addresses=",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "log_min_messages=warning",
];

/// Runs a server (the arguments after the first) and ends it when standard input closes: the
/// one thing that happens however the parent dies. Then removes the folder of its sockets (the
/// first argument).
const SUPERVISOR: &str = r#"
sockets=$1
shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -INT $server; } 2>/dev/null &
watch=$!
wait $server
status=$?
kill $watch 2>/dev/null
rm -rf "$sockets"
exit $status
"#;

/// A running server.
#[derive(Debug)]
pub struct PrivatePostgres {
    programs: Programs,
    files: Files,
    sockets: PathBuf,
    server: Server,
}

/// The server's supervisor, and its standard input: while that is open, the server runs.
#[derive(Debug)]
struct Server {
    supervisor: Child,
    leash: Option<ChildStdin>,
}

/// Why there is no server; `Display` says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    /// No folder that we know of has `postgres` and `initdb` of version 15 or later.
    #[error(
        "no PostgreSQL {OLDEST_MAJOR} or later found on this machine; install one (Debian: \
         `apt-get install postgresql`, macOS: `brew install postgresql@17`) or name a running \
         one with MERCH__DATABASE__URL"
    )]
    NoPrograms,
    /// The data belongs to a major version that is not installed; others cannot read it.
    #[error(
        "the data in {} was written by PostgreSQL {data}, whose server programs are not here; \
         install that version",
        folder.display()
    )]
    OtherMajor {
        /// Where the data is.
        folder: PathBuf,
        /// The major version that wrote it.
        data: u32,
    },
    /// We are root, and there is nobody to run the server as.
    #[error("PostgreSQL must not run as root, and neither user postgres nor nobody exists")]
    NoUser,
    /// A program of PostgreSQL's ended with another code than 0.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name, without a path.
        program: &'static str,
        /// What it wrote to standard error.
        output: String,
    },
    /// The server kept ending for 10 seconds, or was not ready after 60.
    #[error("PostgreSQL did not start; its log is {}, and ends with: {tail}", log.display())]
    NotStarted {
        /// Where the whole log is.
        log: PathBuf,
        /// Its last 3 lines, on one.
        tail: String,
    },
    /// A file, a folder or a program could not be used.
    #[error("{what}")]
    Io {
        /// What could not be done, and to which path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the cluster lives, and the way there for whoever runs the server.
#[derive(Debug)]
struct Files {
    cluster: PathBuf,
    log: PathBuf,
    owner: Option<Owner>,
}

/// The unprivileged user that the server runs as where we are root.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: Uid,
    gid: Gid,
}

impl PrivatePostgres {
    /// Starts the server in `folder`; the first time, makes its cluster.
    pub async fn start(folder: &DataFolder) -> Result<PrivatePostgres, PrivatePostgresError> {
        let files = Files {
            cluster: folder.path().join("postgres"),
            log: folder.path().join("postgres.log"),
            owner: Owner::needed()?,
        };
        let programs = Programs::find(files.major()?, &files.cluster).await?;
        if !files.cluster.exists() {
            files.make_cluster(&programs).await?;
        }
        files.stop_orphan(&programs).await;
        let sockets = Files::socket_folder();
        let server = files.start_server(&programs, &sockets).await?;
        Ok(PrivatePostgres { programs, files, sockets, server })
    }

    /// The URL of the server that runs in the data folder at `path`, whoever owns it.
    pub fn url_of_running(path: &Path) -> Option<String> {
        let pid_file = PidFile::read(&path.join("postgres"))?;
        pid_file.ready.then(|| url(&pid_file.sockets))
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        url(&self.sockets)
    }

    /// The server's version, as it says it: "15.18".
    pub fn version(&self) -> &str {
        &self.programs.version
    }

    /// Keeps the server running until `lifecycle` ends; it is not stopped then, because
    /// requests in flight still need it.
    pub async fn keep_running(
        &mut self,
        lifecycle: &Lifecycle,
    ) -> Result<(), PrivatePostgresError> {
        loop {
            tokio::select! {
                () = lifecycle.ending() => return Ok(()),
                _ = self.server.supervisor.wait() => {}
            }
            tracing::error!("the private PostgreSQL died; starting it again");
            sleep(RESTART_PAUSE).await;
            self.server = tokio::select! {
                () = lifecycle.ending() => return Ok(()),
                started = self.files.start_server(&self.programs, &self.sockets) => started?,
            };
            tracing::info!("the private PostgreSQL is back");
        }
    }

    /// Stops the server and waits until everything is on disk.
    pub async fn stop(mut self) {
        drop(self.server.leash.take());
        if timeout(STOP_DEADLINE, self.server.supervisor.wait()).await.is_err() {
            tracing::warn!(
                "the private PostgreSQL is slow to stop; it will recover at the next start"
            );
        }
    }
}

fn url(sockets: &Path) -> String {
    format!("postgres://merch@localhost/postgres?host={}", sockets.display())
}

impl Files {
    /// The version that wrote the cluster, if there is one.
    fn major(&self) -> Result<Option<u32>, PrivatePostgresError> {
        let path = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("cannot read", &path)(error)),
        }
    }

    /// Makes a cluster; it gets its name when it is complete.
    async fn make_cluster(&self, programs: &Programs) -> Result<(), PrivatePostgresError> {
        let draft = self.cluster.with_extension("new");
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("cannot remove", &draft)(error));
            }
            _ => {}
        }
        self.make_folder(&draft)?;
        let door = Door::to(&draft, self.owner)?;
        let output = self
            .command(programs.folder.join("initdb"))
            .args(["--username=merch", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(door.path())
            .output()
            .await
            .map_err(io_error("cannot run", &programs.folder.join("initdb")))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(PrivatePostgresError::Program { program: "initdb", output });
        }
        fs::rename(&draft, &self.cluster).map_err(io_error("cannot make", &self.cluster))
    }

    /// Ends a server that outlived its owner: its supervisor was killed as well.
    async fn stop_orphan(&self, programs: &Programs) {
        let Some(pid_file) = PidFile::read(&self.cluster) else {
            return;
        };
        // The number may belong to somebody else by now.
        let ps = Command::new("ps").args(["-o", "comm=", "-p"]).arg(&pid_file.pid).output().await;
        let is_postgres =
            ps.is_ok_and(|ps| String::from_utf8_lossy(&ps.stdout).contains("postgres"));
        if is_postgres && let Ok(door) = Door::to(&self.cluster, self.owner) {
            tracing::warn!(pid = pid_file.pid, "stopping a PostgreSQL that lost its owner");
            // If this fails, the new server says what is in its way.
            let _ = self
                .command(programs.folder.join("pg_ctl"))
                .args(["stop", "--mode=fast", "--wait", "--silent", "-D"])
                .arg(door.path())
                .status()
                .await;
        }
        if is_socket_folder(&pid_file.sockets) {
            // Left by a server that was killed; the new one has its own.
            let _ = fs::remove_dir_all(&pid_file.sockets);
        }
    }

    /// A folder with a short name, because the path of a socket has room for a hundred
    /// characters only.
    fn socket_folder() -> PathBuf {
        let name = format!("merch-store-{:016x}", rand::random::<u64>());
        socket_parent().join(name)
    }

    /// Starts the server and waits until it takes connections.
    async fn start_server(
        &self,
        programs: &Programs,
        sockets: &Path,
    ) -> Result<Server, PrivatePostgresError> {
        let door = Door::to(&self.cluster, self.owner)?;
        let give_up = Instant::now() + RETRY_FOR;
        loop {
            let deadline = Instant::now() + START_DEADLINE;
            let log = self.open_log()?;
            // The server before took its folder along, unless its supervisor was killed. Made
            // anew: whoever else makes a folder of this name must not have our socket in it.
            let _ = fs::remove_dir_all(sockets);
            self.make_folder(sockets)?;
            let stale = PidFile::read(&self.cluster);
            let mut server = self.command("sh");
            server
                .args(["-c", SUPERVISOR, "sh"])
                .arg(sockets)
                .arg(programs.folder.join("postgres"));
            server.arg("-D").arg(door.path()).arg("-k").arg(sockets);
            server.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
            server.arg("-c").arg(format!("max_connections={MAX_CONNECTIONS}"));
            let mut supervisor = server
                .stdin(Stdio::piped())
                .stdout(log.try_clone().map_err(io_error("cannot use", &self.log))?)
                .stderr(log)
                // Ctrl-C at a terminal reaches us alone; the server ends after our requests.
                .process_group(0)
                .spawn()
                .map_err(io_error("cannot run", Path::new("sh")))?;
            // Taken away, because waiting for a child closes its standard input.
            let leash = supervisor.stdin.take();
            loop {
                let written = PidFile::read(&self.cluster);
                if written != stale && written.is_some_and(|it| it.ready) {
                    return Ok(Server { supervisor, leash });
                }
                let died =
                    supervisor.try_wait().map_err(io_error("cannot watch", Path::new("sh")))?;
                if died.is_some() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(self.not_started());
                }
                sleep(POLL).await;
            }
            // Children of a killed server may hold its shared memory a moment longer.
            if Instant::now() > give_up {
                return Err(self.not_started());
            }
            sleep(POLL * 10).await;
        }
    }

    /// A command that runs as the cluster's owner, away from folders it may not enter.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(owner) = self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    fn make_folder(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        DirBuilder::new().mode(0o700).create(path).map_err(io_error("cannot make", path))?;
        if let Some(owner) = self.owner {
            chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                .map_err(io_error("cannot hand over", path))?;
        }
        Ok(())
    }

    fn open_log(&self) -> Result<File, PrivatePostgresError> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_LIMIT) {
            fs::rename(&self.log, self.log.with_extension("log.old"))
                .map_err(io_error("cannot put aside", &self.log))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io_error("cannot write", &self.log))
    }

    fn not_started(&self) -> PrivatePostgresError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" | ");
        PrivatePostgresError::NotStarted { log: self.log.clone(), tail }
    }
}

impl Owner {
    /// The user to run the server as: us, unless we are root, as which it refuses to run.
    fn needed() -> Result<Option<Owner>, PrivatePostgresError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or(PrivatePostgresError::NoUser)?;
        Ok(Some(Owner { uid: user.uid, gid: user.gid }))
    }
}

/// What a server writes into `postmaster.pid` while it runs.
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    pid: String,
    started: String,
    sockets: PathBuf,
    ready: bool,
}

impl PidFile {
    fn read(cluster: &Path) -> Option<PidFile> {
        let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(PidFile {
            pid: lines.first()?.to_string(),
            started: lines.get(2)?.to_string(),
            sockets: PathBuf::from(lines.get(4)?),
            ready: lines.get(7) == Some(&"ready"),
        })
    }
}

/// Where sockets' folders go: the system's temporary folder, if its name needs no quoting in
/// a URL.
fn socket_parent() -> PathBuf {
    let folder = std::env::temp_dir();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let is_plain = folder.as_os_str().as_encoded_bytes().iter().copied().all(plain);
    if is_plain { folder } else { PathBuf::from("/tmp") }
}

/// Whether we made the folder at `path`.
fn is_socket_folder(path: &Path) -> bool {
    path.parent() == Some(&socket_parent())
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("merch-store-"))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivatePostgresError {
    move |source| PrivatePostgresError::Io { what: format!("{what} {}", path.display()), source }
}
