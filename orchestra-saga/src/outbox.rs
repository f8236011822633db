//! Messages that are sent exactly if the transaction that wrote them was committed.
//!
//! A service that changes its state and then publishes what happened can crash in between, and one that
//! publishes first may tell of what never happened. An *outbox* is a table in the service's own database:
//! the message is written in the transaction that changes the state ([`sqlite::Outbox::add`],
//! [`postgres::Outbox::add`]), and a [`Relay`] hands it to a [`Publisher`] afterwards. (Pattern
//! "transactional outbox": Richardson, *Microservices Patterns*, 2018, 3.3.)
//!
//! # What holds
//!
//! - **At least once.** A message is forgotten only after the publisher said that the broker has it. A
//!   crash in between publishes it again, under the same [`MessageId`]: a publisher that deduplicates
//!   drops it, and so does an *inbox* in the consumer's own transaction ([`sqlite::Inbox`],
//!   [`postgres::Inbox`]). "Once" is a claim about such consumers, for as long as the inbox remembers.
//! - **In order per key.** No message is published for the first time before all earlier ones of its key
//!   were. Repetitions, after a crash or a lost lease, may come late; an inbox drops them.
//! - **Keys do not wait for each other.** A key whose message fails backs off alone. After so many tries
//!   the message is *parked*: kept, listed by [`Backlog::parked`], told to the listener, and sent or
//!   forgotten when somebody says so. What the key does meanwhile is a choice: [`Poison`].
//! - **Several relays** share a backlog. A key is lent to one at a time, for a term on the backlog's
//!   clock, and a relay stops publishing a key well before its term is over by its own clock.
//!
//! # Why commits out of order do no harm
//!
//! A database hands out sequence numbers before the commit, so a relay that remembers "I have read up to
//! 17" never sees 16, if its transaction is committed later. Relays here keep no such number: whatever is
//! in the table is not sent yet. For the order, all writers of one key take a lock from `add` until their
//! transaction ends. So of two messages of one key, the one with the lower number is committed first, and
//! whoever sees the later sees the earlier. In SQLite this is the write lock of the file; in PostgreSQL an
//! advisory lock on a hash of the key (see [`postgres`]). Messages of different keys have no order.

mod backlog;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod judge;
pub mod memory;
mod message;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub mod nats;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;
mod publisher;
pub mod relay;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;

pub use backlog::{Backlog, Batch, Lane, Next, Parked, Settled};
pub use message::{MAX_HEADER, MAX_HEADERS, MAX_NAME, MAX_PAYLOAD, Message, MessageId};
pub use publisher::Publisher;
pub use relay::{Poison, Relay};
