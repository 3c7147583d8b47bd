//! One story of how the process ends: softly, then with a deadline, then at once.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long what was to end at once may take to.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The process's tasks and the two ways to ask them to end.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Cancelled first: finish what you have, take nothing new.
    soft: CancellationToken,
    /// Cancelled by whoever is out of patience: stop now.
    hard: CancellationToken,
    /// A task ended that should have run on.
    failed: CancellationToken,
    /// The first signal that asked for the end.
    signal: Arc<OnceLock<u8>>,
    tasks: TaskTracker,
}

/// Why the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and everything was finished.
    Cleanly,
    /// A task died, or the deadline passed or a second signal came with work unfinished.
    Badly,
}

/// The end was asked for before a command had done what it was asked to, or had begun to serve.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("asked to end before it was done")]
pub struct Interrupted {
    signal: Option<u8>,
}

impl Interrupted {
    /// 128 and the signal's number, as shells have it.
    pub fn exit_code(self) -> ExitCode {
        self.signal.map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal))
    }
}

/// SIGTERM and SIGINT, from the first moment of the process: as process 1 of a container it would
/// hear neither otherwise.
#[derive(Debug)]
pub struct Signals {
    lifecycle: Arc<OnceLock<Lifecycle>>,
}

impl Signals {
    /// From here on they end the process at once. A thread listens to them, so that nothing that
    /// the process waits for can be in their way.
    pub fn listen() -> std::io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        drop(inside);
        let lifecycle = Arc::<OnceLock<Lifecycle>>::default();
        let heard = heed(terminate, interrupt, lifecycle.clone());
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let signal = runtime.block_on(heard);
            std::process::exit(128 + i32::from(signal));
        })?;
        Ok(Signals { lifecycle })
    }

    /// From here on they end `lifecycle`: the first one softly, the second one at once, and a
    /// third one the process. What is still there five seconds after the second ends as well.
    pub fn end(self, lifecycle: &Lifecycle) {
        // Cannot fail: `self` is gone after it.
        let _ = self.lifecycle.set(lifecycle.clone());
    }
}

/// Passes signals on for as long as there is anybody to end in order; then returns the last.
async fn heed(
    mut terminate: Signal,
    mut interrupt: Signal,
    lifecycle: Arc<OnceLock<Lifecycle>>,
) -> u8 {
    let mut last = None;
    loop {
        let ended = async {
            match last {
                Some(signal) => {
                    tokio::time::sleep(LAST_WAIT).await;
                    signal
                }
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
            signal = ended => return signal,
        };
        match lifecycle.get() {
            Some(lifecycle) if !lifecycle.is_ending() => {
                // Nobody else writes it.
                let _ = lifecycle.signal.set(signal);
                lifecycle.end();
            }
            Some(lifecycle) if last.is_none() => {
                lifecycle.hard.cancel();
                last = Some(signal);
            }
            _ => return signal,
        }
    }
}

impl Lifecycle {
    /// Runs `task`, without which there is no point in going on: if it ends before it was
    /// asked to, by a return or a panic, everything ends.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            // Held over the task: dropped when it returns and when it panics.
            let _guard = scopeguard(move || {
                if !lifecycle.is_ending() {
                    tracing::error!(task = name, "a task died; ending the process");
                    lifecycle.fail();
                }
            });
            task.await;
        });
    }

    /// The same on a thread of its own, for a task that must not queue up behind others: the
    /// operating system gives it a processor as soon as there is something to do. Returns its
    /// runtime, where others can run too until the task ends.
    pub fn spawn_on_thread(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (finished, finishing) = oneshot::channel::<Infallible>();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped when the task returns and when it panics.
            let _finished = finished;
            runtime.block_on(task);
        })?;
        self.spawn(name, async move { drop(finishing.await) });
        Ok(handle)
    }

    /// Tasks should finish what they have.
    pub fn is_ending(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when tasks should finish what they have.
    pub async fn ending(&self) {
        self.soft.cancelled().await;
    }

    /// Resolves when everything should stop at once: at a second signal, not at a deadline, after
    /// which there is still time to leave in order.
    pub async fn ended(&self) {
        self.hard.cancelled().await;
    }

    /// Asks every task to finish, as a signal would.
    pub fn end(&self) {
        self.soft.cancel();
    }

    /// Asks every task to finish, because there is no point in going on.
    pub fn fail(&self) {
        self.failed.cancel();
        self.soft.cancel();
    }

    /// Does `work`, unless the end is asked for meanwhile: then it is dropped.
    pub async fn unless_ending<T, E: From<Interrupted>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.ending() => Err(Interrupted { signal: self.signal.get().copied() }.into()),
        }
    }

    /// Waits until the end is asked for and all tasks have finished, at most `deadline`
    /// after it was asked for.
    pub async fn wait(&self, deadline: Duration) -> Ended {
        self.ending().await;
        tracing::info!("shutting down; a second signal ends it at once");
        self.tasks.close();
        let finished = tokio::select! {
            () = self.tasks.wait() => true,
            () = self.ended() => false,
            () = tokio::time::sleep(deadline) => false,
        };
        if !finished {
            tracing::warn!(tasks = self.tasks.len(), "ending with work unfinished");
        }
        if finished && !self.failed.is_cancelled() { Ended::Cleanly } else { Ended::Badly }
    }
}

/// Calls `on_drop` when it goes out of scope.
fn scopeguard(on_drop: impl FnOnce()) -> impl Drop {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(on_drop) = self.0.take() {
                on_drop();
            }
        }
    }
    Guard(Some(on_drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_clean_end_waits_for_every_task() {
        let lifecycle = Lifecycle::default();
        let task = lifecycle.clone();
        lifecycle.spawn("worker", async move {
            task.ending().await;
            tokio::time::sleep(DEADLINE / 2).await;
        });
        lifecycle.end();
        assert_eq!(lifecycle.wait(DEADLINE).await, Ended::Cleanly);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_wait() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("stuck", std::future::pending());
        lifecycle.end();
        assert_eq!(lifecycle.wait(DEADLINE).await, Ended::Badly);
        assert!(!lifecycle.hard.is_cancelled(), "what is left can be left in order");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_returns_or_panics_ends_the_process_with_failure() {
        for panics in [false, true] {
            let lifecycle = Lifecycle::default();
            lifecycle.spawn("mortal", async move { assert!(!panics, "of old age") });
            assert_eq!(lifecycle.wait(DEADLINE).await, Ended::Badly);
        }
    }
}
