//! What a request costs does not grow with the history of others, not even when its plans
//! were made while there was none.

use crate::support::TestShop;
use crate::support::shop::Bank;

#[tokio::test]
async fn a_look_at_ones_own_history_reads_none_of_the_others() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let paths = ["/api/info", "/api/history?limit=100", "/api/history/summary"];
    // It analyses the tables when there is no transfer in them yet, which once made the
    // planner think that any index of transfers is as good as another.
    Bank::open(&shop.database, 5_000, 1).await;
    for path in paths.repeat(8) {
        assert_eq!(alice.gets(path).await.status, 200);
    }

    shop.database
        .execute(
            "INSERT INTO history (id, from_id, to_id, amount)
             SELECT log_head.id + row_number() OVER (), a.id, b.id, 1
             FROM log_head, users a, users b, generate_series(1, 4)
             WHERE a.id <> b.id AND a.username LIKE 'user9_' AND b.username LIKE 'user__';
             UPDATE log_head SET id = (SELECT max(id) FROM history)",
        )
        .await;
    for path in paths.repeat(8) {
        assert_eq!(alice.gets(path).await.status, 200);
    }

    // Sessions report what they read when they end, at the latest.
    let database = shop.closes().await;
    let read = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
                        WHERE relname = 'history')::int8
                     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
                        WHERE relname = 'history')::int8";
    let read = database.number(read).await;
    let rows = database.number("SELECT count(*) FROM history").await;
    assert!(rows > 8_000, "{rows} rows");
    assert!(read < 1_000, "{read} of {rows} rows were read");
}
