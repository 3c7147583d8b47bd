//! The gateway against nginx and HAProxy: the same requests to the same backends, in turn.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rand::rngs::SmallRng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Options;
use super::load::{Answers, Requests, closed_loop, open_loop};
use super::processes::cpu_of;
use super::proxies::{self, Backends, Proxy, Server};
use super::report::Report;

/// The names by which they are run.
pub const NAMES: [&str; 5] =
    ["gateway, GET", "gateway, POST", "gateway, GET, 64", "gateway, slow heads", "gateway, keys"];

/// Clients whose heads arrive byte by byte, and how long each takes for one.
const SLOW: usize = 1_000;
const SLOW_PAUSE: Duration = Duration::from_millis(200);
/// What the others ask for meanwhile, a second.
const STEADY_RATE: f64 = 5_000.0;

/// Clients that come once.
const KEYS: u64 = 1_000_000;

pub async fn run_all(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let home = std::env::temp_dir().join(format!("merch-store-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let result = run_in(&home, options, report).await;
    std::fs::remove_dir_all(&home)?;
    result
}

async fn run_in(home: &Path, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let backends = Backends::start(&info(), home)?;
    let [get, post, get_64, slow, keys] = NAMES;
    for (name, connections, requests) in [(get, 256, LOOK), (post, 256, SEND), (get_64, 64, LOOK)] {
        if options.wants(name) {
            against_peers(&backends, home, options, report, name, connections, requests).await?;
        }
    }
    if options.wants(slow) {
        slow_heads(&backends, home, options, report, slow).await?;
    }
    if options.wants(keys) {
        many_keys(&backends, home, report, keys).await?;
    }
    Ok(())
}

/// Each proxy in turn, and the backends without one, in a closed loop.
async fn against_peers(
    backends: &Backends,
    home: &Path,
    options: &Options,
    report: &mut Report,
    name: &str,
    connections: usize,
    request: &'static str,
) -> anyhow::Result<()> {
    let proxies = Proxy::ALL
        .map(|proxy| proxy.start(backends, home).with_context(|| format!("{proxy:?}")))
        .into_iter()
        .collect::<anyhow::Result<Vec<Server>>>()?;
    let period = Duration::from_secs(options.seconds);
    for server in &proxies {
        closed_loop(&[server.address], connections, Duration::from_secs(1), always(request)).await;
    }
    let mut direct = Vec::new();
    let mut rounds: [Vec<Measured>; 3] = Default::default();
    for _ in 0..options.rounds {
        let load = closed_loop(&backends.addresses, connections, period, always(request));
        direct.push(measured(None, backends, load).await);
        for (server, rounds) in proxies.iter().zip(&mut rounds) {
            let target = [server.address];
            let load = closed_loop(&target, connections, period, always(request));
            rounds.push(measured(Some(server), backends, load).await);
        }
    }

    report.add(name, "no proxy", "/s", &each(&direct, |it| it.answers.rate()));
    for (proxy, rounds) in Proxy::ALL.iter().zip(&rounds) {
        report.add(name, proxy.name(), "/s", &each(rounds, |it| it.answers.rate()));
    }
    for (proxy, rounds) in Proxy::ALL.iter().zip(&rounds) {
        let what = format!("{}'s processor time a request", proxy.name());
        report.add(name, &what, "us", &each(rounds, |it| it.us(it.proxy)));
    }
    let [gateway, peers @ ..] = &rounds;
    for (proxy, peer) in Proxy::ALL[1..].iter().zip(peers) {
        let pairs = || gateway.iter().zip(peer);
        let time = pairs().map(|(ours, peer)| ours.us(ours.proxy) / peer.us(peer.proxy));
        let what = format!("processor time, of {}'s", proxy.name());
        report.add(name, &what, "x", &time.collect::<Vec<f64>>());
        let rate = pairs().map(|(ours, peer)| ours.answers.rate() / peer.answers.rate());
        let what = format!("throughput, of {}'s", proxy.name());
        report.add(name, &what, "x", &rate.collect::<Vec<f64>>());
    }
    for (proxy, rounds) in Proxy::ALL.iter().zip(&rounds) {
        for (what, quantile) in [("p50", 0.50), ("p99", 0.99)] {
            let what = format!("{}, {what}", proxy.name());
            report.add(name, &what, "ms", &each(rounds, |it| it.answers.quantile(200, quantile)));
        }
    }
    for (proxy, rounds) in Proxy::ALL.iter().zip(&rounds) {
        let what = format!("{}, not answered with 200", proxy.name());
        report.add(name, &what, "", &each(rounds, |it| it.failures()));
    }
    for (proxy, server) in Proxy::ALL.iter().zip(&proxies) {
        report.add(name, &format!("{}'s memory", proxy.name()), "MiB", &[server.memory()]);
    }
    report.add(name, "the backends' time", "us", &each(gateway, |it| it.us(it.backends)));
    report.add(name, "load generator's", "us", &each(gateway, |it| it.us(it.generator)));
    Ok(())
}

/// A steady load while clients send their heads byte by byte and never come to an end, and
/// without them.
async fn slow_heads(
    backends: &Backends,
    home: &Path,
    options: &Options,
    report: &mut Report,
    name: &str,
) -> anyhow::Result<()> {
    let server = Proxy::Gateway.start(backends, home)?;
    let period = Duration::from_secs(options.seconds);
    let target = [server.address];
    let load = || open_loop(&target, 256, STEADY_RATE, period, always(LOOK));
    load().await;
    let (mut alone, mut among, mut ratios, mut failures) = (vec![], vec![], vec![], vec![]);
    let mut held = Vec::new();
    for _ in 0..options.rounds {
        let without = load().await;
        // On a thread of their own, so that they are not in the way of the load generator.
        let (address, while_loaded) = (server.address, period + Duration::from_secs(2));
        let slow = std::thread::spawn(move || crawl(address, while_loaded));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let with = load().await;
        held.push(slow.join().expect("no panic")? as f64);
        failures
            .push((without.total() + with.total() - without.count(200) - with.count(200)) as f64);
        ratios.push(with.quantile(200, 0.99) / without.quantile(200, 0.99));
        alone.push(without.quantile(200, 0.99));
        among.push(with.quantile(200, 0.99));
    }
    report.add(name, "p99 without them", "ms", &alone);
    report.add(name, &format!("p99 among {SLOW}"), "ms", &among);
    report.add(name, "p99, of that without", "x", &ratios);
    report.add(name, "slow ones held to the end", "", &held);
    report.add(name, "not answered with 200", "", &failures);
    Ok(())
}

/// Sends heads byte by byte on many connections for as long as `period`. Returns how many of
/// them were not closed.
#[tokio::main(flavor = "current_thread")]
async fn crawl(address: SocketAddr, period: Duration) -> std::io::Result<usize> {
    let mut clients = JoinSet::new();
    for number in 0..SLOW {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // Not all at the same moment.
            tokio::time::sleep(SLOW_PAUSE.mul_f64(number as f64 / SLOW as f64)).await;
            for byte in LOOK.trim_end().bytes().chain(std::iter::repeat(b'a')) {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(SLOW_PAUSE).await;
            }
            std::io::Result::Ok(())
        });
    }
    tokio::time::sleep(period).await;
    let ended = std::iter::from_fn(|| clients.try_join_next()).count();
    Ok(SLOW - ended)
}

