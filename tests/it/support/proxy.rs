//! A TCP proxy before PostgreSQL that understands enough of the protocol to break things
//! exactly where a test wants them broken.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Where something goes wrong: in a batch's transaction, or at a statement besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Begin,
    Fetch,
    Open,
    Write,
    Commit,
    Books,
    Limit,
}

/// What goes wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server answers with this SQLSTATE instead.
    Raise(&'static str),
    /// The connection breaks before the server sees the statement.
    CutBefore,
    /// The connection breaks after the server carried it out, before it can say so.
    CutAfter,
    /// The same, and nobody gets through any more.
    AwayAfter,
}

/// The proxy; ends with this.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where new connections lead.
    upstream: Mutex<Url>,
    /// Faults to come, the next one first.
    faults: Mutex<Vec<(Stage, Fault)>>,
    /// Flips when all connections shall break; true while new ones are refused.
    away: watch::Sender<bool>,
    /// How many connections were refused.
    refused: watch::Sender<u32>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Proxy {
    /// A proxy before the server at `upstream`.
    pub async fn start(upstream: &Url) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.clone()),
            faults: Mutex::default(),
            away: watch::Sender::new(false),
            refused: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, shared.clone()));
        Proxy { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next time that a transaction gets to `stage`, `fault` happens, once.
    pub fn inject(&self, stage: Stage, fault: Fault) {
        self.shared.faults.lock().unwrap().push((stage, fault));
    }

    /// Every injected fault has happened.
    #[track_caller]
    pub fn has_injected_everything(&self) {
        assert_eq!(*self.shared.faults.lock().unwrap(), []);
    }

    /// Breaks all connections and refuses new ones, until [`Proxy::comes_back`].
    pub fn goes_away(&self) {
        self.shared.away.send_replace(true);
    }

    /// Waits until nobody gets through.
    pub async fn is_away(&self) {
        self.shared.away.subscribe().wait_for(|away| *away).await.unwrap();
    }

    /// Waits until somebody was refused.
    pub async fn is_refusing_somebody(&self) {
        self.shared.refused.subscribe().wait_for(|refused| *refused > 0).await.unwrap();
    }

    /// New connections lead to the server at `upstream`; those that are there stay.
    pub fn leads_to(&self, upstream: &Url) {
        *self.shared.upstream.lock().unwrap() = upstream.clone();
    }

    /// Breaks all connections; new ones are let in.
    pub fn cuts_all(&self) {
        self.goes_away();
        self.comes_back();
    }

    pub fn comes_back(&self) {
        self.shared.away.send_replace(false);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut away = shared.away.subscribe();
            if *away.borrow_and_update() {
                shared.refused.send_modify(|refused| *refused += 1);
                return;
            }
            tokio::select! {
                // Either side may hang up at any time: that is how connections end here.
                _ = relay(client, &shared) => {}
                _ = away.changed() => {}
            }
        });
    }
}

/// Carries one connection, a round (what a client sends up to Sync or a simple query, and
/// the answer to it) at a time.
async fn relay(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    // An answer is passed on in pieces; none of them shall wait for the one before it.
    client.set_nodelay(true)?;
    let upstream = shared.upstream.lock().unwrap().clone();
    let mut server = connect(&upstream).await?;
    pass_start_up(&mut client, &mut server).await?;
    let mut statements = HashMap::new();
    loop {
        let round = tokio::select! {
            round = read_round(&mut client, &mut statements) => round?,
            // Nobody asked: the server says goodbye.
            message = read_message(&mut server) => {
                client.write_all(&message?).await?;
                continue;
            }
        };
        match shared.next_fault(&round.sql) {
            Some(Fault::CutBefore) => return Ok(()),
            Some(fault @ (Fault::CutAfter | Fault::AwayAfter)) => {
                server.write_all(&round.bytes).await?;
                while read_message(&mut server).await?[0] != b'Z' {}
                if fault == Fault::AwayAfter {
                    shared.away.send_replace(true);
                }
                return Ok(());
            }
            Some(Fault::Raise(sqlstate)) => {
                let raise = format!(
                    "DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{sqlstate}'; END $$\0"
                );
                server.write_all(&message(b'Q', raise.as_bytes())).await?;
            }
            None => server.write_all(&round.bytes).await?,
        }
        loop {
            let message = read_message(&mut server).await?;
            client.write_all(&message).await?;
            if message[0] == b'Z' {
                break;
            }
        }
    }
}

async fn connect(upstream: &Url) -> io::Result<Box<dyn Stream>> {
    let socket = upstream.query_pairs().find(|(key, _)| key == "host");
    let port = upstream.port().unwrap_or(5432);
    Ok(match socket {
        Some((_, folder)) => {
            Box::new(UnixStream::connect(format!("{folder}/.s.PGSQL.{port}")).await?)
        }
        None => Box::new(TcpStream::connect((upstream.host_str().unwrap(), port)).await?),
    })
}

/// Passes the first message, which has no type, and the authentication.
async fn pass_start_up(client: &mut TcpStream, server: &mut Box<dyn Stream>) -> io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length).await?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut body).await?;
    server.write_all(&[&length[..], &body].concat()).await?;
    loop {
        let message = read_message(server).await?;
        client.write_all(&message).await?;
        // A request for a password, or the next step of an exchange.
        let asks = message[0] == b'R' && matches!(message[8], 3 | 5 | 10 | 11);
        if asks {
            server.write_all(&read_message(client).await?).await?;
        }
        if message[0] == b'Z' {
            return Ok(());
        }
    }
}

struct Round {
    bytes: Vec<u8>,
    sql: String,
}

/// Reads up to Sync or a simple query. Not cancelled half-way in practice: a client sends a
/// round in one piece.
async fn read_round(
    client: &mut TcpStream,
    statements: &mut HashMap<Vec<u8>, String>,
) -> io::Result<Round> {
    let mut round = Round { bytes: Vec::new(), sql: String::new() };
    loop {
        let message = read_message(client).await?;
        let body = &message[5..];
        let mut parts = body.split(|byte| *byte == 0);
        match message[0] {
            b'Q' => round.sql = text(parts.next()),
            b'P' => {
                let name = parts.next().unwrap_or_default().to_vec();
                round.sql = text(parts.next());
                statements.insert(name, round.sql.clone());
            }
            b'B' => {
                let name = parts.nth(1).unwrap_or_default();
                round.sql = statements.get(name).cloned().unwrap_or_default();
            }
            _ => {}
        }
        round.bytes.extend_from_slice(&message);
        if matches!(message[0], b'Q' | b'S' | b'X') {
            return Ok(round);
        }
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
    message.resize(1 + length, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok(message)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

impl Shared {
    fn next_fault(&self, sql: &str) -> Option<Fault> {
        let stage = Stage::of(sql)?;
        let mut faults = self.faults.lock().unwrap();
        let due = faults.first().is_some_and(|(due, _)| *due == stage);
        due.then(|| faults.remove(0).1)
    }
}

impl Stage {
    fn of(sql: &str) -> Option<Stage> {
        let beginnings = [
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", Stage::Begin),
            ("/* ledger_fetch */", Stage::Fetch),
            ("/* accounts_insert_many */", Stage::Open),
            ("/* ledger_write */", Stage::Write),
            ("COMMIT", Stage::Commit),
            ("/* books_fetch */", Stage::Books),
            ("/* client_limits_change */", Stage::Limit),
        ];
        beginnings.into_iter().find_map(|(start, stage)| sql.starts_with(start).then_some(stage))
    }
}
