//! What the process says of itself: logs and metrics.

mod lines;
mod plain;
mod repeats;
mod rolling;
mod series;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{InvalidConfig, Log, LogFormat, shown};

use lines::{Lines, Writing};
use plain::Plain;
use rolling::RollingFile;
use series::AllSeries;

pub use series::Series;

pub use repeats::{is_news, tell_all_repeats, tell_repeats};

/// Bounds for waits, in seconds: from a commit on a good disk to the request timeout.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

/// Bounds for batch sizes, in commands.
const COMMANDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// What a level is called, from nothing to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter in force and its text, from the moment that logging starts.
static LOG_FILTER: OnceLock<(reload::Handle<EnvFilter, Registry>, Mutex<String>)> = OnceLock::new();

/// Where the lines of a log that is kept in a file are left.
static LOG_LINES: OnceLock<Lines> = OnceLock::new();

/// A log that is kept. Dropped, it waits until every line is in its file.
#[must_use = "lines that are under way are lost without it"]
#[derive(Debug)]
pub struct Logging {
    _writing: Option<Writing>,
}

impl Drop for Logging {
    fn drop(&mut self) {
        repeats::tell_all_repeats();
    }
}

/// Sends logs to `log.file` from here on, or to standard error, there in colour if that is a
/// terminal.
pub fn start_logging(log: &Log) -> Result<Logging, InvalidConfig> {
    let (filter, handle) = reload::Layer::new(log_filter(&log.level)?);
    let (writer, writing) = match &log.file {
        Some(path) => {
            let (lines, writing) = RollingFile::open(path, log.file_max_bytes, SystemTime::now())
                .and_then(lines::write_to)
                .map_err(|error| {
                    let why = format!("cannot write {}: {error}", path.display());
                    InvalidConfig::new("log.file", why)
                })?;
            // Logging is started once.
            let _ = LOG_LINES.set(lines.clone());
            (BoxMakeWriter::new(move || lines.clone()), Some(writing))
        }
        None => (BoxMakeWriter::new(std::io::stderr), None),
    };
    let in_colour = log.file.is_none() && std::io::stderr().is_terminal() && is_colour_wanted();
    let lines = fmt::layer().with_writer(writer).with_ansi(in_colour);
    let logs = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Pretty if in_colour => logs.with(lines.compact()).init(),
        LogFormat::Pretty => logs.with(lines.event_format(Plain).fmt_fields(Plain)).init(),
        LogFormat::Json => logs.with(lines.json().flatten_event(true).with_span_list(false)).init(),
    }
    // `init` panics if logging was started before.
    let _ = LOG_FILTER.set((handle, Mutex::new(log.level.clone())));
    Ok(Logging { _writing: writing })
}

/// Says what cannot be said in the log. Where standard error is gone, too, nobody is told.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Whether the environment has nothing against colour (<https://no-color.org>).
fn is_colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// What is logged: `log.level`, or what it was changed to since. Empty before logging starts.
pub fn log_level() -> String {
    let level =
        LOG_FILTER.get().map(|(_, level)| level.lock().unwrap_or_else(PoisonError::into_inner));
    level.map(|level| level.clone()).unwrap_or_default()
}

/// Logs at `level` from here on; an error if there is no such level. Nothing happens before
/// logging starts.
pub fn set_log_level(level: &str) -> Result<(), InvalidConfig> {
    let filter = log_filter(level)?;
    if let Some((handle, current)) = LOG_FILTER.get() {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        handle.reload(filter).map_err(|error| InvalidConfig::new("log.level", error))?;
        *current = level.to_owned();
    }
    Ok(())
}

/// Looks at once whether the log's file is still the one at its path, and goes over to that. It
/// does so every second by itself.
pub fn follow_log_file() {
    if let Some(lines) = LOG_LINES.get() {
        lines.follow();
    }
}

fn log_filter(level: &str) -> Result<EnvFilter, InvalidConfig> {
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    // Less than the filter's own parser takes: to that, a word that is no level names a part of
    // some program, and everything else falls silent.
    if let Some(wrong) = directives.iter().find(|directive| !is_directive(directive)) {
        let why = format!(
            "{} is neither a level ({}) nor a directive such as sqlx=debug",
            shown(wrong),
            LEVELS.join(", ")
        );
        return Err(InvalidConfig::new("log.level", why));
    }
    // sqlx logs every notice of the server; its errors reach our own log with more context.
    EnvFilter::try_new(format!("sqlx=warn,{}", directives.join(",")))
        .map_err(|error| InvalidConfig::new("log.level", error))
}

