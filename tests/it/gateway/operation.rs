//! A gateway as its operator has it: a log in files, another level and other settings while
//! it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::backend::ok;
use crate::support::raw::Raw;
use crate::support::{Act, Backend, Process, Reply, eventually};

const TOKEN: &str = "the token of the integration tests";

/// The smallest that a log file may be.
const FILE_BYTES: u64 = 4096;

/// A gateway that logs into a file, and reads its backends from another.
struct Operated {
    gateway: Process,
    folder: TempDir,
}

impl Operated {
    async fn before(backend: &Backend, level: &str) -> Operated {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let settings = folder.path().join("settings.toml");
        std::fs::write(&settings, backends(&[backend])).unwrap();
        let bytes = FILE_BYTES.to_string();
        let environment = [
            ("MERCH__LOG__FILE", log.to_str().unwrap()),
            ("MERCH__LOG__FILE_MAX_BYTES", &bytes),
            ("MERCH__LOG__FORMAT", "json"),
            ("MERCH__LOG__LEVEL", level),
            ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
            ("MERCH__GATEWAY__ADMIN__TOKEN", TOKEN),
            ("MERCH__LIMITS__RATE_PER_SEC", "0"),
            ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ];
        let arguments = ["--config", settings.to_str().unwrap()];
        Operated { gateway: Process::gateway(&arguments, &environment).await, folder }
    }

    /// The log's file, or the one that is `number` older.
    fn log(&self, number: usize) -> PathBuf {
        match number {
            0 => self.folder.path().join("log"),
            number => self.folder.path().join(format!("log.{number}")),
        }
    }

    /// Every line in the log's files, oldest first.
    fn lines(&self) -> Vec<Value> {
        let texts =
            (0..=3).rev().filter_map(|number| std::fs::read_to_string(self.log(number)).ok());
        let text: String = texts.collect();
        // One that is just being written has no end yet.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    fn has_logged(&self, key: &str, value: &str) -> bool {
        self.lines().iter().any(|line| line[key].as_str().is_some_and(|it| it.contains(value)))
    }

    async fn get(&self, client: &Client, path: &str) -> String {
        let reply = Reply::to(client.get(format!("{}{path}", self.gateway.base))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text
    }

    async fn connects(&self) -> Raw {
        Raw::connect(self.gateway.base.strip_prefix("http://").unwrap().parse().unwrap()).await
    }

    async fn logs_at(&self, level: &str) {
        let url = format!("{}/log/level", self.gateway.admin());
        let request = Client::new().request(Method::PUT, &url).bearer_auth(TOKEN);
        let reply = Reply::to(request.body(json!({"level": level}).to_string())).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let now = Reply::to(Client::new().get(&url).bearer_auth(TOKEN)).await;
        assert_eq!(now.json(), json!({"level": level}));
    }

    /// Ends it, and returns the last line of its log.
    async fn ends(&mut self) -> Value {
        self.gateway.signal("TERM");
        assert_eq!(self.gateway.ends().await, Some(0));
        self.lines().pop().unwrap()
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("settings.toml")
    }
}

/// Settings for a gateway to `backends`, which nobody asks how they are.
fn backends(backends: &[&Backend]) -> String {
    let urls: Vec<_> = backends.iter().map(|it| format!("http://{}", it.address)).collect();
    format!("[gateway]\nbackends = {urls:?}\n[gateway.upstream.health]\npath = ''\n")
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[tokio::test]
async fn a_log_in_files_loses_no_line_and_keeps_three_older_files() {
    let backend = Backend::named("one").await;
    let mut operated = Operated::before(&backend, "info").await;
    let client = Client::new();
    let mut requests = 0;
    eventually("four files are full", async || {
        operated.get(&client, &format!("/{requests}")).await;
        requests += 1;
        // Only what was put aside a fourth time has no place any more.
        requests > 30 && !operated.has_logged("path", "/0")
    })
    .await;
    let last = operated.ends().await;
    assert_eq!(last["message"], "stopped");

    let mut names: Vec<_> = std::fs::read_dir(operated.folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2", "log.3", "settings.toml"]);
    for number in 0..=3 {
        let length = length(&operated.log(number));
        let full = if number == 0 { 1 } else { FILE_BYTES / 2 };
        assert!((full..=FILE_BYTES).contains(&length), "log {number} has {length} bytes");
    }
    // In the order in which they were answered, to the last one, whole.
    let lines = operated.lines();
    let paths = lines.iter().filter_map(|line| line["path"].as_str());
    let kept: Vec<usize> = paths.map(|path| path[1..].parse().unwrap()).collect();
    let expected: Vec<usize> = (kept[0]..requests).collect();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn another_level_of_the_log_is_in_force_at_once() {
    let backend = Backend::named("one").await;
    let mut operated = Operated::before(&backend, "error").await;
    let mut raw = operated.connects().await;
    let mut asks = async |path: &str| {
        raw.says(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
        raw.hears_until("one").await;
    };
    // The first of two is written down before the second is answered.
    asks("/quiet").await;
    asks("/also-quiet").await;
    assert_eq!(operated.lines(), [] as [Value; 0]);

    operated.logs_at("info").await;
    asks("/told").await;
    eventually("it is logged", async || operated.has_logged("path", "/told")).await;

    operated.logs_at("warn").await;
    asks("/quiet").await;
    asks("/also-quiet").await;
    operated.logs_at("info,merch_store::access=off").await;
    asks("/quiet").await;
    asks("/also-quiet").await;
    let last = operated.ends().await;
    assert_eq!(last["message"], "stopped");
    assert!(!operated.has_logged("path", "/quiet"), "{:?}", operated.lines());
}

#[tokio::test]
async fn sighup_changes_settings_and_no_connection_notices() {
    let told = Arc::new(Notify::new());
    let tells = told.clone();
    let one = Backend::start(move |request| match request.contains("/slow") {
        true => Act::SaysWhenTold(told.clone(), ok("one")),
        false => Act::Says(ok("one")),
    })
    .await;
    let two = Backend::named("two").await;
    let mut operated = Operated::before(&one, "info").await;
    let (mut idle, mut slow) = (operated.connects().await, operated.connects().await);
    idle.says("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    idle.hears_until("one").await;
    slow.says("GET /slow HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    one.hears(2).await;

    std::fs::write(operated.settings(), backends(&[&two])).unwrap();
    operated.gateway.signal("HUP");
    let client = Client::new();
    eventually("the other backend answers", async || operated.get(&client, "/").await == "two")
        .await;
    tells.notify_one();
    slow.hears_until("one").await;
    for connection in [&mut idle, &mut slow] {
        connection.says("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        connection.hears_until("two").await;
    }

    // The second is what a file is like before its first byte is written.
    for (bad, why) in [("[gateway]\nbackends = ['nonsense']\n", "nonsense"), ("", "no backend")] {
        std::fs::write(operated.settings(), bad).unwrap();
        operated.gateway.signal("HUP");
        eventually("it says why it does not", async || {
            operated.has_logged("message", "kept as they were") && operated.has_logged("error", why)
        })
        .await;
        idle.says("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        idle.hears_until("two").await;
    }

    std::fs::write(operated.settings(), backends(&[&one])).unwrap();
    operated.gateway.signal("HUP");
    eventually("the first backend is back", async || operated.get(&client, "/").await == "one")
        .await;
    assert_eq!(operated.ends().await["message"], "stopped");
}
