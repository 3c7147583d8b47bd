//! What a flood of clients costs, as the system counts it.

use std::process::Command;

use merch_store::config::Config;
use merch_store::limits::{ClientKey, Limit, Limiter, LimiterOptions, Nat64};

/// Set where this test is all that a process does.
const ALONE: &str = "MERCH_TEST_ALONE";

// Time stands still, so that no bucket is full again and forgotten meanwhile.
#[tokio::test(start_paused = true)]
async fn a_million_rotating_clients_stay_within_64_mib() {
    if std::env::var_os(ALONE).is_none() {
        // Other tests use memory too.
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "limits::memory::a_million_rotating_clients_stay_within_64_mib"]);
        let output = alone.env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let settings = Config::load(None, []).unwrap().limits;
    let limit = Limit::new(settings.capacity, 1).unwrap();
    let limiter = Limiter::new(LimiterOptions {
        default: Some(limit),
        most_keys: settings.max_keys,
        shared: None,
        nat64: Nat64::default(),
    });
    limiter.check(&ClientKey::name("the first", &Nat64::default())).await.unwrap();
    let before = most_memory();
    for number in 0..1_000_000 {
        let name = format!("somebody with an invented and rather long name, number {number}");
        limiter.check(&ClientKey::name(&name, &Nat64::default())).await.unwrap();
    }
    let used = most_memory() - before;
    assert!(limiter.keys() > settings.max_keys * 9 / 10, "{} keys", limiter.keys());
    assert!((4 << 20..64 << 20).contains(&used), "{used} bytes");
}

/// The most bytes that this process ever had in memory.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}
