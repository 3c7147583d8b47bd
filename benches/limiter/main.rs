//! What a decision of the limiter costs, and what its buckets weigh.
//!
//!     cargo bench --bench limiter
//!
//! Prints nanoseconds a decision, the median of several rounds: of one client that asks again
//! and again, of a million that take turns (as many as there is room for, and twice as many),
//! of one client on every core at once, and of a client with a limit of its own among
//! thousands. Then the memory of the process after a million clients.

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use futures::FutureExt;
use merch_store::limits::{ClientId, ClientKey, Limit, Limiter, LimiterOptions};

// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DECISIONS: usize = 1_000_000;
const ROUNDS: usize = 9;

/// As in the default settings.
const MOST_KEYS: usize = 450_000;

fn main() {
    merch_store::telemetry::metrics();
    let clients: Vec<ClientKey> = (0..1_000_000).map(client).collect();
    let before = resident_mib();

    // Slow to refill, so that no bucket is forgotten and the table is as large as it gets.
    let full = limiter(Limit::new(200, 1).expect("a limit"));
    let rotating = nanoseconds(|number| decide(&full, &clients[number % clients.len()]));
    let after = resident_mib();
    let within = nanoseconds(|number| decide(&full, &clients[number % (MOST_KEYS / 2)]));

    // As in the default settings: buckets come and go.
    let usual = limiter(Limit::new(200, 100).expect("a limit"));
    let hot = nanoseconds(|_| decide(&usual, &clients[0]));
    let passing = nanoseconds(|number| decide(&usual, &clients[number % clients.len()]));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let contended = at_once(cores, &usual, &clients[0]);

    let limits = (0..10_000).map(|number| {
        let id = ClientId::parse(&format!("2001:db8:1:{number:x}::")).expect("an id");
        (id, Limit::new(200, 100).expect("a limit"))
    });
    usual.set_own(&limits.collect::<Vec<_>>());
    let owner = ClientKey::address("2001:db8:1:7::1".parse().expect("an address"));
    let own = nanoseconds(|_| decide(&usual, &owner));

    println!("{hot:>6} ns  one client");
    println!("{contended:>6} ns  one client, on each of {cores} cores at once");
    println!("{own:>6} ns  one client with one of 10,000 limits of clients' own");
    println!("{within:>6} ns  225,000 clients in turn, all held");
    println!("{passing:>6} ns  1,000,000 clients in turn, forgotten when their buckets are full");
    println!("{rotating:>6} ns  1,000,000 clients in turn, half of whom share the overflow");
    println!("{:>6} MiB for {} buckets", after - before, full.keys());
}

fn limiter(limit: Limit) -> Limiter {
    Limiter::new(LimiterOptions { default: Some(limit), most_keys: MOST_KEYS, shared: None })
}

fn client(number: u32) -> ClientKey {
    let address = u128::from(number) << 64 | 0x2001_0db8 << 96;
    ClientKey::address(IpAddr::V6(Ipv6Addr::from_bits(address)))
}

/// Nothing is waited for where buckets are not shared.
fn decide(limiter: &Limiter, client: &ClientKey) {
    black_box(limiter.check(black_box(client)).now_or_never().expect("no waiting"));
}

fn nanoseconds(decide: impl Fn(usize)) -> u128 {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..DECISIONS).for_each(&decide);
            started.elapsed().as_nanos() / DECISIONS as u128
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// How long a thread waits for each decision while all `threads` ask for the same client.
fn at_once(threads: usize, limiter: &Limiter, client: &ClientKey) -> u128 {
    std::thread::scope(|scope| {
        let asking = || nanoseconds(|_| decide(limiter, client));
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(asking)).collect();
        let each = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        each.max().unwrap_or_default()
    })
}

/// Memory of this process; 0 where the system does not say.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
