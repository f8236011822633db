//! The laws of [`Publisher`] and [`Backlog`], as checks that any implementation can be put through.
//!
//! [`publisher_suite!`](crate::publisher_suite) and [`outbox_backlog_suite!`](crate::outbox_backlog_suite)
//! stamp one named test per law. Their argument is a closure whose future makes a fresh subject, and
//! something to keep alive beside it:
//!
//! ```
//! mod memory_publisher {
//!     use orchestra_saga::outbox::{conformance, memory};
//!
//!     orchestra_saga::publisher_suite!(|| async {
//!         let broker = memory::Publisher::default();
//!         (conformance::Published::new("orders", broker.clone(), broker), ())
//!     });
//! }
//!
//! mod memory_backlog {
//!     use orchestra_saga::outbox::{conformance, memory};
//!
//!     orchestra_saga::outbox_backlog_suite!(|| async {
//!         let outbox = memory::Outbox::default();
//!         (conformance::Written::new(outbox.clone(), outbox), ())
//!     });
//! }
//! ```

mod backlog;
mod publisher;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Backlog, Message, Publisher, memory};
use crate::conformance::Violation;
use crate::error::Result;

/// Reads what a publisher has published.
#[async_trait]
pub trait Reader: fmt::Debug + Send + Sync {
    /// The first messages of the topic in their order: so many, or fewer if no more come in a while.
    async fn read(&self, count: usize) -> Result<Vec<Message>>;
}

#[async_trait]
impl Reader for memory::Publisher {
    async fn read(&self, count: usize) -> Result<Vec<Message>> {
        let mut published = self.published();
        published.truncate(count);
        Ok(published)
    }
}

/// Writes messages for a backlog, in a transaction that it commits.
#[async_trait]
pub trait Writer: fmt::Debug + Send + Sync {
    /// Writes all of them.
    async fn write(&self, messages: &[Message]) -> Result<()>;
}

#[async_trait]
impl Writer for memory::Outbox {
    async fn write(&self, messages: &[Message]) -> Result<()> {
        self.add(messages)
    }
}

/// A publisher, and how to see what it published.
#[derive(Debug, Clone)]
pub struct Published {
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) topic: Arc<str>,
}

impl Published {
    /// A publisher to a topic on which nothing was published before.
    pub fn new(
        topic: impl Into<Arc<str>>,
        publisher: impl Publisher + 'static,
        reader: impl Reader + 'static,
    ) -> Self {
        Self {
            publisher: Arc::new(publisher),
            reader: Arc::new(reader),
            topic: topic.into(),
        }
    }
}

/// A backlog with nothing in it, and how to write to it.
#[derive(Debug, Clone)]
pub struct Written {
    pub(super) backlog: Arc<dyn Backlog>,
    pub(super) writer: Arc<dyn Writer>,
}

impl Written {
    /// A backlog and its writer.
    pub fn new(backlog: impl Backlog + 'static, writer: impl Writer + 'static) -> Self {
        Self {
            backlog: Arc::new(backlog),
            writer: Arc::new(writer),
        }
    }
}

type Checked = std::result::Result<(), Violation>;
type Checking = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// One law of a subject of this type.
pub struct Law<S> {
    name: &'static str,
    check: fn(S) -> Checking,
}

impl<S> Law<S> {
    /// Its name, which is the name of its test.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a fresh subject obeys it.
    pub async fn check(&self, subject: S) -> Checked {
        (self.check)(subject).await
    }
}

impl<S> fmt::Debug for Law<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

macro_rules! laws {
    ($dollar:tt $suite:ident $list:ident $module:ident $subject:ident: $($law:ident),+ $(,)?) => {
        #[doc = concat!("Every law of a [`", stringify!($subject), "`].")]
        pub const $list: &[Law<$subject>] = &[
            $(Law { name: stringify!($law), check: |subject| Box::pin($module::$law(subject)) }),+
        ];

        /// Stamps a test for each law; see [`outbox::conformance`](crate::outbox::conformance).
        #[macro_export]
        macro_rules! $suite {
            ($dollar fresh:expr) => {
                $(
                    #[tokio::test]
                    async fn $law() {
                        let (subject, _kept) = ($dollar fresh)().await;
                        let laws = $dollar crate::outbox::conformance::$list;
                        $dollar crate::outbox::conformance::enforce(laws, stringify!($law), subject)
                            .await;
                    }
                )+
            };
        }
    };
}

laws! { $ publisher_suite PUBLISHER_LAWS publisher Published:
    an_accepted_message_is_there_whole,
    messages_keep_their_order,
    a_repetition_is_no_error_and_shown_once,
    messages_at_once_all_arrive,
}

laws! { $ outbox_backlog_suite BACKLOG_LAWS backlog Written:
    a_key_is_lent_to_one_at_a_time,
    the_key_that_waited_longest_comes_first,
    messages_are_lent_in_their_order,
    a_batch_ends_at_its_bytes,
    a_loan_that_is_over_changes_nothing,
    what_is_written_meanwhile_is_lent_later,
    a_key_waits_as_long_as_it_is_told,
    a_parked_message_steps_aside_until_somebody_decides,
    a_key_that_is_held_waits_for_the_decision,
    an_id_is_written_once,
}

/// Fails the running test unless the subject obeys the law of this name.
///
/// # Panics
///
/// When it does not, or when there is no such law.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub async fn enforce<S>(laws: &[Law<S>], name: &str, subject: S) {
    let Some(law) = laws.iter().find(|known| known.name == name) else {
        panic!("there is no law {name}");
    };
    if let Err(violation) = law.check(subject).await {
        panic!("the law {name} does not hold: {violation}");
    }
}

fn expect(holds: bool, seen: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(seen()))
    }
}
