//! PgBouncer before a test's database, on a socket of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};
use reqwest::Url;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::{TestDatabase, eventually};

/// A running pooler; killed with this.
pub struct PgBouncer {
    folder: TempDir,
    server: Child,
    url: Url,
}

impl PgBouncer {
    /// A pooler in `mode` before the server at `upstream`, with few connections to it and with
    /// `settings` of its own, a line each.
    pub async fn start(upstream: &Url, mode: &str, settings: &str) -> PgBouncer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        // Started by root it runs as somebody else, who must get in.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let socket = upstream.query_pairs().find(|(key, _)| key == "host");
        let host = socket.map_or(upstream.host_str().unwrap().to_owned(), |(_, it)| it.into());
        let port = upstream.port().unwrap_or(5432);
        let password = upstream.password().map_or(String::new(), |it| format!(" password={it}"));
        let user = upstream.username();
        let database = upstream.path().trim_start_matches('/');
        // Not as root, which it refuses, but as somebody who may use that socket.
        let runs_as = match rustix::process::geteuid().is_root() {
            true => format!("user = {}", owner_of(&host)),
            false => String::new(),
        };
        let config = format!(
            "[databases]\n{database} = host={host} port={port} user={user}{password}\n\
             [pgbouncer]\npool_mode = {mode}\nauth_type = any\nlisten_addr =\n\
             unix_socket_dir = {path}\ndefault_pool_size = 3\nmax_client_conn = 1000\n\
             server_login_retry = 1\n{runs_as}\n{settings}\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let program = ["pgbouncer", "/usr/sbin/pgbouncer"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("--quiet").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        });
        let server = program.expect("pgbouncer, which scripts/test installs");
        let url = format!("postgres://anybody@localhost:6432/{database}?host={path}");
        let pooler = PgBouncer { folder, server, url: url.parse().unwrap() };
        let socket = pooler.folder.path().join(".s.PGSQL.6432");
        eventually("PgBouncer listens", async || socket.exists()).await;
        pooler
    }

    /// The same before `database`.
    pub async fn before(database: &TestDatabase, mode: &str, settings: &str) -> PgBouncer {
        PgBouncer::start(database.url(), mode, settings).await
    }

    /// Where shops connect.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Another client of the pooler, who goes on connections that a shop has used.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.url.as_str()).await.unwrap()
    }
}

/// Who owns `folder`, if it is one.
fn owner_of(folder: &str) -> String {
    let owner = fs::metadata(folder).ok().map(|it| Uid::from_raw(it.uid()));
    let user = owner.and_then(|uid| User::from_uid(uid).unwrap());
    user.map_or("nobody".into(), |user| user.name)
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have died in the test.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
