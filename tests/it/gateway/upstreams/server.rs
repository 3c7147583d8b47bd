//! A backend that answers health checks as it is told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a backend does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    Answers(u16),
    /// Takes the connection and says nothing, for ever.
    Hangs,
    /// Says something that is not HTTP.
    Babbles,
    /// Hangs up when it has read the request.
    HangsUp,
}

/// A TCP server on a port of its own; its port is closed when this is dropped.
pub struct Server {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub async fn start(manner: Manner) -> Server {
        Server::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), manner)
    }

    fn listen(listener: TcpListener, manner: Manner) -> Server {
        let address = listener.local_addr().unwrap();
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicUsize::new(0)));
        let accepting = tokio::spawn(accept(listener, manner.clone(), asked.clone()));
        Server { address, manner, asked, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the gateway calls it.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn will_do(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// How many requests it has read.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, manner: Arc<Mutex<Manner>>, asked: Arc<AtomicUsize>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, manner.clone(), asked.clone()));
    }
}

async fn answer(mut stream: TcpStream, manner: Arc<Mutex<Manner>>, asked: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    assert!(request.starts_with(b"GET /health/ready HTTP/1.1\r\n"));
    let manner = *manner.lock().unwrap();
    let answer = match manner {
        Manner::Answers(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
        Manner::Babbles => "ahoj\r\n\r\n".into(),
        Manner::HangsUp => return,
        Manner::Hangs => std::future::pending().await,
    };
    // Whoever asked may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}