/// Whether this is a level, or a part of a program with one.
fn is_directive(text: &str) -> bool {
    let is_level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
    };
    match text.rsplit_once('=') {
        // A span in brackets, with its fields in braces, may stand behind the name.
        Some((part, level)) if part.ends_with(']') => {
            part.split_once('[').is_some_and(|(name, _)| is_name(name)) && is_level(level)
        }
        Some((name, level)) => !name.is_empty() && is_name(name) && is_level(level),
        None => is_level(text),
    }
}

/// What the process counts: of itself, and of what comes and goes.
pub struct Metrics {
    own: PrometheusHandle,
    series: AllSeries,
}

/// The process's metrics; the first call starts collecting.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let own = builder().install_recorder().expect("this is the only recorder");
        describe();
        Metrics { own, series: AllSeries::default() }
    })
}

impl Metrics {
    /// All of them, in Prometheus's text format.
    pub fn render(&self) -> String {
        let handles = [self.own.clone()].into_iter().chain(self.series.handles());
        series::merged(&handles.map(|handle| handle.render()).collect::<Vec<_>>())
    }

    /// Makes room where what was recorded has piled up; to be called now and then.
    pub fn run_upkeep(&self) {
        self.own.run_upkeep();
        self.series.handles().iter().for_each(PrometheusHandle::run_upkeep);
    }

    /// The metrics of the thing that `label` calls `value`: all have this label, and they end when
    /// nobody has what is returned any more.
    pub fn series(&self, label: &'static str, value: &str) -> Arc<Series> {
        self.series.of(label, value, || {
            let recorder = builder().add_global_label(label, value).build_recorder();
            metrics::with_local_recorder(&recorder, describe);
            Series::new(recorder)
        })
    }
}

fn builder() -> PrometheusBuilder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_batch_size".into()), &COMMANDS)
        })
        .expect("the buckets are not empty")
}

fn describe() {
    describe_counter!("merch_http_requests_total", "Requests answered, by route and status");
    describe_histogram!("merch_http_request_seconds", Unit::Seconds, "Time to answer, by route");
    describe_gauge!("merch_http_connections", "Open connections");
    describe_counter!("merch_gateway_requests_total", "Requests answered, by backend and status");
    describe_histogram!(
        "merch_gateway_request_seconds",
        Unit::Seconds,
        "From a request's head to the last byte of its answer, by backend"
    );
    describe_gauge!("merch_gateway_in_flight", "Requests under way, by backend");
    describe_gauge!("merch_gateway_connections", "Open connections of clients");
    describe_counter!("merch_gateway_retries_total", "Requests tried on another backend");
    describe_counter!("merch_gateway_misses_total", "Requests not answered, by backend");
    describe_counter!("merch_info_answers_total", "Answers of /api/info, by where they came from");
    describe_gauge!("merch_engine_queue_depth", "Commands waiting for the writer");
    describe_histogram!("merch_engine_batch_size", "Commands in one transaction");
    describe_histogram!(
        "merch_transaction_seconds",
        Unit::Seconds,
        "From a writer's turn to committed, by transaction"
    );
    describe_counter!(
        "merch_transaction_replays_total",
        "Attempts that lost against another transaction, by transaction and SQLSTATE"
    );
    describe_counter!("merch_engine_refusals_total", "Commands refused by the ledger, by code");
    describe_counter!("merch_engine_errors_total", "Commands not carried out, by cause");
    describe_counter!("merch_log_lost_lines_total", "Lines of the log that reached no file");
    describe_counter!("merch_limits_decisions_total", "Requests that met a limit, by result");
    describe_counter!("merch_limits_overflow_total", "Decisions by the bucket of the overflow");
    describe_gauge!("merch_limits_keys", "Buckets held of clients without a limit of their own");
    describe_gauge!("merch_limits_mode", "Whose buckets count now: shared or local");
    describe_gauge!("merch_hashing_queue_depth", "Logins hashing or waiting to");
    describe_gauge!("merch_gateway_backend_state", "1 for the state that a backend is in");
    describe_counter!("merch_gateway_ejections_total", "Backends ejected, by cause");
    describe_counter!("merch_gateway_health_checks_total", "Checks of backends, by result");
}
