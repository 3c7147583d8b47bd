//! Limits in Redis: one hash, and a version that every change renews.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{AsyncCommands, Script};

use super::super::bucket::Limit;
use super::super::link::Link;
use super::{Change, Snapshot, StoreError, parse};

/// The braces keep both on one node where there are several.
const LIMITS: &str = "{merch-store:limits}";
const VERSION: &str = "{merch-store:limits}:version";

/// An operator waits longer than a request.
const PATIENCE: Duration = Duration::from_secs(1);

/// The version is the server's time, so that it differs also after the server lost its data.
static APPLY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local change, id = ARGV[1], ARGV[2]
        local exists = redis.call('HEXISTS', KEYS[1], id) == 1
        if exists and change == 'create' then return 0 end
        if not exists and (change == 'update' or change == 'delete') then return 0 end
        local time = redis.call('TIME')
        if change == 'delete' then
            redis.call('HDEL', KEYS[1], id)
        else
            redis.call('HSET', KEYS[1], id, ARGV[3])
        end
        redis.call('SET', KEYS[2], time[1] .. '.' .. time[2])
        return 1
        ",
    )
});

pub(super) async fn version(link: &Link) -> Result<String, StoreError> {
    let asking = link.ask_within(PATIENCE, async |mut redis| redis.get(VERSION).await);
    let version: Option<String> = asking.await.ok_or_else(away)?;
    Ok(version.unwrap_or_default())
}

pub(super) async fn read(link: &Link) -> Result<Snapshot, StoreError> {
    // The version first: limits that are newer than it are read once more the next time.
    let version = version(link).await?;
    let asking = link.ask_within(PATIENCE, async |mut redis| redis.hgetall(LIMITS).await);
    let fields: Vec<(String, String)> = asking.await.ok_or_else(away)?;
    let limits = fields.iter().map(|(id, limit)| {
        let broken = || StoreError::Broken(format!("{id:?} has no limit that can be"));
        let (capacity, rate) = limit.split_once(' ').ok_or_else(broken)?;
        let number = |text: &str| text.parse().map_err(|_| broken());
        parse(id, number(capacity)?, number(rate)?)
    });
    Ok(Snapshot { version, limits: limits.collect::<Result<_, _>>()? })
}

pub(super) async fn apply(link: &Link, change: Change) -> Result<bool, StoreError> {
    let text = |limit: &Limit| format!("{} {}", limit.capacity(), limit.rate_per_sec());
    let (change, id, limit) = match &change {
        Change::Create(id, limit) => ("create", id, text(limit)),
        Change::Update(id, limit) => ("update", id, text(limit)),
        Change::Put(id, limit) => ("put", id, text(limit)),
        Change::Delete(id) => ("delete", id, String::new()),
    };
    let mut apply = APPLY.key(LIMITS);
    apply.key(VERSION).arg(change).arg(id.as_str()).arg(limit);
    let asking = link.ask_within(PATIENCE, async |mut redis| apply.invoke_async(&mut redis).await);
    asking.await.ok_or_else(away)
}

fn away() -> StoreError {
    StoreError::Away("Redis does not answer".into())
}
