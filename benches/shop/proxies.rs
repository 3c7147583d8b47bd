//! What stands between clients and backends: the gateway, nginx and HAProxy, set to do the
//! same work (see [`Proxy`]); and the backends, which do as little as can be.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::processes::{cpu_of_family, memory_of_family};

/// How long a server may take to answer its first request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What both uses of nginx have in common.
const NGINX_EVENTS: &str = "
daemon off;
worker_processes 2;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
";

/// A server that runs; it is stopped when dropped.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
}

/// Two backends: nginx, which answers from its configuration.
pub struct Backends {
    pub addresses: [SocketAddr; 2],
    server: Server,
}

/// Who passes requests on. Each of them writes a line in a log for each request, holds clients
/// to a limit by address that nobody reaches, gives requests an id, tells the backends where
/// they came from, keeps connections, and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Gateway,
    Nginx,
    Haproxy,
}

impl Proxy {
    pub const ALL: [Proxy; 3] = [Proxy::Gateway, Proxy::Nginx, Proxy::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Proxy::Gateway => "gateway",
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "HAProxy",
        }
    }

    /// Starts it in front of `backends`, with its files in `home`.
    pub fn start(self, backends: &Backends, home: &Path) -> anyhow::Result<Server> {
        match self {
            Proxy::Gateway => gateway(backends, home, &[]),
            Proxy::Nginx => {
                let address = free_address()?;
                nginx(address, &nginx_settings(address, backends), &home.join("nginx"))
            }
            Proxy::Haproxy => haproxy(backends, home),
        }
    }
}

/// Starts the gateway as it comes but for a limit that nobody reaches, and `settings`.
pub fn gateway(
    backends: &Backends,
    home: &Path,
    settings: &[(&str, &str)],
) -> anyhow::Result<Server> {
    let address = free_address()?;
    let [first, second] = backends.addresses;
    let process = Command::new(env!("CARGO_BIN_EXE_merch-store"))
        .arg("gateway")
        .args(["--address", &address.to_string()])
        .args(["--backend", &format!("http://{first}"), "--backend", &format!("http://{second}")])
        .env("MERCH__LIMITS__CAPACITY", "1000000")
        .env("MERCH__LIMITS__RATE_PER_SEC", "1000000")
        .env("MERCH__LOG__FILE", home.join("gateway.log"))
        .env("MERCH__DATA_DIR", home)
        .envs(settings.iter().copied())
        .stdout(Stdio::null())
        .spawn()?;
    Server { address, process }.ready()
}

impl Backends {
    /// Starts them with their files in `home`. To `/small` they answer two bytes, to anything
    /// else `body`.
    pub fn start(body: &str, home: &Path) -> anyhow::Result<Backends> {
        let addresses = [free_address()?, free_address()?];
        let [first, second] = addresses;
        let settings = format!(
            "{NGINX_EVENTS}
             http {{
                 access_log off;
                 default_type application/json;
                 keepalive_requests 1000000000;
                 server {{
                     listen {first} backlog=4096;
                     listen {second} backlog=4096;
                     location / {{ return 200 '{body}'; }}
                     location = /small {{ return 200 '{{}}'; }}
                 }}
             }}"
        );
        let server = nginx(first, &settings, &home.join("backends"))?;
        Ok(Backends { addresses, server })
    }

    pub fn cpu(&self) -> Duration {
        self.server.cpu()
    }
}

impl Server {
    /// Processor time so far of all its processes.
    pub fn cpu(&self) -> Duration {
        cpu_of_family(self.process.id())
    }

    /// Memory of all its processes, in MiB.
    pub fn memory(&self) -> f64 {
        memory_of_family(self.process.id())
    }

    /// Waits until it answers.
    fn ready(self) -> anyhow::Result<Server> {
        let started = Instant::now();
        while !answers(self.address) {
            anyhow::ensure!(started.elapsed() < PATIENCE, "{} does not answer", self.address);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked rather than killed: nginx would leave its workers behind.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn nginx_settings(address: SocketAddr, backends: &Backends) -> String {
    let [first, second] = backends.addresses;
    format!(
        "{NGINX_EVENTS}
         http {{
             access_log access.log;
             keepalive_requests 1000000000;
             limit_req_zone $binary_remote_addr zone=clients:16m rate=1000000r/s;
             upstream backends {{
                 server {first};
                 server {second};
                 keepalive 1024;
                 keepalive_requests 1000000000;
             }}
             server {{
                 listen {address} backlog=4096 reuseport;
                 location / {{
                     limit_req zone=clients burst=1000000 nodelay;
                     add_header X-Request-ID $request_id;
                     proxy_pass http://backends;
                     proxy_http_version 1.1;
                     proxy_set_header Connection \"\";
                     proxy_set_header Host $http_host;
                     proxy_set_header X-Request-ID $request_id;
                     proxy_set_header X-Forwarded-For $remote_addr;
                     proxy_set_header X-Forwarded-Proto $scheme;
                     proxy_set_header X-Forwarded-Host $http_host;
                     proxy_set_header Forwarded \"for=$remote_addr;proto=$scheme\";
                 }}
             }}
         }}"
    )
}

fn nginx(address: SocketAddr, settings: &str, home: &Path) -> anyhow::Result<Server> {
    std::fs::create_dir_all(home)?;
    let path = home.join("nginx.conf");
    std::fs::write(&path, settings)?;
    let process = Command::new(program("nginx")?)
        .arg("-p")
        .arg(home)
        .arg("-c")
        .arg(&path)
        .args(["-e", "error.log", "-g", "pid nginx.pid;"])
        .stderr(Stdio::null())
        .spawn()?;
    Server { address, process }.ready()
}

fn haproxy(backends: &Backends, home: &Path) -> anyhow::Result<Server> {
    let address = free_address()?;
    let [first, second] = backends.addresses;
    let settings = format!(
        "global
    nbthread 2
    maxconn 4000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    unique-id-format %[uuid()]
    unique-id-header X-Request-ID
frontend clients
    bind {address} backlog 4096
    stick-table type ip size 100k expire 30s store http_req_rate(10s)
    http-request track-sc0 src
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header Forwarded for=%[src];proto=http
    http-response set-header X-Request-ID %[unique-id]
    default_backend backends
backend backends
    balance roundrobin
    server first {first} check
    server second {second} check
"
    );
    let path = home.join("haproxy.cfg");
    std::fs::write(&path, settings)?;
    let process = Command::new(program("haproxy")?)
        .arg("-db")
        .arg("-f")
        .arg(&path)
        .stdout(File::create(home.join("haproxy.log"))?)
        .stderr(Stdio::null())
        .spawn()?;
    Server { address, process }.ready()
}

/// A program on the PATH, or where Debian keeps servers.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let mut programs = folders.into_iter().map(|folder| folder.join(name));
    let found = programs.find(|program| program.exists());
    found.with_context(|| format!("{name} is missing: see scripts/bench"))
}

/// An address that was free a moment ago: two of the servers cannot be asked to choose one.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
