//! A log file that is put aside when it is full: `gateway.log` becomes `gateway.log.1`, what
//! was that becomes `gateway.log.2`. Three are kept, each for a month after its last line.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Files kept besides the one that is written.
const KEPT: u32 = 3;

/// The longest that they are kept.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Bytes that are written at once if there are so many.
const BUFFER: usize = 64 * 1024;

/// How often to look for files that are too old, should none be put aside for a while.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// The file that is written, and those before it.
#[derive(Debug)]
pub struct RollingFile {
    path: PathBuf,
    max_bytes: u64,
    file: BufWriter<File>,
    written: u64,
    looked: SystemTime,
}

impl RollingFile {
    /// Goes on with the file at `path`, or makes it; of `max_bytes` at most, unless one line
    /// is longer.
    pub fn open(path: &Path, max_bytes: u64, now: SystemTime) -> io::Result<RollingFile> {
        let (file, written) = open(path)?;
        let rolling = RollingFile { path: path.into(), max_bytes, file, written, looked: now };
        rolling.remove_old(now);
        Ok(rolling)
    }

    /// Writes a line, whole into one file; there to be read after the next `flush` at the
    /// latest.
    pub fn write_line(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.max_bytes {
            // A file that cannot be put aside goes on growing, for another `max_bytes` at least:
            // lines are worth more than room.
            self.written = 0;
            if let Err(error) = self.put_aside() {
                // There is nobody to be told in the log itself.
                super::complain(&format!("cannot put {} aside: {error}", self.path.display()));
            }
            self.remove_old(now);
        } else if now.duration_since(self.looked).is_ok_and(|since| since >= LOOK_INTERVAL) {
            self.looked = now;
            self.remove_old(now);
        }
        self.file.write_all(line)?;
        self.written += length;
        Ok(())
    }

    /// Everything that was written is in the file from here on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.file.flush()?;
        for number in (1..KEPT).rev() {
            match fs::rename(self.kept(number), self.kept(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.kept(1))?;
        (self.file, self.written) = open(&self.path)?;
        Ok(())
    }

    /// Nothing depends on it, so what cannot be removed now is left for the next time.
    fn remove_old(&self, now: SystemTime) {
        for kept in (1..=KEPT).map(|number| self.kept(number)) {
            let modified = fs::metadata(&kept).and_then(|file| file.modified());
            let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > MONTH) {
                let _ = fs::remove_file(kept);
            }
        }
    }

    /// The path of the file that is `number` files older than the one that is written.
    fn kept(&self, number: u32) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(format!(".{number}"));
        path.into()
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    Ok((BufWriter::with_capacity(BUFFER, file), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn full_files_are_put_aside_and_three_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let now = SystemTime::now();
        let mut rolling = RollingFile::open(&path, 10, now).unwrap();
        // Two lines fit, not three, and not half of one.
        for line in ["11111", "22222", "33333", "4444\n", "55555", "6666", "77", "888888888888"] {
            rolling.write_line(line.as_bytes(), now).unwrap();
        }
        rolling.flush().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(names(folder.path()), ["log", "log.1", "log.2", "log.3"]);
        assert_eq!(read("log"), "888888888888");
        assert_eq!(read("log.1"), "77");
        assert_eq!(read("log.2"), "555556666");
        assert_eq!(read("log.3"), "333334444\n");
        rolling.write_line(b"9", now).unwrap();
        rolling.flush().unwrap();
        assert_eq!(names(folder.path()), ["log", "log.1", "log.2", "log.3"]);
        assert_eq!((read("log"), read("log.3")), ("9".into(), "555556666".into()));
    }

    #[test]
    fn a_file_that_is_there_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let now = SystemTime::now();
        for line in ["1111", "2222", "3333"] {
            RollingFile::open(&path, 10, now).unwrap().write_line(line.as_bytes(), now).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "3333");
        assert_eq!(fs::read_to_string(folder.path().join("log.1")).unwrap(), "11112222");
    }

    #[test]
    fn files_are_gone_a_month_after_their_last_line() {
        let now = SystemTime::now();
        let (young, old) = (now + MONTH - Duration::from_secs(60), now + MONTH * 2);
        let filled = || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let mut rolling = RollingFile::open(&path, 4, now).unwrap();
            for line in ["1111", "2222", "33"] {
                rolling.write_line(line.as_bytes(), now).unwrap();
            }
            (folder, path, rolling)
        };
        // Seen by one that goes on writing, whether or not its file is full ...
        for (line, time, left) in [
            ("4", young, &["log", "log.1", "log.2"][..]),
            ("4", old, &["log"]),
            ("4444", old, &["log"]),
        ] {
            let (folder, _, mut rolling) = filled();
            rolling.write_line(line.as_bytes(), time).unwrap();
            assert_eq!(names(folder.path()), left, "{line}");
        }
        // ... and by one that starts.
        let (folder, path, _) = filled();
        RollingFile::open(&path, 4, old).unwrap();
        assert_eq!(names(folder.path()), ["log"]);
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on_growing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        // Folders that are not empty, in each other's way.
        for number in [2, 3] {
            fs::create_dir_all(folder.path().join(format!("log.{number}/full"))).unwrap();
        }
        let now = SystemTime::now();
        let mut rolling = RollingFile::open(&path, 4, now).unwrap();
        for line in ["1111", "2222", "3333"] {
            rolling.write_line(line.as_bytes(), now).unwrap();
        }
        rolling.flush().unwrap();
        let kept = fs::read_to_string(&path).unwrap();
        assert_eq!(kept, "111122223333");
    }
}
