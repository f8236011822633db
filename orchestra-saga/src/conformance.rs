//! The laws of [`SagaStore`], as checks that any implementation can be put through.
//!
//! [`saga_store_suite!`](crate::saga_store_suite) stamps one named test per law. Its argument is a
//! closure whose future makes an empty store, and something to keep alive beside it:
//!
//! ```
//! mod memory_store {
//!     orchestra_saga::saga_store_suite!(|| async {
//!         (orchestra_saga::MemoryStore::default(), ())
//!     });
//! }
//! ```
//!
//! The laws look at one opening of a store. Whether a durable one still has everything when it is opened
//! again is told by [`survives`].

mod laws;
mod survival;

pub use survival::survives;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::Error;
use crate::store::SagaStore;

/// A law that does not hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl Violation {
    pub(crate) fn new(seen: impl Into<String>) -> Self {
        Self(seen.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self(format!("{:?}: {error}", error.kind()))
    }
}

type Checked = Pin<Box<dyn Future<Output = Result<(), Violation>> + Send>>;

/// One law.
#[derive(Clone, Copy)]
pub struct Law {
    name: &'static str,
    check: fn(Arc<dyn SagaStore>) -> Checked,
}

impl Law {
    /// Its name, which is the name of its test.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether an empty store obeys it.
    pub async fn check(&self, store: Arc<dyn SagaStore>) -> Result<(), Violation> {
        (self.check)(store).await
    }
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

macro_rules! laws {
    ($dollar:tt $($law:ident),+ $(,)?) => {
        /// Every law.
        pub const LAWS: &[Law] = &[
            $(Law { name: stringify!($law), check: |store| Box::pin(laws::$law(store)) }),+
        ];

        /// Stamps a test for each law of [`SagaStore`]; see [`conformance`](crate::conformance).
        ///
        /// [`SagaStore`]: crate::SagaStore
        #[macro_export]
        macro_rules! saga_store_suite {
            ($dollar fresh:expr) => {
                $(
                    #[tokio::test]
                    async fn $law() {
                        let (store, _kept) = ($dollar fresh)().await;
                        let store: std::sync::Arc<dyn $dollar crate::SagaStore> =
                            std::sync::Arc::new(store);
                        $dollar crate::conformance::enforce(stringify!($law), store).await;
                    }
                )+
            };
        }
    };
}

laws! { $
    appended_events_are_loaded_in_order,
    a_stale_version_is_refused,
    a_refused_batch_leaves_nothing,
    a_claim_raises_the_epoch,
    an_older_epoch_is_refused,
    another_partition_is_refused,
    a_start_key_starts_once,
    due_timers_come_in_order,
    a_list_shows_the_last_status,
    the_last_snapshot_is_read,
    sagas_do_not_mix,
    a_lease_keeps_others_out,
    a_lease_that_was_lost_is_not_renewed,
    a_lease_ends_with_its_term,
    the_stream_passes_every_event_once,
    a_definition_is_kept_as_it_was_first,
    a_purge_forgets_what_ended_before,
}

/// Fails the running test unless the store obeys the law of this name.
///
/// # Panics
///
/// When it does not, or when there is no such law.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub async fn enforce(law: &str, store: Arc<dyn SagaStore>) {
    let Some(law) = LAWS.iter().find(|known| known.name == law) else {
        panic!("there is no law {law}");
    };
    if let Err(violation) = law.check(store).await {
        panic!("the law {} does not hold: {violation}", law.name);
    }
}
