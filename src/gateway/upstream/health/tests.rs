//! The state machine by tables: what happens when, and what is expected then.

use std::num::NonZeroU32;

use super::*;

/// Seconds since the start of a test.
type Second = u64;

/// What happens to a backend in these tables.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pass,
    Miss,
    Serve,
    Fail(Cause),
    Wait,
}

use Cause::{Broken, Connect, TimedOut, Unavailable};
use Event::{Fail, Miss, Pass, Serve, Wait};
use State::{Ejected, Healthy, SlowStart, Unhealthy};

fn options() -> config::Upstream {
    let mut options = config::Config::load(None, []).unwrap().gateway.upstream;
    options.health.rise = NonZeroU32::new(2).unwrap();
    options.health.fall = NonZeroU32::new(3).unwrap();
    options.ejection.failures = NonZeroU32::new(3).unwrap();
    options.ejection.connect_failures = NonZeroU32::new(2).unwrap();
    options.ejection.base = Duration::from_secs(5);
    options.ejection.max = Duration::from_secs(60);
    options.slow_start = Duration::from_secs(10);
    options
}

/// Plays `events` to `health` and ejects it whenever there is reason to.
fn plays(start: Instant, mut health: Health, events: &[(Second, Event, State)]) -> Health {
    let options = options();
    for (at, (second, event, expected)) in events.iter().enumerate() {
        let now = start + Duration::from_secs(*second);
        match event {
            Pass => health.checked(true, now, &options),
            Miss => health.checked(false, now, &options),
            Serve => health.served(),
            Fail(cause) => {
                if health.failed(*cause, now, &options) {
                    health.eject(*cause, now, &options);
                }
            }
            Wait => health.tick(now, &options),
        }
        assert_eq!(health.state(), *expected, "after event {at}: {event:?} at {second} s");
    }
    health
}

fn presumed(events: &[(Second, Event, State)]) -> Health {
    let start = Instant::now();
    plays(start, Health::presumed(start), events)
}

#[test]
fn checks_bring_it_down_after_fall_and_up_after_rise_in_a_row() {
    presumed(&[
        (0, Miss, Healthy),
        (2, Miss, Healthy),
        (4, Pass, Healthy),
        (6, Miss, Healthy),
        (8, Miss, Healthy),
        (10, Miss, Unhealthy),
        (12, Pass, Unhealthy),
        (14, Miss, Unhealthy),
        (16, Pass, Unhealthy),
        (18, Pass, SlowStart),
        (27, Wait, SlowStart),
        (28, Wait, Healthy),
    ]);
}

#[test]
fn a_newcomer_needs_one_check_that_passes_first() {
    let start = Instant::now();
    let newcomer = Health::newcomer(start, &options());
    assert_eq!(newcomer.state(), Unhealthy);
    plays(start, newcomer.clone(), &[(0, Serve, Unhealthy), (0, Pass, SlowStart)]);
    plays(start, newcomer, &[(0, Miss, Unhealthy), (2, Pass, Unhealthy), (4, Pass, SlowStart)]);
}

#[test]
fn failures_in_a_row_eject_and_an_answer_in_between_starts_over() {
    for cause in [Broken, TimedOut, Unavailable] {
        presumed(&[
            (0, Fail(cause), Healthy),
            (0, Fail(cause), Healthy),
            (0, Serve, Healthy),
            (0, Fail(cause), Healthy),
            (0, Fail(cause), Healthy),
            (0, Fail(cause), Ejected),
        ]);
    }
    let mixed = [(0, Fail(Broken), Healthy), (0, Fail(Connect), Healthy)];
    presumed(&[mixed[0], mixed[1], (0, Fail(Unavailable), Ejected)]);
}

#[test]
fn connections_that_cannot_be_made_weigh_more() {
    presumed(&[(0, Fail(Connect), Healthy), (0, Fail(Connect), Ejected)]);
    presumed(&[(0, Fail(Connect), Healthy), (0, Serve, Healthy), (0, Fail(Connect), Healthy)]);
}

