//! A PostgreSQL of the shop's own, from the server programs on the machine, for whoever has
//! not set one up. Durable like any other: only its configuration is ours.
//!
//! It listens on a Unix socket in a folder that nobody else may enter, and ends with the
//! process that started it, however that ends.

mod cluster;
mod door;
mod pid_file;
mod programs;
mod server;
mod sockets;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::data_folder::DataFolder;
use crate::lifecycle::Lifecycle;
use crate::telemetry::is_news;

use cluster::Cluster;
use pid_file::PidFile;
use programs::Programs;
use server::Server;

/// The oldest major version that the shop is tested with.
const OLDEST_MAJOR: u32 = 15;

const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Between the death of a server and its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// No port is opened: it is part of the socket's name.
const PORT: u16 = 5432;

/// Connections that the server takes at once.
pub const MAX_CONNECTIONS: u32 = 200;

/// A running server.
#[derive(Debug)]
pub struct PrivatePostgres {
    programs: Programs,
    cluster: Cluster,
    sockets: PathBuf,
    server: Server,
}

/// Why there is no server; `Display` says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    /// No folder that we know of has `postgres` and `initdb` of version 15 or later.
    #[error(
        "no PostgreSQL {OLDEST_MAJOR} or later found on this machine{older}; install one (Debian: \
         `apt-get install postgresql`, macOS: `brew install postgresql@17`) or name a running \
         one with MERCH__DATABASE__URL"
    )]
    NoPrograms {
        /// Those that are too old, as in ", only 13.4 in /usr/bin".
        older: String,
    },
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
    #[error(
        "PostgreSQL must not run as root, and neither user postgres nor nobody exists; make one \
         (`useradd --system postgres`), start as another user, or name a running PostgreSQL with \
         MERCH__DATABASE__URL"
    )]
    NoUser,
    /// Our user has a number only, and a cluster is made by somebody with a name.
    #[error(
        "the user with the number {0} has no name on this machine, without which PostgreSQL makes \
         no cluster; start as a user with a line in /etc/passwd, or name a running PostgreSQL with \
         MERCH__DATABASE__URL"
    )]
    NamelessUser(u32),
    /// What is where the cluster should be cannot be one of ours; the reason says what to do.
    #[error("{} {why}", folder.display())]
    NotOurs {
        /// Where the cluster should be.
        folder: PathBuf,
        /// What it is instead, and what to do about it.
        why: String,
    },
    /// There is nowhere to put the socket.
    #[error("no folder for the socket of the private PostgreSQL ({tried}); name one with TMPDIR")]
    NoSocketFolder {
        /// Those that were tried, each with what is wrong with it.
        tried: String,
    },
    /// A program of PostgreSQL's ended with another code than 0.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name, without a path.
        program: &'static str,
        /// The lines that matter of what it wrote to standard error, on one.
        output: String,
    },
    /// The server ended while it started, or was not ready after 60 seconds.
    #[error("PostgreSQL did not start: {cause} (its log is {})", log.display())]
    NotStarted {
        /// Where the whole log is.
        log: PathBuf,
        /// The lines that matter of it, on one.
        cause: String,
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

impl PrivatePostgres {
    /// Starts the server in `folder`; the first time, makes its cluster. Dropped before it is
    /// done, it leaves nothing that runs.
    pub async fn start(folder: &DataFolder) -> Result<PrivatePostgres, PrivatePostgresError> {
        let cluster = Cluster::in_folder(folder.path())?;
        let programs = Programs::find(cluster.major(), cluster.path()).await?;
        if cluster.major().is_none() {
            cluster.make(&programs).await?;
        }
        let sockets = sockets::make_folder(cluster.owner(), folder.path())?;
        let server = Server::start(&cluster, &programs, &sockets).await?;
        Ok(PrivatePostgres { programs, cluster, sockets, server })
    }

    /// Whether a server's data may be in the data folder at `path`: where that cannot be seen,
    /// starting the server finds out why.
    pub fn has_data(path: &Path) -> bool {
        match path.join("postgres/PG_VERSION").try_exists() {
            Ok(is_there) => is_there,
            Err(error) => error.kind() != io::ErrorKind::NotADirectory,
        }
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
                () = self.server.ended() => {}
            }
            if is_news("the private PostgreSQL died", "") {
                tracing::error!("the private PostgreSQL died; starting it again");
            }
            sleep(RESTART_PAUSE).await;
            self.server = tokio::select! {
                () = lifecycle.ending() => return Ok(()),
                started = Server::start(&self.cluster, &self.programs, &self.sockets) => started?,
            };
            if is_news("the private PostgreSQL is back", "") {
                tracing::info!("the private PostgreSQL is back");
            }
        }
    }

    /// Stops the server and waits until everything is on disk.
    pub async fn stop(self) {
        if timeout(STOP_DEADLINE, self.server.stop()).await.is_err() {
            tracing::warn!(
                "the private PostgreSQL is slow to stop; it will recover at the next start"
            );
        }
    }
}

/// Where to connect, with nothing left to what the environment says of PostgreSQL.
fn url(sockets: &Path) -> String {
    let host = sockets.display();
    format!("postgres://merch@localhost:{PORT}/postgres?sslmode=disable&host={host}")
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivatePostgresError {
    move |source| PrivatePostgresError::Io { what: format!("{what} {}", path.display()), source }
}
