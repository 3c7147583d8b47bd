//! What numbers may be: one table, which `config/default.toml` repeats beside each key.

use std::ops::RangeInclusive;

use config::{Value, ValueKind};

use super::InvalidConfig;
use super::values::without_userinfo;

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;
const GIB: u64 = 1 << 30;

/// Every setting that is a number, and the least and the most that it may be. The least still
/// serves; the most overflows no clock, no allocation and nothing of PostgreSQL's.
const NUMBERS: [(&str, RangeInclusive<u64>); 47] = [
    ("http.body_limit", 1024..=GIB),
    // hyper takes no less, sockets no more.
    ("http.header_limit", 8192..=1 << 24),
    ("http.header_timeout_ms", 100..=DAY_MS),
    ("http.request_timeout_ms", 100..=DAY_MS),
    ("http.max_connections", 1..=1_000_000),
    ("database.max_connections", 1..=10_000),
    ("database.acquire_timeout_ms", 100..=DAY_MS),
    ("database.statement_timeout_ms", 100..=DAY_MS),
    // Ten years.
    ("auth.token_ttl_s", 1..=315_360_000),
    ("auth.hash_threads", 0..=1024),
    ("auth.hash_queue", 0..=1_000_000),
    ("engine.queue_capacity", 1..=1_000_000),
    ("engine.max_batch", 1..=10_000),
    ("engine.max_attempts", 1..=1_000_000),
    ("engine.replay_deadline_ms", 100..=DAY_MS),
    ("engine.outcome_deadline_ms", 100..=DAY_MS),
    ("info.history_limit", 1..=10_000),
    ("info.cache_bytes", 0..=4 * GIB),
    ("shutdown.grace_ms", 0..=HOUR_MS),
    ("shutdown.deadline_ms", 1..=DAY_MS),
    // Room for a few lines.
    ("log.file_max_bytes", 4096..=1024 * GIB),
    ("gateway.max_connections", 1..=1_000_000),
    ("gateway.header_limit", 8192..=1 << 24),
    ("gateway.header_timeout_ms", 100..=DAY_MS),
    ("gateway.body_limit", 1024..=1024 * GIB),
    ("gateway.connect_timeout_ms", 10..=HOUR_MS),
    ("gateway.response_timeout_ms", 100..=DAY_MS),
    ("gateway.body_timeout_ms", 100..=DAY_MS),
    ("gateway.tunnel_timeout_ms", 100..=DAY_MS),
    ("gateway.backend_connections", 1..=1_000_000),
    ("gateway.backend_idle_ms", 1..=DAY_MS),
    ("gateway.upstream.slow_start_ms", 0..=HOUR_MS),
    ("gateway.upstream.dns_interval_ms", 100..=DAY_MS),
    ("gateway.upstream.health.interval_ms", 10..=DAY_MS),
    ("gateway.upstream.health.timeout_ms", 10..=HOUR_MS),
    ("gateway.upstream.health.rise", 1..=1000),
    ("gateway.upstream.health.fall", 1..=1000),
    ("gateway.upstream.ejection.failures", 1..=1_000_000),
    ("gateway.upstream.ejection.connect_failures", 1..=1_000_000),
    ("gateway.upstream.ejection.base_ms", 1..=DAY_MS),
    ("gateway.upstream.ejection.max_ms", 1..=DAY_MS),
    ("gateway.upstream.retry_budget.percent", 0..=100),
    ("gateway.upstream.retry_budget.per_second", 0..=1_000_000),
    ("limits.capacity", 1..=1_000_000),
    ("limits.rate_per_sec", 0..=1_000_000),
    ("limits.redis_timeout_ms", 1..=HOUR_MS),
    ("limits.max_keys", 1000..=10_000_000),
];

/// Reads every number in `settings` as a person would, a text of digits included, and refuses
/// what is not a whole number in its range.
pub fn read(settings: &config::Config) -> Result<Vec<(&'static str, u64)>, InvalidConfig> {
    let mut numbers = Vec::new();
    for (key, range) in &NUMBERS {
        // What is not there, or hidden by something that is no section, is refused as such.
        let Some(value) = find(&settings.cache, key) else { continue };
        let written = match &value.kind {
            ValueKind::String(text) => text.trim().to_owned(),
            ValueKind::Table(_) => "a section".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
            other => other.to_string(),
        };
        let is_whole = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
        match written.parse() {
            Ok(number) if is_whole && range.contains(&number) => numbers.push((*key, number)),
            _ => return Err(refusal(key, range, &written, value.origin())),
        }
    }
    Ok(numbers)
}

fn find<'a>(settings: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(settings, |section, name| match &section.kind {
        ValueKind::Table(entries) => entries.get(name),
        _ => None,
    })
}

fn refusal(
    key: &str,
    range: &RangeInclusive<u64>,
    written: &str,
    origin: Option<&str>,
) -> InvalidConfig {
    const LONGEST: usize = 40;
    let written = without_userinfo(written);
    let shown: String = written.chars().take(LONGEST).collect();
    let rest = if shown.len() < written.len() { "..." } else { "" };
    let (least, most) = (range.start(), range.end());
    let place = origin.map_or_else(String::new, |origin| format!(" ({origin})"));
    let why = format!("{shown:?}{rest} is not a whole number from {least} to {most}{place}");
    InvalidConfig::new(key, why)
}

#[cfg(test)]
mod tests {
    use config::{Config, File, FileFormat};

    use super::super::DEFAULTS;
    use super::*;

    #[test]
    fn the_table_has_every_number_and_the_manual_repeats_it() {
        let settings = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        let settings = settings.build().unwrap();
        let mut in_manual = Vec::new();
        keys("", settings.cache.clone(), &mut in_manual);
        let mut in_table: Vec<String> = NUMBERS.iter().map(|(key, _)| key.to_string()).collect();
        in_manual.sort();
        in_table.sort();
        assert_eq!(in_manual, in_table);

        let mut section = "";
        let mut stated = 0;
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            let Some((name, value)) = line.split_once(" = ") else { continue };
            let key = format!("{section}.{name}");
            if let Some((_, range)) = NUMBERS.iter().find(|(it, _)| *it == key) {
                let (_, comment) = value.split_once("  # ").unwrap_or((value, ""));
                assert_eq!(comment, format!("{} to {}", range.start(), range.end()), "{key}");
                stated += 1;
            }
        }
        assert_eq!(stated, NUMBERS.len());
    }

    /// The keys of all numbers below `prefix`.
    fn keys(prefix: &str, value: Value, found: &mut Vec<String>) {
        match value.kind {
            ValueKind::Table(table) => {
                for (name, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    keys(&format!("{prefix}{dot}{name}"), value, found);
                }
            }
            ValueKind::I64(_) | ValueKind::Float(_) => found.push(prefix.to_owned()),
            _ => {}
        }
    }
}
