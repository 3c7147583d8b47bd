//! What settings may be, wherever they come from, and what a bad one is answered with.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use futures::StreamExt;
use futures::stream::iter;
use merch_store::cli::{gateway, serve};
use merch_store::config::{Config, DEFAULTS};
use merch_store::lifecycle::Lifecycle;
use reqwest::Client;
use tokio::process::Command;

use crate::support::backend::{Act, Backend, ok};
use crate::support::process::{GATEWAY, UP, command};
use crate::support::{Process, TestDatabase, eventually};

/// Every setting that is a number, with the least and the most it may be, as the manual has it.
fn numbers() -> Vec<(&'static str, u64, u64)> {
    let mut section = "";
    let mut numbers = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((name, rest)) = line.split_once(" = ") else { continue };
        let Some((_, range)) = rest.split_once("  # ") else { continue };
        let (least, most) = range.split_once(" to ").unwrap();
        let key: &str = format!("{section}.{name}").leak();
        numbers.push((key, least.parse().unwrap(), most.parse().unwrap()));
    }
    assert!(numbers.len() > 40, "only {} numbers were found", numbers.len());
    numbers
}

fn load(key: &'static str, value: &str) -> Result<Config, String> {
    Config::load(None, [(key, value.to_owned())]).map_err(|error| error.to_string())
}

