//! What may be written on the command line, and what a mistake there is answered with.

use crate::support::TestDatabase;
use crate::support::process::command;

/// The exit code of `merch-store` with `arguments`, and what it said: result and complaint.
async fn runs(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn flags_of_every_command_stand_before_or_after_it() {
    let database = TestDatabase::fresh().await;
    let url = database.url();
    let url = url.as_str();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop");
    std::fs::write(&file, format!("[database]\nurl = '{url}'\n")).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        &["--database-url", url, "migrate", "status"][..],
        &["migrate", "--database-url", url, "status"],
        &["migrate", "status", "--database-url", url],
        &["--config", file, "migrate", "status"],
        &["migrate", "status", "--config", file],
        &["--config", file, "--data-dir", "/nowhere", "audit"],
        &["--data-dir", "/nowhere", "audit", "--config", file],
        &["--data-dir=/nowhere", "seed", "--users=0", "--database-url", url],
        &["--database-url", url, "audit", "--config", file],
        &["--config", file, "--show-config"],
    ] {
        let (exit_code, _, said) = runs(arguments).await;
        assert_eq!((exit_code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn mistakes_are_named_with_what_was_meant() {
    for (arguments, named) in [
        (&["audti"][..], "'audit'"),
        (&["serv"], "'serve'"),
        (&["migrate", "stats"], "'status'"),
        (&["serve", "--adress", "127.0.0.1:0"], "'--address'"),
        (&["--conf", "shop.toml"], "'--config'"),
        (&["--config", "a", "--config", "b"], "'--config <FILE>' cannot be used multiple times"),
        (&["seed", "--users", "1", "--users", "2"], "cannot be used multiple times"),
        (&["--show-config", "--show-config"], "cannot be used multiple times"),
        (&["--address", "127.0.0.1:0", "audit"], "--address is a flag of `serve`"),
        (&["--address", "127.0.0.1:0", "serve"], "--address is a flag of `serve`"),
        (&["--show-config", "gateway"], "--show-config is a flag of `serve`"),
        (&["audit", "--address", "127.0.0.1:0"], "'--address'"),
        (&["audit", "shop"], "'shop'"),
        // What `--database-url "$UNSET"` is would otherwise mean the shop in ./data.
        (&["migrate", "down", "--all", "--yes", "--database-url", ""], "'--database-url <URL>'"),
        (&["migrate", "down", "--all", "--yes", "--data-dir", ""], "'--data-dir <FOLDER>'"),
        (&["audit", "--config="], "'--config <FILE>'"),
        (&["gateway", "--backend", "", "--backend", "http://a"], "'--backend <URL>'"),
        (&["migrate", "down", "--count", "0"], "at least 1"),
        (&["migrate", "down", "--count", "-1"], "'-1'"),
        (&["migrate", "down", "--count", "1.5"], "at least 1"),
        (&["migrate", "down", "--count", "1", "--all"], "cannot be used with"),
        (&["up", "--replicas", "0"], "1..=16"),
        (&["up", "--replicas", "17"], "1..=16"),
        (&["up", "--replicas", "99999999999999999999"], "'--replicas <NUMBER>'"),
        (&["seed", "--users", "10000001"], "0..=10000000"),
        (&["seed", "--users", ""], "'--users <N>'"),
        (&["openapi", "--api", "gateway"], "[possible values: shop, admin]"),
        (&["openapi", "--format", "yaml"], "[possible values: openapi, postman]"),
    ] {
        let (exit_code, printed, said) = runs(arguments).await;
        assert_eq!((exit_code, printed.as_str()), (Some(2), ""), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(named), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_answered_with_one_that_is() {
    for (written, port) in [
        ("8080", "8080"),
        (":9000", "9000"),
        ("localhost:8081", "8081"),
        ("shop.example.com:80", "80"),
        ("http://127.0.0.1:8082", "8082"),
        ("127.0.0.1", "8080"),
        ("127.0.0.1:", "8080"),
        ("127.0.0.1:65536", "8080"),
        ("127.0.0.1:-1", "8080"),
        ("::1", "1"),
        ("*:80", "80"),
        ("0.0.0.0:http", "8080"),
        ("", "8080"),
    ] {
        let example = format!("is not IP:PORT, such as 127.0.0.1:{port} (this machine alone)");
        for arguments in [
            &["--address", written][..],
            &["gateway", "--address", written],
            &["up", "--address", written],
            &["echo", "--address", written],
        ] {
            let (exit_code, _, said) = runs(arguments).await;
            assert_eq!(exit_code, Some(2), "{arguments:?}: {said}");
            assert!(said.contains("'--address <ADDRESS>'"), "{arguments:?}: {said}");
            assert!(said.contains(&example) || written.is_empty(), "{arguments:?}: {said}");
        }
        for key in ["MERCH__HTTP__ADDRESS", "MERCH__GATEWAY__ADDRESS"] {
            let output = command(&["serve"]).env(key, written).output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{key}={written}: {said}");
            assert!(said.contains(&example), "{key}={written}: {said}");
        }
    }
}
