//! The data folder: what a shop without configuration keeps, and who may touch it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use secrecy::SecretString;

/// 32 bytes in hexadecimal.
const SECRET_CHARS: usize = 64;

/// A data folder that this process owns, until it ends or drops it.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Locked. The kernel lets go of it however the process ends.
    _lock: File,
}

/// Why a data folder cannot be had; `Display` is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process holds its lock, and with it a running shop's data.
    #[error(
        "the data folder {} belongs to a running process{owner}; stop it, or give this one a \
         folder of its own with --data-dir",
        path.display()
    )]
    Taken {
        /// The folder, as an absolute path.
        path: PathBuf,
        /// What that process wrote into the lock: " (pid 123)", or nothing yet.
        owner: String,
    },
    /// Another user's, or below a folder of another user's, who does not let us in.
    #[error(
        "{} is closed to this process, which runs as {us}: {} belongs to {owner}; start as that \
         user, or give this one a folder of its own with --data-dir",
        path.display(), closed.display()
    )]
    Closed {
        /// The folder, or the file in it that is to blame.
        path: PathBuf,
        /// That, or what it is in: the first that we can see.
        closed: PathBuf,
        /// Whose that is.
        owner: String,
        /// Whose we are.
        us: String,
    },
    /// There is something else at its path.
    #[error("the data folder {} is no folder; give another one with --data-dir", path.display())]
    NoFolder {
        /// Where a file is, or a link that leads nowhere.
        path: PathBuf,
    },
    /// Its file system lets nobody lock a file, so two shops could have it at once.
    #[error(
        "the data folder {} is on a file system without locks ({said}); give one on another \
         with --data-dir, or name a running PostgreSQL with MERCH__DATABASE__URL",
        path.display()
    )]
    NoLocks {
        /// The folder, as an absolute path.
        path: PathBuf,
        /// What the system said.
        said: io::Error,
    },
    /// The secret in the folder is too short to be the one that was put there.
    #[error("{} is damaged; remove it to make a new secret: everybody has to log in again",
            path.display())]
    BadSecret {
        /// The secret's file.
        path: PathBuf,
    },
    /// The folder or a file in it could not be made, read or written.
    #[error("cannot use the data folder {}", path.display())]
    Io {
        /// The folder, or the file in it that is to blame.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataFolder {
    /// Takes the folder at `path`, which is made if it is not there.
    pub fn take(path: &Path) -> Result<DataFolder, DataFolderError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.and_then(|()| fs::read_dir(path).map(drop)).map_err(|error| failed(path, error))?;
        let path = &path.canonicalize().map_err(|error| failed(path, error))?;
        let lock_path = path.join("lock");
        let failed = |error| failed(&lock_path, error);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        lock.try_lock().map_err(|error| not_locked(path, &mut lock, error))?;
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "pid {}", std::process::id()).map_err(failed)?;
        Ok(DataFolder { path: path.clone(), _lock: lock })
    }

    /// Where it is: absolute, with no symbolic links on the way.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret that signs this shop's tokens: 32 random bytes in hexadecimal, made the
    /// first time and kept.
    pub fn secret(&self) -> Result<SecretString, DataFolderError> {
        let path = self.path.join("jwt-secret");
        let failed = |error| failed(&path, error);
        match fs::read_to_string(&path) {
            Ok(secret) if secret.trim().len() >= SECRET_CHARS => return Ok(secret.trim().into()),
            Ok(_) => return Err(DataFolderError::BadSecret { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let secret: String =
            rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect();
        // Under another name first: a crash must not leave half a secret.
        let draft = self.path.join("jwt-secret.new");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(secret.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(failed)?;
        Ok(secret.into())
    }
}

/// The user with the number `uid`, for people: "bob (uid 1001)".
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("the user with the number {uid}"),
    }
}

/// Why the data folder at `path` is not ours, whose `lock` could not be had.
fn not_locked(path: &Path, lock: &mut File, error: TryLockError) -> DataFolderError {
    let path = path.to_owned();
    match error {
        TryLockError::WouldBlock => {
            let mut owner = String::new();
            // Only to be helpful: the lock is what counts.
            let _ = lock.read_to_string(&mut owner);
            if !owner.is_empty() {
                owner = format!(" ({})", owner.trim());
            }
            DataFolderError::Taken { path, owner }
        }
        TryLockError::Error(said) => DataFolderError::NoLocks { path, said },
    }
}

/// Why the data folder, or the file in it, at `path` cannot be used.
fn failed(path: &Path, source: io::Error) -> DataFolderError {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let us = Uid::effective().as_raw();
    let first_seen =
        path.ancestors().find_map(|it| fs::metadata(it).ok().map(|metadata| (it, metadata.uid())));
    match (source.kind(), first_seen) {
        (ErrorKind::PermissionDenied, Some((closed, owner))) if owner != us => {
            let closed = closed.to_owned();
            DataFolderError::Closed { path, closed, owner: user_name(owner), us: user_name(us) }
        }
        (ErrorKind::AlreadyExists | ErrorKind::NotADirectory, _) => {
            DataFolderError::NoFolder { path }
        }
        _ => DataFolderError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_file_system_without_locks_is_said_to_be_one() {
        let unsupported = TryLockError::Error(io::Error::from(ErrorKind::Unsupported));
        let mut lock = tempfile::tempfile().unwrap();
        let said = not_locked(Path::new("/srv/shop"), &mut lock, unsupported).to_string();
        for expected in ["/srv/shop", "without locks", "--data-dir", "MERCH__DATABASE__URL"] {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_folder_has_one_owner_at_a_time_and_keeps_its_secret() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataFolder::take(&path).unwrap();
        let secret = first.secret().unwrap();
        assert_eq!(secret.expose_secret().len(), 64);

        let refused = DataFolder::take(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");

        drop(first);
        let second = DataFolder::take(&path).unwrap();
        assert_eq!(second.secret().unwrap().expose_secret(), secret.expose_secret());

        std::fs::write(path.join("jwt-secret"), "").unwrap();
        let refused = second.secret().unwrap_err().to_string();
        assert!(refused.contains("jwt-secret is damaged"), "{refused}");
    }
}
