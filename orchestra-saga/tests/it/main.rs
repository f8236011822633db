//! The crate through its public API.

// Tests fail by panicking, also in the helpers that they share.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "this is how a test fails"
)]

#[cfg(feature = "sqlite")]
mod barrier;
mod bounded;
mod checkout;
mod configuring;
#[cfg(feature = "test-util")]
mod conforming;
mod crashing;
mod defining;
mod documenting;
mod encoding;
mod executing;
#[cfg(feature = "test-util")]
mod exploring;
mod extending;
mod fleeting;
mod journal_killing;
#[cfg(feature = "sqlite")]
mod killing;
#[cfg(feature = "sqlite")]
mod locking;
mod machining;
mod operating;
mod outbox;
mod partitions;
mod plain;
mod requesting;
#[cfg(feature = "sqlite")]
mod sqlite;
mod syncing;
mod typing;
mod viewing;
mod waiting;
mod waking;
