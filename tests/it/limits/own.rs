//! Limits of clients' own, in each of the stores that they may live in.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use merch_store::limits::{
    Change, ClientId, ClientKey, Limit, Limiter, LimitsFile, Nat64, OwnLimits, Store, StoreError,
};
use merch_store::storage::Database;
use tempfile::TempDir;

use super::{limit, limiter};
use crate::support::redis::PATIENT;
use crate::support::{TestDatabase, TestRedis, eventually};

/// A store that any number of gateways may use.
enum Home {
    Postgres(TestDatabase),
    Redis(TestRedis),
    File(TempDir),
}

impl Home {
    async fn all() -> [Home; 3] {
        [
            Home::Postgres(TestDatabase::fresh().await),
            Home::Redis(TestRedis::start().await),
            Home::File(tempfile::tempdir().unwrap()),
        ]
    }

    fn name(&self) -> &str {
        match self {
            Home::Postgres(_) => "postgres",
            Home::Redis(_) => "redis",
            Home::File(_) => "file",
        }
    }

    /// A gateway's handle, as after a start.
    async fn open(&self) -> (OwnLimits, Limiter) {
        let store = match self {
            Home::Postgres(database) => Store::Postgres(Database::new(database.options()).into()),
            Home::Redis(redis) => Store::Redis(redis.link(PATIENT).await),
            Home::File(folder) => file(folder.path()),
        };
        let limiter = limiter(Some(limit(200, 100)), None);
        (OwnLimits::new(store, limiter.clone()), limiter)
    }
}

fn file(folder: &Path) -> Store {
    Store::File(LimitsFile::new(folder.to_owned()))
}

fn id(text: &str) -> ClientId {
    ClientId::parse(text, &Nat64::default()).unwrap()
}

fn address(text: &str) -> ClientKey {
    ClientKey::address(text.parse().unwrap())
}

async fn limit_of(limiter: &Limiter, client: &ClientKey) -> Limit {
    limiter.check(client).await.unwrap().limit
}

#[tokio::test]
async fn every_store_says_what_there_was_to_change() {
    for home in Home::all().await {
        let (own, _) = home.open().await;
        let alice = || id("alice");
        for (change, done, left) in [
            (Change::Update(alice(), limit(1, 1)), false, None),
            (Change::Delete(alice()), false, None),
            (Change::Create(alice(), limit(2, 3)), true, Some(limit(2, 3))),
            (Change::Create(alice(), limit(4, 5)), false, Some(limit(2, 3))),
            (Change::Update(alice(), limit(6, 7)), true, Some(limit(6, 7))),
            (Change::Put(alice(), limit(8, 9)), true, Some(limit(8, 9))),
            (Change::Put(id("bob"), limit(1_000_000, 1_000_000)), true, Some(limit(8, 9))),
            (Change::Delete(alice()), true, None),
        ] {
            let what = format!("{change:?} in {}", home.name());
            assert_eq!(own.change(change).await.unwrap(), done, "{what}");
            assert_eq!(own.get(&alice()).await.unwrap(), left, "{what}");
        }
        assert_eq!(own.get(&id("bob")).await.unwrap(), Some(limit(1_000_000, 1_000_000)));
    }
}

