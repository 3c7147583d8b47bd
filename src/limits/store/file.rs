//! Limits in a file, for a gateway that has neither a database nor a Redis.
//!
//! The file is only ever replaced as a whole, so whoever reads it finds all of one version,
//! however the process that wrote it ended. Those who change it take turns.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::super::bucket::Limit;
use super::super::key::ClientId;
use super::{Change, Snapshot, StoreError, parse};

/// The file `limits.json` in a folder, and beside it the lock of those who change it.
#[derive(Clone, Debug)]
pub struct LimitsFile {
    folder: PathBuf,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    limits: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    client_id: String,
    capacity: u32,
    rate_per_sec: u32,
}

impl LimitsFile {
    /// The limits in `folder`, which is made when there is something to keep.
    pub fn new(folder: PathBuf) -> LimitsFile {
        LimitsFile { folder }
    }

    pub(super) async fn version(&self) -> Result<String, StoreError> {
        self.in_thread(LimitsFile::version_now).await
    }

    pub(super) async fn read(&self) -> Result<Snapshot, StoreError> {
        self.in_thread(|file| {
            // The version first: a file that is newer than it is read once more the next time.
            let version = file.version_now()?;
            Ok(Snapshot { version, limits: file.read_now()?.into_iter().collect() })
        })
        .await
    }

    pub(super) async fn apply(&self, change: Change) -> Result<bool, StoreError> {
        self.in_thread(move |file| file.apply_now(change)).await
    }

    /// A folder may be on a disk that takes its time.
    async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LimitsFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.clone();
        match spawn_blocking(move || work(&file)).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// A file that takes the place of another has another number, or another time.
    fn version_now(&self) -> Result<String, StoreError> {
        match fs::metadata(self.path("limits.json")) {
            Ok(it) => Ok(format!("{}.{}.{}.{}", it.ino(), it.mtime(), it.mtime_nsec(), it.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn read_now(&self) -> Result<BTreeMap<ClientId, Limit>, StoreError> {
        let content = match fs::read(self.path("limits.json")) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes)
                .map_err(|error| StoreError::Broken(format!("limits.json: {error}")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(self.failed(&error)),
        };
        let entries = content.limits.iter();
        entries.map(|it| parse(&it.client_id, it.capacity.into(), it.rate_per_sec.into())).collect()
    }

    fn apply_now(&self, change: Change) -> Result<bool, StoreError> {
        let failed = |error| self.failed(&error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let lock = open(self.path("limits.lock"), false).map_err(failed)?;
        lock.lock().map_err(failed)?;

        let mut limits = self.read_now()?;
        let done = match change {
            Change::Create(id, limit) => {
                let is_new = !limits.contains_key(&id);
                is_new && limits.insert(id, limit).is_none()
            }
            Change::Update(id, limit) => {
                limits.get_mut(&id).map(|before| *before = limit).is_some()
            }
            Change::Put(id, limit) => {
                limits.insert(id, limit);
                true
            }
            Change::Delete(id) => limits.remove(&id).is_some(),
        };
        if done {
            self.replace(&limits).map_err(failed)?;
        }
        Ok(done)
    }

    /// Written under another name and brought to the disk before it takes the old one's
    /// place; then the folder, which says which is which.
    fn replace(&self, limits: &BTreeMap<ClientId, Limit>) -> io::Result<()> {
        let entries = limits.iter().map(|(id, limit)| Entry {
            client_id: id.as_str().to_owned(),
            capacity: limit.capacity(),
            rate_per_sec: limit.rate_per_sec(),
        });
        let content = Content { limits: entries.collect() };
        let draft = self.path("limits.json.new");
        let mut file = open(draft.clone(), true)?;
        file.write_all(&serde_json::to_vec_pretty(&content)?)?;
        file.sync_all()?;
        fs::rename(draft, self.path("limits.json"))?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Away(format!("{}: {error}", self.folder.display()))
    }
}

fn open(path: PathBuf, truncate: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(truncate).mode(0o600).open(path)
}
