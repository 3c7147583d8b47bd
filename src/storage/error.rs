//! From what the driver says to what the shop can do about it.

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

    /// The error of a COMMIT: unless the server said plainly that it failed, nobody knows.
    pub(super) fn at_commit(error: sqlx::Error) -> StorageError {
        // 40003 is how distributed engines say "I do not know either".
        let in_doubt = |error: &dyn DatabaseError| error.code().as_deref() == Some("40003");
        if ends_session(&error) || error.as_database_error().is_some_and(in_doubt) {
            StorageError::OutcomeUnknown(error.to_string())
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
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => StorageError::Unavailable(error.to_string()),
            _ => StorageError::Unexpected(error.to_string()),
        }
    }
}

/// Whether `error` leaves no session to go on with: only an answer of plain ERROR severity
/// does.
pub(super) fn ends_session(error: &sqlx::Error) -> bool {
    let plain = |error: &dyn DatabaseError| {
        error.downcast_ref::<PgDatabaseError>().severity() == PgSeverity::Error
    };
    !error.as_database_error().is_some_and(plain)
}

fn from_database(error: &dyn DatabaseError) -> StorageError {
    if let Some(constraint) = error.constraint() {
        return StorageError::Constraint(constraint.to_owned());
    }
    let sqlstate = error.code().unwrap_or_default().into_owned();
    match sqlstate.as_str() {
        "40001" | "40P01" => StorageError::Conflict { sqlstate },
        // Connection trouble, too many connections or no resources, shutdown and start,
        // a statement or a lock that took too long, a read-only standby.
        "57014" | "55P03" | "25006" => StorageError::Unavailable(error.to_string()),
        code if ["08", "53", "57P", "25P"].iter().any(|class| code.starts_with(class)) => {
            StorageError::Unavailable(error.to_string())
        }
        _ => StorageError::Unexpected(format!("{error} (SQLSTATE {sqlstate})")),
    }
}
