//! The scenarios, one function each.

use std::io::Write;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use merch_store::shop::CATALOGUE;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::Options;
use super::load::{Answers, Requests, closed_loop, open_loop};
use super::peer::{self, Script};
use super::processes::cpu_of;
use super::report::Report;
use super::world::{PASSWORD, PEOPLE, Replica, World};

/// Connections of a closed loop.
pub const CONNECTIONS: usize = 256;
/// People whose `/api/info` is asked for; they have 100 transfers each way.
pub const READERS: u32 = 2_000;

/// People with 100 transfers each way while the history of the others grows.
const WATCHED: u32 = 50;
/// A scenario of the mixed load: requests a second.
const MIXED_RATE: f64 = 1000.0;
/// People who log in for the first time, a second.
const NEWCOMERS: f64 = 50.0;

/// The names by which they are run.
pub const NAMES: [&str; 8] =
    ["uniform", "hot", "replicas", "mixed", "overload", "logins", "info", "growth"];

pub async fn run_all(world: &World, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    peer::prepare(world).await?;
    let wanted = |name| options.wants(name);
    if wanted("uniform") {
        let peer = Script::Uniform;
        against_peer(world, options, report, "uniform", peer, &[], uniform(world)).await?;
    }
    if wanted("hot") {
        against_peer(world, options, report, "hot", Script::Hot, &[], hot(world)).await?;
    }
    if wanted("replicas") {
        two_replicas(world, options, report, "replicas, uniform", uniform(world)).await?;
        two_replicas(world, options, report, "replicas, hot", hot(world)).await?;
    }
    if wanted("mixed") {
        mixed(world, options, report).await?;
    }
    if wanted("overload") {
        overload(world, report).await?;
    }
    if wanted("logins") {
        logins(world, options, report).await?;
    }
    if wanted("info") {
        give_history(world, READERS).await?;
        let peer = Script::Info;
        against_peer(world, options, report, "info", peer, &[], info(world)).await?;
        let forgetful = [("MERCH__INFO__CACHE_BYTES", "0")];
        let name = "info, nothing kept";
        against_peer(world, options, report, name, peer, &forgetful, info(world)).await?;
    }
    if wanted("growth") {
        growth(world, options, report).await?;
    }
    Ok(())
}

/// Two replicas against one, on the same database, in turn.
async fn two_replicas(
    world: &World,
    options: &Options,
    report: &mut Report,
    name: &str,
    requests: impl Requests,
) -> anyhow::Result<()> {
    let (first, second) = (world.replica(&[])?, world.replica(&[])?);
    let (one, two) = ([first.address], [first.address, second.address]);
    let period = Duration::from_secs(options.seconds);
    closed_loop(&two, CONNECTIONS, Duration::from_secs(1), requests.clone()).await;
    let (mut alone, mut together, mut ratios, mut failures) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.rounds {
        let one = closed_loop(&one, CONNECTIONS, period, requests.clone()).await;
        let two = closed_loop(&two, CONNECTIONS, period, requests.clone()).await;
        ratios.push(two.rate() / one.rate());
        failures.push((two.total() - two.count(200)) as f64);
        alone.push(one.rate());
        together.push(two.rate());
    }
    report.add(name, "one replica", "/s", &alone);
    report.add(name, "two replicas", "/s", &together);
    report.add(name, "ratio", "x", &ratios);
    report.add(name, "not answered with 200", "", &failures);
    Ok(())
}

