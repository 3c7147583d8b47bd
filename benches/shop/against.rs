//! This program against another build of it, in turn: what a change costs.
//!
//! Each has a PostgreSQL of its own, which its own `migrate up` and `seed` have filled, so the
//! other may be of any release. Machines drift: whichever went first goes second in the next
//! round, and a ratio is one round's.

use std::path::Path;
use std::time::Duration;

use super::Options;
use super::load::{Requests, closed_loop};
use super::metrics::Histogram;
use super::report::Report;
use super::scenarios::{
    CONNECTIONS, Measured, READERS, give_history, hot, info, measured, uniform,
};
use super::world::{Replica, World};

/// The scenarios, by the names under which they are run.
pub const NAMES: [&str; 4] = ["uniform", "hot", "replicas", "info"];

/// Long enough that most people have been seen once, by each of two replicas, too.
const WARM_UP: Duration = Duration::from_secs(20);

/// One of the two builds, with as many replicas as the scenario wants.
struct Side<'world, R> {
    world: &'world World,
    replicas: Vec<Replica>,
    requests: R,
}

/// What one round showed of a side.
struct Round {
    measured: Measured,
    /// Seconds of a commit, and commands in it, on average.
    commit: f64,
    batch: f64,
}

pub async fn run(other: &Path, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (this, other) = (World::new(None).await?, World::new(Some(other)).await?);
    let worlds = [&this, &other];
    for name in NAMES.into_iter().filter(|name| options.wants(name)) {
        match name {
            "info" => {
                give_history(&this, READERS).await?;
                give_history(&other, READERS).await?;
                compare(name, 1, worlds, worlds.map(info), options, report).await?;
            }
            "hot" => compare(name, 1, worlds, worlds.map(hot), options, report).await?,
            "replicas" => compare(name, 2, worlds, worlds.map(uniform), options, report).await?,
            _ => compare(name, 1, worlds, worlds.map(uniform), options, report).await?,
        }
    }
    this.close().await?;
    other.close().await
}

async fn compare<R: Requests>(
    name: &str,
    replicas: usize,
    worlds: [&World; 2],
    requests: [R; 2],
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut sides = Vec::with_capacity(worlds.len());
    for (world, requests) in worlds.into_iter().zip(requests) {
        let replicas = (0..replicas).map(|_| world.replica(&[])).collect::<Result<_, _>>()?;
        let side = Side { world, replicas, requests };
        side.round(WARM_UP).await?;
        sides.push(side);
    }
    let period = Duration::from_secs(options.seconds);
    let mut rounds = [vec![], vec![]];
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            rounds[side].push(sides[side].round(period).await?);
        }
    }
    add(name, &rounds, report);
    for (side, which) in sides.iter().zip(["this", "other"]) {
        let memory: Vec<f64> = side.replicas.iter().map(Replica::resident_mib).collect();
        report.add(name, &format!("resident memory, {which}"), "MiB", &memory);
    }
    Ok(())
}

fn add(name: &str, rounds: &[Vec<Round>; 2], report: &mut Report) {
    type Value = fn(&Round) -> f64;
    let values: [(&str, &'static str, Value); 6] = [
        ("answered", "/s", |it| it.measured.answers.rate()),
        ("p99", "ms", |it| it.measured.answers.quantile(200, 0.99)),
        ("shop's processor time", "us", |it| it.measured.us(it.measured.shop)),
        ("PostgreSQL's", "us", |it| it.measured.us(it.measured.postgres)),
        ("a commit", "ms", |it| it.commit * 1000.0),
        ("commands in it", "", |it| it.batch),
    ];
    for (what, unit, value) in values {
        let [this, other] = rounds.each_ref().map(|it| it.iter().map(value).collect::<Vec<f64>>());
        if this.iter().chain(&other).any(|value| value.is_nan()) {
            continue;
        }
        let ratios: Vec<f64> = this.iter().zip(&other).map(|(this, other)| this / other).collect();
        report.add(name, &format!("{what}, this"), unit, &this);
        report.add(name, &format!("{what}, other"), unit, &other);
        report.add(name, &format!("{what}, ratio"), "x", &ratios);
    }
}

impl<R: Requests> Side<'_, R> {
    async fn round(&self, period: Duration) -> anyhow::Result<Round> {
        let targets: Vec<_> = self.replicas.iter().map(|replica| replica.address).collect();
        let (commits, batches) = (self.commits().await?, self.batches().await?);
        let load = || closed_loop(&targets, CONNECTIONS, period, self.requests.clone());
        let measured = measured(self.world, &self.replicas, load).await;
        let (commits, batches) = (self.commits().await? - commits, self.batches().await? - batches);
        Ok(Round { measured, commit: commits.mean(), batch: batches.mean() })
    }

    async fn commits(&self) -> anyhow::Result<Histogram> {
        let batch = r#"merch_transaction_seconds{transaction="commit_batch"}"#;
        Histogram::read(&self.replicas, &[batch, "merch_engine_commit_seconds"]).await
    }

    async fn batches(&self) -> anyhow::Result<Histogram> {
        Histogram::read(&self.replicas, &["merch_engine_batch_size"]).await
    }
}
