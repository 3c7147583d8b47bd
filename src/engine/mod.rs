//! The engine: a bounded queue, one writer, batches without a timer.
//!
//! A request does not open a transaction. It becomes a command on the queue; the writer
//! takes whatever queued up while the previous commit ran and its turn was waited for,
//! carries it out as one serializable transaction, and only then answers. The busier the shop,
//! the larger the batches, and the less a command costs.

mod batch;
mod commit;
mod queue;
mod versions;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::storage::{Database, Writer};

pub use queue::{Engine, EngineError, EngineOptions, Party, TEAM_PLACES};
pub use versions::{Versions, read_versions};

/// Starts the engine on `database`: the handle, and the writer to be run as a task.
pub fn start(
    database: Database,
    writer: Writer,
    options: EngineOptions,
) -> (Engine, impl Future<Output = ()> + Send) {
    let writable = Arc::new(AtomicBool::new(true));
    let (engine, queue) = Engine::new(database.clone(), writable.clone(), options.queue_capacity);
    let task = batch::WriterTask { queue, writer, database, writable, options };
    (engine, task.run())
}
