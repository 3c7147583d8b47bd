//! The load generator: raw HTTP/1.1 over kept connections, closed or open loop.
//!
//! It does as little as it can, because its processor time is taken from what it measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

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
    /// Answers with status 200 in each second since the start.
    pub done_by_second: Vec<u64>,
}

impl Answers {
    fn new() -> Answers {
        Answers { elapsed: Duration::ZERO, by_status: BTreeMap::new(), done_by_second: Vec::new() }
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

    fn record(&mut self, status: u16, latency: Duration, since_start: Duration) {
        let latencies = self
            .by_status
            .entry(status)
            .or_insert_with(|| Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds"));
        latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if status == 200 {
            let second = usize::try_from(since_start.as_secs()).unwrap_or(usize::MAX);
            if self.done_by_second.len() <= second {
                self.done_by_second.resize(second + 1, 0);
            }
            self.done_by_second[second] += 1;
        }
    }

    fn merge(&mut self, other: Answers) {
        for (status, latencies) in other.by_status {
            match self.by_status.get_mut(&status) {
                Some(mine) => mine.add(latencies).expect("the same bounds"),
                None => drop(self.by_status.insert(status, latencies)),
            }
        }
        let seconds = self.done_by_second.len().max(other.done_by_second.len());
        self.done_by_second.resize(seconds, 0);
        for (second, done) in other.done_by_second.into_iter().enumerate() {
            self.done_by_second[second] += done;
        }
    }
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
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let (target, mut requests) = (targets[number % targets.len()], requests.clone());
        clients.spawn(async move {
            let mut answers = Answers::new();
            let mut rng = SmallRng::seed_from_u64(rand::random());
            let mut connection = Connection::new(target);
            while Instant::now() < end {
                connection.request.clear();
                requests.next(&mut rng, &mut connection.request);
                let asked = Instant::now();
                let status = connection.ask(end + Duration::from_secs(10)).await;
                answers.record(status, asked.elapsed(), start.elapsed());
            }
            answers
        });
    }
    join(start, clients).await
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
    let due = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let total = (rate * period.as_secs_f64()) as u64;
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let (target, mut requests) = (targets[number % targets.len()], requests.clone());
        let due = due.clone();
        clients.spawn(async move {
            let mut answers = Answers::new();
            let mut rng = SmallRng::seed_from_u64(rand::random());
            let mut connection = Connection::new(target);
            loop {
                let next = due.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if next >= total {
                    return answers;
                }
                let when = start + Duration::from_secs_f64(next as f64 / rate);
                connection.request.clear();
                requests.next(&mut rng, &mut connection.request);
                sleep_until(when).await;
                let status = connection.ask(when + Duration::from_secs(30)).await;
                answers.record(status, when.elapsed(), start.elapsed());
            }
        });
    }
    join(start, clients).await
}

async fn join(start: Instant, mut clients: JoinSet<Answers>) -> Answers {
    let mut all = Answers::new();
    while let Some(answers) = clients.join_next().await {
        all.merge(answers.expect("clients do not panic"));
    }
    all.elapsed = start.elapsed();
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
    async fn ask(&mut self, deadline: Instant) -> u16 {
        match timeout_at(deadline, self.exchange()).await {
            Ok(Ok(status)) => status,
            _ => {
                self.stream = None;
                0
            }
        }
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
