//! Requests that no well-behaved client sends, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gateway::{body, header};

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

    /// Is gone at once, with a reset.
    pub fn resets(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// One whole answer, after which the connection goes on.
    pub async fn hears_an_answer(&mut self) -> String {
        let head = self.hears_until("\r\n\r\n").await;
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("all of it comes").unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    /// Everything that comes back until the other side closes, in order and in time.
    pub async fn hears_a_goodbye(mut self) -> String {
        let mut bytes = Vec::new();
        let reading = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("it closes");
        reading.expect("and does not break off");
        String::from_utf8(bytes).unwrap()
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

/// The status of a refusal and its code for machines; it must be in the shape of all refusals.
#[track_caller]
pub fn refusal(answer: &str) -> (u16, String) {
    let text = body(answer);
    let length = text.len().to_string();
    assert_eq!(header(answer, "content-type"), Some("application/json"), "{answer}");
    assert_eq!(header(answer, "content-length"), Some(length.as_str()), "{answer}");
    assert!(header(answer, "date").is_some(), "{answer}");
    let said: Value = serde_json::from_str(text).unwrap();
    assert!(said["errors"].as_str().is_some_and(|errors| !errors.is_empty()), "{answer}");
    assert_eq!(said.as_object().unwrap().len(), 2, "{answer}");
    (status(answer), said["code"].as_str().unwrap().to_owned())
}

/// Whether an answer says that its connection ends with it.
pub fn says_close(answer: &str) -> bool {
    header(answer, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"))
}

/// The status in an answer's first line.
#[track_caller]
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}
