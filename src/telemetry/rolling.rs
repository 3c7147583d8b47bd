//! A log file that is put aside when it is full: `gateway.log` becomes `gateway.log.1`, what
//! was that becomes `gateway.log.2`. Three are kept, each for a month after its last line.
//!
//! What is written is the file at the path, whoever moves, removes or empties it meanwhile.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

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
    opened: Opened,
    looked: SystemTime,
}

/// A file as it was when it was opened, and what was written since.
#[derive(Debug)]
struct Opened {
    file: BufWriter<File>,
    identity: (u64, u64),
    /// Pipes, terminals and devices are never put aside.
    is_regular: bool,
    written: u64,
    /// Nobody will ever read what is written into it.
    is_lost: bool,
}

impl RollingFile {
    /// Goes on with the file at `path`, or makes it; of `max_bytes` at most, unless one line
    /// is longer.
    pub fn open(path: &Path, max_bytes: u64, now: SystemTime) -> io::Result<RollingFile> {
        let opened = Opened::at(path)?;
        let rolling = RollingFile { path: path.into(), max_bytes, opened, looked: now };
        rolling.remove_old(now);
        Ok(rolling)
    }

    /// Goes over to the file that is at the path now, if that is another one, and makes it if
    /// there is none. An error if it cannot: then the file before is still written.
    pub fn follow(&mut self) -> io::Result<()> {
        if is_given(&self.path) {
            return Ok(());
        }
        match fs::metadata(&self.path) {
            Ok(there) if identity(&there) == self.opened.identity => {
                // It may have been emptied, or another process may write it, too.
                self.opened.written = there.len() + self.opened.file.buffer().len() as u64;
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It may still be there, for all that we can see.
            Err(_) => return Ok(()),
        }
        // What cannot be flushed now never will be.
        let flushed = self.flush();
        match Opened::at(&self.path) {
            Ok(opened) => self.opened = opened,
            Err(error) => {
                let before = self.opened.file.get_ref().metadata();
                self.opened.is_lost = before.is_ok_and(|before| before.nlink() == 0);
                return Err(error);
            }
        }
        flushed
    }

    /// Writes a line, whole into one file; there to be read after the next `flush` at the
    /// latest.
    pub fn write_line(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let length = line.len() as u64;
        if self.opened.is_lost {
            return Err(io::Error::other("the file was removed and cannot be made again"));
        }
        let written = self.opened.written;
        if self.opened.is_regular && written > 0 && written + length > self.max_bytes {
            // A file that cannot be put aside goes on growing, for another `max_bytes` at least:
            // lines are worth more than room.
            self.opened.written = 0;
            if let Err(error) = self.put_aside() {
                // There is nobody to be told in the log itself.
                super::complain(&format!("cannot put {} aside: {error}", self.path.display()));
            }
            self.remove_old(now);
        } else if now.duration_since(self.looked).is_ok_and(|since| since >= LOOK_INTERVAL) {
            self.looked = now;
            self.remove_old(now);
        }
        self.opened.file.write_all(line)?;
        self.opened.written += length;
        Ok(())
    }

    /// Everything that was written is in the file from here on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.opened.file.flush()
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.flush()?;
        // Where a link leads, and not the link.
        let path = fs::canonicalize(&self.path)?;
        for number in (1..KEPT).rev() {
            match fs::rename(kept(&path, number), kept(&path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&path, kept(&path, 1))?;
        self.opened = Opened::at(&self.path)?;
        Ok(())
    }

    /// Nothing depends on it, so what cannot be removed now is left for the next time.
    fn remove_old(&self, now: SystemTime) {
        let Ok(path) = fs::canonicalize(&self.path) else { return };
        for kept in (1..=KEPT).map(|number| kept(&path, number)) {
            let modified = fs::metadata(&kept).and_then(|file| file.modified());
            let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > MONTH) {
                let _ = fs::remove_file(kept);
            }
        }
    }
}

impl Opened {
    fn at(path: &Path) -> io::Result<Opened> {
        // Nobody may read a pipe: then opening it would never end, and writing not either.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        Ok(Opened {
            file: BufWriter::with_capacity(BUFFER, file),
            identity: identity(&metadata),
            is_regular: metadata.is_file() && !is_given(path),
            written: metadata.len(),
            is_lost: false,
        })
    }
}

/// What makes a file this one, whatever it is called.
fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether `path` is one of those that lead to what the process was given, as /dev/stdout does:
/// whatever that is, it is not ours to put aside, nor to look for.
fn is_given(path: &Path) -> bool {
    let Ok(below) = path.strip_prefix("/dev") else {
        return path.starts_with("/proc") && path.parent().is_some_and(|it| it.ends_with("fd"));
    };
    below.starts_with("fd") || ["stdin", "stdout", "stderr"].map(Path::new).contains(&below)
}

