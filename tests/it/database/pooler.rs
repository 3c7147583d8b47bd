//! A pooler between the shop and its database: found out by itself, and nothing is confused.

use std::process::Output;
use std::sync::Arc;

use futures::future::join_all;
use merch_store::storage::{Audit, DatabaseOptions, Migrations};
use sqlx::Connection;

use crate::support::pgbouncer::PgBouncer;
use crate::support::process::command;
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::{Bank, Replica, SECRET};
use crate::support::{Person, TestDatabase};

/// PgBouncer refuses what it does not know in the first message of a session, unless it is
/// told to pass over it.
const SILENT: &str = "ignore_startup_parameters = extra_float_digits,options";

/// Ninety-six requests at once, of every kind, by people who know what they have to get.
async fn everybody_is_served(shop: &Replica, people: &[Person]) {
    let requests = (0..96).map(|number| {
        let person = people[number % people.len()].at(shop.base());
        let other = people[(number + 1) % people.len()].name.clone();
        tokio::spawn(async move {
            let reply = match number % 6 {
                0 => person.buys("pen").await,
                1 => person.sends(&other, 1).await,
                2 => person.gets("/api/info").await,
                3 => person.gets("/api/history").await,
                4 => person.gets("/api/history/summary").await,
                _ => person.gets("/api/merch").await,
            };
            assert_eq!(reply.status, 200, "request {number}: {reply:?}");
        })
    });
    for done in join_all(requests).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_behind_a_pooler_answers_everybody_and_the_books_are_honest() {
    for (mode, settings) in
        [("transaction", ""), ("transaction", SILENT), ("session", "default_pool_size = 20")]
    {
        // Not even the schema is there: it is made through the pooler, too.
        let database = TestDatabase::blank().await;
        let pooler = PgBouncer::before(&database, mode, settings).await;
        let shop = Replica::patient(pooler.url().as_str()).await;
        let people = Bank::open(&database, 16, 1000).await;
        for _ in 0..3 {
            everybody_is_served(&shop, &people).await;
        }
        let newcomer = Person::logs_in(&reqwest::Client::new(), shop.base(), "zoe", "secret").await;
        assert_eq!(newcomer.coins().await, 1000);
        let options = DatabaseOptions::from_url(pooler.url().as_str()).unwrap();
        let audit = Audit::run(&options).await.unwrap();
        assert_eq!(audit.lies, [], "{mode}");
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_a_pooler_with_somebody_who_names_statements() {
    let database = TestDatabase::fresh().await;
    let pooler = Arc::new(PgBouncer::before(&database, "transaction", SILENT).await);
    let people = Bank::open(&database, 16, 1000).await;
    let shops = [
        Replica::patient(pooler.url().as_str()).await,
        Replica::patient(pooler.url().as_str()).await,
    ];
    let stranger = {
        let pooler = pooler.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                // Its statements have the names that the driver gives to those of everybody.
                let mut connection = pooler.connect().await;
                let _ = sqlx::query("SELECT 7").fetch_one(&mut connection).await;
                let _ = connection.close().await;
            }
        })
    };
    let both = shops.iter().map(|shop| everybody_is_served(shop, &people));
    join_all(both).await;
    stranger.await.unwrap();
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
    for shop in shops {
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_comes_while_the_shop_runs_is_found_out() {
    let database = TestDatabase::fresh().await;
    let pooler = PgBouncer::before(&database, "transaction", "").await;
    let proxy = Proxy::start(database.url()).await;
    let mut through = database.url_through(proxy.port());
    through.set_username("merch").unwrap();
    let shop = Replica::patient(through.as_str()).await;
    let people = Bank::open(&database, 16, 1000).await;
    everybody_is_served(&shop, &people).await;

    proxy.leads_to(pooler.url());
    proxy.cuts_all();
    everybody_is_served(&shop, &people).await;
    proxy.leads_to(database.url());
    proxy.cuts_all();
    everybody_is_served(&shop, &people).await;
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_a_pooler_loses_is_found_out_and_not_done_twice() {
    let database = TestDatabase::fresh().await;
    let proxy = Proxy::start(database.url()).await;
    let pooler = PgBouncer::start(&database.url_through(proxy.port()), "transaction", "").await;
    let shop = Replica::patient(pooler.url().as_str()).await;
    let people = Bank::open(&database, 2, 1000).await;
    let alice = people[0].at(shop.base());
    let mut sent = 0;
    for stage in [Stage::Begin, Stage::Fetch, Stage::Write, Stage::Commit] {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Raise("40001")] {
            proxy.inject(stage, fault);
            let reply = alice.sends_once("user2", 7, &format!("{stage:?} {fault:?}")).await;
            assert_eq!(reply.status, 200, "{fault:?} at {stage:?}: {reply:?}");
            proxy.has_injected_everything();
            sent += 7;
            assert_eq!(alice.coins().await, 1000 - sent, "{fault:?} at {stage:?}");
        }
    }
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
    shop.stop().await;
}

#[tokio::test]
async fn a_pooler_that_cannot_keep_a_transaction_together_is_refused_at_start() {
    let database = TestDatabase::fresh().await;
    let pooler = PgBouncer::before(&database, "statement", "").await;
    for arguments in [&["serve", "--address", "127.0.0.1:0"][..], &["audit"], &["migrate", "up"]] {
        let mut program = command(arguments);
        program.env("MERCH__DATABASE__URL", pooler.url().as_str());
        let output = program.env("MERCH__AUTH__JWT_SECRET", SECRET).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("pool_mode must be transaction or session"), "{said}");
    }
}

async fn run(pooler: &PgBouncer, arguments: &[&str]) -> Output {
    let mut program = command(arguments);
    program.env("MERCH__DATABASE__URL", pooler.url().as_str()).output().await.unwrap()
}

#[tokio::test]
async fn users_are_made_in_bulk_through_a_pooler_that_changes_servers_all_the_time() {
    let database = TestDatabase::fresh().await;
    let settings = format!("{SILENT}\nserver_round_robin = 1");
    let pooler = PgBouncer::before(&database, "transaction", &settings).await;
    // Two at once, so that there are two servers to change between.
    let mut clients = [pooler.connect().await, pooler.connect().await];
    for sql in ["BEGIN", "COMMIT"] {
        for client in &mut clients {
            sqlx::raw_sql(sql).execute(client).await.unwrap();
        }
    }
    for _ in 0..3 {
        let output = run(&pooler, &["seed", "--users", "20"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(database.number("SELECT count(*) FROM users").await, 20);
}

#[tokio::test]
async fn an_index_that_is_to_keep_nobody_waiting_is_not_built_through_a_pooler() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 1, 100).await;
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.down(2).await.unwrap();
    let pooler = PgBouncer::before(&database, "transaction", "").await;
    let output = run(&pooler, &["migrate", "up"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("0009") && said.contains("the server's own address"), "{said}");
    assert_eq!(migrations.up().await.unwrap(), [9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_taken_back_through_a_pooler_once_the_shop_has_gone() {
    let database = TestDatabase::fresh().await;
    let pooler = PgBouncer::before(&database, "transaction", "").await;
    let shop = Replica::patient(pooler.url().as_str()).await;
    let people = Bank::open(&database, 2, 1000).await;
    everybody_is_served(&shop, &people).await;
    let output = run(&pooler, &["migrate", "down", "--all", "--yes"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("merch-store is connected"), "{said}");
    shop.stop().await;
    let output = run(&pooler, &["migrate", "down", "--all", "--yes"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
