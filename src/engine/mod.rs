//! The engine: a bounded queue, one writer, batches without a timer.
//!
//! A request does not open a transaction. It becomes a command on the queue; the writer
//! takes whatever queued up while the previous commit ran, carries it out as one
//! serializable transaction, and only then answers. The busier the shop, the larger the
//! batches, and the less a command costs.

mod batch;
mod commit;
mod queue;

pub use queue::{Engine, EngineError, EngineOptions, start};