#[tokio::test]
async fn limits_are_listed_page_by_page_in_order() {
    for home in Home::all().await {
        let (own, _) = home.open().await;
        for number in [3, 1, 4, 5, 2] {
            let id = id(&format!("203.0.113.{number}"));
            own.change(Change::Create(id, limit(number, number))).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (page, more) = own.page(after.as_ref(), 2).await.unwrap();
            assert_eq!(page.len(), if more { 2 } else { 1 }, "{}", home.name());
            seen.extend(page.iter().map(|(_, limit)| limit.capacity()));
            after = page.last().map(|(id, _)| id.clone());
            if !more {
                break;
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5], "{}", home.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_here_at_once_and_everywhere_within_a_second() {
    for home in Home::all().await {
        let (here, limiter_here) = home.open().await;
        let (there, limiter_there) = home.open().await;
        let kept = there.clone();
        let keeping = tokio::spawn(async move { kept.keep().await });
        let client = address("203.0.113.7");
        assert_eq!(limit_of(&limiter_there, &client).await, limit(200, 100));
        let changes = [
            (Change::Create(id("203.0.113.7:890"), limit(10, 1)), limit(10, 1)),
            (Change::Update(id("203.0.113.7"), limit(20, 2)), limit(20, 2)),
            (Change::Delete(id("::ffff:203.0.113.7")), limit(200, 100)),
        ];
        for (change, expected) in changes {
            let what = format!("{change:?} in {}", home.name());
            assert!(here.change(change).await.unwrap(), "{what}");
            let since = Instant::now();
            assert_eq!(limit_of(&limiter_here, &client).await, expected, "{what}");
            eventually(&what, async || limit_of(&limiter_there, &client).await == expected).await;
            assert!(since.elapsed() < Duration::from_secs(1), "{what}: {:?}", since.elapsed());
        }
        keeping.abort();
    }
}

#[tokio::test]
async fn limits_are_there_again_after_a_restart() {
    for home in Home::all().await {
        let (own, _) = home.open().await;
        own.change(Change::Create(id("2001:db8::1"), limit(3, 4))).await.unwrap();
        drop(own);
        let (own, limiter) = home.open().await;
        own.refresh().await.unwrap();
        let neighbour = address("2001:db8::ffff");
        assert_eq!(limit_of(&limiter, &neighbour).await, limit(3, 4), "{}", home.name());
    }
}

#[tokio::test]
async fn one_of_many_who_create_the_same_limit_at_once_does() {
    for home in Home::all().await {
        let mut gateways = Vec::new();
        for _ in 0..4 {
            gateways.push(home.open().await.0);
        }
        let creating = gateways
            .iter()
            .zip(1..)
            .map(|(own, number)| own.change(Change::Create(id("alice"), limit(number, number))));
        let created = futures::future::join_all(creating).await;
        let created = created.into_iter().filter(|done| *done.as_ref().unwrap()).count();
        assert_eq!(created, 1, "{}", home.name());
    }
}

#[tokio::test]
async fn a_change_of_a_limit_gives_back_nothing_that_was_spent() {
    let home = Home::File(tempfile::tempdir().unwrap());
    let (own, limiter) = home.open().await;
    let client = address("203.0.113.7");
    own.change(Change::Create(id("203.0.113.7"), limit(5, 1))).await.unwrap();
    let left = limiter.check(&client).await.unwrap().remaining;
    assert_eq!(left, 4);
    own.change(Change::Update(id("203.0.113.7"), limit(3, 1))).await.unwrap();
    own.change(Change::Create(id("somebody else"), limit(1, 1))).await.unwrap();
    assert_eq!(limiter.check(&client).await.unwrap().remaining, 1);
}

#[tokio::test]
async fn with_no_limit_for_everybody_only_those_with_their_own_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(None, None);
    let own = OwnLimits::new(file(folder.path()), limiter.clone());
    own.change(Change::Create(id("203.0.113.7"), limit(1, 1))).await.unwrap();
    for _ in 0..10 {
        assert_eq!(limiter.check(&address("203.0.113.8")).await, None);
    }
    assert!(limiter.check(&address("203.0.113.7")).await.unwrap().allowed);
    assert!(!limiter.check(&address("203.0.113.7")).await.unwrap().allowed);
}

#[tokio::test]
async fn while_the_store_is_away_what_was_known_stays_in_force() {
    let mut redis = TestRedis::start().await;
    let link = redis.link(PATIENT).await;
    let limiter = limiter(Some(limit(200, 100)), None);
    let own = OwnLimits::new(Store::Redis(link.clone()), limiter.clone());
    own.change(Change::Create(id("203.0.113.7"), limit(7, 7))).await.unwrap();
    redis.dies();
    assert!(own.get(&id("203.0.113.7")).await.is_err());
    assert!(own.change(Change::Delete(id("203.0.113.7"))).await.is_err());
    assert_eq!(limit_of(&limiter, &address("203.0.113.7")).await, limit(7, 7));
}

#[tokio::test]
async fn a_process_that_was_killed_while_it_wrote_leaves_the_limits_before() {
    let home = Home::File(tempfile::tempdir().unwrap());
    let Home::File(folder) = &home else { unreachable!() };
    let (own, _) = home.open().await;
    own.change(Change::Create(id("alice"), limit(3, 4))).await.unwrap();
    // What it leaves: half a draft, and a lock that nobody holds any more.
    fs::write(folder.path().join("limits.json.new"), "{\"limits\": [{\"client_").unwrap();
    let (own, _) = home.open().await;
    assert_eq!(own.get(&id("alice")).await.unwrap(), Some(limit(3, 4)));
    own.change(Change::Update(id("alice"), limit(5, 6))).await.unwrap();
    assert_eq!(home.open().await.0.get(&id("alice")).await.unwrap(), Some(limit(5, 6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_file_finds_all_of_one_version() {
    let folder = tempfile::tempdir().unwrap();
    let writer = OwnLimits::new(file(folder.path()), limiter(None, None));
    let reader = OwnLimits::new(file(folder.path()), limiter(None, None));
    let writing = tokio::spawn(async move {
        for number in 1..100 {
            let change = Change::Put(id(&format!("client {number:03}")), limit(number, number));
            assert!(writer.change(change).await.unwrap());
        }
    });
    let mut most = 0;
    while !writing.is_finished() {
        let (page, _) = reader.page(None, 1000).await.unwrap();
        assert!(page.len() >= most, "{} after {most}", page.len());
        most = page.len();
    }
    writing.await.unwrap();
    assert_eq!(reader.page(None, 1000).await.unwrap().0.len(), 99);
}

#[tokio::test]
async fn a_damaged_file_is_never_written_over() {
    for damage in
        ["", "{", "{\"limits\": [{\"client_id\": \"a\", \"capacity\": 0, \"rate_per_sec\": 1}]}"]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("limits.json"), damage).unwrap();
        let own = OwnLimits::new(file(folder.path()), limiter(None, None));
        let refused = own.change(Change::Put(id("alice"), limit(1, 1))).await.unwrap_err();
        assert!(refused.to_string().contains("cannot be read"), "{damage}: {refused}");
        assert!(matches!(own.refresh().await, Err(StoreError::Broken(_))), "{damage}");
        assert_eq!(fs::read_to_string(folder.path().join("limits.json")).unwrap(), damage);
    }
}
