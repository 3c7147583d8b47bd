//! A gateway in the test's own process.

use std::net::SocketAddr;
use std::time::Duration;

use merch_store::cli::gateway::Server;
use merch_store::config::Config;
use merch_store::lifecycle::{Ended, Lifecycle};
use reqwest::Client;

use super::backend::Backend;
use super::raw;

/// A gateway on a free port; ended with this.
pub struct TestGateway {
    pub address: SocketAddr,
    /// Where its admin API is, if it has one.
    pub admin: Option<SocketAddr>,
    pub lifecycle: Lifecycle,
    serving: tokio::task::JoinHandle<Ended>,
}

impl TestGateway {
    /// In front of `backends`.
    pub async fn before(backends: &[&Backend]) -> TestGateway {
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        TestGateway::at(&addresses, |_| {}).await
    }

    /// In front of whatever listens at `backends`, with other settings than the usual ones.
    pub async fn at(backends: &[SocketAddr], settings: impl FnOnce(&mut Config)) -> TestGateway {
        let mut config = config();
        config.gateway.backends =
            backends.iter().map(|address| format!("http://{address}").parse().unwrap()).collect();
        settings(&mut config);
        let server = Server::start(&config, Lifecycle::default()).await.unwrap();
        let (address, admin) = (server.address(), server.admin_address());
        let lifecycle = server.lifecycle().clone();
        TestGateway { address, admin, lifecycle, serving: tokio::spawn(server.wait()) }
    }

    /// What it answers to `request`, byte by byte, which asks it to hang up.
    pub async fn answers(&self, request: impl AsRef<[u8]>) -> String {
        raw::answer(self.address, request).await
    }

    /// Its URL for `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The status and the body of its answer to a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = Client::new().get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until it has ended.
    pub async fn ended(self) -> Ended {
        self.serving.await.unwrap()
    }
}

/// The built-in settings, on a free port, without limits and waits that only balancers need.
pub fn config() -> Config {
    let mut config = Config::load(None, []).unwrap();
    config.gateway.address = "127.0.0.1:0".parse().unwrap();
    config.shutdown.grace = Duration::ZERO;
    // Backends here answer what they were told to, and nothing else.
    config.gateway.upstream.health.path.clear();
    config.limits.rate_per_sec = 0;
    config
}

/// `GET path`, after which the client wants to hang up.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
}

/// The value of the only line of header `name` in a message's text.
#[track_caller]
pub fn header<'text>(message: &'text str, name: &str) -> Option<&'text str> {
    let head = message.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let value = values.next();
    assert_eq!(values.next(), None, "{name} in {message}");
    value
}

/// What comes after a message's head.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