#[test]
fn the_time_doubles_up_to_its_maximum_and_is_forgotten_bit_by_bit() {
    let options = options();
    let mut now = Instant::now();
    let mut health = Health::presumed(now);
    let mut ejects_after = |behaving: u64| {
        now += Duration::from_secs(behaving);
        health.tick(now, &options);
        let time = health.eject(Broken, now, &options);
        now += time;
        health.tick(now, &options);
        time.as_secs()
    };
    let again_and_again: Vec<u64> = (0..6).map(|_| ejects_after(0)).collect();
    assert_eq!(again_and_again, [5, 10, 20, 40, 60, 60]);
    // Six doublings are due; each minute takes one away.
    assert_eq!(ejects_after(59), 60);
    assert_eq!(ejects_after(5 * 60), 20);
    assert_eq!(ejects_after(3600), 5);
}

#[test]
fn what_was_under_way_when_it_was_ejected_changes_nothing() {
    presumed(&[
        (0, Fail(Connect), Healthy),
        (0, Fail(Connect), Ejected),
        (1, Fail(Connect), Ejected),
        (1, Fail(Connect), Ejected),
        (1, Serve, Ejected),
        (4, Wait, Ejected),
        (5, Wait, SlowStart),
        (14, Wait, SlowStart),
        (15, Wait, Healthy),
    ]);
}

#[test]
fn checks_that_pass_bring_back_whoever_could_not_be_reached() {
    let refused = [(0, Fail(Connect), Healthy), (0, Fail(Connect), Ejected)];
    let back = [(1, Pass, Ejected), (2, Miss, Ejected), (3, Pass, Ejected), (4, Pass, SlowStart)];
    presumed(&[&refused[..], &back].concat());
    let broken =
        [(0, Fail(Broken), Healthy), (0, Fail(Broken), Healthy), (0, Fail(Broken), Ejected)];
    let stays = [(1, Pass, Ejected), (2, Pass, Ejected), (4, Pass, Ejected), (5, Pass, SlowStart)];
    presumed(&[&broken[..], &stays].concat());
}

#[test]
fn a_failed_check_counts_while_it_is_ejected() {
    presumed(&[
        (0, Fail(Connect), Healthy),
        (0, Fail(Connect), Ejected),
        (1, Miss, Ejected),
        (2, Miss, Ejected),
        (3, Miss, Unhealthy),
        (9, Wait, Unhealthy),
        (10, Pass, Unhealthy),
        (12, Pass, SlowStart),
        (12, Fail(Connect), SlowStart),
        (12, Fail(Connect), Ejected),
        // The second ejection lasts ten seconds.
        (21, Wait, Ejected),
        (22, Wait, SlowStart),
    ]);
}

#[test]
fn the_share_grows_in_tenths_over_the_slow_start() {
    let options = options();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut health = Health::presumed(start);
    assert_eq!((health.share(start, &options), health.next_tick(start, &options)), (10, None));
    health.eject(Broken, start, &options);
    assert_eq!(health.next_tick(start, &options), Some(at(5)));
    health.tick(at(5), &options);
    for (second, share, next) in [(5, 1, 7), (6, 1, 7), (7, 2, 8), (10, 5, 11), (14, 9, 15)] {
        health.tick(at(second), &options);
        assert_eq!(health.share(at(second), &options), share, "at {second} s");
        assert_eq!(health.next_tick(at(second), &options), Some(at(next)), "at {second} s");
    }
    health.tick(at(15), &options);
    assert_eq!((health.share(at(15), &options), health.next_tick(at(15), &options)), (10, None));
}

#[test]
fn without_a_slow_start_it_returns_at_once() {
    let options = config::Upstream { slow_start: Duration::ZERO, ..options() };
    let start = Instant::now();
    let mut health = Health::presumed(start);
    health.eject(Broken, start, &options);
    health.tick(start + Duration::from_secs(5), &options);
    assert_eq!(health.state(), Healthy);
}

#[test]
fn without_checks_nobody_is_down() {
    let mut options = options();
    let start = Instant::now();
    let mut health = Health::newcomer(start, &options);
    options.health.path.clear();
    health.tick(start, &options);
    assert_eq!(health.state(), SlowStart);
    assert_eq!(Health::newcomer(start, &options).state(), SlowStart);
}
