//! A server that runs for as long as we do.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::door::Door;
use super::pid_file::PidFile;
use super::programs::Programs;
use super::{MAX_CONNECTIONS, PORT, PrivatePostgresError, io_error, sockets};

/// How long to wait for the server to recover and open its socket.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long what is left of a server before this one may take to end.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

const SHELL: &str = "/bin/sh";

/// As much of its log as is read to find out why a server ended, in bytes.
const LOG_PART: u64 = 64 * 1024;

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
/// first argument). Standard output is the cluster's folder, locked: the server and everything
/// that it starts hold it, as descriptor 4, for as long as they live.
///
/// Signals go to this process group alone, in which there is nobody but the shells and the
/// server: a number could belong to another process by then. One that comes while the server
/// is only just starting is lost, so there are several.
const SUPERVISOR: &str = r#"
sockets=$1
shift
trap '' INT
exec 3<&0 4>&1 1>&2
"$@" </dev/null 3<&- &
server=$!
{
    read -r _ <&3
    for second in 1 2 3 4 5 6 7 8 9 10; do
        kill -INT 0
        sleep 1
    done
} 2>/dev/null 4>&- &
wait $server
status=$?
rm -rf "$sockets"
trap '' TERM
kill -TERM 0
exit $status
"#;

/// The server's supervisor, and its standard input: while that is open, the server runs.
#[derive(Debug)]
pub(super) struct Server {
    supervisor: Child,
    leash: Option<ChildStdin>,
}

impl Server {
    /// Starts the server with its socket in the folder `sockets` and waits until it takes
    /// connections.
    pub async fn start(
        cluster: &Cluster,
        programs: &Programs,
        sockets: &Path,
    ) -> Result<Server, PrivatePostgresError> {
        let door = Door::to(cluster.path(), cluster.owner())?;
        let folder = hold(cluster).await?;
        let (log, length) = cluster.open_log()?;
        // The server before took its folder along, unless its supervisor was killed.
        sockets::make_again(sockets, cluster.owner()).map_err(io_error("cannot make", sockets))?;
        let stale = PidFile::read(cluster.path());
        let mut command = server_command(cluster, programs, sockets, &door, stale.as_ref());
        let mut supervisor = command
            .stdin(Stdio::piped())
            .stdout(folder)
            .stderr(log)
            // Ctrl-C at a terminal reaches us alone; the server ends after our requests.
            .process_group(0)
            .spawn()
            .map_err(io_error("cannot run", Path::new(SHELL)))?;
        // Taken away, because waiting for a child closes its standard input.
        let leash = supervisor.stdin.take();
        let mut server = Server { supervisor, leash };
        if server.is_ready(cluster, stale.as_ref()).await? {
            return Ok(server);
        }
        let said = door.named(&end_of_log(&cluster.log(), length), cluster.path());
        Err(PrivatePostgresError::NotStarted { log: cluster.log(), cause: cause(&said) })
    }

    /// Waits until the server takes connections, which it says in another file than the `stale`
    /// one; `false` if it does not.
    async fn is_ready(
        &mut self,
        cluster: &Cluster,
        stale: Option<&PidFile>,
    ) -> Result<bool, PrivatePostgresError> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            let written = PidFile::read(cluster.path());
            if written.as_ref() != stale && written.is_some_and(|it| it.ready) {
                return Ok(true);
            }
            let ended = self.supervisor.try_wait();
            if ended.map_err(io_error("cannot watch", cluster.path()))?.is_some() {
                return Ok(false);
            }
            sleep(POLL).await;
        }
        Ok(false)
    }

    /// Resolves when the server has ended.
    pub async fn ended(&mut self) {
        // Fails only if there is nothing to wait for.
        let _ = self.supervisor.wait().await;
    }

    /// Ends the server: resolves when everything is on disk.
    pub async fn stop(mut self) {
        drop(self.leash.take());
        self.ended().await;
    }
}

fn server_command(
    cluster: &Cluster,
    programs: &Programs,
    sockets: &Path,
    door: &Door,
    stale: Option<&PidFile>,
) -> Command {
    let mut command = cluster.command(SHELL);
    command.args(["-c", SUPERVISOR, "sh"]).arg(sockets);
    command.arg(programs.folder.join("postgres")).arg("-D").arg(door.path());
    command.arg("-k").arg(sockets).args(["-p", &PORT.to_string()]);
    command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    command.arg("-c").arg(format!("max_connections={MAX_CONNECTIONS}"));
    if let Some(stale) = stale {
        // Whatever process has this number now, it is not the server of before. Whether that
        // one still lives, the new one sees by its shared memory. pg_ctl says it this way, too.
        command.env("PG_GRANDPARENT_PID", stale.pid.to_string());
    }
    command
}

