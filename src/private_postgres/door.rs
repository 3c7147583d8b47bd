//! A way to a folder past the folders above it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Owner, PrivatePostgresError, io_error};

/// A path to a folder that its owner can use although folders above it are closed to them:
/// we, who may enter, open it and hand the open folder on. Lives as long as the path is
/// needed by a process that has not started yet.
pub(super) struct Door {
    path: PathBuf,
    _opened: Option<OwnedFd>,
}

impl Door {
    pub fn to(folder: &Path, owner: Option<Owner>) -> Result<Door, PrivatePostgresError> {
        if owner.is_none() || !cfg!(target_os = "linux") {
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
}
