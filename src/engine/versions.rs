//! Versions of accounts, read for many at once: how what a replica remembers is found to be
//! what the database holds, whoever wrote last.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};

use crate::shop::AccountId;
use crate::storage::{Database, Known};

/// Questions that may wait at once, and those that are answered by one statement.
const WAITING: usize = 1024;
const TOGETHER: usize = 256;

/// Asks for versions. When the last one is dropped, the reader stops.
#[derive(Clone, Debug)]
pub struct Versions {
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    account: AccountId,
    answer: oneshot::Sender<Option<(Known, i64)>>,
}

/// The way to ask `database` for versions, and the reader to be run as a task. It takes
/// whatever was asked while the previous statement ran, so an answer is never older than its
/// question.
pub fn read_versions(database: Database) -> (Versions, impl Future<Output = ()> + Send) {
    let (questions, waiting) = mpsc::channel(WAITING);
    (Versions { questions }, answer_all(database, waiting))
}

impl Versions {
    /// The version of `account`, read after this was called: see
    /// [`Info::version`](crate::storage::Info::version); with it, of which books it is. `None`
    /// if there is no such account, or no telling: too many ask, the database does not answer,
    /// or these are not the books they were.
    pub async fn read(&self, account: AccountId) -> Option<(Known, i64)> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { account, answer }).ok()?;
        answered.await.ok()?
    }
}

async fn answer_all(database: Database, mut waiting: mpsc::Receiver<Question>) {
    let mut questions = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut questions, TOGETHER).await > 0 {
        let mut accounts: Vec<AccountId> = questions.iter().map(|it| it.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let known = database.known();
        let versions = match known.books {
            Some(books) => database.versions_fetch(books.id, accounts).await,
            None => Ok(HashMap::new()),
        };
        let versions = versions.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read versions");
            HashMap::new()
        });
        // Left meanwhile, the server may have been another one than `known` is of.
        let known = Some(known).filter(|known| *known == database.known());
        for Question { account, answer } in questions.drain(..) {
            // The client may have hung up meanwhile.
            let _ = answer.send(known.zip(versions.get(&account).copied()));
        }
    }
}
