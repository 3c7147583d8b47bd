//! One replica: a process of this program, started again when it dies.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than a replica waits for its database.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Between the death of a replica and its next start: this long at first, twice as long each
/// time, so that one that cannot live does not burn a processor.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One that lived so long did not die of its start.
const GOOD_LIFE: Duration = Duration::from_secs(60);

const ADDRESS: &str = "MERCH__HTTP__ADDRESS";

/// A replica that serves; killed if this is dropped, and stopped by [`Replica::keep`].
pub struct Replica {
    name: String,
    command: Command,
    process: Process,
}

/// A process and its standard input: while that is open, the process lives.
struct Process {
    child: Child,
    leash: ChildStdin,
    address: SocketAddr,
    pid: u32,
    // Read no further, but open: a closed one would be an error to print to.
    _stdout: BufReader<ChildStdout>,
}

impl Replica {
    /// Starts `command`, a leashed `serve`, on a free port and waits until it serves.
    pub async fn start(name: String, mut command: Command) -> anyhow::Result<Replica> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C at a terminal reaches the gateway alone; replicas end after its requests.
            .process_group(0)
            .kill_on_drop(true)
            .env(ADDRESS, "127.0.0.1:0");
        let process = Process::start(&mut command).await.with_context(|| name.clone())?;
        // The gateway knows it by this address for good.
        command.env(ADDRESS, process.address.to_string());
        Ok(Replica { name, command, process })
    }

    /// What it is called in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, however often it is started again.
    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// The process that serves now.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Keeps it running until `ending`, then asks it to end, and kills it if it does not within
    /// `patience`. Returns whether it finished what it had.
    pub async fn keep(mut self, ending: CancellationToken, patience: Duration) -> bool {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            let status = tokio::select! {
                () = ending.cancelled() => return self.process.stop(patience).await,
                status = self.process.child.wait() => status,
            };
            let status = status.map_or_else(|error| error.to_string(), |it| it.to_string());
            let name = self.name.as_str();
            tracing::error!(replica = name, status, "a replica died; starting it again");
            pause = pause_after(since.elapsed(), pause);
            tokio::select! {
                () = ending.cancelled() => return true,
                pid = self.start_again(&mut pause) => {
                    tracing::info!(replica = self.name, pid, "a replica is back");
                }
            }
        }
    }

    /// Starts it until it serves, with a pause before each attempt.
    async fn start_again(&mut self, pause: &mut Duration) -> u32 {
        loop {
            sleep(*pause).await;
            match Process::start(&mut self.command).await {
                Ok(process) => {
                    self.process = process;
                    return self.process.pid;
                }
                Err(error) => {
                    *pause = pause_after(Duration::ZERO, *pause);
                    let error = format!("{error:#}");
                    tracing::error!(replica = self.name, error, "a replica does not start");
                }
            }
        }
    }
}

impl Process {
    async fn start(command: &mut Command) -> anyhow::Result<Process> {
        let mut child = command.spawn().context("cannot run this program")?;
        let pid = child.id().context("it ended at once")?;
        // Taken away, because waiting for a child closes its standard input.
        let leash = child.stdin.take().context("it has no standard input")?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        timeout(START_DEADLINE, stdout.read_line(&mut line))
            .await
            .context("it does not serve")??;
        let address = line.trim().parse().ok();
        let address = address.context("it ended at its start; what it said is above")?;
        Ok(Process { child, leash, address, pid, _stdout: stdout })
    }

    /// Asks it to end, and insists after `patience`.
    async fn stop(mut self, patience: Duration) -> bool {
        drop(self.leash);
        match timeout(patience, self.child.wait()).await {
            Ok(status) => status.is_ok_and(|status| status.success()),
            Err(_) => {
                tracing::warn!(pid = self.pid, "killing a replica that does not end");
                // It may have ended by itself just now.
                let _ = self.child.kill().await;
                false
            }
        }
    }
}

/// How long to wait before the next start of what died after `lived`, having waited for
/// `pause` before that life.
fn pause_after(lived: Duration, pause: Duration) -> Duration {
    if lived >= GOOD_LIFE {
        SHORTEST_PAUSE
    } else {
        (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_replica_lives_for_a_while() {
        let mut pause = Duration::ZERO;
        let pauses: Vec<u128> = (0..11)
            .map(|_| {
                pause = pause_after(Duration::ZERO, pause);
                pause.as_millis()
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(pause_after(GOOD_LIFE, pause), SHORTEST_PAUSE);
    }
}
