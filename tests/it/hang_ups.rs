//! Clients that hang up at any moment leave nothing behind.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{TestShop, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_leave_no_connection_in_a_transaction_and_the_books_honest() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.logs_in("bob").await;
    let head = |request: &str| {
        format!("{request} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {}\r\n", alice.token)
    };
    let send = format!(
        "{}Content-Length: 27\r\n\r\n{{\"toUser\":\"bob\",\"amount\":1}}",
        head("POST /api/sendCoin")
    );
    let requests = [send, head("GET /api/buy/pen") + "\r\n", head("GET /api/info") + "\r\n"];

    let mut clients = tokio::task::JoinSet::new();
    for round in 0..120_u64 {
        let request = requests[round as usize % requests.len()].clone();
        let address = shop.address;
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some leave in the middle of their request, most while they wait.
            let length = if round % 7 == 0 { request.len() / 2 } else { request.len() };
            stream.write_all(&request.as_bytes()[..length]).await.unwrap();
            let patience = Duration::from_micros(137 * round % 8000);
            let _hung_up_or_answered = timeout(patience, stream.read_u8()).await;
        });
    }
    clients.join_all().await;

    let database = &shop.database;
    eventually("no session is inside a transaction", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        database.number(sql).await == 0
    })
    .await;
    // Every connection of the pool still works.
    for _ in 0..8 {
        alice.info().await;
    }
    alice.sends("bob", 1).await.is_done();
    shop.is_honest().await;
}
