//! The table forgets only what it may, and never holds more than it should.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::super::bucket::TOKEN;
use super::*;

fn limit(capacity: u32, rate_per_sec: u32) -> Limit {
    Limit::new(capacity, rate_per_sec).unwrap()
}

fn client(number: u32) -> ClientKey {
    ClientKey::address(IpAddr::V4(Ipv4Addr::from_bits(number)))
}

/// Room for exactly `most` buckets, all in one shard.
fn one_shard(most: usize) -> Table {
    let shards = [Mutex::default()].into();
    Table { shards, most_in_shard: most, hasher: RandomState::new(), overflow: Mutex::default() }
}

#[test]
fn full_buckets_make_room_for_those_who_come_new() {
    let (table, limit) = (Table::new(1_000_000), limit(200, 100));
    // A token is back after 10 ms, so of a thousand clients each millisecond ten thousand
    // have one to come.
    for number in 0..200_000 {
        let now = u64::from(number) * 1_000;
        assert!(!table.take(&client(number), limit, now).overflowed);
    }
    assert!((10_000..20_000).contains(&table.len()), "{}", table.len());
}

#[test]
fn those_for_whom_there_is_no_room_share_one_bucket_and_take_nobody_s() {
    let (table, limit) = (Table::new(64), limit(2, 1));
    let mut admitted = HashMap::new();
    for round in 0..2 {
        for number in 0..1_000 {
            let taken = table.take(&client(number), limit, 0);
            if taken.overflowed && taken.decision.allowed {
                *admitted.entry("overflow").or_insert(0) += 1;
            }
            if !taken.overflowed {
                assert!(taken.decision.allowed, "{number} in round {round}");
            }
        }
    }
    assert_eq!(admitted["overflow"], 2);
    assert!((50..=64).contains(&table.len()), "{}", table.len());
    // After two seconds everybody's bucket is full, so there is room for others.
    let taken = table.take(&client(5_000), limit, 2 * TOKEN);
    assert!(taken.decision.allowed && !taken.overflowed);
}

#[test]
fn a_sweep_drops_what_is_full_and_nothing_else() {
    let (table, limit) = (one_shard(100_000), limit(2, 1));
    for number in 0..10_000 {
        table.take(&client(number), limit, 0);
    }
    table.take(&client(7), limit, 0);
    table.sweep(0, limit, TOKEN - 1);
    assert_eq!(table.len(), 10_000);
    table.sweep(0, limit, TOKEN);
    assert_eq!(table.len(), 1);
    assert!(table.take(&client(7), limit, TOKEN).decision.allowed);
    assert!(!table.take(&client(7), limit, TOKEN).decision.allowed);
    assert!(lock(&table.shards[0]).buckets.capacity() < 100);
}

#[test]
fn a_million_clients_stay_within_their_memory() {
    let (table, limit) = (Table::new(450_000), limit(200, 1));
    let mut overflowed = 0;
    for number in 0..1_000_000 {
        overflowed += usize::from(table.take(&client(number), limit, 0).overflowed);
    }
    assert_eq!(table.len() + overflowed, 1_000_000);
    assert!((445_000..=450_048).contains(&table.len()), "{}", table.len());
    let bytes = |table: &Table| -> usize {
        table.shards.iter().map(|shard| lock(shard).buckets.allocation_size()).sum()
    };
    assert!(bytes(&table) < 32 << 20, "{} bytes", bytes(&table));

    // Nor do they after they were forgotten and came again, again and again.
    for round in 1..4 {
        for number in 0..500_000 {
            let client = client(round * 1_000_000 + number);
            table.take(&client, limit, u64::from(round) * TOKEN);
        }
    }
    assert!(bytes(&table) < 32 << 20, "{} bytes", bytes(&table));
    for number in 0..SHARDS {
        table.sweep(number, limit, 100 * TOKEN);
    }
    assert_eq!((table.len(), bytes(&table)), (0, 0), "what is not needed is given back");
}

proptest! {
    /// Against buckets that are never forgotten: the table, which forgets all the time, must
    /// say the same.
    #[test]
    fn forgetting_a_bucket_never_grants_a_token(
        capacity in 1..5u32,
        rate in 1..5u32,
        requests in prop::collection::vec((0..40u32, -TOKEN.cast_signed()..TOKEN.cast_signed()), 1..300),
        room in 1..40usize,
    ) {
        let (table, limit) = (one_shard(room), limit(capacity, rate));
        let mut model: HashMap<u32, Bucket> = HashMap::new();
        let (mut now, mut latest) = (10 * TOKEN, 0);
        for (turn, (number, step)) in requests.into_iter().enumerate() {
            now = now.saturating_add_signed(step / 4);
            latest = now.max(latest);
            if turn % 10 == 0 {
                table.sweep(0, limit, now);
            }
            let taken = table.take(&client(number), limit, now);
            prop_assert!(table.len() <= room);
            if !taken.overflowed {
                let never_forgotten = model.entry(number).or_default().take(limit, latest);
                prop_assert_eq!(taken.decision, never_forgotten);
            }
        }
    }
}
