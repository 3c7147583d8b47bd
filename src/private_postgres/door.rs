//! A way to a folder past the folders above it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cluster::Owner;
use super::{PrivatePostgresError, io_error};

/// A path to a folder that its owner can use although folders above it are closed to them, or
/// have names that PostgreSQL does not take: we, who may enter, open it and hand the open folder
/// on. Lives as long as the path is needed by a process that has not started yet.
pub(super) struct Door {
    path: PathBuf,
    _opened: Option<OwnedFd>,
}

impl Door {
    pub fn to(folder: &Path, owner: Option<Owner>) -> Result<Door, PrivatePostgresError> {
        // PostgreSQL writes the path of its data into a file of lines.
        let is_odd = folder.as_os_str().as_bytes().iter().any(u8::is_ascii_control);
        let has_doors = Path::new("/proc/self/fd").exists();
        if is_odd && !has_doors {
            let error = io::Error::from(io::ErrorKind::InvalidFilename);
            return Err(io_error("PostgreSQL cannot use", folder)(error));
        }
        if (owner.is_none() && !is_odd) || !has_doors {
            return Ok(Door { path: folder.to_owned(), _opened: None });
        }
        // Child processes shall inherit it, which a `File` never is; from 10 on, because the
        // supervisor uses the numbers below.
        let opened = File::open(folder)
            .and_then(|folder| {
                let opened = rustix::io::fcntl_dupfd_cloexec(folder, 10)?;
                rustix::io::fcntl_setfd(&opened, rustix::io::FdFlags::empty())?;
                Ok(opened)
            })
            .map_err(io_error("cannot open", folder))?;
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd()).into();
        Ok(Door { path, _opened: Some(opened) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a program said that went through this door to `folder`, in words that others know.
    pub fn named(&self, said: &str, folder: &Path) -> String {
        said.replace(&*self.path.to_string_lossy(), &folder.to_string_lossy())
    }
}
