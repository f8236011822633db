#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod barrier;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod definition;
pub mod error;
pub mod event;
pub mod executor;
pub mod id;
pub mod machine;
mod payload;
mod recovery;
pub mod retry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
pub mod status;
pub mod step;
pub mod store;

pub use barrier::BarrierCall;
pub use definition::{Definition, Handle, Inputs, Kind, Unwind};
pub use error::{Error, ErrorKind, Result};
pub use event::{Cause, Event, Recorded};
pub use executor::{Executor, Notice, Start};
pub use id::{Epoch, InvalidId, Partition, SagaId, StepName, Version};
pub use machine::Machine;
pub use payload::Payload;
pub use retry::Retry;
pub use status::{SagaView, Status, StepStatus, StepView};
pub use step::{
    Applied, Call, Caller, Failure, Operation, Step, StepCall, StepOutcome, StepRequest,
};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use store::SqliteStore;
pub use store::{
    Append, Blueprint, Claim, Entry, Filter, JournalStore, MemoryStore, Position, SagaStore,
    Snapshot, Summary, Timer,
};
