//! Buckets in Redis, for several gateways: one script, one round trip, the server's clock.

use std::sync::LazyLock;

use redis::Script;

use super::bucket::{Decision, Limit, TOKEN};
use super::key::ClientKey;
use super::link::Link;

/// The same arithmetic as [`super::bucket`], in millionths of a token, because the server's
/// clock counts microseconds: `microseconds * tokens a second` are millionths of a token.
/// All of them are whole numbers below 2^53, which Lua's numbers hold exactly.
///
/// A bucket is the text "<spent> <at>". It expires when it is full, so nobody has to clean
/// up. A refusal takes nothing, so it writes nothing, unless the limit is a lower one than
/// before: then the bucket holds less, or takes longer than it has left to be full.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local brim, rate = ARGV[1] * 1000000, tonumber(ARGV[2])
        local left, at = 0, now
        local bucket = redis.call('GET', KEYS[1])
        if bucket then
            local before, when = string.match(bucket, '^(%d+) (%d+)$')
            at = math.max(tonumber(when), now)
            local regained = math.max(0, now - when) * rate
            left = math.max(0, before - regained)
        end
        local spent = math.min(left, brim)
        local allowed = spent + 1000000 <= brim
        if allowed then
            spent = spent + 1000000
        end
        local full = math.ceil(spent / rate / 1000) + 1
        if allowed or left > brim or redis.call('PTTL', KEYS[1]) < full then
            redis.call('SET', KEYS[1], string.format('%.0f %.0f', spent, at), 'PX', full)
        end
        return {allowed and 1 or 0, spent}
        ",
    )
});

/// Takes a token from the client's shared bucket; `None` if Redis is away.
pub async fn take(link: &Link, client: &ClientKey, limit: Limit) -> Option<Decision> {
    let mut take = TAKE.key(format!("merch-store:bucket:{client}"));
    take.arg(limit.capacity()).arg(limit.rate_per_sec());
    let answer = link.ask(async |mut connection| take.invoke_async(&mut connection).await);
    let (allowed, millionths): (bool, u64) = answer.await?;
    Some(Decision::after(limit, allowed, millionths * (TOKEN / 1_000_000)))
}