/// Info, purchases and transfers in equal parts at a fixed rate; then the same while people
/// log in for the first time.
async fn mixed(world: &World, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let replica = world.replica(&[])?;
    let targets = [replica.address];
    let period = Duration::from_secs(options.seconds * 3);
    let load = || open_loop(&targets, CONNECTIONS, MIXED_RATE, period, thirds(world));
    load().await;
    let answers = load().await;
    report_mixed(report, "mixed", &answers);

    let newcomers = open_loop(&targets, CONNECTIONS, NEWCOMERS, period, newcomer());
    let (answers, newcomers) = tokio::join!(load(), newcomers);
    report_mixed(report, "mixed, newcomers", &answers);
    let percent = 100.0 * newcomers.count(200) as f64 / newcomers.total() as f64;
    report.add("mixed, newcomers", "newcomers let in", "%", &[percent]);
    report.add("mixed, newcomers", "newcomers, p99", "ms", &[newcomers.quantile(200, 0.99)]);
    Ok(())
}

fn report_mixed(report: &mut Report, name: &str, answers: &Answers) {
    let percent = 100.0 * answers.count(200) as f64 / answers.total() as f64;
    report.add(name, "rate", "/s", &[answers.rate()]);
    report.add(name, "answered", "%", &[percent]);
    for (what, quantile) in [("p50", 0.50), ("p99", 0.99), ("p99.9", 0.999)] {
        report.add(name, what, "ms", &[answers.quantile(200, quantile)]);
    }
}

/// Twice what it can carry for half a minute, then half of it.
async fn overload(world: &World, report: &mut Report) -> anyhow::Result<()> {
    const WHILE: Duration = Duration::from_secs(30);
    // Enough that the load does not wait for answers that come within the limits.
    const PLENTY: usize = 4_000;
    let replica = world.replica(&[])?;
    let targets = [replica.address];
    closed_loop(&targets, CONNECTIONS, Duration::from_secs(2), uniform(world)).await;
    let peak = closed_loop(&targets, CONNECTIONS, Duration::from_secs(4), uniform(world)).await;
    let rate = 2.0 * peak.rate();
    let load = || open_loop(&targets, PLENTY, rate, WHILE, uniform(world));
    let twice = measured(world, slice::from_ref(&replica), load).await;
    let (shop, postgres, generator) =
        (twice.us(twice.shop), twice.us(twice.postgres), twice.us(twice.generator));
    let twice = twice.answers;
    let calm = Duration::from_secs(8);
    let after = open_loop(&targets, CONNECTIONS, peak.rate() / 2.0, calm, uniform(world)).await;
    let normal = Duration::from_millis(25);
    let name = "overload";
    report.add(name, "peak", "/s", &[peak.rate()]);
    report.add(name, "offered", "/s", &[rate]);
    report.add(name, "goodput", "/s", &[twice.rate()]);
    report.add(name, "goodput of the peak", "%", &[100.0 * twice.rate() / peak.rate()]);
    report.add(name, "refusals", "/s", &[twice.count(503) as f64 / twice.elapsed.as_secs_f64()]);
    report.add(name, "broken connections", "", &[twice.count(0) as f64]);
    report.add(name, "refused, p99", "ms", &[twice.quantile(503, 0.99)]);
    report.add(name, "accepted, p99", "ms", &[twice.quantile(200, 0.99)]);
    report.add(name, "accepted, p50", "ms", &[twice.quantile(200, 0.50)]);
    report.add(name, "afterwards, p99", "ms", &[after.quantile(200, 0.99)]);
    report.add(name, "p99 below 25 ms again after", "s", &[after.calm_after(0.99, normal)]);
    report.add(name, "shop's processor time a request", "us", &[shop]);
    report.add(name, "PostgreSQL's", "us", &[postgres]);
    report.add(name, "load generator's", "us", &[generator]);

    // The replica that went through this goes through the rest as well.
    let second = Duration::from_secs(1);
    closed_loop(&targets, CONNECTIONS, second, hot(world)).await;
    closed_loop(&targets, CONNECTIONS, second, looks(world)).await;
    closed_loop(&targets, 32, second, known()).await;
    report.add(name, "resident memory after all of it", "MiB", &[replica.resident_mib()]);
    open_loop(&targets, CONNECTIONS, MIXED_RATE, WHILE / 2, thirds(world)).await;
    report.add(name, "resident memory 15 s later", "MiB", &[replica.resident_mib()]);
    Ok(())
}

