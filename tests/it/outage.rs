//! The database goes away under load and comes back: prompt refusals meanwhile, recovery
//! without a restart of ours, and nothing that was acknowledged is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use merch_store::data_folder::DataFolder;
use merch_store::lifecycle::Lifecycle;
use merch_store::private_postgres::PrivatePostgres;
use merch_store::storage::{Audit, DatabaseOptions};
use sqlx::{Connection, PgConnection};

use crate::support::process::{postmaster_pid, send_signal};
use crate::support::shop::Replica;

/// What a client may wait for a refusal at most: a few times what the shop promises,
/// because the machine is busy with everything else in this test.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_is_survived_under_load_and_nothing_acknowledged_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataFolder::take(&home.path().join("data")).unwrap();
    let mut postgres = PrivatePostgres::start(&folder).await.unwrap();
    let url = postgres.url();
    let mut shop = Replica::start(&url).await;
    shop.seed(8, 1_000_000_000).await;

    let load = Load::start(&shop).await;
    load.gets_through(100).await;

    send_signal("KILL", postmaster_pid(folder.path()).unwrap());
    shop.is_not_ready().await;

    // Only now does somebody start it again, as an operator would.
    let lifecycle = Lifecycle::default();
    let operator = {
        let lifecycle = lifecycle.clone();
        tokio::spawn(async move {
            postgres.keep_running(&lifecycle).await.unwrap();
            postgres
        })
    };
    shop.is_ready().await;
    load.gets_through(100).await;
    let acknowledged = load.stop().await;

    let recorded = recorded_amounts(&url).await;
    for amount in &acknowledged {
        assert_eq!(recorded.get(amount), Some(&1), "transfer of {amount} was acknowledged");
    }
    for (amount, times) in &recorded {
        assert_eq!(*times, 1, "transfer of {amount} happened more than once");
    }
    let audit = Audit::run(&DatabaseOptions::from_url(&url).unwrap()).await.unwrap();
    assert_eq!(audit.lies, [], "{:?}", audit.totals);

    lifecycle.end();
    shop.stop().await;
    operator.await.unwrap().stop().await;
}

/// Clients that send coins without a pause, each transfer of an amount of its own.
struct Load {
    clients: Vec<tokio::task::JoinHandle<Vec<i64>>>,
    done: Arc<AtomicI64>,
    stopped: Arc<AtomicBool>,
}

impl Load {
    async fn start(shop: &Replica) -> Load {
        let (done, stopped) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let next_amount = Arc::new(AtomicI64::new(1));
        let clients = shop.people.iter().enumerate().map(|(number, person)| {
            let to = shop.people[(number + 1) % shop.people.len()].name.clone();
            let (person, done) = (person.clone(), done.clone());
            let (stopped, next_amount) = (stopped.clone(), next_amount.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let amount = next_amount.fetch_add(1, Ordering::Relaxed);
                    let asked = Instant::now();
                    let reply = person.sends(&to, amount).await;
                    match reply.status.as_u16() {
                        200 => {
                            acknowledged.push(amount);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        503 => assert!(
                            asked.elapsed() < PROMPT || reply.text.contains("outcome_unknown"),
                            "refused after {:?}: {reply:?}",
                            asked.elapsed()
                        ),
                        _ => panic!("{reply:?}"),
                    }
                }
                acknowledged
            })
        });
        Load { clients: clients.collect(), done, stopped }
    }

    /// Waits until so many more transfers were acknowledged.
    async fn gets_through(&self, transfers: i64) {
        let goal = self.done.load(Ordering::Relaxed) + transfers;
        crate::support::eventually("transfers get through", async || {
            self.done.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Every amount that was acknowledged.
    async fn stop(self) -> Vec<i64> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for client in self.clients {
            acknowledged.extend(client.await.unwrap());
        }
        acknowledged
    }
}

/// How often each amount was transferred.
async fn recorded_amounts(url: &str) -> HashMap<i64, i64> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT amount, count(*) FROM history
         WHERE from_id IS NOT NULL AND to_id IS NOT NULL GROUP BY amount",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    rows.into_iter().collect()
}
