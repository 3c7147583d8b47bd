//! What each strategy promises, for any candidates.

use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_assert_ne, prop_oneof, proptest,
};
use proptest::strategy::Strategy as Generator;

use super::*;

fn view() -> impl Generator<Value = View> {
    (1u32..=100, 0u32..50, prop_oneof![Just(0.0), 0.0005f32..5.0], any::<bool>()).prop_map(
        |(weight, in_flight, latency, usable)| View { weight, in_flight, latency, usable },
    )
}

proptest! {
    #[test]
    fn over_a_cycle_everybody_gets_exactly_their_weight(
        weights in vec(1u32..=100, 1..20), start in any::<u32>(),
    ) {
        let schedule = schedule(&weights);
        let mut turns = vec![0u32; weights.len()];
        for turn in 0..schedule.len() {
            turns[round_robin(&schedule, start as usize + turn, |_| true).unwrap()] += 1;
        }
        for (at, weight) in weights.iter().enumerate() {
            prop_assert_eq!(turns[at] * weights[0], turns[0] * weight);
        }
    }

    #[test]
    fn the_heaviest_never_gets_more_in_a_row_than_its_share_asks_for(heavy in 2u32..=50) {
        let schedule = schedule(&[heavy, heavy, 1]);
        let doubles = schedule.windows(2).filter(|pair| pair[0] == pair[1]).count();
        prop_assert!(doubles <= 1, "{:?}", schedule);
    }

    #[test]
    fn no_strategy_picks_what_is_not_usable_or_misses_what_is(
        views in vec(view(), 0..12), turn in any::<usize>(), random in any::<u64>(),
    ) {
        let weights: Vec<u32> = views.iter().map(|view| view.weight).collect();
        let picks = [
            round_robin(&schedule(&weights), turn, |at| views[at].usable),
            least_connections(views.len(), turn, |at| views[at]),
            p2c_ewma(views.len(), random, |at| views[at]),
        ];
        for pick in picks {
            match pick {
                Some(at) => prop_assert!(views[at].usable),
                None => prop_assert!(views.iter().all(|view| !view.usable)),
            }
        }
    }

    #[test]
    fn least_connections_picks_a_minimum(
        views in vec(view(), 1..12), turn in any::<usize>(),
    ) {
        let load = |view: &View| (f64::from(view.in_flight) + 1.0) / f64::from(view.weight);
        if let Some(at) = least_connections(views.len(), turn, |at| views[at]) {
            for other in views.iter().filter(|view| view.usable) {
                prop_assert!(load(&views[at]) <= load(other) + 1e-9);
            }
        }
    }

    #[test]
    fn of_two_that_are_equally_busy_p2c_takes_the_quicker(
        quick in 0.001f32..1.0, slower_by in 1.01f32..10.0, in_flight in 0u32..9,
        random in any::<u64>(), quick_is_first in any::<bool>(),
    ) {
        let view = |latency| View { weight: 1, in_flight, latency, usable: true };
        let mut views = [view(quick), view(quick * slower_by)];
        if !quick_is_first {
            views.reverse();
        }
        let expected = usize::from(!quick_is_first);
        prop_assert_eq!(p2c_ewma(2, random, |at| views[at]), Some(expected));
    }

    #[test]
    fn p2c_never_takes_the_worst_of_three(random in any::<u64>(), worst in 0usize..3) {
        let view = |at| View {
            weight: 1,
            in_flight: if at == worst { 9 } else { 1 },
            latency: 0.01,
            usable: true,
        };
        prop_assert_ne!(p2c_ewma(3, random, view), Some(worst));
    }
}

#[test]
fn weights_of_five_one_and_one_are_spread_and_not_clumped() {
    assert_eq!(*schedule(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(*schedule(&[10, 10]), [0, 1]);
    assert!(schedule(&[]).is_empty());
}

#[test]
fn equally_idle_candidates_take_turns_under_least_connections() {
    let idle = |_| View { weight: 1, in_flight: 0, latency: 0.0, usable: true };
    let picks: Vec<_> = (0..4).map(|turn| least_connections(3, turn, idle)).collect();
    assert_eq!(picks, [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn what_is_not_known_yet_gets_one_request_at_a_time() {
    let views = |in_flight| {
        move |at| match at {
            0 => View { weight: 1, in_flight, latency: 0.0, usable: true },
            _ => View { weight: 1, in_flight: 3, latency: 2.0, usable: true },
        }
    };
    assert_eq!(p2c_ewma(2, 7, views(0)), Some(0));
    assert_eq!(p2c_ewma(2, 7, views(1)), Some(1));
}

#[test]
fn every_pair_is_drawn() {
    let view = |_| View { weight: 1, in_flight: 0, latency: 1.0, usable: true };
    let firsts: Vec<_> = (0..4).map(|quarter| p2c_ewma(4, quarter << 30, view)).collect();
    assert_eq!(firsts, [Some(0), Some(1), Some(2), Some(3)]);
}

proptest! {
    // Each case goes through a long schedule for many candidates.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn many_heavy_candidates_share_a_schedule_of_bounded_length(
        weights in vec(1u32..=1000, 1..256),
    ) {
        let schedule = schedule(&weights);
        prop_assert!(schedule.len() as u64 <= MAX_SLOTS);
        for at in 0..weights.len() {
            prop_assert!(schedule.contains(&(at as u16)));
        }
    }
}
