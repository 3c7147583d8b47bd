//! The data folder: what a shop without configuration keeps, and who may touch it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

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
        "the data folder {} belongs to a running process ({owner}); stop it, or give this one a \
         folder of its own with --data-dir",
        path.display()
    )]
    Taken {
        /// The folder, as an absolute path.
        path: PathBuf,
        /// What that process wrote into the lock: "pid 123", or nothing yet.
        owner: String,
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
        let failed = |source| DataFolderError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only to be helpful: the lock is what counts.
                let _ = lock.read_to_string(&mut owner);
                return Err(DataFolderError::Taken { path, owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "pid {}", std::process::id()).map_err(failed)?;
        Ok(DataFolder { path, _lock: lock })
    }

    /// Where it is: absolute, with no symbolic links on the way.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret that signs this shop's tokens: 32 random bytes in hexadecimal, made the
    /// first time and kept.
    pub fn secret(&self) -> Result<SecretString, DataFolderError> {
        let path = self.path.join("jwt-secret");
        let failed = |source| DataFolderError::Io { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(secret) => return Ok(secret.trim().into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
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

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

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
    }
}