/// The path of the file that is `number` files older than the one at `path`.
fn kept(path: &Path, number: u32) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!(".{number}"));
    path.into()
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

    /// A log in a folder of its own, with one line in it.
    fn written() -> (tempfile::TempDir, PathBuf, RollingFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/log");
        fs::create_dir(folder.path().join("logs")).unwrap();
        let mut rolling = RollingFile::open(&path, 100, SystemTime::now()).unwrap();
        write(&mut rolling, "before\n").unwrap();
        (folder, path, rolling)
    }

    fn write(rolling: &mut RollingFile, line: &str) -> io::Result<()> {
        let followed = rolling.follow();
        rolling.write_line(line.as_bytes(), SystemTime::now())?;
        rolling.flush().and(followed)
    }

    #[test]
    fn a_file_that_is_moved_removed_or_replaced_comes_back() {
        type Change = fn(&Path, &Path);
        let changes: [(&str, Change); 6] = [
            ("moved", |path, folder| fs::rename(path, folder.join("log.old")).unwrap()),
            ("removed", |path, _| fs::remove_file(path).unwrap()),
            ("another", |path, folder| {
                fs::write(folder.join("new"), "").unwrap();
                fs::rename(folder.join("new"), path).unwrap();
            }),
            ("a link", |path, folder| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink(folder.join("elsewhere"), path).unwrap();
            }),
            ("its folder", |path, folder| {
                fs::remove_dir_all(folder.join("logs")).unwrap();
                fs::create_dir(path.parent().unwrap()).unwrap();
            }),
            ("emptied", |path, _| fs::write(path, "").unwrap()),
        ];
        for (name, change) in changes {
            let (folder, path, mut rolling) = written();
            change(&path, folder.path());
            write(&mut rolling, "after\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "after\n", "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_come_back_yet_does_so_later_and_lines_meanwhile_are_counted() {
        let (folder, path, mut rolling) = written();
        fs::rename(folder.path().join("logs"), folder.path().join("aside")).unwrap();
        // It is still there, under another name.
        assert!(write(&mut rolling, "moved\n").is_err());
        let moved = fs::read_to_string(folder.path().join("aside/log")).unwrap();
        assert_eq!(moved, "before\nmoved\n");

        fs::remove_dir_all(folder.path().join("aside")).unwrap();
        assert!(rolling.follow().is_err());
        assert!(rolling.write_line(b"lost", SystemTime::now()).is_err());
        fs::create_dir(folder.path().join("logs")).unwrap();
        write(&mut rolling, "back\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "back\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (folder, path, mut rolling) = written();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(RollingFile::open(&pipe, 100, SystemTime::now()).is_err());
        fs::rename(&pipe, &path).unwrap();
        assert!(rolling.follow().is_err());
        fs::remove_file(&path).unwrap();
        write(&mut rolling, "after\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_was_emptied_has_room_again() {
        let (_folder, path, mut rolling) = written();
        write(&mut rolling, &"x".repeat(90)).unwrap();
        fs::write(&path, "").unwrap();
        write(&mut rolling, &"y".repeat(90)).unwrap();
        assert_eq!(names(path.parent().unwrap()), ["log"]);
    }

    #[test]
    fn what_a_link_leads_to_is_put_aside_and_not_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("link"), folder.path().join("real"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let now = SystemTime::now();
        let mut rolling = RollingFile::open(&link, 4, now).unwrap();
        for line in ["1111", "2222"] {
            rolling.write_line(line.as_bytes(), now).unwrap();
        }
        rolling.flush().unwrap();
        assert_eq!(names(folder.path()), ["link", "real", "real.1"]);
        assert_eq!(fs::read_to_string(&real).unwrap(), "2222");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn only_what_leads_to_open_files_is_left_where_it_is() {
        for (path, given) in [
            ("/dev/stdout", true),
            ("/dev/stderr", true),
            ("/dev/fd/3", true),
            ("/proc/self/fd/3", true),
            ("/proc/17/fd/3", true),
            ("/proc/thread-self/fd/1", true),
            ("/dev/shm/shop.log", false),
            ("/dev/shm/fd/shop.log", false),
            ("/dev/stdout.log", false),
            ("/srv/fd/log", false),
            ("fd/log", false),
        ] {
            assert_eq!(is_given(Path::new(path)), given, "{path}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_in_shared_memory_is_put_aside_and_comes_back() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("log");
        let mut rolling = RollingFile::open(&path, 4, SystemTime::now()).unwrap();
        for line in ["1111", "2222"] {
            write(&mut rolling, line).unwrap();
        }
        assert_eq!(names(folder.path()), ["log", "log.1"]);
        fs::remove_file(&path).unwrap();
        write(&mut rolling, "3333").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "3333");
    }

    #[test]
    fn a_device_is_never_put_aside() {
        let mut rolling = RollingFile::open(Path::new("/dev/null"), 4, SystemTime::now()).unwrap();
        for line in ["1111", "2222", "3333"] {
            write(&mut rolling, line).unwrap();
        }
        assert!(!Path::new("/dev/null.1").exists());
    }
}
