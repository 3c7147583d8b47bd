//! A real browser without a window, which reaches nothing but this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The longest that anything on a page is waited for: starting takes long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page; ends with this.
pub struct Browser {
    client: Client,
    // Dropped in this order: the browser must be gone before its profile is.
    _driver: Driver,
    _profile: TempDir,
}

/// chromedriver, which starts browsers and talks to them.
struct Driver {
    process: Child,
    port: u16,
}

impl Browser {
    pub async fn start() -> Browser {
        let driver = Driver::start().await;
        let profile = tempfile::tempdir().unwrap();
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1280,2000",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let Value::Object(capabilities) = json!({"goog:chromeOptions": {"args": arguments}}) else {
            unreachable!("it is an object");
        };
        let url = format!("http://127.0.0.1:{}", driver.port);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let connecting = builder.capabilities(capabilities).connect(&url);
        let client = timeout(PATIENCE, connecting).await.expect("a browser starts in time");
        let client = client.expect("no browser: run scripts/test, which installs one");
        Browser { client, _driver: driver, _profile: profile }
    }

    pub async fn opens(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Clicks on what `css` selects, once it is there.
    pub async fn clicks(&self, css: &str) {
        self.finds(css).await.click().await.unwrap();
    }

    /// Types `text` instead of whatever is in the field that `css` selects.
    pub async fn types(&self, css: &str, text: &str) {
        const SELECT_ALL: &str = "\u{e009}a\u{e000}";
        let field = self.finds(css).await;
        field.send_keys(&format!("{SELECT_ALL}{text}")).await.unwrap();
        assert_eq!(field.prop("value").await.unwrap().as_deref(), Some(text), "{css}");
    }

    /// The text of what `css` selects, once it is there.
    pub async fn reads(&self, css: &str) -> String {
        self.finds(css).await.text().await.unwrap()
    }

    /// Every address that the page loaded something from, its own included.
    pub async fn has_loaded(&self) -> Vec<String> {
        let script = "return performance.getEntries().map(entry => entry.name)
                          .filter(name => name.includes(':'))";
        let names = self.client.execute(script, Vec::new()).await.unwrap();
        serde_json::from_value(names).unwrap()
    }

    pub async fn closes(self) {
        self.client.close().await.unwrap();
    }

    async fn finds(&self, css: &str) -> Element {
        let waiting = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css));
        waiting.await.unwrap_or_else(|error| panic!("no {css} on the page: {error}"))
    }
}

impl Driver {
    async fn start() -> Driver {
        let start = |program| {
            let mut command = Command::new(program);
            command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped());
            command.kill_on_drop(true).spawn()
        };
        let mut process = start("chromedriver")
            .or_else(|_| start("/usr/bin/chromedriver"))
            .expect("no chromedriver: run scripts/test, which installs it");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let port = line.strip_prefix("ChromeDriver was started successfully on port ");
                if let Some(port) = port.and_then(|port| port.trim_end_matches('.').parse().ok()) {
                    return Some(port);
                }
            }
            None
        };
        let port = timeout(PATIENCE, reading).await.expect("chromedriver starts");
        Driver { process, port: port.expect("chromedriver says its port") }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Killed, it would leave its browsers behind; asked to, it ends them. What cannot be
        // asked any more needs not be.
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
            let request = b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.write_all(request).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
        let _ = self.process.start_kill();
    }
}
