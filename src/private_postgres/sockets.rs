//! The folder of the server's socket, which nobody else may enter.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::cluster::Owner;
use super::{PORT, PrivatePostgresError};

/// How a folder of ours is called, before a random number.
const NAME: &str = "merch-store-";

/// The longest path of a socket that every system takes, in bytes.
const LONGEST_SOCKET: usize = 103;

/// Makes a folder in the first place that will do: the system's temporary folder, the user's,
/// those that every system has, or the data folder. Of a place that will not, nothing is left.
pub(super) fn make_folder(
    owner: Option<Owner>,
    data: &Path,
) -> Result<PathBuf, PrivatePostgresError> {
    let users = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [Some(env::temp_dir()), users, Some("/tmp".into()), Some("/var/tmp".into())];
    let places = places.into_iter().flatten().chain([data.to_owned()]);
    make_in_first(places, owner, take_socket)
}

/// The same in the first of `places` that fits and does not fail `trial`.
fn make_in_first(
    places: impl Iterator<Item = PathBuf>,
    owner: Option<Owner>,
    trial: impl Fn(&Path) -> io::Result<()>,
) -> Result<PathBuf, PrivatePostgresError> {
    let mut tried = Vec::new();
    for place in places {
        let folder = place.join(format!("{NAME}{:016x}", rand::random::<u64>()));
        let made = fits(&folder, owner).and_then(|()| {
            let made = make_again(&folder, owner).and_then(|()| trial(&folder));
            made.map_err(|error| error.to_string())
        });
        match made {
            Ok(()) => return Ok(folder),
            Err(why) => tried.push(format!("{}: {why}", place.display())),
        }
        remove_folder(&folder);
    }
    tried.dedup();
    Err(PrivatePostgresError::NoSocketFolder { tried: tried.join(", ") })
}

/// Fails where `folder` is on a file system that has no sockets.
fn take_socket(folder: &Path) -> io::Result<()> {
    UnixListener::bind(socket(folder))?;
    fs::remove_file(socket(folder))
}

/// Makes the folder at `path` anew: somebody else's of that name must not have our socket in it.
pub(super) fn make_again(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    remove_folder(path);
    DirBuilder::new().mode(0o700).create(path)?;
    match owner {
        Some(owner) => chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())),
        None => Ok(()),
    }
}

/// Removes a folder of ours with what a killed server left in it, and nothing else.
pub(super) fn remove_folder(path: &Path) {
    if is_made_by_us(path) {
        let socket = socket(path);
        let _ = fs::remove_file(socket.with_added_extension("lock"));
        let _ = fs::remove_file(socket);
        let _ = fs::remove_dir(path);
    }
}

/// The socket in a folder.
pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}

/// Whether the folder at `path` is called as ours are.
pub(super) fn is_made_by_us(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix(NAME));
    number.is_some_and(|it| it.len() == 16 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a socket can be in `folder` and be reached by the server's `owner`; if not, why.
fn fits(folder: &Path, owner: Option<Owner>) -> Result<(), String> {
    let path = folder.as_os_str().as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    if !folder.is_absolute() {
        return Err("not an absolute path".into());
    }
    if socket(folder).as_os_str().len() > LONGEST_SOCKET {
        return Err("its path is too long for a socket".into());
    }
    // It becomes part of a URL, and of a list with commas.
    if !path.iter().all(is_plain) {
        return Err("its path has unusual characters".into());
    }
    match owner {
        Some(owner) if !folder.ancestors().skip(1).all(|above| owner.may_enter(above)) => {
            Err("closed to the server's user".into())
        }
        _ => Ok(()),
    }
}

impl Owner {
    fn may_enter(self, folder: &Path) -> bool {
        fs::metadata(folder).is_ok_and(|it| {
            let enter = match it.uid() == self.uid.as_raw() {
                true => 0o100,
                false if it.gid() == self.gid.as_raw() => 0o010,
                false => 0o001,
            };
            it.mode() & enter != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_sockets_has_a_short_and_plain_path() {
        for (place, good) in [
            ("/tmp", true),
            ("/run/user/1000", true),
            (&*format!("/{}", "x".repeat(58)), true),
            (&*format!("/{}", "x".repeat(62)), false),
            ("/tmp/with space", false),
            ("/tmp/quote's", false),
            ("/tmp/a,b", false),
            ("/tmp/caf\u{e9}", false),
            ("relative", false),
            ("", false),
        ] {
            let folder = Path::new(place).join(format!("{NAME}0123456789abcdef"));
            assert_eq!(fits(&folder, None).is_ok(), good, "{place}");
        }
    }

    #[test]
    fn a_place_that_takes_no_sockets_is_left_as_it_was_for_the_next() {
        let (without, with) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let trial = |folder: &Path| match folder.starts_with(without.path()) {
            true => Err(io::Error::from(io::ErrorKind::Unsupported)),
            false => take_socket(folder),
        };
        let places = || [without.path(), with.path()].map(Path::to_owned).into_iter();
        let made = make_in_first(places(), None, trial).unwrap();
        assert!(made.starts_with(with.path()), "{made:?}");
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!((left(without.path()), left(&made)), (0, 0));

        let refused = make_in_first(places().take(1), None, trial).unwrap_err().to_string();
        assert!(refused.contains("unsupported") && refused.contains("TMPDIR"), "{refused}");
        assert!(take_socket(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn only_folders_of_our_own_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        for (name, file, goes) in [
            ("merch-store-0123456789abcdef", ".s.PGSQL.5432", true),
            ("merch-store-0123456789abcde0", "letter.txt", false),
            ("merch-store-old", ".s.PGSQL.5432", false),
            ("postgresql", ".s.PGSQL.5432", false),
        ] {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(file), "").unwrap();
            remove_folder(&folder);
            assert_eq!(!folder.exists(), goes, "{name}");
        }
    }
}
