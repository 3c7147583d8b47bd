//! The buckets of clients without a limit of their own: as many as there is room for.
//!
//! A bucket that is full again is no better than a new one, so it is dropped: each client
//! that comes new looks at a few others' buckets, and a shard at a time is looked through
//! when nobody comes. Where there is no room left, those who come new share one bucket.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use super::bucket::{Bucket, Decision, Limit};
use super::key::ClientKey;

/// Enough that threads seldom meet in one.
const SHARDS: usize = 64;

/// Places that are looked at for each new bucket, of which about half are taken: enough that
/// the full ones of the past become fewer, however many come.
const LOOKED_AT: usize = 8;

/// Places that are looked at before a client is told that there is no room.
const LOOKED_AT_WITHOUT_ROOM: usize = 32;

/// A bounded map of buckets that many threads take from.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    most_in_shard: usize,
    hasher: RandomState,
    overflow: Mutex<Bucket>,
}

/// Keys are kept as 64 bits of a digest whose key nobody knows: 16 bytes less than the
/// shortest of them, and two clients out of a million share a bucket once in ten million
/// processes.
#[derive(Default)]
struct Shard {
    buckets: HashTable<Entry>,
    /// The place to look at next for a full bucket.
    cursor: usize,
    /// The latest time that a bucket was judged by. An earlier one, as another thread may
    /// have read it, must not be gained twice.
    latest: u64,
}

struct Entry {
    digest: u64,
    bucket: Bucket,
}

/// What became of a request for a token.
pub struct Taken {
    /// What its bucket came to.
    pub decision: Decision,
    /// Whether it was the bucket of all those for whom there is no room.
    pub overflowed: bool,
}

impl Table {
    /// Room for about `most_keys` buckets; nothing is allocated before they come.
    pub fn new(most_keys: usize) -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most_in_shard: most_keys.div_ceil(SHARDS),
            hasher: RandomState::new(),
            overflow: Mutex::default(),
        }
    }

    /// Takes a token from the client's bucket; `limit` is the same for every client.
    pub fn take(&self, client: &ClientKey, limit: Limit, now: u64) -> Taken {
        let digest = self.hasher.hash_one(client);
        // Other bits than those by which the shard finds its own.
        let shard = &self.shards[(digest >> 40) as usize % self.shards.len()];
        if let Some(bucket) = lock(shard).bucket(digest, self.most_in_shard, limit, now) {
            return Taken { decision: bucket, overflowed: false };
        }
        Taken { decision: lock(&self.overflow).take(limit, now), overflowed: true }
    }

    /// Drops the full buckets of the shard with this number (modulo their number), and gives
    /// back the memory of a shard that is mostly empty.
    pub fn sweep(&self, number: usize, limit: Limit, now: u64) {
        let mut shard = lock(&self.shards[number % self.shards.len()]);
        let now = shard.no_earlier_than_before(now);
        shard.buckets.retain(|entry| !entry.bucket.is_full(limit, now));
        if shard.buckets.len() < shard.buckets.capacity() / 4 {
            shard.buckets.shrink_to_fit(|entry| entry.digest);
        }
    }

    /// Buckets that are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).buckets.len()).sum()
    }

    /// Forgets every bucket.
    pub fn clear(&self) {
        for shard in &self.shards {
            lock(shard).buckets = HashTable::new();
        }
    }
}

impl Shard {
    /// Takes from the bucket of `digest`; `None` where it has none and there is no room.
    fn bucket(&mut self, digest: u64, most: usize, limit: Limit, now: u64) -> Option<Decision> {
        let now = self.no_earlier_than_before(now);
        if let Some(entry) = self.buckets.find_mut(digest, |entry| entry.digest == digest) {
            return Some(entry.bucket.take(limit, now));
        }
        self.drop_full(LOOKED_AT, limit, now);
        if self.buckets.len() >= most {
            self.drop_full(LOOKED_AT_WITHOUT_ROOM, limit, now);
        }
        if self.buckets.len() >= most {
            return None;
        }
        let mut bucket = Bucket::default();
        let decision = bucket.take(limit, now);
        self.buckets.insert_unique(digest, Entry { digest, bucket }, |entry| entry.digest);
        Some(decision)
    }

    /// Looks at the next `number` places and drops the buckets there that are full.
    fn drop_full(&mut self, number: usize, limit: Limit, now: u64) {
        for _ in 0..number {
            self.cursor += 1;
            if self.cursor >= self.buckets.num_buckets() {
                self.cursor = 0;
            }
            if let Ok(place) = self.buckets.get_bucket_entry(self.cursor)
                && place.get().bucket.is_full(limit, now)
            {
                place.remove();
            }
        }
    }

    fn no_earlier_than_before(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        self.latest
    }
}

/// A thread that panicked left whole numbers behind, whatever they are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
