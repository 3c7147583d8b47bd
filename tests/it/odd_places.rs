//! The program where things are not as usual: what the environment says, what the data folder
//! is, and what a killed server left in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use reqwest::Client;

use crate::support::person::PASSWORD;
use crate::support::process::{
    command, descendants, is_running, postmaster_pid, program, send_signal,
};
use crate::support::{Person, Process, eventually};

/// What `serve` says when it refuses to start on the data folder at `data`.
async fn refusal(data: &Path) -> String {
    let mut serve = command(&["serve", "--address", "127.0.0.1:0"]);
    let output = serve.arg("--data-dir").arg(data).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

async fn private_shop(data: &Path, environment: &[(&str, &str)]) -> Process {
    Process::serve(&["--data-dir", data.to_str().unwrap()], environment).await
}

async fn alice_at(shop: &Process) -> Person {
    Person::logs_in(&Client::new(), &shop.base, "alice", PASSWORD).await
}

/// A process that sleeps, with the rights of the user whose `path` is.
fn stranger(path: &Path) -> tokio::process::Child {
    let owner = fs::metadata(path).unwrap();
    let mut sleep = tokio::process::Command::new("sleep");
    sleep.arg("600").kill_on_drop(true);
    if owner.uid() != nix::unistd::Uid::effective().as_raw() {
        sleep.uid(owner.uid()).gid(owner.gid());
    }
    sleep.spawn().unwrap()
}

#[tokio::test]
async fn nothing_that_the_environment_says_of_postgresql_reaches_the_private_one() {
    let home = tempfile::tempdir().unwrap();
    let environment = [
        ("PGHOST", "nowhere.invalid"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGUSER", "stranger"),
        ("PGPASSWORD", "wrong"),
        ("PGPASSFILE", "/nowhere"),
        ("PGDATABASE", "elsewhere"),
        ("PGSERVICE", "elsewhere"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERT", "/nowhere"),
        ("PGSSLKEY", "/nowhere"),
        ("PGOPTIONS", "-c colour=red -c default_transaction_read_only=on"),
        ("PGAPPNAME", "stranger"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGTZ", "Mars/Phobos"),
        ("PGDATESTYLE", "German"),
        ("PGDATA", "/nowhere"),
        ("PGCONNECT_TIMEOUT", "soon"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PG_COLOR", "always"),
        ("TZ", "Mars/Phobos"),
        ("LANG", "xx_XX.UTF-8"),
        ("LC_ALL", "xx_XX.UTF-8"),
        ("LC_MESSAGES", "xx_XX.UTF-8"),
        ("ENV", "/nowhere"),
        ("BASH_ENV", "/nowhere"),
    ];
    let shop = private_shop(&home.path().join("data"), &environment).await;
    alice_at(&shop).await.buys("pen").await.is_done();
    let mut audit = command(&["audit", "--data-dir"]);
    let audit = audit.arg(home.path().join("data")).envs(environment).output().await.unwrap();
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
}

#[tokio::test]
async fn a_shop_starts_whatever_its_folders_are_called() {
    let home = tempfile::tempdir().unwrap();
    let long = home.path().join("x".repeat(95));
    fs::create_dir(&long).unwrap();
    let odd = home.path().join("it's \"odd\"\n$HOME, caf\u{e9}");
    for temporary in [long.to_str().unwrap(), "relative", "/nowhere", ""] {
        let shop = private_shop(&odd, &[("TMPDIR", temporary)]).await;
        alice_at(&shop).await.buys("pen").await.is_done();
        shop.signal("TERM");
        assert_eq!(shop.exit_code().await, Some(0), "TMPDIR={temporary}");
    }
}

#[tokio::test]
async fn folders_whose_names_are_not_text_are_two_folders() {
    let home = tempfile::tempdir().unwrap();
    let place = |name: &[u8]| home.path().join(OsStr::from_bytes(name));
    let (first, second) = (place(b"caf\xe9"), place(b"caf\xe8"));
    for folder in [&first, &second] {
        let up = command(&["migrate", "up", "--data-dir"]).arg(folder).output().await.unwrap();
        assert_eq!(up.status.code(), Some(0), "{up:?}");
    }
    let mut seed = command(&["seed", "--users", "3", "--data-dir"]);
    assert!(seed.arg(&first).output().await.unwrap().status.success());
    for (folder, users) in [(&first, "3\n"), (&second, "0\n")] {
        let audit = command(&["audit", "--data-dir"]).arg(folder).output().await.unwrap();
        let said = String::from_utf8(audit.stdout).unwrap();
        let line = said.split_inclusive('\n').next().unwrap();
        assert!(line.starts_with("users ") && line.ends_with(&format!(" {users}")), "{said}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);

    let mut serve = command(&["serve", "--address", "127.0.0.1:0"]);
    let refused = serve.env("MERCH__DATA_DIR", &first).output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("MERCH__DATA_DIR: it is not UTF-8"), "{said}");
}

#[tokio::test]
async fn a_program_is_found_with_no_path_and_with_an_odd_one() {
    let home = tempfile::tempdir().unwrap();
    for path in ["", ".", ":relative:/nowhere"] {
        let data = home.path().join("data");
        let status = command(&["migrate", "up", "--data-dir", data.to_str().unwrap()])
            .env("PATH", path)
            .output()
            .await
            .unwrap();
        // What only the PATH leads to cannot be found; then the program says so.
        let said = String::from_utf8(status.stderr).unwrap();
        let is_missing = said.contains("no PostgreSQL 15 or later found");
        assert!(status.status.success() || is_missing, "PATH={path}: {said}");
    }
}

#[tokio::test]
async fn a_stranger_that_has_the_number_of_a_dead_database_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let shop = private_shop(&data, &[]).await;
    alice_at(&shop).await.buys("pen").await.is_done();
    let pid_file = data.join("postgres/postmaster.pid");
    let (left, owner) = (fs::read_to_string(&pid_file).unwrap(), fs::metadata(&pid_file).unwrap());
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));

    // As a machine that lost its power leaves it, and with the number given out anew.
    let mut stranger = stranger(&data.join("postgres"));
    let number = stranger.id().unwrap().to_string();
    let (_, rest) = left.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{number}\n{rest}")).unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let shop = private_shop(&data, &[]).await;
    assert_eq!(alice_at(&shop).await.owns("pen").await, 1);
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));
    assert_eq!(stranger.try_wait().unwrap(), None, "the stranger lives");
}

#[tokio::test]
async fn a_copy_of_a_running_shops_data_leaves_that_shop_alone() {
    let home = tempfile::tempdir().unwrap();
    let (data, copy) = (home.path().join("data"), home.path().join("copy"));
    let shop = private_shop(&data, &[]).await;
    let alice = alice_at(&shop).await;
    alice.buys("pen").await.is_done();
    let database = postmaster_pid(&data).unwrap();
    let mut copying = tokio::process::Command::new("cp");
    assert!(copying.arg("-a").args([&data, &copy]).status().await.unwrap().success());

    let second = private_shop(&copy, &[]).await;
    assert_ne!(postmaster_pid(&copy), Some(database));
    assert_eq!(postmaster_pid(&data), Some(database));
    alice.buys("pen").await.is_done();
    second.signal("TERM");
    assert_eq!(second.exit_code().await, Some(0));
    // Made after everything of the second shop's was gone: a new connection.
    let audit = command(&["audit", "--data-dir", data.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    assert_eq!(alice.owns("pen").await, 2);
}

#[tokio::test]
async fn a_database_that_lost_everybody_who_could_end_it_is_ended_by_the_next_shop() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let shop = private_shop(&data, &[]).await;
    alice_at(&shop).await.buys("pen").await.is_done();
    let database = postmaster_pid(&data).unwrap();
    let servers = descendants(database);
    let supervisors = descendants(shop.pid()).into_iter();
    for pid in supervisors.filter(|pid| *pid != database && !servers.contains(pid)) {
        send_signal("KILL", pid);
    }
    shop.signal("KILL");
    assert_eq!(shop.exit_code().await, None);
    assert!(is_running(database), "nobody ended it");

    let shop = private_shop(&data, &[]).await;
    eventually("the one before has ended", async || !is_running(database)).await;
    assert_eq!(alice_at(&shop).await.owns("pen").await, 1);
}

#[tokio::test]
async fn a_new_cluster_leaves_alone_what_is_not_a_draft_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let place = |name: &str| home.path().join(name);
    let others = ["disk/postgres.new-server-backup", "disk/postgres.new-0123abcd"];
    let kept = ["data/postgres.new-server", "data/postgres.new-0123abcde", "data/postgres.new-"];
    let draft = "data/postgres.new-0123abcd";
    for name in others.iter().chain(&kept).chain([&draft, &"disk/main"]) {
        fs::create_dir_all(place(name)).unwrap();
    }
    symlink(place("disk/main"), place("data/postgres")).unwrap();
    let shop = private_shop(&place("data"), &[]).await;
    alice_at(&shop).await.buys("pen").await.is_done();
    assert!(place("disk/main/PG_VERSION").exists());
    for name in others.iter().chain(&kept) {
        assert!(place(name).exists(), "{name}");
    }
    assert!(!place(draft).exists());
    assert_eq!(fs::read_dir(place("disk")).unwrap().count(), 3);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_refused_at_once_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name);
    fs::write(place("file"), "").unwrap();
    symlink("/nowhere/at/all", place("link")).unwrap();
    fs::create_dir(place("linked")).unwrap();
    symlink("/nowhere/at/all", place("linked/postgres")).unwrap();
    for (name, version, mode) in
        [("letters", "letters", 0o700), ("old", "13", 0o700), ("open", "15", 0o770)]
    {
        let cluster = place(name).join("postgres");
        fs::create_dir_all(&cluster).unwrap();
        fs::write(cluster.join("PG_VERSION"), version).unwrap();
        fs::set_permissions(&cluster, fs::Permissions::from_mode(mode)).unwrap();
        if nix::unistd::Uid::effective().is_root() {
            std::os::unix::fs::chown(&cluster, Some(65534), Some(65534)).unwrap();
        }
    }
    fs::create_dir_all(place("other/postgres")).unwrap();
    fs::write(place("other/postgres/letter.txt"), "").unwrap();
    for (name, reason) in [
        ("file", "is no folder"),
        ("file/below", "is no folder"),
        ("link", "is no folder"),
        ("linked", "postgres leads nowhere"),
        ("letters", "is no cluster of PostgreSQL's"),
        ("other", "is no cluster of PostgreSQL's"),
        ("old", "was written by PostgreSQL 13"),
        ("open", "is open to others (mode 770)"),
    ] {
        let said = refusal(&place(name)).await;
        assert!(said.contains(reason), "{name}: {said}");
        assert!(said.contains(place(name).to_str().unwrap()), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_data_folder_of_another_users_is_refused_with_the_names_of_both() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = home.path().join("data");
    let mut serve = if nix::unistd::Uid::effective().is_root() {
        // Where another user may start it.
        let copy = home.path().join("merch-store");
        fs::copy(program(), &copy).unwrap();
        let mut serve = tokio::process::Command::new(copy);
        serve.env_clear().uid(65534).gid(65534);
        serve
    } else {
        command(&[])
    };
    let data = match nix::unistd::Uid::effective().is_root() {
        true => {
            fs::create_dir(&data).unwrap();
            fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
            data
        }
        false => "/".into(),
    };
    let output = serve.args(["serve", "--address", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let output = output.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in ["belongs to root (uid 0)", "runs as ", "--data-dir"] {
        assert!(said.contains(expected), "{said}");
    }
}
