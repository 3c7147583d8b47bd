//! Where a database is said to be: every way to say it works or is refused by name, and what is
//! wrong with it is said once, with the server and without a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::TestDatabase;
use crate::support::process::command;
use crate::support::shop::SECRET;

/// Less than the half minute for which a database is waited for that may yet come.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Every command that connects to a database; `up` leaves that to its replicas.
const COMMANDS: [&[&str]; 6] = [
    &["serve", "--address", "127.0.0.1:0"],
    &["gateway", "--address", "127.0.0.1:0", "--backend", "http://127.0.0.1:9"],
    &["migrate", "status"],
    &["identity", "renew"],
    &["seed", "--users", "1"],
    &["audit"],
];

/// What the program says on its way out with the database at `url`.
async fn refusal(arguments: &[&str], url: &str) -> String {
    let mut program = command(arguments);
    program.env("MERCH__DATABASE__URL", url).env("MERCH__AUTH__JWT_SECRET", SECRET);
    program.env("MERCH__LOG__LEVEL", "error");
    let since = Instant::now();
    let output = program.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?} {url}: {said}");
    assert!(since.elapsed() < AT_ONCE, "{arguments:?} {url}: waited for what cannot come");
    assert!(!said.contains("hunter2"), "{said}");
    said
}

/// A server that answers `answer` to whatever comes first, and hangs up: where it listens.
async fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut first = [0; 1024];
                let _ = client.read(&mut first).await;
                let _ = client.write_all(&answer).await;
            });
        }
    });
    address
}

