//! What a decision of the limiter costs, and what its buckets weigh.
//!
//! Nanoseconds a decision: of one client that asks again and again, of a million that take
//! turns (as many as there is room for, and twice as many), of one client on every core at
//! once, and of a client with a limit of its own among thousands. Then the memory of a
//! million clients' buckets.

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use futures::FutureExt;
use merch_store::limits::{ClientId, ClientKey, Limit, Limiter, LimiterOptions, Nat64};

use super::processes::memory_of_family;
use super::report::Report;

/// The name by which it is run.
pub const NAME: &str = "limiter";

const DECISIONS: usize = 1_000_000;
const ROUNDS: usize = 9;

/// As in the default settings.
const MOST_KEYS: usize = 450_000;

pub fn run(report: &mut Report) {
    merch_store::telemetry::metrics();
    let clients: Vec<ClientKey> = (0..1_000_000).map(client).collect();
    let before = memory_of_family(std::process::id());

    // Slow to refill, so that no bucket is forgotten and the table is as large as it gets.
    let full = limiter(Limit::new(200, 1).expect("a limit"));
    let rotating = nanoseconds(|number| decide(&full, &clients[number % clients.len()]));
    let after = memory_of_family(std::process::id());
    let within = nanoseconds(|number| decide(&full, &clients[number % (MOST_KEYS / 2)]));

    // As in the default settings: buckets come and go.
    let usual = limiter(Limit::new(200, 100).expect("a limit"));
    let hot = nanoseconds(|_| decide(&usual, &clients[0]));
    let passing = nanoseconds(|number| decide(&usual, &clients[number % clients.len()]));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let contended = at_once(cores, &usual, &clients[0]);

    let limits = (0..10_000).map(|number| {
        let id =
            ClientId::parse(&format!("2001:db8:1:{number:x}::"), &Nat64::default()).expect("an id");
        (id, Limit::new(200, 100).expect("a limit"))
    });
    usual.set_own(&limits.collect::<Vec<_>>());
    let owner = ClientKey::address("2001:db8:1:7::1".parse().expect("an address"));
    let own = nanoseconds(|_| decide(&usual, &owner));

    for (what, rounds) in [
        ("one client", hot),
        ("one client, all cores at once", contended),
        ("one of 10,000 limits of one's own", own),
        ("225,000 clients in turn, all held", within),
        ("1,000,000 clients, buckets refill", passing),
        ("1,000,000 clients, half overflow", rotating),
    ] {
        report.add(NAME, what, "ns", &rounds);
    }
    report.add(NAME, &format!("memory of {} buckets", full.keys()), "MiB", &[after - before]);
}

fn limiter(limit: Limit) -> Limiter {
    Limiter::new(LimiterOptions {
        default: Some(limit),
        most_keys: MOST_KEYS,
        shared: None,
        nat64: Nat64::default(),
    })
}

fn client(number: u32) -> ClientKey {
    let address = u128::from(number) << 64 | 0x2001_0db8 << 96;
    ClientKey::address(IpAddr::V6(Ipv6Addr::from_bits(address)))
}

/// Nothing is waited for where buckets are not shared.
fn decide(limiter: &Limiter, client: &ClientKey) {
    black_box(limiter.check(black_box(client)).now_or_never().expect("no waiting"));
}

/// Nanoseconds a decision, of each round.
fn nanoseconds(decide: impl Fn(usize)) -> Vec<f64> {
    (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..DECISIONS).for_each(&decide);
            started.elapsed().as_nanos() as f64 / DECISIONS as f64
        })
        .collect()
}

/// How long a thread waits for each decision while all `threads` ask for the same client.
fn at_once(threads: usize, limiter: &Limiter, client: &ClientKey) -> Vec<f64> {
    std::thread::scope(|scope| {
        let asking = || nanoseconds(|_| decide(limiter, client));
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(asking)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}