/// Clients that come once each, told apart by a header.
async fn many_keys(
    backends: &Backends,
    home: &Path,
    report: &mut Report,
    name: &str,
) -> anyhow::Result<()> {
    let settings = [
        ("MERCH__LIMITS__KEY", "header"),
        ("MERCH__LIMITS__HEADER", "x-client"),
        ("MERCH__LIMITS__CAPACITY", "200"),
        ("MERCH__LIMITS__RATE_PER_SEC", "1"),
    ];
    let server = proxies::gateway(backends, home, &settings)?;
    let before = server.memory();
    let keys = Arc::new(AtomicU64::new(0));
    let (mut asked, mut answered, mut most) = (0, 0, 0.0_f64);
    while asked < KEYS {
        let keys = keys.clone();
        let requests = move |_: &mut SmallRng, buffer: &mut Vec<u8>| {
            let key = keys.fetch_add(1, Ordering::Relaxed);
            write!(
                buffer,
                "GET /small HTTP/1.1\r\nHost: shop\r\nX-Client: client-{key:012}\r\n\r\n"
            )
            .expect("a buffer takes everything");
        };
        let second = Duration::from_secs(1);
        let answers = closed_loop(&[server.address], 256, second, requests).await;
        asked += answers.total();
        answered += answers.count(200);
        most = most.max(server.memory());
    }
    report.add(name, "clients", "", &[asked as f64]);
    report.add(name, "not answered with 200", "", &[(asked - answered) as f64]);
    report.add(name, "memory before", "MiB", &[before]);
    report.add(name, "memory at most", "MiB", &[most]);
    Ok(())
}

