//! What the system knows of processes: their processor time and their memory.

use std::time::Duration;

/// Processor time of process `pid` so far.
pub fn cpu_of(pid: u32) -> Duration {
    processes().into_iter().filter(|stat| stat.pid == pid).map(|stat| stat.cpu).sum()
}

/// Processor time so far of process `pid` and of its children, as far as they live.
pub fn cpu_of_family(pid: u32) -> Duration {
    family(pid).map(|stat| stat.cpu).sum()
}

/// Memory of process `pid` and of its children, in MiB; what they share counts once.
pub fn memory_of_family(pid: u32) -> f64 {
    let proportional_kib = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    family(pid).map(|stat| proportional_kib(stat.pid).unwrap_or(f64::NAN) / 1024.0).sum()
}

struct Stat {
    pid: u32,
    parent: u32,
    cpu: Duration,
}

fn family(pid: u32) -> impl Iterator<Item = Stat> {
    processes().into_iter().filter(move |stat| stat.pid == pid || stat.parent == pid)
}

/// What `/proc` knows of every process; processor time in ticks of 10 ms.
fn processes() -> Vec<Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may contain anything.
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
            // Its own time, and that of children which have ended.
            let cpu = ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?;
            Some(Stat {
                pid,
                parent: fields.get(1)?.parse().ok()?,
                cpu: Duration::from_millis(10 * cpu),
            })
        })
        .collect()
}
