//! PostgreSQL's server programs, wherever this machine keeps them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{OLDEST_MAJOR, PrivatePostgresError};

/// How long a program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// What the programs are told of our environment: where wrappers find what they wrap, where
/// libraries are, and the name of a user whom the system does not know. Nothing that begins with
/// PG, no locale and no time zone: those would change what the shop's server is.
const PASSED_ON: [&str; 6] = [
    "HOME",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NSS_WRAPPER_PASSWD",
    "NSS_WRAPPER_GROUP",
];

/// PostgreSQL's programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    pub folder: PathBuf,
    major: u32,
    /// As the server says it: "15.18".
    pub version: String,
}

impl Programs {
    /// The newest version on this machine, or the one that `cluster`'s data needs.
    pub async fn find(data: Option<u32>, cluster: &Path) -> Result<Programs, PrivatePostgresError> {
        let mut found = Vec::new();
        for folder in program_folders() {
            if let Some((major, version)) = version(&folder.join("postgres")).await
                && folder.join("initdb").exists()
            {
                found.push(Programs { folder, major, version });
            }
        }
        let (found, older): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|programs| programs.major >= OLDEST_MAJOR);
        match data {
            Some(data) if !found.is_empty() => found
                .into_iter()
                .find(|programs| programs.major == data)
                .ok_or_else(|| PrivatePostgresError::OtherMajor { folder: cluster.into(), data }),
            _ => found
                .into_iter()
                .max_by_key(|programs| programs.major)
                .ok_or_else(|| PrivatePostgresError::NoPrograms { older: list(&older) }),
        }
    }
}

/// A command in an environment of its own, away from folders that its user may not enter.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    let passed_on = PASSED_ON.into_iter().filter_map(|key| Some((key, env::var_os(key)?)));
    command.envs(passed_on);
    // Whatever ours is, the shell's few programs are found.
    let mut path = env::var_os("PATH").filter(|path| !path.is_empty()).map_or_else(
        OsString::new,
        |mut path| {
            path.push(":");
            path
        },
    );
    path.push("/usr/bin:/bin");
    command.env("PATH", path).current_dir("/").stdin(Stdio::null());
    command
}

/// What the server at `program` says that it is; none if it is none, or does not say.
async fn version(program: &Path) -> Option<(u32, String)> {
    let mut command = command(program);
    let output = command.arg("--version").kill_on_drop(true).output();
    let output = timeout(VERSION_DEADLINE, output).await.ok()?.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// ", only 13.4 in /usr/bin", or nothing.
fn list(older: &[Programs]) -> String {
    let named: Vec<String> =
        older.iter().map(|it| format!("{} in {}", it.version, it.folder.display())).collect();
    if named.is_empty() { String::new() } else { format!(", only {}", named.join(" and ")) }
}

/// Where server programs are: on the PATH, and where packages of Debian, Red Hat, Homebrew
/// and MacPorts put them.
fn program_folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path)
        .filter_map(|folder| folder.join("postgres").canonicalize().ok())
        .filter_map(|program| program.parent().map(Path::to_owned))
        .collect();
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/local", "pgsql", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/opt/local/lib", "postgresql", "bin"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join(below))
                .filter(|folder| folder.join("postgres").exists()),
        );
    }
    folders
}

/// "postgres (PostgreSQL) 15.18 (Debian ...)": 15 and "15.18".
fn parse_version(output: &str) -> Option<(u32, String)> {
    let version = output.split_whitespace().nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_its_version_in_many_ways() {
        for (output, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 17.2", Some((17, "17.2"))),
            ("postgres (PostgreSQL) 18beta1", Some((18, "18beta1"))),
            ("something else", None),
            ("", None),
        ] {
            let version = parse_version(output);
            let version = version.as_ref().map(|(major, text)| (*major, text.as_str()));
            assert_eq!(version, expected, "{output:?}");
        }
    }
}