/// Known people who log in again.
async fn logins(world: &World, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let replica = world.replica(&[])?;
    let targets = [replica.address];
    let period = Duration::from_secs(options.seconds);
    closed_loop(&targets, 32, Duration::from_secs(6), known()).await;
    let answers = closed_loop(&targets, 32, period, known()).await;
    report.add("logins", "repeat logins of 200 people", "/s", &[answers.rate()]);
    report.add("logins", "p99", "ms", &[answers.quantile(200, 0.99)]);
    Ok(())
}

/// What buying and looking cost at ten thousand rows of history and at ten million.
async fn growth(world: &World, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    give_history(world, WATCHED).await?;
    let mut costs = Vec::new();
    for rows in [10_000, 10_000_000] {
        fill_history(world, rows).await?;
        let replica = world.replica(&[])?;
        let targets = [replica.address];
        let period = Duration::from_secs(options.seconds);
        let mut of = Vec::new();
        for (what, requests) in [("buy", purchases(world)), ("info", watched(world))] {
            closed_loop(&targets, 32, Duration::from_secs(1), requests.clone()).await;
            let mut each = Vec::new();
            for _ in 0..options.rounds {
                let run = || closed_loop(&targets, 32, period, requests.clone());
                let measured = measured(world, slice::from_ref(&replica), run).await;
                each.push(measured.us(measured.shop) + measured.us(measured.postgres));
            }
            report.add("growth", &format!("{what}, {rows} rows"), "us", &each);
            each.sort_by(f64::total_cmp);
            of.push(each[each.len() / 2]);
        }
        costs.push(of);
    }
    report.add("growth", "buy, ratio", "x", &[costs[1][0] / costs[0][0]]);
    report.add("growth", "info, ratio", "x", &[costs[1][1] / costs[0][1]]);
    Ok(())
}

/// The shop in a closed loop against pgbench at its best, in turn.
async fn against_peer(
    world: &World,
    options: &Options,
    report: &mut Report,
    name: &str,
    script: Script,
    settings: &[(&str, &str)],
    requests: impl Requests,
) -> anyhow::Result<()> {
    let replica = world.replica(settings)?;
    let targets = [replica.address];
    let period = Duration::from_secs(options.seconds);
    closed_loop(&targets, CONNECTIONS, Duration::from_secs(1), requests.clone()).await;
    let mut best_clients = 0;
    let mut best_rate = 0.0;
    for clients in peer::CLIENTS {
        let result = peer::run(world, script, clients, 2, READERS).await?;
        if result.rate > best_rate {
            (best_clients, best_rate) = (result.clients, result.rate);
        }
    }

    let mut rounds = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(
            measured(world, slice::from_ref(&replica), || {
                closed_loop(&targets, CONNECTIONS, period, requests.clone())
            })
            .await,
        );
        peers.push(peer::run(world, script, best_clients, options.seconds, READERS).await?);
    }

    let each = |value: &dyn Fn(&Measured) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    report.add(name, "shop", "/s", &each(&|it| it.answers.rate()));
    report.add(
        name,
        &format!("pgbench, {best_clients} clients"),
        "/s",
        &peers.iter().map(|it| it.rate).collect::<Vec<f64>>(),
    );
    report.add(
        name,
        "pgbench, failed",
        "%",
        &peers.iter().map(|it| it.failed_percent).collect::<Vec<f64>>(),
    );
    let ratios = rounds.iter().zip(&peers).map(|(ours, peer)| ours.answers.rate() / peer.rate);
    report.add(name, "ratio", "x", &ratios.collect::<Vec<f64>>());
    report.add(
        name,
        "shop, not answered with 200",
        "",
        &each(&|it| (it.answers.total() - it.answers.count(200)) as f64),
    );
    report.add(name, "shop, p50", "ms", &each(&|it| it.answers.quantile(200, 0.50)));
    report.add(name, "shop, p99", "ms", &each(&|it| it.answers.quantile(200, 0.99)));
    report.add(name, "shop's processor time a request", "us", &each(&|it| it.us(it.shop)));
    report.add(name, "PostgreSQL's", "us", &each(&|it| it.us(it.postgres)));
    report.add(name, "load generator's", "us", &each(&|it| it.us(it.generator)));
    report.add(name, "resident memory", "MiB", &[replica.resident_mib()]);
    Ok(())
}

