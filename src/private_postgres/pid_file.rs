//! What a server writes into `postmaster.pid` while it runs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::sockets;

/// The file's content. A server that was killed leaves it behind, and its number may belong to
/// another process by then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: i32,
    started: Vec<u8>,
    pub sockets: PathBuf,
    pub ready: bool,
}

impl PidFile {
    pub fn read(cluster: &Path) -> Option<PidFile> {
        PidFile::parse(&fs::read(cluster.join("postmaster.pid")).ok()?)
    }

    /// The lines: pid, folder, start, port, folder of the socket, address, shared memory, state.
    fn parse(content: &[u8]) -> Option<PidFile> {
        let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        Some(PidFile {
            pid: std::str::from_utf8(lines.first()?).ok()?.trim().parse().ok()?,
            started: lines.get(2)?.to_vec(),
            sockets: OsString::from_vec(lines.get(4)?.to_vec()).into(),
            ready: lines.get(7).is_some_and(|state| state.trim_ascii() == b"ready"),
        })
    }

    /// The server, if it runs: the process that listens on the socket named here, according to
    /// the system. No other process can, because the socket's folder is closed to others.
    pub async fn listener(&self) -> Option<i32> {
        if !sockets::is_made_by_us(&self.sockets) {
            return None;
        }
        let stream = UnixStream::connect(sockets::socket(&self.sockets)).await.ok()?;
        stream.peer_cred().ok()?.pid().filter(|pid| *pid == self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_whatever_its_folder_is_called() {
        let text = b"12\n/d\xffta\n17\n5432\n/tmp/merch-store-1\n\n 1 2\nready   \n";
        let read = PidFile::parse(text).unwrap();
        assert_eq!((read.pid, read.ready), (12, true));
        assert_eq!(read.sockets, Path::new("/tmp/merch-store-1"));
        let starting = PidFile::parse(b"12\n/data\n17\n5432\n/tmp\n\n 1 2\nstarting\n").unwrap();
        assert!(!starting.ready);
        for damaged in [&b""[..], b"12", b"x\n/data\n17\n5432\n/tmp\n", b"12\n/data\n17\n"] {
            assert_eq!(PidFile::parse(damaged), None, "{damaged:?}");
        }
    }
}
