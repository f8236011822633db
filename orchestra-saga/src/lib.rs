#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod barrier;
pub mod config;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod definition;
pub mod diagram;
#[cfg(feature = "postgres")]
mod dial;
pub mod error;
pub mod event;
pub mod executor;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod explore;
#[doc = include_str!("../FAILURES.md")]
pub mod failures {}
pub mod fleet;
pub mod id;
pub mod machine;
pub mod operate;
pub mod outbox;
mod payload;
pub mod projection;
mod recovery;
pub mod retry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
pub mod status;
pub mod step;
pub mod store;
pub mod two_phase;

pub use barrier::BarrierCall;
pub use config::Config;
pub use definition::{Definition, Handle, Inputs, Kind, Unwind};
pub use error::{Error, ErrorKind, Result};
pub use event::{Cause, Event, Operator, Recorded, Resolution};
pub use executor::{Executor, Notice, Start};
pub use fleet::Fleet;
pub use id::{Epoch, InvalidId, Partition, SagaId, StepName, Version};
pub use machine::Machine;
pub use payload::Payload;
pub use retry::Retry;
pub use status::{SagaView, Status, StepStatus, StepView};
pub use step::{
    Applied, Attempt, Call, Caller, Failure, Operation, Step, StepCall, StepOutcome, StepRequest,
};
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use store::PostgresStore;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use store::SqliteStore;
pub use store::{
    Append, Blueprint, Claim, Entry, Filter, Holder, JournalStore, MemoryStore, Position,
    SagaStore, Snapshot, Summary, Timer,
};
pub use two_phase::{Decision, Participant};
