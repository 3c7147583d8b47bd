//! Requests that no well-behaved client sends, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that the end of an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a shop.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw(TcpStream::connect(address).await.unwrap())
    }

    pub async fn says(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Says nothing more.
    pub async fn finishes(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// What comes back until `end` does, which it does in time, and nothing beyond.
    pub async fn hears_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let reading = async {
            while !bytes.ends_with(end.as_bytes()) {
                let mut byte = [0];
                let read = self.0.read(&mut byte).await.unwrap();
                bytes.extend_from_slice(&byte[..read]);
                assert_ne!(read, 0, "hung up after {:?}", String::from_utf8_lossy(&bytes));
            }
        };
        if timeout(PATIENCE, reading).await.is_err() {
            panic!("{end:?} never came, but {:?}", String::from_utf8_lossy(&bytes));
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Waits until it is hung up on, which happens in time.
    pub async fn hears_the_end(mut self) {
        let mut bytes = Vec::new();
        let reading = self.0.read_to_end(&mut bytes);
        let _ = timeout(PATIENCE, reading).await.expect("it hangs up");
    }

    /// Everything that comes back until the shop hangs up, which it does in time.
    pub async fn hears(mut self) -> String {
        let mut bytes = Vec::new();
        let reading = self.0.read_to_end(&mut bytes);
        // A connection that is reset has ended too; what came before counts.
        let _ = timeout(PATIENCE, reading).await.expect("the shop hangs up");
        String::from_utf8(bytes).unwrap()
    }
}

/// Waits for the head of a request without a body.
pub async fn hears_a_head(stream: &mut TcpStream) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
    }
}

/// What the shop at `address` answers to `request`, which asks it to hang up.
pub async fn answer(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(address).await;
    raw.says(request).await;
    raw.hears().await
}

/// The status in an answer's first line.
#[track_caller]
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}
