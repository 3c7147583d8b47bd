//! Redis servers: one a test, on a socket of its own, with nothing kept on disk.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use merch_store::limits::Link;
use redis::{Client, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Duration;

use super::eventually;

/// Longer than any answer takes, so that only a server that is away is found away.
pub const PATIENT: Duration = Duration::from_secs(30);

/// A running server; killed with this.
pub struct TestRedis {
    folder: TempDir,
    server: Child,
}

impl TestRedis {
    pub async fn start() -> TestRedis {
        let folder = tempfile::tempdir().unwrap();
        let server = start(folder.path().join("socket"));
        let redis = TestRedis { folder, server };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("socket").display())
    }

    /// A gateway's link, kept up for as long as the test runs, and up already.
    pub async fn link(&self, patience: Duration) -> Link {
        let link = Link::new(&self.url(), patience).unwrap();
        let kept = link.clone();
        tokio::spawn(async move { kept.keep().await });
        eventually("the link is up", async || link.is_up()).await;
        link
    }

    /// What the server answers to a command.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// As if its machine lost power.
    pub fn dies(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Another one in its place, with nothing in it.
    pub async fn comes_back(&mut self) {
        self.server = start(self.folder.path().join("socket"));
        self.answers().await;
    }

    /// It keeps its connections and answers none.
    pub fn freezes(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaws(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.server.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn answers(&self) {
        eventually("Redis answers", async || self.command::<String>(&["PING"]).await.is_ok()).await;
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        // It may have died in the test; a frozen one dies too.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn start(socket: PathBuf) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server, which scripts/test installs")
}