#[test]
fn every_number_is_refused_by_name_outside_its_range() {
    for (key, least, most) in numbers() {
        let beyond = most + 1;
        let below = least.checked_sub(1).map_or("-1".to_owned(), |it| it.to_string());
        for value in [
            &beyond.to_string(),
            &below,
            &u64::MAX.to_string(),
            "18446744073709551616",
            "99999999999999999999999999999999999999999",
            "-1",
            "1.5",
            "1e3",
            "0x10",
            "1_000",
            "+5",
            "5 000",
            "ten",
            "true",
            "\u{0663}",
            "\u{ff15}",
            "",
            " ",
        ] {
            let error = load(key, value).unwrap_err();
            let range = format!("is not a whole number from {least} to {most}");
            assert!(error.starts_with(&format!("{key}: ")) && error.contains(&range), "{error}");
        }
        for value in [format!(" {least}"), format!("{least} "), format!("0{least}")] {
            let loaded = load(key, &value);
            let cross = loaded.as_ref().err().is_some_and(|error| error.contains("base_ms"));
            assert!(loaded.is_ok() || cross, "{key}={value}: {loaded:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_and_a_gateway_serve_at_either_end_of_every_range() {
    let database = TestDatabase::fresh().await;
    let backend = Backend::start(|_| Act::Says(ok("here"))).await;
    let url = database.url();
    let (url, backend) = (url.as_str(), backend.address);
    let ends = numbers().into_iter().flat_map(|(key, least, most)| [(key, least), (key, most)]);
    let serving = ends.map(|(key, value)| serves(url, backend, key, value));
    // A few at a time: each has connections of its own.
    iter(serving).buffer_unordered(4).collect::<Vec<()>>().await;
}

/// Starts what reads `key`, whose value is `value`, and waits until it serves.
async fn serves(url: &str, backend: SocketAddr, key: &'static str, value: u64) {
    let is_gateway = key.starts_with("gateway.") || key.starts_with("limits.");
    let backends = format!("http://{backend}");
    let mut settings = vec![
        ("http.address", "127.0.0.1:0".to_owned()),
        ("gateway.address", "127.0.0.1:0".to_owned()),
        ("gateway.backends", backends),
        ("database.max_connections", "2".to_owned()),
        ("auth.jwt_secret", crate::support::shop::SECRET.to_owned()),
        ("shutdown.grace_ms", "0".to_owned()),
    ];
    if !is_gateway {
        settings.push(("database.url", url.to_owned()));
    }
    if key == "gateway.upstream.ejection.max_ms" {
        settings.push(("gateway.upstream.ejection.base_ms", "1".to_owned()));
    }
    if key == "gateway.upstream.ejection.base_ms" {
        settings.push(("gateway.upstream.ejection.max_ms", "86400000".to_owned()));
    }
    settings.push((key, value.to_string()));
    let config = Config::load(None, settings).unwrap();
    let (address, lifecycle) = if is_gateway {
        let server = gateway::Server::start(&config, Lifecycle::default()).await.unwrap();
        let place = (server.address(), server.lifecycle().clone());
        tokio::spawn(server.wait());
        place
    } else {
        let server = serve::Server::start(&config, Lifecycle::default()).await.unwrap();
        let place = (server.address(), server.lifecycle().clone());
        tokio::spawn(server.wait());
        place
    };
    let client = Client::new();
    // The least waits may be too short for a machine that is busy: once is enough.
    eventually(&format!("it serves with {key} = {value}"), async || {
        let asked = client.get(format!("http://{address}/api/merch")).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    lifecycle.end();
}

/// What `merch-store serve` with `arguments` says before it ends by itself.
async fn refuses(mut command: Command) -> String {
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: "), "{said}");
    said
}

#[tokio::test]
async fn a_choice_is_refused_with_what_there_is_to_choose_from() {
    for (name, value, choices) in [
        ("LOG__FORMAT", "xml", "pretty, json"),
        ("LOG__FORMAT", "", "pretty, json"),
        ("LIMITS__KEY", "cookie", "address, jwt_subject, header"),
        ("LIMITS__KEY", "jwt-subject", "address, jwt_subject, header"),
        ("GATEWAY__UPSTREAM__STRATEGY", "random", "round_robin, least_connections, p2c_ewma"),
        ("LOG__LEVEL", "blah", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", " ", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "info,", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "merch_store", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "merch_store=", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "merch_store=blah", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "=info", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "foo bar", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "info debug", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "info;merch_store=debug", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "7", "off, error, warn, info, debug, trace"),
    ] {
        let mut command = command(&["serve", "--address", "127.0.0.1:0"]);
        command.env(format!("MERCH__{name}"), value);
        // Without a secret beside it: what is not refused for its own sake is for that.
        command.env("MERCH__DATABASE__URL", "postgres://127.0.0.1:1/shop");
        let said = refuses(command).await;
        let key = name.replace("__", ".").to_lowercase();
        assert!(said.contains(&key) && said.contains(choices), "{name}={value}: {said}");
        assert!(said.contains(&format!("{:?}", value.split(',').next_back().unwrap().trim())));
    }
}

#[tokio::test]
async fn a_choice_may_be_written_in_capitals_and_between_spaces() {
    for (name, value) in [
        ("LOG__FORMAT", " JSON"),
        ("LIMITS__KEY", "Jwt_Subject "),
        ("GATEWAY__UPSTREAM__STRATEGY", "P2C_EWMA"),
        ("LOG__LEVEL", "WARN"),
        ("LOG__LEVEL", " off "),
        ("LOG__LEVEL", "info, merch_store::engine=DEBUG"),
        ("LOG__LEVEL", "merch_store[request]=trace,hyper=warn"),
        ("HTTP__ADDRESS", " 127.0.0.1:0 "),
        ("HTTP__BODY_LIMIT", " 4096 "),
        ("DATABASE__MIGRATE", "TRUE"),
    ] {
        let database = TestDatabase::fresh().await;
        let mut command = command(&["audit"]);
        command.env("MERCH__DATABASE__URL", database.url().as_str());
        let output = command.env(format!("MERCH__{name}"), value).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}={value}: {output:?}");
    }
}

#[tokio::test]
async fn settings_are_read_from_whatever_text_can_be_read_from() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("[database]\nurl = '{}'\n", database.url());
    let in_folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(in_folder("shop"), &settings).unwrap();
    std::fs::write(in_folder("marked"), format!("\u{feff}{settings}")).unwrap();
    std::fs::write(in_folder("windows"), settings.replace('\n', "\r\n")).unwrap();
    // Beside `shop`, which is meant.
    std::fs::write(in_folder("shop.toml"), "[http]\nport = 1\n").unwrap();
    let fifo = in_folder("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (path, text) = (fifo.clone(), settings.clone());
    std::thread::spawn(move || std::fs::write(path, text).unwrap());

    let piped = "printf %s \"$1\" | \"$0\" audit --config";
    let (shop, marked, windows) = (in_folder("shop"), in_folder("marked"), in_folder("windows"));
    for script in [
        &format!("\"$0\" audit --config '{shop}'"),
        &format!("\"$0\" audit --config '{marked}'"),
        &format!("\"$0\" audit --config '{windows}'"),
        &format!("\"$0\" audit --config '{fifo}'"),
        &format!("cd '{}' && \"$0\" audit --config shop", folder.path().display()),
        &format!("\"$0\" audit --config /dev/stdin <'{shop}'"),
        &format!("{piped} /dev/stdin"),
        &format!("{piped} /dev/fd/0"),
        "\"$0\" audit --config <(printf %s \"$1\")",
        "\"$0\" --config <(printf %s \"$1\") audit",
    ] {
        let output = Command::new("bash")
            .args(["-c", script, env!("CARGO_BIN_EXE_merch-store"), &settings])
            .env_remove("MERCH__DATABASE__URL")
            .output()
            .await
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("the books are honest"), "{script}: {output:?}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let folder_path = folder.path().to_str().unwrap().to_owned();
    let missing = format!("{folder_path}/missing.toml");
    // The name of another file with an ending is not this one's.
    file("shop.toml", b"");
    let almost = format!("{folder_path}/shop");
    for (path, why) in [
        (missing, "cannot be read: No such file or directory"),
        (almost, "cannot be read: No such file or directory"),
        (folder_path, "cannot be read: it is a folder"),
        (file("long", &[b'\n'; (1 << 20) + 1]), "is longer than 1048576 bytes"),
        ("/dev/zero".to_owned(), "is longer than 1048576 bytes"),
        (file("latin1", b"[log]\nfile = 'caf\xe9'\n"), "line 2: this is not text in UTF-8"),
        (file("word", b"[http]\nhttp\n"), "line 2, column "),
        (file("unknown", b"[http]\nadress = 'x'\n"), "adress"),
        (file("number", b"[http]\n\nbody_limit = 'x'\n"), "number, line 3"),
        (file("huge", b"[auth]\ntoken_ttl_s = 18446744073709551615\n"), "auth.token_ttl_s: "),
        (file("part", b"[engine]\nmax_batch = 1.5\n"), "engine.max_batch: \"1.5\" is not a whole"),
        (file("infinite", b"[engine]\nmax_batch = inf\n"), "engine.max_batch: \"inf\" is not"),
        (file("bool", b"[engine]\nmax_batch = true\n"), "engine.max_batch: \"true\" is not"),
        (file("list", b"[engine]\nmax_batch = [1]\n"), "engine.max_batch: \"a list\" is not"),
        (file("choice", b"[log]\nformat = 'xml'\n"), "choice, line 2"),
        (file("address", b"[http]\naddress = '8080'\n"), "is not IP:PORT"),
    ] {
        let mut command = command(&["serve", "--config", &path]);
        command.env("MERCH__DATABASE__URL", "postgres://127.0.0.1:1/shop");
        let said = refuses(command).await;
        assert!(said.contains(&path) || said.contains("adress"), "{path}: {said}");
        assert!(said.contains(why), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_reload_from_a_pipe_is_refused_and_changes_nothing() {
    let backend = Backend::start(|_| Act::Says(ok("here"))).await;
    let token = "0123456789abcdef";
    let settings = format!(
        "[gateway]\naddress = '127.0.0.1:0'\nbackends = ['http://{}']\n\
         [gateway.admin]\naddress = '127.0.0.1:0'\ntoken = '{token}'\n\
         [gateway.upstream.health]\npath = ''\n",
        backend.address
    );
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(settings.as_bytes()).unwrap();
    drop(writer);
    let mut program = command(&["gateway", "--config", "/dev/stdin"]);
    program.stdin(Stdio::from(reader));
    let gateway = Process::start(program, GATEWAY).await;
    let client = Client::new();
    let reload = client.post(format!("{}/reload", gateway.admin())).bearer_auth(token);
    let answer = reload.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let said = answer.text().await.unwrap();
    assert!(said.contains("/dev/stdin") && said.contains("once"), "{said}");
    let answer = client.get(format!("{}/", gateway.base)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "here");
}

#[tokio::test]
async fn replicas_get_what_a_pipe_said() {
    let database = TestDatabase::fresh().await;
    let settings = format!(
        "[database]\nurl = '{}'\nmax_connections = 3\n[auth]\njwt_secret = '{}'\n\
         [shutdown]\ngrace_ms = 0\n[http]\nbody_limit = 2048\n",
        database.url(),
        crate::support::shop::SECRET
    );
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(settings.as_bytes()).unwrap();
    drop(writer);
    let mut program = command(&["up", "--address", "127.0.0.1:0", "--replicas", "1"]);
    program.args(["--config", "/dev/stdin"]).stdin(Stdio::from(reader));
    let up = Process::start(program, UP).await;
    let client = Client::new();
    for (length, status) in [(2048, 400), (2049, 413)] {
        let request = client.post(format!("{}/api/auth", up.base)).body("x".repeat(length));
        assert_eq!(request.send().await.unwrap().status(), status, "{length}");
    }
    up.signal("TERM");
    assert_eq!(up.exit_code().await, Some(0));
}

#[test]
fn the_manual_loads_as_a_file_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
    let file = merch_store::config::SettingsFile::read(&path).unwrap();
    Config::load(Some(&file), []).unwrap();
}
