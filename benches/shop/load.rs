//! The load generator: raw HTTP/1.1 over kept connections, closed or open loop.
//!
//! It does as little as it can, because its processor time is taken from what it measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long answers are waited for after the last request was due.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes a request into the buffer; called once a request.
pub trait Requests: Clone + Send + 'static {
    fn next(&mut self, rng: &mut SmallRng, buffer: &mut Vec<u8>);
}

impl<F: FnMut(&mut SmallRng, &mut Vec<u8>) + Clone + Send + 'static> Requests for F {
    fn next(&mut self, rng: &mut SmallRng, buffer: &mut Vec<u8>) {
        self(rng, buffer);
    }
}

/// What was answered, and how fast.
#[derive(Clone, Debug)]
pub struct Answers {
    pub elapsed: Duration,
    /// Latencies in microseconds, by status; 0 is a connection that broke.
    pub by_status: BTreeMap<u16, Histogram<u64>>,
    /// Latencies of the answers with status 200, by the half second since the start in which
    /// they were due.
    pub by_half_second: Vec<Histogram<u64>>,
}

impl Answers {
    fn new() -> Answers {
        Answers { elapsed: Duration::ZERO, by_status: BTreeMap::new(), by_half_second: Vec::new() }
    }

    /// Answers of this status.
    pub fn count(&self, status: u16) -> u64 {
        self.by_status.get(&status).map_or(0, Histogram::len)
    }

    pub fn total(&self) -> u64 {
        self.by_status.values().map(Histogram::len).sum()
    }

    /// Answers with status 200 a second.
    pub fn rate(&self) -> f64 {
        self.count(200) as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds within which `quantile` of the answers with this status came.
    pub fn quantile(&self, status: u16, quantile: f64) -> f64 {
        let latencies = self.by_status.get(&status);
        latencies.map_or(f64::NAN, |it| it.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// Seconds after the start from which on, half second by half second, `quantile` of the
    /// answers came within `limit`.
    pub fn calm_after(&self, quantile: f64, limit: Duration) -> f64 {
        let calm =
            |it: &Histogram<u64>| u128::from(it.value_at_quantile(quantile)) <= limit.as_micros();
        let stormy = self.by_half_second.iter().rposition(|latencies| !calm(latencies));
        stormy.map_or(0.0, |last| (last + 1) as f64 / 2.0)
    }

    fn record(&mut self, status: u16, latency: Duration, due: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.by_status.entry(status).or_insert_with(latencies).saturating_record(micros);
        if status == 200 {
            let half_second = usize::try_from(due.as_millis() / 500).unwrap_or(usize::MAX);
            while self.by_half_second.len() <= half_second {
                self.by_half_second.push(latencies());
            }
            self.by_half_second[half_second].saturating_record(micros);
        }
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

/// Each of `connections` asks again as soon as it is answered, for as long as `period`.
pub async fn closed_loop(
    targets: &[SocketAddr],
    connections: usize,
    period: Duration,
    requests: impl Requests,
) -> Answers {
    let start = Instant::now();
    let end = start + period;
    let all = Arc::new(Mutex::new(Answers::new()));
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let (target, mut requests) = (targets[number % targets.len()], requests.clone());
        let all = all.clone();
        clients.spawn(async move {
            let mut rng = SmallRng::seed_from_u64(rand::random());
            let mut connection = Connection::new(target);
            while Instant::now() < end {
                connection.request.clear();
                requests.next(&mut rng, &mut connection.request);
                let asked = Instant::now();
                let status = connection.ask().await;
                record(&all, status, asked.elapsed(), asked - start);
            }
        });
    }
    join(start, period, clients, &all).await
}

/// `rate` requests a second for as long as `period`, on at most `connections` of them. A
/// latency counts from when the request was due, so a server that stalls cannot hide it.
pub async fn open_loop(
    targets: &[SocketAddr],
    connections: usize,
    rate: f64,
    period: Duration,
    requests: impl Requests,
) -> Answers {
    let start = Instant::now() + Duration::from_millis(10);
    let due = Arc::new(AtomicU64::new(0));
    let all = Arc::new(Mutex::new(Answers::new()));
    let total = (rate * period.as_secs_f64()) as u64;
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let (target, mut requests) = (targets[number % targets.len()], requests.clone());
        let (due, all) = (due.clone(), all.clone());
        clients.spawn(async move {
            let mut rng = SmallRng::seed_from_u64(rand::random());
            let mut connection = Connection::new(target);
            loop {
                let next = due.fetch_add(1, Ordering::Relaxed);
                if next >= total {
                    return;
                }
                let when = start + Duration::from_secs_f64(next as f64 / rate);
                connection.request.clear();
                requests.next(&mut rng, &mut connection.request);
                // Timers cost as much as requests; those who are late need none.
                if Instant::now() < when {
                    sleep_until(when).await;
                }
                let status = connection.ask().await;
                record(&all, status, when.elapsed(), when - start);
            }
        });
    }
    join(start, period, clients, &all).await
}

fn record(all: &Mutex<Answers>, status: u16, latency: Duration, due: Duration) {
    all.lock().expect("nobody panics with it").record(status, latency, due);
}

/// Waits for the clients, at most [`PATIENCE`] beyond `period`; whoever still waits then has a
/// connection that broke.
async fn join(
    start: Instant,
    period: Duration,
    mut clients: JoinSet<()>,
    all: &Mutex<Answers>,
) -> Answers {
    let everybody = async {
        while let Some(ended) = clients.join_next().await {
            ended.expect("clients do not panic");
        }
    };
    let in_time = timeout_at(start + period + PATIENCE, everybody).await;
    let mut all = all.lock().expect("nobody panics with it").clone();
    all.elapsed = start.elapsed();
    if in_time.is_err() {
        for _ in 0..clients.len() {
            all.record(0, PATIENCE, period);
        }
    }
    all
}

struct Connection {
    target: SocketAddr,
    stream: Option<TcpStream>,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Connection {
    fn new(target: SocketAddr) -> Connection {
        Connection { target, stream: None, request: Vec::new(), response: Vec::new() }
    }

    /// Sends the request and reads the answer: its status, or 0 if there is none.
    async fn ask(&mut self) -> u16 {
        let status = self.exchange().await;
        if status.is_err() {
            self.stream = None;
        }
        status.unwrap_or(0)
    }

    async fn exchange(&mut self) -> std::io::Result<u16> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.target).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        stream.write_all(&self.request).await?;
        self.response.clear();
        loop {
            if stream.read_buf(&mut self.response).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, length)) = parse(&self.response)
                && self.response.len() >= length
            {
                return Ok(status);
            }
        }
    }
}

/// The status of a response, and how long it is with its body, once its head is complete.
fn parse(response: &[u8]) -> Option<(u16, usize)> {
    let head = response.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&response[..head]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    Some((status, head + length.unwrap_or(0)))
}
