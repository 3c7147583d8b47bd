//! Runs the tasks around the table: one for each backend, one for each host name, and the
//! timer for what is due by itself.

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::lifecycle::Lifecycle;

use super::Upstreams;
use super::check::keep_checking;
use super::resolve::keep_resolving;
use super::table::Job;

/// Watches over `upstreams` until `lifecycle` ends. A task that panics is not survived: a
/// backend that nobody asks any more would look well for ever.
pub async fn supervise(upstreams: Upstreams, lifecycle: Lifecycle) {
    let mut tasks = JoinSet::new();
    loop {
        let jobs = upstreams.table().take_jobs();
        for job in jobs {
            match job {
                Job::Check(backend) => tasks.spawn(keep_checking(upstreams.clone(), backend)),
                Job::Resolve(id, origin, gone) => {
                    tasks.spawn(keep_resolving(upstreams.clone(), id, origin, gone))
                }
            };
        }
        let next_tick = upstreams.table().next_tick(Instant::now());
        let ticking = async {
            match next_tick {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lifecycle.ending() => return,
            () = upstreams.0.wake.notified() => {}
            Some(ended) = tasks.join_next() => must_not_panic(ended),
            () = ticking => upstreams.change(|table, now| table.tick(now)),
        }
    }
}

fn must_not_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
