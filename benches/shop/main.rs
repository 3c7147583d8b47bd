//! Everything that docs/PERFORMANCE.md quotes: `./scripts/bench`.
//!
//! Both sides of a ratio run in the same invocation on the same machine, in turn, several
//! rounds; what is printed are medians, with the lowest and the highest in brackets.

mod against;
mod gateway;
mod limiter;
mod load;
mod metrics;
mod peer;
mod pictures;
mod processes;
mod proxies;
mod report;
mod scenarios;
mod world;

use std::time::Instant;

use clap::Parser;

use report::Report;
use world::World;

// As in the program, whose limiter is measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo bench --bench shop
  cargo bench --bench shop -- --only uniform --only hot --seconds 5
  cargo bench --bench shop -- --only gateway --only limiter
  cargo bench --bench shop -- --against ../before/target/release/merch-store --rounds 5
  cargo bench --bench shop -- --media media")]
struct Options {
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Run only the scenarios whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Compare with this other merch-store, in turn, and measure nothing else.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<std::path::PathBuf>,
    /// Write the figures and their pictures to this folder, if everything was run.
    #[arg(long, value_name = "FOLDER")]
    media: Option<std::path::PathBuf>,
    /// Given by cargo; of no use here.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether the scenario of this name is to be run.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let started = Instant::now();
    let mut report = Report::default();
    match &options.against {
        Some(other) => against::run(other, &options, &mut report).await?,
        None => measure(&options, &mut report).await?,
    }
    println!("{report}");
    println!("took {:.0} s", started.elapsed().as_secs_f64());
    let is_whole = options.only.is_empty() && options.against.is_none();
    if let Some(folder) = options.media.filter(|_| is_whole) {
        std::fs::write(folder.join("bench.json"), report.to_json()?)?;
        std::fs::write(folder.join("bench-throughput.svg"), pictures::throughput(&report))?;
        std::fs::write(folder.join("bench-processor.svg"), pictures::processor(&report))?;
        std::fs::write(folder.join("bench-gateway.svg"), pictures::gateway(&report))?;
    }
    Ok(())
}

/// Measures this program, and what it stands beside.
async fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    // First, while the memory of this process is nobody else's.
    if options.wants(limiter::NAME) {
        limiter::run(report);
    }
    if gateway::NAMES.iter().any(|name| options.wants(name)) {
        gateway::run_all(options, report).await?;
    }
    if scenarios::NAMES.iter().any(|name| options.wants(name)) {
        let world = World::new(None).await?;
        let result = scenarios::run_all(&world, options, report).await;
        world.close().await?;
        result?;
    }
    Ok(())
}