/// PostgreSQL's word for a session that it ends, source lines included.
fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    let fields =
        format!("SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0Fauth.c\0L3217\0Rauth_failed\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [b"E", &length[..], fields.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_heal_is_said_at_once_by_every_command_with_the_server_and_no_secret() {
    let password = "password authentication failed for user \"merch\"";
    let no_entry = "no pg_hba.conf entry for host \"127.0.0.1\", user \"merch\"";
    for (answer, sslmode, expected) in [
        (fatal("28P01", password), "disable", &[password, "is the password right"][..]),
        (fatal("28000", no_entry), "disable", &[no_entry, "must know the user"]),
        (
            fatal("3D000", "database \"shop\" does not exist"),
            "disable",
            &["does not exist", "CREATE DATABASE"],
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "prefer", &["is that PostgreSQL?"]),
        (b"R\0\0\0\x08\0\0\0\x07".to_vec(), "disable", &["authentication method: 7; have it"]),
        (b"N".to_vec(), "require", &["does not support TLS", "sslmode"]),
        (b"S".to_vec(), "verify-full", &[]),
    ] {
        let address = answering(answer).await;
        let url = format!("postgres://merch:hunter2@{address}/shop?sslmode={sslmode}");
        // A handshake that is broken off may be taken up again: only tools do not wait.
        let commands = if expected.is_empty() { &COMMANDS[2..] } else { &COMMANDS[..] };
        for arguments in commands {
            let said = refusal(arguments, &url).await;
            let place = format!("PostgreSQL at {address}, database shop: ");
            for expected in expected.iter().chain([&place.as_str()]) {
                assert!(said.contains(expected), "{arguments:?}: {expected} is missing: {said}");
            }
            for source in ["auth.c", "3217", "auth_failed", "at line", "sqlx"] {
                assert!(!said.contains(source), "{arguments:?}: {said}");
            }
            assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_asks_for_what_there_is_not_is_refused_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.pem");
    std::fs::write(&text, "no certificate").unwrap();
    let text = text.display().to_string();
    for (query, expected) in [
        ("sslmode=requires".to_owned(), "sslmode must be one of disable, prefer, require"),
        ("sslpassword=hunter2".to_owned(), "unknown parameter \"sslpassword\""),
        ("service=hunter2".to_owned(), "unknown parameter \"service\""),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem".to_owned(), "/nowhere/ca.pem"),
        (format!("sslmode=verify-full&sslrootcert={text}"), &text),
        (format!("sslmode=require&sslcert={text}&sslkey=/nowhere"), &text),
        ("options=-d5".to_owned(), "options may only hold"),
    ] {
        let url = format!("postgres://merch:hunter2@127.0.0.1:9/shop?{query}");
        for arguments in COMMANDS {
            let said = refusal(arguments, &url).await;
            assert!(said.starts_with("error: database.url: "), "{arguments:?}: {said}");
            assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn where_nothing_listens_the_server_is_named() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for url in [
        format!("postgres://merch:hunter2@{address}/shop"),
        "postgres://merch:hunter2@no-such-host.invalid:5433/shop".to_owned(),
        "postgres://merch:hunter2@%2Fnowhere:5433/shop".to_owned(),
    ] {
        let said = refusal(&["audit"], &url).await;
        let place = url.split_once('@').unwrap().1.replace("%2F", "/");
        let host = place.split("/shop").next().unwrap().split(":5433").next().unwrap();
        assert!(said.contains(&format!("PostgreSQL at {host}")), "{url}: {said}");
        assert!(said.contains("database shop: "), "{url}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_at_an_ipv6_address_is_reached_with_tls_and_its_certificate_is_checked() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let (tls, certificate) = tls_for(&["::1", "localhost"]);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certificate).unwrap();
    let port = before(database.url(), tls).await;
    let (other_tls, _) = tls_for(&["db.example.com"]);
    let other_port = before(database.url(), other_tls).await;

    let name = database.url().path();
    let user = database.url().username();
    let password = database.url().password().unwrap_or_default();
    let ca = file.display();
    for sslmode in ["require", "verify-ca", "verify-full"] {
        let root = format!("sslmode={sslmode}&sslrootcert={ca}");
        let url = format!("postgres://{user}:{password}@[::1]:{port}{name}?{root}");
        let output = command(&["audit", "--database-url", &url]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{sslmode}: {output:?}");

        let url = format!("postgres://{user}:{password}@[::1]:{other_port}{name}?{root}");
        let said = refusal(&["audit"], &url).await;
        assert!(said.contains(&format!("[::1]:{other_port}")), "{said}");
        assert!(said.contains("certificate"), "{said}");
    }
}

#[tokio::test]
async fn what_the_environment_says_to_other_programs_changes_nothing() {
    let database = TestDatabase::fresh().await;
    let mut program = command(&["seed", "--users", "3", "--database-url", database.url().as_str()]);
    for (name, value) in [
        ("PGHOST", "no-such-host.invalid"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGUSER", "nobody_of_this_name"),
        ("PGPASSWORD", "hunter2"),
        ("PGDATABASE", "nowhere"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERT", "/nowhere"),
        ("PGSSLKEY", "/nowhere"),
        ("PGOPTIONS", "-c default_transaction_read_only=on -c search_path=nowhere"),
        ("PGPASSFILE", "/nowhere"),
        ("PGAPPNAME", "psql"),
    ] {
        program.env(name, value);
    }
    let output = program.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(database.number("SELECT count(*) FROM users").await, 3);
}

/// A certificate for `names` that vouches for itself, as a server's settings and in PEM.
fn tls_for(names: &[&str]) -> (Arc<ServerConfig>, String) {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

/// A port of ::1 where the server at `upstream` speaks TLS.
async fn before(upstream: &Url, tls: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = upstream.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (upstream, tls) = (upstream.clone(), TlsAcceptor::from(tls.clone()));
            tokio::spawn(async move {
                // It asks whether there is TLS, in eight bytes.
                client.read_exact(&mut [0; 8]).await.unwrap();
                client.write_all(b"S").await.unwrap();
                let Ok(mut client) = tls.accept(client).await else { return };
                let mut server = connect(&upstream).await;
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(upstream: &Url) -> Box<dyn Stream> {
    let port = upstream.port().unwrap_or(5432);
    match upstream.query_pairs().find(|(key, _)| key == "host") {
        Some((_, folder)) => {
            Box::new(UnixStream::connect(format!("{folder}/.s.PGSQL.{port}")).await.unwrap())
        }
        None => Box::new(TcpStream::connect((upstream.host_str().unwrap(), port)).await.unwrap()),
    }
}
