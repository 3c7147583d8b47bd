//! The database's address leads to another server: the shop leaves the old one, whether that
//! says so or only stops taking writes.

use std::process::Command;

use merch_store::data_folder::DataFolder;
use merch_store::private_postgres::PrivatePostgres;
use merch_store::storage::{Audit, DatabaseOptions};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::database::TestRole;
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::{Bank, Replica};
use crate::support::{TestDatabase, TestShop, eventually};

/// Two servers with the same shop in them, as a primary and its successor are, and a proxy
/// that leads to the first.
struct Pair {
    _home: tempfile::TempDir,
    folders: [DataFolder; 2],
    servers: [PrivatePostgres; 2],
    proxy: Proxy,
}

impl Pair {
    async fn start(people: usize) -> (Pair, Replica) {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let first = DataFolder::take(&path("first")).unwrap();
        let server = PrivatePostgres::start(&first).await.unwrap();
        let mut shop = Replica::start(&server.url()).await;
        shop.seed(people, 1000).await;
        let people = std::mem::take(&mut shop.people);
        shop.stop().await;
        server.stop().await;

        let second = DataFolder::take(&path("second")).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(path("first").join("postgres")).arg(path("second"));
        assert!(copy.status().unwrap().success());
        let servers = [
            PrivatePostgres::start(&first).await.unwrap(),
            PrivatePostgres::start(&second).await.unwrap(),
        ];
        let proxy = Proxy::start(&servers[0].url().parse().unwrap()).await;
        let mut shop = Replica::start(&through(&servers[0], &proxy)).await;
        shop.people = people.iter().map(|person| person.at(shop.base())).collect();
        (Pair { _home: home, folders: [first, second], servers, proxy }, shop)
    }

    async fn execute(&self, server: usize, sql: &str) {
        let mut connection = PgConnection::connect(&self.servers[server].url()).await.unwrap();
        for statement in sql.split(';') {
            let running = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection);
            running.await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// The first server takes no more writes, and keeps its connections.
    async fn first_turns_read_only(&self) {
        let read_only = "ALTER SYSTEM SET default_transaction_read_only = on;
                         SELECT pg_reload_conf()";
        self.execute(0, read_only).await;
    }

    fn moves_on(&self) {
        self.proxy.leads_to(&self.servers[1].url().parse::<Url>().unwrap());
    }

    async fn is_honest(&self) {
        let options = DatabaseOptions::from_url(&self.servers[1].url()).unwrap();
        assert_eq!(Audit::run(&options).await.unwrap().lies, []);
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
        drop(self.folders);
    }
}

/// The URL of `server` by way of `proxy`.
fn through(server: &PrivatePostgres, proxy: &Proxy) -> String {
    let mut url: Url = server.url().parse().unwrap();
    url.set_query(Some("sslmode=disable"));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.port())).unwrap();
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_go_on_at_the_new_primary_after_the_old_one_turned_read_only() {
    let (pair, shop) = Pair::start(2).await;
    let alice = shop.people[0].clone();
    // Both servers hear of this one, as they would of everything.
    alice.buys("cup").await.is_done();
    let paid = "UPDATE balance SET coins = coins - 20, version = version + 1 WHERE user_id = 1;
                INSERT INTO inventory VALUES (1, 2, 1);
                INSERT INTO history (from_id, item_id, amount) VALUES (1, 2, 20)";
    pair.execute(1, paid).await;

    pair.first_turns_read_only().await;
    pair.moves_on();
    eventually("purchases are possible again", async || {
        let reply = alice.buys_once("pen", "one pen").await;
        assert!([200, 503].contains(&reply.status.as_u16()), "{reply:?}");
        reply.status == 200
    })
    .await;
    assert_eq!(alice.coins().await, 970, "paid once, at the new server");
    alice.sends("user2", 70).await.is_done();
    pair.is_honest().await;
    shop.stop().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_comes_from_the_new_primary_although_nobody_writes() {
    let (pair, shop) = Pair::start(2).await;
    let alice = shop.people[0].clone();
    assert_eq!(alice.coins().await, 1000);
    // Something else happened there, as often as here: the versions are the same.
    alice.sends("user2", 1).await.is_done();
    assert_eq!(alice.coins().await, 999);
    let sent = "UPDATE balance SET coins = coins + 7 * (2 * user_id - 3), version = version + 1;
                INSERT INTO history (from_id, to_id, amount) VALUES (1, 2, 7)";
    pair.execute(1, sent).await;

    pair.first_turns_read_only().await;
    pair.moves_on();
    eventually("the new server is read from", async || {
        let reply = alice.gets("/api/info").await;
        reply.status == 200 && reply.json()["coins"] == 993
    })
    .await;
    shop.is_ready().await;
    shop.stop().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_no_primary_everybody_is_told_so_at_once() {
    let (pair, shop) = Pair::start(2).await;
    let alice = shop.people[0].clone();
    pair.first_turns_read_only().await;
    shop.is_not_ready().await;
    for reply in [alice.buys("pen").await, alice.gets("/api/info").await] {
        reply.is_error(503, "database_away");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    pair.moves_on();
    shop.is_ready().await;
    alice.buys("pen").await.is_done();
    shop.stop().await;
    pair.stop().await;
}

#[tokio::test]
async fn a_server_that_says_that_it_is_none_any_more_is_left_at_every_statement() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let mut sent = 0;
    for sqlstate in ["25006", "57P01", "57P02", "57P03", "08006", "26000"] {
        for stage in [Stage::Begin, Stage::Fetch, Stage::Write, Stage::Commit] {
            proxy.inject(stage, Fault::Raise(sqlstate));
            let reply = alice.sends_once("bob", 3, &format!("{stage:?} {sqlstate}")).await;
            assert_eq!(reply.status, 200, "{sqlstate} at {stage:?}: {reply:?}");
            proxy.has_injected_everything();
            sent += 3;
            assert_eq!(bob.coins().await, 1000 + sent, "{sqlstate} at {stage:?}");
        }
    }
    shop.is_honest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_terminated_are_missed_by_nobody() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for round in 0..10 {
        assert_eq!(alice.gets("/api/info").await.status, 200);
        shop.database.number(all).await;
        if round % 2 == 0 {
            alice.buys_once("pen", &format!("pen {round}")).await.is_done();
        }
        assert_eq!(alice.gets("/api/info").await.status, 200, "round {round}");
    }
    assert_eq!(alice.coins().await, 950);
    shop.is_honest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_is_waited_for_and_clients_are_told_so() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    let grant = "GRANT ALL ON ALL TABLES IN SCHEMA public TO";
    database.execute(&format!("{grant} {}", role.name)).await;
    database.execute(&format!("GRANT ALL ON SEQUENCE users_id_seq TO {}", role.name)).await;
    let shop = Replica::start(role.url.as_str()).await;
    let people = Bank::open(&database, 1, 1000).await;
    let alice = people[0].at(shop.base());
    alice.buys("pen").await.is_done();

    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT 0", role.name)).await;
    let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.number(all).await;
    shop.is_not_ready().await;
    for reply in [alice.buys("pen").await, alice.gets("/api/info").await] {
        reply.is_error(503, "database_away");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT -1", role.name)).await;
    shop.is_ready().await;
    alice.buys("pen").await.is_done();
    assert_eq!(alice.coins().await, 980);
    shop.stop().await;
}
