//! Which backend gets a request: pure functions over what is known of each candidate, with
//! turns and randomness passed in. None of them allocates or waits.

use std::cmp::Ordering;

/// What is known of one candidate now.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Its share relative to the others, at least 1.
    pub weight: u32,
    /// Requests under way.
    pub in_flight: u32,
    /// Its latency in seconds; 0 as long as nothing is known.
    pub latency: f32,
    /// Whether it may be picked for this request.
    pub usable: bool,
}

/// The longest schedule; beyond it small differences between weights are rounded away.
const MAX_SLOTS: u64 = 8192;

/// What a candidate without a known latency costs while it is busy with its first request:
/// more than any that answers within a day.
const UNKNOWN: f32 = 86_400.0;

/// The order in which weighted round robin goes through candidates with these weights: each
/// appears as often as its weight says (divided by what all have in common), evenly spread.
///
/// Every candidate has at least one slot. As long as the weights add up to at most
/// `MAX_SLOTS` the shares are exact.
pub fn schedule(weights: &[u32]) -> Box<[u16]> {
    let mut weights: Vec<i64> = weights.iter().map(|weight| i64::from(*weight).max(1)).collect();
    let common = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    weights.iter_mut().for_each(|weight| *weight /= common);
    while weights.len() as u64 <= MAX_SLOTS && weights.iter().sum::<i64>() as u64 > MAX_SLOTS {
        weights.iter_mut().for_each(|weight| *weight = (*weight / 2).max(1));
    }
    let total: i64 = weights.iter().sum();

    // Each slot everybody is credited their weight; the richest gets the slot and pays for
    // it what all were credited together.
    let mut credits = vec![0; weights.len()];
    let slots = (0..total).map(|_| {
        credits.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
        let richest = (0..credits.len()).rev().max_by_key(|at| credits[*at]).unwrap_or(0);
        credits[richest] -= total;
        u16::try_from(richest).expect("there are fewer backends than that")
    });
    slots.collect()
}

/// The first usable candidate in `schedule` from slot number `turn` on, round and round.
pub fn round_robin(schedule: &[u16], turn: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    let start = turn.checked_rem(schedule.len())?;
    let (before, after) = schedule.split_at(start);
    after.iter().chain(before).map(|at| usize::from(*at)).find(|at| usable(*at))
}

/// Of `count` candidates the one with the fewest requests under way for its weight, this one
/// included; among equals they take turns.
pub fn least_connections(count: usize, turn: usize, view: impl Fn(usize) -> View) -> Option<usize> {
    let start = turn.checked_rem(count)?;
    let candidates = (start..count).chain(0..start).map(|at| (at, view(at)));
    let least = candidates.filter(|(_, view)| view.usable).min_by(|(_, one), (_, other)| {
        // a / b < c / d without the division.
        let load = |this: &View, that: &View| {
            (u64::from(this.in_flight) + 1) * u64::from(that.weight.max(1))
        };
        load(one, other).cmp(&load(other, one))
    });
    least.map(|(at, _)| at)
}

/// Of two different usable candidates out of `count`, drawn by the two halves of `random`,
/// the one that is likely to answer sooner.
pub fn p2c_ewma(count: usize, random: u64, view: impl Fn(usize) -> View) -> Option<usize> {
    let usable = || (0..count).map(|at| (at, view(at))).filter(|(_, view)| view.usable);
    let choices = u32::try_from(usable().count()).expect("there are fewer backends than that");
    if choices < 2 {
        return usable().next().map(|(at, _)| at);
    }
    let first = below(choices, random as u32);
    // One fewer to choose from: those from the first on move up by one.
    let second = below(choices - 1, (random >> 32) as u32);
    let second = if second < first { second } else { second + 1 };
    let (one, other) = (usable().nth(first as usize)?, usable().nth(second as usize)?);
    Some(match cost(&one.1).total_cmp(&cost(&other.1)) {
        Ordering::Less | Ordering::Equal => one.0,
        Ordering::Greater => other.0,
    })
}

/// What one more request is expected to wait for. A candidate of which nothing is known gets
/// one request at a time until it has answered.
fn cost(view: &View) -> f32 {
    let latency = if view.latency == 0.0 && view.in_flight > 0 { UNKNOWN } else { view.latency };
    latency * (view.in_flight as f32 + 1.0) / view.weight.max(1) as f32
}

/// Maps 32 random bits to a number below `limit`, each as likely as the others.
fn below(limit: u32, random: u32) -> u32 {
    ((u64::from(random) * u64::from(limit)) >> 32) as u32
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
