//! Asks a backend whether it is well: one GET on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config;

use super::Upstreams;
use super::backend::Backend;

/// Asks `backend` again and again until it is gone.
pub async fn keep_checking(upstreams: Upstreams, backend: Arc<Backend>) {
    let checking = async {
        loop {
            let options = upstreams.table().options().clone();
            if !options.health.path.is_empty() {
                let outcome = check(&backend, &options.health).await;
                upstreams.checked(&backend, outcome);
            }
            sleep(jittered(options.health.interval, rand::random())).await;
        }
    };
    tokio::select! {
        () = checking => {}
        () = backend.gone() => {}
    }
}

impl Upstreams {
    fn checked(&self, backend: &Backend, outcome: Result<String, String>) {
        let now = tokio::time::Instant::now();
        let changed = self.table().checked(backend.id(), outcome, now);
        if changed {
            self.change(|_, _| ());
        } else {
            self.0.version.send_modify(|version| *version = version.wrapping_add(1));
        }
    }
}

/// What `backend` answers, if that is a pass; else what it answers or why it does not.
async fn check(backend: &Backend, options: &config::HealthChecks) -> Result<String, String> {
    let asking = ask(backend.address(), backend.authority(), &options.path);
    match timeout(options.timeout, asking).await {
        Ok(Ok(status)) if passes(status) => Ok(status.to_string()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer within {:?}", options.timeout)),
    }
}

async fn ask(address: SocketAddr, authority: &str, path: &str) -> Result<StatusCode, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("merch-store/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    // However the connection ends, the request learns of it.
    let driving = async {
        let _ = connection.await;
        std::future::pending().await
    };
    // The status is all we want; leaving closes the connection, whatever is still to come.
    tokio::select! {
        answer = sender.send_request(request) => match answer {
            Ok(answer) => Ok(answer.status()),
            Err(error) => Err(error.to_string()),
        },
        never = driving => never,
    }
}

/// 404 is from a server that is alive and was never told of this path: the gateway works in
/// front of any server without a setting.
fn passes(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection() || status == StatusCode::NOT_FOUND
}

/// `interval`, give or take a tenth, by where `random` is between 0 and 1: gateways that
/// started together do not ask together for ever.
pub fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_pass() {
        for (status, expected) in [
            (200, true),
            (204, true),
            (302, true),
            (404, true),
            (401, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(passes(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.0), Duration::from_millis(900));
        assert_eq!(jittered(second, 0.5), second);
        assert!(jittered(second, 0.999) < Duration::from_millis(1100));
    }
}
