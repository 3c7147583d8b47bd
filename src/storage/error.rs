//! From what the driver says to what the shop can do about it.

use std::borrow::Cow;
use std::io::ErrorKind;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::shop::ledger::Refusal;

/// Why a statement or a transaction came to nothing, or may have. `Display` is meant for
/// the operator's log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The transaction lost against another one and left no trace: replay it.
    #[error("conflict with another transaction (SQLSTATE {sqlstate})")]
    Conflict {
        /// 40001 or 40P01.
        sqlstate: String,
    },
    /// There is no usable connection, or no answer in time; nothing was committed.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The server cannot be used as it or its address is, and waiting does not change that.
    #[error("{0}")]
    Unusable(String),
    /// The database is there, but a statement or the wait for a lock took longer than it may;
    /// nothing was committed.
    #[error("database too slow: {0}")]
    TooSlow(String),
    /// The connection broke between COMMIT and its answer.
    #[error("connection lost at COMMIT, outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// A named constraint said no; nothing was committed.
    #[error("constraint {0} violated")]
    Constraint(String),
    /// Anything else: a defect, or a database that is not as we left it.
    #[error("database error: {0}")]
    Unexpected(String),
}

impl StorageError {
    /// What a violated constraint means in the shop's own terms, where it means anything.
    pub fn refusal(&self) -> Option<Refusal> {
        let StorageError::Constraint(name) = self else {
            return None;
        };
        match name.as_str() {
            "balance_coins_not_negative" => Some(Refusal::InsufficientCoins),
            "history_not_to_oneself" => Some(Refusal::SelfTransfer),
            "users_username_key" => Some(Refusal::UsernameTaken),
            _ => None,
        }
    }

    /// The same, with the `location` of the server, for a person who may know many.
    pub(super) fn at(self, location: &str) -> StorageError {
        let located = |why: String| match why.starts_with(location) {
            true => why,
            false => format!("{location}: {why}"),
        };
        match self {
            StorageError::Unavailable(why) => StorageError::Unavailable(located(why)),
            StorageError::Unusable(why) => StorageError::Unusable(located(why)),
            StorageError::TooSlow(why) => StorageError::TooSlow(located(why)),
            StorageError::Unexpected(why) => StorageError::Unexpected(located(why)),
            error => error,
        }
    }

    /// The error of a COMMIT: unless the server said plainly that it failed, nobody knows.
    pub(super) fn at_commit(error: sqlx::Error) -> StorageError {
        // 40003 is how distributed engines say "I do not know either".
        if ends_session(&error) || sqlstate(&error).as_deref() == Some("40003") {
            StorageError::OutcomeUnknown(words(&error))
        } else {
            error.into()
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> StorageError {
        match &error {
            sqlx::Error::Database(said) => from_database(said.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => StorageError::Unavailable(words(&error)),
            _ => StorageError::Unexpected(words(&error)),
        }
    }
}

/// What is made of a server that does not answer.
pub(super) fn silent() -> sqlx::Error {
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

/// Whether what stands before the server does not take the settings that a session begins with.
pub(super) fn is_about_settings(error: &sqlx::Error) -> bool {
    let said = error.as_database_error().map(|said| said.message()).unwrap_or_default();
    said.contains("startup parameter") || said.contains("command-line options")
}

/// What kept the server at `location` from being connected to, and what to do about it.
pub(super) fn at_connect(error: &sqlx::Error, location: &str) -> StorageError {
    let said = words(error);
    let (heals, advice) = match error {
        sqlx::Error::Database(_) => match sqlstate(error).unwrap_or_default().as_str() {
            "28P01" => (false, "is the password right?"),
            "28000" => (false, "the server must know the user and let it in (pg_hba.conf)"),
            "3D000" => (false, "make it with CREATE DATABASE, or name another one"),
            _ if is_about_settings(error) => {
                (false, "the pooler does not take what `options` in the URL says")
            }
            "53300" => (
                true,
                "raise the server's max_connections or the role's CONNECTION LIMIT, or lower \
                 database.max_connections",
            ),
            code if is_passing(code) || is_too_slow(code) => (true, ""),
            _ => (false, ""),
        },
        sqlx::Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => (true, "is it running there?"),
            // How rustls puts what it does not like.
            ErrorKind::InvalidData => {
                (false, "its certificate must be one to be trusted, for this name")
            }
            ErrorKind::UnexpectedEof => (true, "it hung up before it said anything"),
            _ => (true, ""),
        },
        // Nothing came: something in between, whose server is away.
        sqlx::Error::Protocol(_) if said.ends_with("0x00") => {
            return StorageError::Unavailable(format!("{location}: it hung up"));
        }
        sqlx::Error::Protocol(_) if said.contains("authentication") => {
            (false, "have it ask for a password (scram-sha-256) or a certificate in pg_hba.conf")
        }
        sqlx::Error::Protocol(_) => (false, "is that PostgreSQL?"),
        sqlx::Error::Tls(_) => (false, "change sslmode, or what it needs"),
        _ => (false, ""),
    };
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    let text = format!("{location}: {said}{advice}");
    if heals { StorageError::Unavailable(text) } else { StorageError::Unusable(text) }
}

/// Whether `error` leaves no session to go on with: only an answer of plain ERROR severity
/// does, unless a pooler gives it for a server that it lost or that is ending.
pub(super) fn ends_session(error: &sqlx::Error) -> bool {
    let lost = |code: Cow<'_, str>| code.starts_with("08") || code.starts_with("57P");
    let plain = |error: &dyn DatabaseError| {
        error.downcast_ref::<PgDatabaseError>().severity() == PgSeverity::Error
            && !error.code().is_some_and(lost)
    };
    !error.as_database_error().is_some_and(plain)
}

/// Whether there is a better session than the one that `error` came from: a server that is
/// read-only, or statements of which only one of us knows.
pub(super) fn leaves_session(error: &sqlx::Error) -> bool {
    ends_session(error) || matches!(sqlstate(error).as_deref(), Some("25006" | "26000" | "42P05"))
}

/// What went wrong, without the driver's frame and without the server's own source lines.
pub(super) fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(said) => said.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) | sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::Protocol(what) => {
            what.split_once(" (sqlx").map_or(what.as_str(), |(said, _)| said).to_owned()
        }
        error => error.to_string(),
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Cow::into_owned)
}

/// Connection trouble, no resources, shutdown and start, a session cut off.
fn is_passing(sqlstate: &str) -> bool {
    ["08", "53", "57P", "25P"].iter().any(|class| sqlstate.starts_with(class))
}

/// A statement that was cancelled, a lock that was not to be had.
fn is_too_slow(sqlstate: &str) -> bool {
    matches!(sqlstate, "57014" | "55P03")
}

fn from_database(error: &dyn DatabaseError) -> StorageError {
    if let Some(constraint) = error.constraint() {
        return StorageError::Constraint(constraint.to_owned());
    }
    let sqlstate = error.code().unwrap_or_default().into_owned();
    let said = error.message().to_owned();
    match sqlstate.as_str() {
        "40001" | "40P01" => StorageError::Conflict { sqlstate },
        code if is_too_slow(code) => StorageError::TooSlow(said),
        // A read-only standby; a session that knows other statements than we do.
        "25006" | "26000" | "42P05" => StorageError::Unavailable(said),
        code if is_passing(code) => StorageError::Unavailable(said),
        _ => StorageError::Unexpected(format!("{said} (SQLSTATE {sqlstate})")),
    }
}
