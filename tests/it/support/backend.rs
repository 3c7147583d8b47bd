//! A backend that does what no well-behaved server does, and remembers every byte it heard.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::eventually;

/// What a backend does once it has heard a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this, and listens for the next request.
    Says(String),
    /// Says this, and hangs up.
    SaysAndHangsUp(String),
    /// Says nothing, and holds on.
    IsSilent,
    /// Says this, and then nothing more.
    SaysAndStalls(String),
    /// Says this once it is told to.
    SaysWhenTold(Arc<Notify>, String),
    /// Says this, then sends back whatever comes.
    SaysAndEchoes(String),
}

/// A server of raw bytes; gone with this.
pub struct Backend {
    pub address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    connections: usize,
    open: usize,
    requests: Vec<String>,
}

/// A whole answer with a body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Backend {
    /// A backend that does what `act` makes of each request's text.
    pub async fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, act) = (Arc::<Mutex<Heard>>::default(), Arc::new(act));
        let mut serving = JoinSet::new();
        let remembered = heard.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (act, heard) = (act.clone(), remembered.clone());
                heard.lock().unwrap().connections += 1;
                connections.spawn(async move {
                    heard.lock().unwrap().open += 1;
                    serve(stream, &*act, &heard).await;
                    heard.lock().unwrap().open -= 1;
                });
            }
        });
        Backend { address, heard, _serving: serving }
    }

    /// A backend that answers 200 with its `name`.
    pub async fn named(name: &'static str) -> Backend {
        Backend::start(move |_| Act::Says(ok(name))).await
    }

    /// Every request so far, as it was sent.
    pub fn requests(&self) -> Vec<String> {
        self.heard.lock().unwrap().requests.clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.heard.lock().unwrap().connections
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        self.heard.lock().unwrap().open
    }

    /// Waits until it has heard so many requests.
    pub async fn hears(&self, requests: usize) {
        eventually("the backend hears it", async || self.requests().len() >= requests).await;
    }
}

/// An address where nobody listens, and nobody else will.
pub async fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    // Bound for as long as the process lives, so that no other test is given the port.
    std::mem::forget(socket);
    address
}

async fn serve(mut stream: TcpStream, act: &(dyn Fn(&str) -> Act + Sync), heard: &Mutex<Heard>) {
    let mut bytes = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut bytes).await {
        heard.lock().unwrap().requests.push(request.clone());
        match act(&request) {
            Act::Says(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::SaysWhenTold(told, text) => {
                told.notified().await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Act::SaysAndHangsUp(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Act::IsSilent => return hold(stream).await,
            Act::SaysAndStalls(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return hold(stream).await;
            }
            Act::SaysAndEchoes(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.write_all(&bytes).await;
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                return;
            }
        }
    }
}

/// Reads until the other side hangs up.
async fn hold(mut stream: TcpStream) {
    while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {}
}

/// The next request with its body, from `bytes` and then from `stream`; none if the other
/// side hangs up before its end.
async fn next_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = end_of_request(bytes) {
            let request = bytes.drain(..end).collect();
            return Some(String::from_utf8(request).unwrap());
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let find = |text: &[u8], from: usize| {
        bytes[from..].windows(text.len()).position(|it| it == text).map(|at| from + at + text.len())
    };
    let head_end = find(b"\r\n\r\n", 0)?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
    if head.contains("\r\nexpect:") {
        // Whoever expects to be told first has not sent its body yet.
        return Some(head_end);
    }
    if head.contains("\r\ntransfer-encoding:") {
        return find(b"0\r\n\r\n", head_end);
    }
    let length = head
        .split_once("\r\ncontent-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
    (bytes.len() >= head_end + length).then_some(head_end + length)
}
