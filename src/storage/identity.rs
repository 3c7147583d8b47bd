//! Which database this is.
//!
//! Statements elsewhere that compare it say `single` as well: sessions are told to avoid
//! sequential scans, and that is what the row's index is on.

use uuid::Uuid;

use crate::shop::{Books, BooksId};

use super::session::{Purpose, Session, Statements};
use super::{Database, DatabaseOptions, StorageError};

impl Database {
    /// Which books these are, as was last read; `None` before that.
    pub fn books(&self) -> Option<Books> {
        self.names().known().books
    }

    /// Which books these are, read now. What is remembered of others is forgotten.
    pub async fn books_fetch(&self) -> Result<Books, StorageError> {
        let books = self.run(|statements| Box::pin(books_fetch(statements))).await?;
        self.names().learn(books);
        Ok(books)
    }
}

/// The identity of the database, which is renewed first if it came here in a dump.
pub(super) async fn books_fetch(mut statements: Statements<'_>) -> Result<Books, sqlx::Error> {
    loop {
        let (id, renewed_at, at_home): (Uuid, Option<i64>, bool) = sqlx::query_as(
            "/* books_fetch */
             SELECT id, floor(extract(epoch FROM renewed_at))::int8,
                    table_oid = identity.tableoid AND database_oid = pg_database.oid
             FROM identity, pg_database WHERE datname = current_database()",
        )
        .fetch_one(statements.again())
        .await?;
        if at_home {
            let renewed_at = renewed_at.map(|seconds| u64::try_from(seconds).unwrap_or_default());
            return Ok(Books { id: BooksId(id), renewed_at });
        }
        // Of those who find it out at once only one renews it. What followed the log of the
        // original has to begin anew here: numbers come again.
        let renewed = sqlx::query(
            "WITH renewed AS (
                 UPDATE identity SET id = gen_random_uuid(), renewed_at = now(),
                                     table_oid = identity.tableoid, database_oid = pg_database.oid
                 FROM pg_database WHERE datname = current_database()
                 AND (table_oid <> identity.tableoid OR database_oid <> pg_database.oid)
                 RETURNING 1
             )
             UPDATE log_head SET epoch = gen_random_uuid()
             WHERE single AND EXISTS (SELECT FROM renewed)",
        )
        .execute(statements.again())
        .await?;
        if renewed.rows_affected() > 0 {
            tracing::warn!("this database is a copy: everybody has to log in again");
        }
    }
}

/// Gives the database at `options` a new identity: the old one and the new one.
pub async fn renew_identity(options: &DatabaseOptions) -> Result<(BooksId, BooksId), StorageError> {
    let mut session = Session::connect(options, Purpose::Work).await?;
    let renewing = session.ask(|statements| {
        let sql = "WITH log AS (UPDATE log_head SET epoch = gen_random_uuid() WHERE single)
                   UPDATE identity SET id = gen_random_uuid(), renewed_at = now(),
                       table_oid = identity.tableoid, database_oid = pg_database.oid
                   FROM identity AS before, pg_database WHERE datname = current_database()
                   RETURNING before.id, identity.id";
        Box::pin(sqlx::query_as(sql).fetch_one(statements))
    });
    let (old, new): (Uuid, Uuid) = renewing.await?;
    session.close().await;
    Ok((BooksId(old), BooksId(new)))
}
