//! TLS in front, and what is agreed there.

use std::path::Path;
use std::sync::Arc;

use hyper::Request;
use merch_store::lifecycle::Ended;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::gateway::{get, header};
use crate::support::http2::asks_in_http_2;
use crate::support::raw::{Raw, refusal, says_close, status};
use crate::support::{Backend, TestGateway, eventually};

/// Writes a new certificate for `shop` and its key into `folder`.
fn issue(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["shop".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    cert.der().clone()
}

/// A gateway with the certificate in `folder`.
async fn gateway(backend: &Backend, folder: &Path) -> TestGateway {
    TestGateway::at(&[backend.address], |config| {
        config.gateway.tls_certificate = Some(folder.join("cert.pem"));
        config.gateway.tls_key = Some(folder.join("key.pem"));
    })
    .await
}

/// A connection of a client that believes `certificate` alone and speaks `protocol`.
async fn connect(
    gateway: &TestGateway,
    certificate: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // An empty one is none.
    config.alpn_protocols =
        Some(protocol.into()).into_iter().filter(|it: &Vec<u8>| !it.is_empty()).collect();
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from("shop").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn a_certificate_makes_it_https_with_http_1_and_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;

    let stream = connect(&gateway, &certificate, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let request = Request::get("https://shop/x").body(String::new()).unwrap();
    let answer = asks_in_http_2(stream, request).await;
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (200, "one"));
    assert_eq!(header(&backend.request(), "x-forwarded-proto"), Some("https"));

    let mut stream = connect(&gateway, &certificate, "http/1.1").await.unwrap();
    stream.write_all(get("/").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(status(&String::from_utf8(answer).unwrap()), 200);
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_is_answered_and_told_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;
    let asked = "GET / HTTP/1.1\r\nhost: shop\r\n\r\n".to_owned();
    let large = "x".repeat(11 << 20);
    let too_large =
        format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 11534336\r\n\r\n{large}");
    for (said, expected) in [
        (asked, 200),
        ("GET / HTTP/1.1\r\nhost: shop\r\n".into(), 400),
        ("GET / HTTP/9.9\r\nhost: shop\r\n\r\n".into(), 505),
        (too_large, 413),
    ] {
        let mut stream = connect(&gateway, &certificate, "http/1.1").await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        // This is TLS's own goodbye, and TCP's.
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it ends in order");
        assert_eq!(status(&answer), expected, "{answer}");
    }
}

#[tokio::test]
async fn plain_http_is_told_that_https_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;
    for request in ["GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n", &get("/x")] {
        let mut client = Raw::connect(gateway.address).await;
        client.says(request).await;
        let answer = client.hears_a_goodbye().await;
        assert_eq!(refusal(&answer), (400, "https_required".into()));
        assert!(says_close(&answer), "{answer}");
    }
    assert_eq!(backend.requests(), [""; 0]);
}

#[tokio::test]
async fn an_ending_gateway_does_not_wait_for_a_handshake_that_does_not_come() {
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;
    let silent = Raw::connect(gateway.address).await;
    gateway.lifecycle.end();
    assert_eq!(gateway.ended().await, Ended::Cleanly);
    silent.hears_the_end().await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_used_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;
    let before = connect(&gateway, &old, "h2").await.unwrap();

    // What is no certificate changes nothing.
    std::fs::write(folder.path().join("cert.pem"), "nonsense").unwrap();
    connect(&gateway, &old, "h2").await.unwrap();
    let new = issue(folder.path());
    eventually("the new one is used", async || connect(&gateway, &new, "h2").await.is_ok()).await;
    assert!(connect(&gateway, &old, "h2").await.is_err());
    // Whoever was connected before stays connected.
    let request = Request::get("https://shop/x").body(String::new()).unwrap();
    assert_eq!(asks_in_http_2(before, request).await.status(), 200);
}

#[tokio::test]
async fn the_protocol_that_was_agreed_is_the_one_that_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = issue(folder.path());
    let backend = Backend::named("one").await;
    let gateway = gateway(&backend, folder.path()).await;
    for (agreed, speaks_http_2) in [("h2", false), ("http/1.1", true), ("", true)] {
        let mut stream = connect(&gateway, &certificate, agreed).await.unwrap();
        let said = if speaks_http_2 { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into() } else { get("/") };
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "{agreed}");
    }
    let mut stream = connect(&gateway, &certificate, "").await.unwrap();
    stream.write_all(get("/").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(status(&String::from_utf8(answer).unwrap()), 200);
    let error = connect(&gateway, &certificate, "h3").await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(backend.requests().len(), 1);
}
