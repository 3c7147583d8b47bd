//! PostgreSQL's server programs, wherever this machine keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{OLDEST_MAJOR, PrivatePostgresError};

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
            let Ok(output) = Command::new(folder.join("postgres")).arg("--version").output().await
            else {
                continue;
            };
            if let Some(version) = parse_version(&String::from_utf8_lossy(&output.stdout))
                && folder.join("initdb").exists()
            {
                found.push(Programs { folder, major: version.0, version: version.1 });
            }
        }
        found.retain(|programs| programs.major >= OLDEST_MAJOR);
        match data {
            Some(data) if !found.is_empty() => found
                .into_iter()
                .find(|programs| programs.major == data)
                .ok_or_else(|| PrivatePostgresError::OtherMajor { folder: cluster.into(), data }),
            _ => found
                .into_iter()
                .max_by_key(|programs| programs.major)
                .ok_or(PrivatePostgresError::NoPrograms),
        }
    }
}

/// Where server programs are: on the PATH, and where packages of Debian, Red Hat, Homebrew
/// and MacPorts put them.
fn program_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path)
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
