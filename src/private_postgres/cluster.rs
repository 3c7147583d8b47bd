//! The cluster: the folder with the data of a server, and the user whose it is.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

use crate::data_folder::user_name;

use super::door::Door;
use super::programs::{self, Programs};
use super::{PrivatePostgresError, io_error, server};

/// A log file that is longer than this at start is put aside.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// What PostgreSQL lets nobody but the owner do with a cluster: more than reading in the group,
/// anything elsewhere.
const TOO_OPEN: u32 = 0o027;

/// How the folder of a cluster that is being made is called, before a random number.
const DRAFT: &str = "postgres.new-";

/// Where a cluster lives, and as whom its server runs.
#[derive(Debug)]
pub(super) struct Cluster {
    path: PathBuf,
    /// The data folder, which this process has locked.
    data: PathBuf,
    /// The major version that wrote it, unless it is still to be made.
    major: Option<u32>,
    owner: Option<Owner>,
}

/// The unprivileged user that the server runs as where we are root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub uid: Uid,
    pub gid: Gid,
}

impl Cluster {
    /// The cluster in the data folder at `data`, with everything looked at that a server would
    /// refuse it for.
    pub fn in_folder(data: &Path) -> Result<Cluster, PrivatePostgresError> {
        let path = data.join("postgres");
        // A link may lead to another disk.
        let path = match fs::symlink_metadata(&path) {
            Ok(_) => path.canonicalize().map_err(|error| {
                not_ours(&path, format!("leads nowhere ({error}); is its disk there?"))
            })?,
            Err(_) => path,
        };
        let major = major(&path)?;
        let owner = match major {
            Some(_) => Owner::of(&path)?,
            None => Owner::of_a_new_one()?,
        };
        Ok(Cluster { path, data: data.to_owned(), major, owner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn log(&self) -> PathBuf {
        self.data.join("postgres.log")
    }

    pub fn major(&self) -> Option<u32> {
        self.major
    }

    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Makes the cluster; it gets its name when it is complete.
    pub async fn make(&self, programs: &Programs) -> Result<(), PrivatePostgresError> {
        let user = self.owner.map_or_else(Uid::effective, |owner| owner.uid);
        if !matches!(User::from_uid(user), Ok(Some(_))) {
            return Err(PrivatePostgresError::NamelessUser(user.as_raw()));
        }
        self.remove_drafts();
        // An empty folder first: it would be a pity about a whole cluster.
        let empty = self.new_draft()?;
        self.give_name(&empty).inspect_err(|_| discard(&empty))?;
        let draft = self.new_draft()?;
        let made = self.fill(&draft, programs).await.and_then(|()| self.give_name(&draft));
        made.inspect_err(|_| discard(&draft))
    }

    /// Has the empty folder at `draft` made a cluster.
    async fn fill(&self, draft: &Path, programs: &Programs) -> Result<(), PrivatePostgresError> {
        let door = Door::to(draft, self.owner)?;
        let initdb = programs.folder.join("initdb");
        let output = self
            .command(&initdb)
            .args(["--username=merch", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(door.path())
            .kill_on_drop(true)
            // Ctrl-C at a terminal reaches us alone.
            .process_group(0)
            .output()
            .await
            .map_err(io_error("cannot run", &initdb))?;
        if output.status.success() {
            return Ok(());
        }
        let said = door.named(&String::from_utf8_lossy(&output.stderr), draft);
        Err(PrivatePostgresError::Program { program: "initdb", output: server::cause(&said) })
    }

    /// Puts the folder at `draft` where the cluster is to be, in place of an empty one.
    fn give_name(&self, draft: &Path) -> Result<(), PrivatePostgresError> {
        fs::rename(draft, &self.path).map_err(|error| not_named(&self.path, error))
    }

    /// Removes what was left half-made in the data folder, where nobody else makes any.
    fn remove_drafts(&self) {
        for entry in fs::read_dir(&self.data).into_iter().flatten().flatten() {
            if is_draft(&entry.file_name()) {
                discard(&entry.path());
            }
        }
    }

    /// A folder beside the cluster with a name of its own: what made one before may have been
    /// killed a moment ago, and still be at it.
    fn new_draft(&self) -> Result<PathBuf, PrivatePostgresError> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let draft = parent.join(format!("{DRAFT}{:08x}", rand::random::<u32>()));
        let made = DirBuilder::new().mode(0o700).create(&draft);
        made.map_err(io_error("cannot make", &draft))?;
        if let Some(owner) = self.owner {
            chown(&draft, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                .map_err(io_error("cannot hand over", &draft))?;
        }
        Ok(draft)
    }

    /// A command that runs as the cluster's owner.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = programs::command(program.as_ref());
        if let Some(owner) = self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    /// The server's log, to be appended to, and how long it is already.
    pub fn open_log(&self) -> Result<(File, u64), PrivatePostgresError> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
            fs::rename(&path, path.with_extension("log.old"))
                .map_err(io_error("cannot put aside", &path))?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&path);
        log.and_then(|log| log.metadata().map(|metadata| (log, metadata.len())))
            .map_err(io_error("cannot write", &path))
    }
}

/// Why no draft became the cluster at `path`.
fn not_named(path: &Path, error: io::Error) -> PrivatePostgresError {
    match error.kind() {
        ErrorKind::ResourceBusy => {
            let why = "is where a disk is mounted, and a cluster must be in a folder on it; make \
                       `postgres` a link to one, or name the disk with --data-dir";
            not_ours(path, why.into())
        }
        _ => io_error("cannot make", path)(error),
    }
}

/// Removes a draft; what cannot be removed now is left for the next time.
fn discard(draft: &Path) {
    let _ = fs::remove_dir_all(draft);
}

/// Whether a folder is called as those are in which we make a cluster.
fn is_draft(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(DRAFT));
    number.is_some_and(|it| it.len() == 8 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The version that wrote the cluster at `path`; none if there is none, or an empty folder.
fn major(path: &Path) -> Result<Option<u32>, PrivatePostgresError> {
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(not_ours(path, whose(path)));
        }
        Err(error) => return Err(io_error("cannot read", path)(error)),
    };
    if is_empty {
        return Ok(None);
    }
    let version = fs::read_to_string(path.join("PG_VERSION"))
        .and_then(|text| text.trim().parse().map_err(|_| io::Error::from(ErrorKind::InvalidData)));
    match version {
        Ok(major) => Ok(Some(major)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(not_ours(path, whose(path)))
        }
        Err(_) => Err(not_ours(
            path,
            "is no cluster of PostgreSQL's: its PG_VERSION says no version; move it away".into(),
        )),
    }
}

impl Owner {
    /// The user whose the cluster at `path` is: us, unless we are root, as which no server runs.
    fn of(path: &Path) -> Result<Option<Owner>, PrivatePostgresError> {
        let cluster = fs::metadata(path).map_err(io_error("cannot read", path))?;
        let (uid, gid) = (Uid::from_raw(cluster.uid()), Gid::from_raw(cluster.gid()));
        if uid.is_root() && Uid::effective().is_root() {
            let why = "belongs to root, as which PostgreSQL does not run; `chown -R` it to the \
                       user that made it";
            return Err(not_ours(path, why.into()));
        }
        if uid != Uid::effective() && !Uid::effective().is_root() {
            return Err(not_ours(path, whose(path)));
        }
        if cluster.mode() & TOO_OPEN != 0 {
            let mode = cluster.mode() & 0o777;
            let why = format!(
                "is open to others (mode {mode:o}), which PostgreSQL does not take; \
                               `chmod 700` it"
            );
            return Err(not_ours(path, why));
        }
        Ok(Uid::effective().is_root().then_some(Owner { uid, gid }))
    }

    /// The user who makes a cluster: us, unless we are root.
    fn of_a_new_one() -> Result<Option<Owner>, PrivatePostgresError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or(PrivatePostgresError::NoUser)?;
        Ok(Some(Owner { uid: user.uid, gid: user.gid }))
    }
}

fn not_ours(folder: &Path, why: String) -> PrivatePostgresError {
    PrivatePostgresError::NotOurs { folder: folder.to_owned(), why }
}

/// Whose the cluster at `path` is, for somebody else.
fn whose(path: &Path) -> String {
    let owner = fs::metadata(path).map_or_else(|_| "another user".into(), |it| user_name(it.uid()));
    let us = user_name(Uid::effective().as_raw());
    format!(
        "belongs to {owner}, and this process runs as {us}; start as {owner}, or give this one a \
         folder of its own with --data-dir"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_mounted_where_the_cluster_is_to_be_is_said_to_be_one() {
        for (kind, expected) in [
            (ErrorKind::ResourceBusy, "is where a disk is mounted"),
            (ErrorKind::PermissionDenied, "cannot make /srv/shop/postgres"),
        ] {
            let said = not_named(Path::new("/srv/shop/postgres"), kind.into()).to_string();
            assert!(said.contains("/srv/shop/postgres") && said.contains(expected), "{said}");
        }
    }
}