/// Answers, and what they cost.
pub struct Measured {
    pub answers: Answers,
    pub shop: Duration,
    pub postgres: Duration,
    pub generator: Duration,
}

impl Measured {
    /// Of so much processor time, what each request had, in microseconds.
    pub fn us(&self, cpu: Duration) -> f64 {
        cpu.as_micros() as f64 / self.answers.total().max(1) as f64
    }
}

pub async fn measured<F: Future<Output = Answers>>(
    world: &World,
    replicas: &[Replica],
    load: impl FnOnce() -> F,
) -> Measured {
    let me = std::process::id();
    let shop = || replicas.iter().map(Replica::cpu).sum::<Duration>();
    let before = (shop(), world.postgres_cpu(), cpu_of(me));
    let answers = load().await;
    Measured {
        answers,
        shop: shop() - before.0,
        postgres: world.postgres_cpu() - before.1,
        generator: cpu_of(me) - before.2,
    }
}

/// Transfers and purchases, half each, everybody with everybody.
pub fn uniform(world: &World) -> impl Requests + use<> {
    let tokens = world.tokens.clone();
    move |rng: &mut SmallRng, buffer: &mut Vec<u8>| {
        let me = rng.random_range(0..PEOPLE);
        if rng.random() {
            let to = (me + rng.random_range(1..PEOPLE)) % PEOPLE;
            send(buffer, &tokens, me, to + 1);
        } else {
            let (item, _) = CATALOGUE[rng.random_range(0..CATALOGUE.len())];
            get(buffer, &tokens, me, &format!("/api/buy/{item}"));
        }
    }
}

/// Transfers from anybody to user 1.
pub fn hot(world: &World) -> impl Requests + use<> {
    let tokens = world.tokens.clone();
    move |rng: &mut SmallRng, buffer: &mut Vec<u8>| {
        send(buffer, &tokens, rng.random_range(1..PEOPLE), 1);
    }
}

pub fn info(world: &World) -> impl Requests + use<> {
    let tokens = world.tokens.clone();
    move |rng: &mut SmallRng, buffer: &mut Vec<u8>| {
        get(buffer, &tokens, rng.random_range(0..READERS), "/api/info");
    }
}

/// Info, purchases and transfers in equal parts.
fn thirds(world: &World) -> impl Requests {
    let (mut moves, mut looks) = (uniform(world), looks(world));
    move |rng: &mut SmallRng, buffer: &mut Vec<u8>| {
        if rng.random_range(0..3) == 0 {
            looks.next(rng, buffer);
        } else {
            moves.next(rng, buffer);
        }
    }
}

/// Somebody looks at what is theirs, or buys something: which of the two, `path` says.
#[derive(Clone)]
struct Gets {
    people: u32,
    tokens: Arc<Vec<String>>,
    path: Option<&'static str>,
}

impl Requests for Gets {
    fn next(&mut self, rng: &mut SmallRng, buffer: &mut Vec<u8>) {
        let me = rng.random_range(0..self.people);
        match self.path {
            Some(path) => get(buffer, &self.tokens, me, path),
            None => {
                let (item, _) = CATALOGUE[rng.random_range(0..CATALOGUE.len())];
                get(buffer, &self.tokens, me, &format!("/api/buy/{item}"));
            }
        }
    }
}