/// The cluster's folder, locked, once nothing of a server before this one lives. One that
/// outlived its owner is ended, if its supervisor was killed as well. Nothing is signalled but
/// the process that listens on the socket of a cluster whose lock is held.
async fn hold(cluster: &Cluster) -> Result<File, PrivatePostgresError> {
    let path = cluster.path();
    let folder = File::open(path).map_err(io_error("cannot open", path))?;
    let deadline = Instant::now() + ORPHAN_DEADLINE;
    let mut signalled = false;
    // The data folder is locked in any case. A link may lead to a file system that has no locks:
    // there, what is left of a killed server is found by PostgreSQL's own check.
    while let Err(TryLockError::WouldBlock) = folder.try_lock() {
        let pid_file = PidFile::read(path);
        if Instant::now() > deadline {
            let pid = pid_file.map_or_else(String::new, |it| format!(" (pid {})", it.pid));
            let why = format!("is still used by a PostgreSQL that lost its owner{pid}; end that");
            return Err(PrivatePostgresError::NotOurs { folder: path.into(), why });
        }
        if !signalled
            && let Some(pid_file) = pid_file
            && let Some(pid) = pid_file.listener().await.and_then(Pid::from_raw)
        {
            tracing::warn!(pid = pid_file.pid, "stopping a PostgreSQL that lost its owner");
            // It may have ended by itself just now.
            let _ = kill_process(pid, Signal::INT);
            signalled = true;
        }
        sleep(POLL).await;
    }
    if let Some(stale) = PidFile::read(path)
        && stale.listener().await.is_none()
    {
        sockets::remove_folder(&stale.sockets);
    }
    Ok(folder)
}

/// What was written into the log at `path` after it was `from` bytes long.
fn end_of_log(path: &Path, from: u64) -> String {
    let mut said = Vec::new();
    let read = File::open(path).and_then(|mut log| {
        log.seek(SeekFrom::Start(from))?;
        log.take(LOG_PART).read_to_end(&mut said)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&said).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Why a program of PostgreSQL's ended, by what it `said`: the first line that is worse than an
/// error, else the last error, each with its details, else the last three lines.
pub(super) fn cause(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_grave = |line: &&str| ["FATAL:  ", "PANIC:  "].iter().any(|it| line.contains(it));
    let is_error = |line: &&str| line.contains("ERROR:  ") || line.contains(": error: ");
    let is_detail = |line: &&str| {
        ["DETAIL:  ", "HINT:  ", ": hint: ", ": detail: "].iter().any(|it| line.contains(it))
    };
    let found = lines.iter().position(is_grave);
    let Some(found) = found.or_else(|| lines.iter().rposition(is_error)) else {
        return lines[lines.len().saturating_sub(3)..].join(" | ");
    };
    // Times and numbers of processes are for the log.
    let severity = ["FATAL:", "PANIC:", "ERROR:"].iter().find_map(|it| lines[found].find(it));
    let details = lines[found + 1..].iter().take_while(|line| is_detail(line));
    let details = details.map(|line| line.split_once("] ").map_or(*line, |(_, said)| said));
    let cause = std::iter::once(&lines[found][severity.unwrap_or(0)..]).chain(details);
    cause.collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_matters_is_found_in_what_a_program_said() {
        for (said, expected) in [
            (
                "2026-01-01 00:00:00.000 UTC [7] LOG:  starting PostgreSQL\n\
                 2026-01-01 00:00:00.000 UTC [9] PANIC:  could not write to file \"x\": No space \
                 left on device\n\
                 2026-01-01 00:00:00.000 UTC [7] LOG:  startup process was terminated\n\
                 2026-01-01 00:00:00.000 UTC [7] LOG:  aborting startup\n\
                 2026-01-01 00:00:00.000 UTC [7] LOG:  database system is shut down\n",
                "PANIC:  could not write to file \"x\": No space left on device",
            ),
            (
                "2026-01-01 00:00:00.000 UTC [7] FATAL:  data directory \"d\" has invalid \
                 permissions\n\
                 2026-01-01 00:00:00.000 UTC [7] DETAIL:  Permissions should be u=rwx (0700).\n\
                 2026-01-01 00:00:00.000 UTC [7] LOG:  database system is shut down\n",
                "FATAL:  data directory \"d\" has invalid permissions | \
                 DETAIL:  Permissions should be u=rwx (0700).",
            ),
            (
                "creating directory d\ninitdb: error: could not create directory: No space left \
                 on device\ninitdb: hint: make room\ninitdb: removing contents\n",
                "initdb: error: could not create directory: No space left on device | \
                 initdb: hint: make room",
            ),
            ("sh: 1\n\npostgres: not found\n", "sh: 1 | postgres: not found"),
            ("1\n2\n3\n4", "2 | 3 | 4"),
            ("", ""),
        ] {
            assert_eq!(cause(said), expected, "{said}");
        }
    }
}
