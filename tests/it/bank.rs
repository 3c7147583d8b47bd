//! Three replicas on one database, hundreds of clients at once: afterwards every coin is
//! where the acknowledgements say it is.

use std::collections::HashMap;

use merch_store::shop::CATALOGUE;
use merch_store::storage::Audit;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::support::shop::Bank;
use crate::support::{Person, Process, TestDatabase};

const REPLICAS: usize = 3;
const CLIENTS: usize = 300;
const REQUESTS_EACH: usize = 20;
const COINS: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_keep_every_coin_while_hundreds_trade_with_each_other() {
    trade(|rng, me| (me + rng.random_range(1..CLIENTS)) % CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_keep_every_coin_while_everybody_pays_the_same_person() {
    trade(|_, me| if me == 0 { 1 } else { 0 }).await;
}

/// What one client was told had been done.
#[derive(Default)]
struct Acknowledged {
    /// Recipient and amount.
    sent: Vec<(usize, i64)>,
    bought: HashMap<&'static str, i64>,
}

async fn trade(recipient: impl Fn(&mut StdRng, usize) -> usize + Copy + Send + 'static) {
    let database = TestDatabase::fresh().await;
    let people = Bank::open(&database, CLIENTS, COINS).await;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Process::patient_replica(database.url().as_str()).await);
    }

    let seed: u32 = rand::random();
    println!("seed {seed}");
    let mut clients = JoinSet::new();
    for me in 0..CLIENTS {
        let rng = StdRng::seed_from_u64(u64::from(seed) + me as u64);
        let replicas: Vec<Person> =
            replicas.iter().map(|replica| people[me].at(&replica.base)).collect();
        let names: Vec<String> = people.iter().map(|person| person.name.clone()).collect();
        clients.spawn(async move { (me, client(rng, me, &replicas, &names, recipient).await) });
    }
    let mut acknowledged: Vec<Acknowledged> = Vec::new();
    acknowledged.resize_with(CLIENTS, Acknowledged::default);
    while let Some(finished) = clients.join_next().await {
        let (me, did) = finished.unwrap();
        acknowledged[me] = did;
    }

    let mut expected = vec![COINS; CLIENTS];
    for (me, did) in acknowledged.iter().enumerate() {
        for (to, amount) in &did.sent {
            expected[me] -= amount;
            expected[*to] += amount;
        }
        expected[me] -= did.bought.iter().map(|(item, count)| price(item) * count).sum::<i64>();
    }
    for (me, person) in people.iter().enumerate() {
        let info = person.at(&replicas[me % REPLICAS].base).info().await;
        assert_eq!(info["coins"], expected[me], "{}", person.name);
        let owned: HashMap<&str, i64> = info["inventory"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["type"].as_str().unwrap(), entry["quantity"].as_i64().unwrap()))
            .collect();
        assert_eq!(owned, acknowledged[me].bought, "{}", person.name);
    }
    let transfers: usize = acknowledged.iter().map(|did| did.sent.len()).sum();
    let recorded = "SELECT count(*) FROM history WHERE from_id IS NOT NULL AND to_id IS NOT NULL";
    assert_eq!(database.number(recorded).await, transfers as i64);
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, [], "{:?}", audit.totals);
}

/// Sends, buys and looks, at one replica after another; nothing may fail.
async fn client(
    mut rng: StdRng,
    me: usize,
    replicas: &[Person],
    names: &[String],
    recipient: impl Fn(&mut StdRng, usize) -> usize,
) -> Acknowledged {
    let mut did = Acknowledged::default();
    for _ in 0..REQUESTS_EACH {
        let person = &replicas[rng.random_range(0..replicas.len())];
        match rng.random_range(0..3) {
            0 => {
                let (to, amount) = (recipient(&mut rng, me), rng.random_range(1..100));
                person.sends(&names[to], amount).await.is_done();
                did.sent.push((to, amount));
            }
            1 => {
                let (item, _) = CATALOGUE[rng.random_range(0..CATALOGUE.len())];
                person.buys(item).await.is_done();
                *did.bought.entry(item).or_default() += 1;
            }
            _ => {
                let info = person.info().await;
                let total = |side: &str| -> i64 {
                    let entries = info["coinHistory"][side].as_array().unwrap();
                    entries.iter().map(|entry| entry["amount"].as_i64().unwrap()).sum()
                };
                let spent: i64 = did.bought.iter().map(|(item, count)| price(item) * count).sum();
                // One snapshot: what came in and what went out is what the balance says.
                let received = info["coinHistory"]["received"].as_array().unwrap().len();
                if received < 100 {
                    let coins = COINS + total("received") - total("sent") - spent;
                    assert_eq!(info["coins"], coins, "{}: {info}", person.name);
                }
            }
        }
    }
    did
}

fn price(item: &str) -> i64 {
    CATALOGUE.iter().find(|(name, _)| *name == item).unwrap().1
}