/// Answers, and what they cost.
struct Measured {
    answers: Answers,
    proxy: Duration,
    backends: Duration,
    generator: Duration,
}

impl Measured {
    fn us(&self, cpu: Duration) -> f64 {
        cpu.as_micros() as f64 / self.answers.total().max(1) as f64
    }

    fn failures(&self) -> f64 {
        (self.answers.total() - self.answers.count(200)) as f64
    }
}

async fn measured(
    proxy: Option<&Server>,
    backends: &Backends,
    load: impl Future<Output = Answers>,
) -> Measured {
    let me = std::process::id();
    let times = || (proxy.map_or(Duration::ZERO, Server::cpu), backends.cpu(), cpu_of(me));
    let before = times();
    let answers = load.await;
    let after = times();
    Measured {
        answers,
        proxy: after.0 - before.0,
        backends: after.1 - before.1,
        generator: after.2 - before.2,
    }
}

fn each(rounds: &[Measured], value: impl Fn(&Measured) -> f64) -> Vec<f64> {
    rounds.iter().map(value).collect()
}

/// What the shop's clients send, with a token of the usual length.
const LOOK: &str = "GET /api/info HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\n\
    Accept: application/json\r\nAuthorization: Bearer \
    eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyMSIsImV4cCI6MTc2MzczNzYwMCwiaWQiOjF9\
    .vYc2xmY0l0VHkzbFJ3VnBaQ1ZqT2ZtR0hKc0xkUXh6dWk0\r\n\r\n";
const SEND: &str = "POST /small HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\n\
    Accept: application/json\r\nAuthorization: Bearer \
    eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyMSIsImV4cCI6MTc2MzczNzYwMCwiaWQiOjF9\
    .vYc2xmY0l0VHkzbFJ3VnBaQ1ZqT2ZtR0hKc0xkUXh6dWk0\r\n\
    Content-Type: application/json\r\nContent-Length: 34\r\n\r\n{\"toUser\":\"somebody\",\"amount\":100}";

fn always(request: &'static str) -> impl Requests {
    move |_: &mut SmallRng, buffer: &mut Vec<u8>| buffer.extend_from_slice(request.as_bytes())
}

/// What a person with a little history sees, 1.5 KiB of it.
fn info() -> String {
    let sent: Vec<String> = (0..40)
        .map(|number| format!("{{\"toUser\":\"colleague{number}\",\"amount\":10}}"))
        .collect();
    format!(
        "{{\"coins\":1000,\"inventory\":[],\"coinHistory\":{{\"received\":[],\"sent\":[{}]}}}}",
        sent.join(",")
    )
}