fn looks(world: &World) -> Gets {
    Gets { people: PEOPLE, tokens: world.tokens.clone(), path: Some("/api/info") }
}

fn purchases(world: &World) -> Gets {
    Gets { people: PEOPLE, tokens: world.tokens.clone(), path: None }
}

/// Somebody whom nobody has seen before.
fn newcomer() -> impl Requests {
    |_: &mut SmallRng, buffer: &mut Vec<u8>| {
        log_in(buffer, &format!("newcomer {:016x}", rand::random::<u64>()), PASSWORD);
    }
}

/// One of 200 people logs in again.
fn known() -> impl Requests {
    |rng: &mut SmallRng, buffer: &mut Vec<u8>| {
        log_in(buffer, &format!("user{}", rng.random_range(1..=200)), PASSWORD);
    }
}

fn log_in(buffer: &mut Vec<u8>, username: &str, password: &str) {
    let body = format!("{{\"username\":\"{username}\",\"password\":\"{password}\"}}");
    write!(
        buffer,
        "POST /api/auth HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a buffer takes everything");
}

/// Those whose history stays as it is look at what is theirs.
fn watched(world: &World) -> Gets {
    Gets { people: WATCHED, ..looks(world) }
}

/// Writes `GET path` of the person with this index.
fn get(buffer: &mut Vec<u8>, tokens: &Arc<Vec<String>>, me: u32, path: &str) {
    let token = &tokens[me as usize];
    write!(buffer, "GET {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\r\n")
        .expect("a buffer takes everything");
}

/// Writes a transfer of one coin from the person with this index to user number `to`.
fn send(buffer: &mut Vec<u8>, tokens: &Arc<Vec<String>>, me: u32, to: u32) {
    let token = &tokens[me as usize];
    let body = format!("{{\"toUser\":\"user{to}\",\"amount\":1}}");
    write!(
        buffer,
        "POST /api/sendCoin HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a buffer takes everything");
}

/// 100 transfers each way for the first so many people, in mixed order. Releases from before the
/// head of the log number their rows by a sequence.
pub async fn give_history(world: &World, readers: u32) -> anyhow::Result<()> {
    world
        .execute(&format!(
            "INSERT INTO history (id, from_id, to_id, amount) OVERRIDING SYSTEM VALUE
             SELECT newest + row_number() OVER (ORDER BY step, reader),
                    1 + reader % {readers}, 1 + (reader + 1 + step % ({readers} - 1)) % {readers}, 1
             FROM (SELECT coalesce(max(id), 0) AS newest FROM history) AS log,
                  generate_series(1, 100) AS step, generate_series(1, {readers}) AS reader;
             SELECT setval(pg_get_serial_sequence('history', 'id'), max(id)) FROM history;
             DO $$ BEGIN
                 IF to_regclass('log_head') IS NOT NULL THEN
                     UPDATE log_head SET id = (SELECT max(id) FROM history);
                 END IF;
             END $$;
             ANALYZE history"
        ))
        .await
}

/// Fills the history up to so many rows, all of them other people's than the watched. The rows
/// are for their number: no balance knows of them, and their foreign keys are true without being
/// checked.
async fn fill_history(world: &World, rows: u64) -> anyhow::Result<()> {
    let others = PEOPLE - WATCHED;
    world
        .execute(&format!(
            "SET session_replication_role = replica;
             INSERT INTO history (id, from_id, to_id, amount)
             SELECT log_head.id + row_number() OVER (),
                    {WATCHED} + 1 + number % {others}, {WATCHED} + 1 + (number * 7919 + 1) % {others}, 1
             FROM log_head,
                  generate_series(1::int8, {rows} - (SELECT count(*) FROM history)) AS number
             WHERE number % {others} <> (number * 7919 + 1) % {others};
             UPDATE log_head SET id = (SELECT max(id) FROM history)"
        ))
        .await?;
    world.execute("VACUUM ANALYZE history").await
}
