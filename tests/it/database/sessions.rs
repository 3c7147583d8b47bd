//! Sessions: how often one is tried for, how long it is waited for, and when it is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use merch_store::storage::{Database, DatabaseOptions, Migrations, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::database::TestRole;
use crate::support::proxy::{Fault, Proxy, Stage};

#[tokio::test]
async fn a_server_that_refuses_a_session_is_asked_again_only_if_it_is_about_its_settings() {
    for (code, said, times) in [
        ("57P03", "the database system is starting up", 1),
        ("53300", "sorry, too many clients already", 1),
        ("28P01", "password authentication failed for user \"merch\"", 1),
        ("08P01", "unsupported startup parameter: options", 2),
        ("0A000", "RDS Proxy currently doesn't support command-line options.", 2),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url =
            format!("postgres://merch@{}/shop?sslmode=disable", listener.local_addr().unwrap());
        let fields = format!("SFATAL\0VFATAL\0C{code}\0M{said}\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let refusal = [b"E", &length[..], fields.as_bytes()].concat();
        let asked = Arc::new(AtomicU32::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = client.read(&mut [0; 1024]).await;
                let _ = client.write_all(&refusal).await;
            }
        });
        let options = DatabaseOptions::from_url(&url).unwrap();
        let error = Migrations::connect(&options).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(asked.load(Ordering::Relaxed), times, "{said}");
    }
}

#[tokio::test]
async fn a_role_that_may_have_fewer_sessions_than_the_pool_shares_those_that_it_has() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    database.execute(&format!("GRANT SELECT ON client_limits_version TO {}", role.name)).await;
    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT 1", role.name)).await;
    let options = DatabaseOptions::from_url(role.url.as_str()).unwrap();
    let shared = Database::new(options.clone());
    for read in join_all((0..16).map(|_| shared.client_limits_version_fetch())).await {
        assert_eq!(read.unwrap(), 0);
    }
    let error = Migrations::connect(&options).await.unwrap_err().to_string();
    assert!(error.contains("CONNECTION LIMIT"), "{error}");
    shared.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_waited_for_no_longer_than_the_settings_say_whatever_comes_first() {
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://merch@{}/shop?sslmode=disable", listener.local_addr().unwrap());
    let mut options = DatabaseOptions::from_url(&url).unwrap();
    (options.max_connections, options.acquire_timeout) = (1, Duration::from_secs(10));
    let database = Database::new(options);
    let since = Instant::now();
    for read in join_all((0..3).map(|_| database.client_limits_version_fetch())).await {
        read.unwrap_err();
    }
    assert!(since.elapsed() < Duration::from_secs(11), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_session_of_which_nobody_knows_whose_books_it_leads_to_is_not_used() {
    let database = TestDatabase::fresh().await;
    let proxy = Proxy::start(database.url()).await;
    let url = database.url_through(proxy.port());
    let database = Database::new(DatabaseOptions::from_url(url.as_str()).unwrap());
    let mut writer = Writer::new(&database, Uuid::new_v4());
    proxy.inject(Stage::Books, Fault::Raise("57014"));
    writer.ensure_connected().await.unwrap_err();
    proxy.has_injected_everything();
    assert_eq!(database.books(), None);
    writer.ensure_connected().await.unwrap();
    assert!(database.books().is_some());
    writer.close().await;
}
