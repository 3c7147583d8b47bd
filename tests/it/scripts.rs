//! The scripts: help at once, mistakes before any work, and paths as the caller sees them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SCRIPTS: [&str; 9] = [
    "bench",
    "clients",
    "env",
    "first-purchase",
    "load",
    "rehearse-migration",
    "run",
    "smoke",
    "test",
];

/// What would install or compile, each of which only writes down that it was called, where, with
/// what, and which data folder it was told.
const WORKERS: [&str; 6] = ["cargo", "apt-get", "brew", "pip", "sudo", "curl"];
const WORKER: &str = "#!/bin/sh
echo \"$(basename \"$0\")|$PWD|$*|${MERCH__DATA_DIR-}\" >>\"$RECORD\"
if [ \"$1\" = metadata ]; then echo '{\"target_directory\":\"/else where/target\"}'; fi
";

/// A folder, with a space in its name, from which scripts are called.
struct Caller {
    _home: TempDir,
    folder: PathBuf,
    record: PathBuf,
    path: String,
}

impl Caller {
    fn new() -> Caller {
        let home = tempfile::tempdir().unwrap();
        let (folder, bin) = (home.path().join("a caller"), home.path().join("bin"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&bin).unwrap();
        for name in WORKERS {
            std::fs::write(bin.join(name), WORKER).unwrap();
            std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let folder = folder.canonicalize().unwrap();
        Caller { folder, record: home.path().join("record"), path, _home: home }
    }

    fn calls(&self, script: &Path, arguments: &[&str]) -> Output {
        self.calls_with(&[], script, arguments)
    }

    fn calls_with(
        &self,
        environment: &[(&str, &str)],
        script: &Path,
        arguments: &[&str],
    ) -> Output {
        let _ = std::fs::remove_file(&self.record);
        let mut command = Command::new(script);
        command.args(arguments).current_dir(&self.folder).env("RECORD", &self.record);
        command.env_remove("MERCH_BINARY").env_remove("MERCH__DATA_DIR");
        command.envs(environment.iter().copied());
        command.env("PATH", &self.path).env("CDPATH", "/:/usr").output().unwrap()
    }

    /// What the workers wrote down.
    fn worked(&self) -> Vec<String> {
        let record = std::fs::read_to_string(&self.record).unwrap_or_default();
        record.lines().map(str::to_owned).collect()
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(ROOT).join("scripts").join(name)
}

#[test]
fn every_script_helps_without_any_work() {
    let caller = Caller::new();
    for name in SCRIPTS {
        let link = caller.folder.join(format!("link to {name}"));
        symlink(script(name), &link).unwrap();
        for (place, flag) in [(script(name), "--help"), (script(name), "-h"), (link, "--help")] {
            let output = caller.calls(&place, &[flag]);
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{place:?} {flag}: {output:?}");
            assert!(said.contains(name) && said.lines().count() > 3, "{place:?} {flag}: {said}");
            assert_eq!(caller.worked(), [""; 0], "{place:?} {flag}");
        }
    }
}

#[test]
fn mistakes_are_refused_before_any_work() {
    let caller = Caller::new();
    for (name, arguments, named) in [
        ("bench", &["--round", "3"][..], "--round"),
        ("bench", &["--rounds", "0"], "--rounds"),
        ("bench", &["--rounds=x"], "--rounds"),
        ("bench", &["--only"], "--only"),
        ("bench", &["uniform"], "uniform"),
        ("clients", &["--fast"], "--fast"),
        ("clients", &["shop"], "shop"),
        ("env", &["--force"], "--force"),
        ("load", &["--second", "3"], "--second"),
        ("load", &["--seconds", "-1"], "--seconds"),
        ("load", &["--seconds=1.5"], "--seconds"),
        ("load", &["--media"], "--media"),
        ("load", &["now"], "now"),
        ("rehearse-migration", &[], "--old"),
        ("rehearse-migration", &["--old", "x", "--row", "3"], "--row"),
        ("smoke", &["--fast"], "--fast"),
        ("first-purchase", &["--run", "x"], "x"),
        ("first-purchase", &["--walks", "1"], "--walks"),
    ] {
        let output = caller.calls(&script(name), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{name} {arguments:?}");
        assert!(said.contains(named), "{name} {arguments:?}: {said}");
        assert_eq!(caller.worked(), [""; 0], "{name} {arguments:?}");
    }
}

#[test]
fn the_shop_is_run_where_the_caller_stands_and_keeps_its_data_here() {
    let caller = Caller::new();
    std::fs::write(caller.folder.join("bare"), "[log]\nlevel = 'warn'\n").unwrap();
    std::fs::write(caller.folder.join("full"), "data_dir = 'mine'\n").unwrap();
    std::fs::write(caller.folder.join("quoted"), "\"data_dir\" = 'mine'\n").unwrap();
    // May say it, too, and can be read once.
    let made = Command::new("mkfifo").arg(caller.folder.join("pipe")).status().unwrap();
    assert!(made.success());
    let here = format!("{ROOT}/data");
    let link = caller.folder.join("shop");
    symlink(script("run"), &link).unwrap();
    for (place, arguments, data) in [
        (&script("run"), &["--config", "bare"][..], here.as_str()),
        (&script("run"), &["--config=bare", "audit"], &here),
        (&script("run"), &["--config", "full"], ""),
        (&script("run"), &["--config=full"], ""),
        (&script("run"), &["--config", "quoted"], ""),
        (&script("run"), &["--config", "pipe"], ""),
        (&script("run"), &["--config=pipe", "audit"], ""),
        (&script("run"), &["--database-url", "postgres://h/d", "--data-dir", "d"], ""),
        (&script("run"), &["openapi", "--data-dir=d"], ""),
        (&script("run"), &["openapi"], &here),
        (&link, &["openapi"], &here),
    ] {
        let output = caller.calls(place, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        let worked = caller.worked();
        let ran = worked.last().unwrap();
        let folder = caller.folder.display();
        assert!(ran.starts_with(&format!("cargo|{folder}|run --release")), "{ran}");
        assert!(ran.ends_with(&format!("-- {}|{data}", arguments.join(" "))), "{ran}");
        assert!(ran.contains(&format!("--manifest-path {ROOT}/Cargo.toml")), "{ran}");
    }
}

#[test]
fn a_data_folder_that_is_set_and_empty_is_left_for_the_program_to_refuse() {
    let caller = Caller::new();
    caller.calls_with(&[("MERCH__DATA_DIR", "")], &script("run"), &["openapi"]);
    let worked = caller.worked();
    assert!(worked.last().unwrap().ends_with("-- openapi|"), "{worked:?}");
}

#[test]
fn the_binary_is_looked_for_where_cargo_puts_it() {
    let caller = Caller::new();
    for (name, arguments, named) in [
        ("first-purchase", &[][..], "no /else where/target/release/merch-store; build it"),
        (
            "rehearse-migration",
            &["--old", "/bin/sh"],
            "no program at /else where/target/release/merch-store",
        ),
    ] {
        let output = caller.calls(&script(name), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn a_rehearsal_counts_every_client_that_meets_no_answer() {
    // Its clients, against a server that gives each connection the same answer.
    let rehearsal = r#"
import socket, sys, threading
from importlib import machinery, util
loader = machinery.SourceFileLoader("rehearsal", sys.argv[1])
rehearsal = util.module_from_spec(util.spec_from_loader("rehearsal", loader))
loader.exec_module(rehearsal)
server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        client, _ = server.accept()
        client.recv(65536)
        client.sendall(sys.argv[2].encode())
        client.close()
threading.Thread(target=serve, daemon=True).start()
load = rehearsal.Load([server.getsockname()[1]])
for thread in load.threads:
    thread.join()
load.take()
print(load.stop())
"#;
    for answer in [
        "",
        "no HTTP at all\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut python = Command::new("python3");
        python.args(["-B", "-c", rehearsal]).arg(script("rehearse-migration")).arg(answer);
        let output = python.output().unwrap();
        let failed = String::from_utf8_lossy(&output.stdout).trim().parse::<usize>();
        // Each of the eight, and that there was no request.
        assert!(failed.is_ok_and(|failed| failed > 8), "{answer:?}: {output:?}");
    }
}
