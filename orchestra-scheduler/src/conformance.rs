//! The laws of [`ContainerRuntime`] as tests, for any implementation.
//!
//! [`runtime_suite!`](crate::runtime_suite) stamps one `#[tokio::test]` for each law; each gets a fresh
//! [`Subject`], which says how to make containers that behave as a [`Script`] asks.
//!
//! ```no_run
//! mod my_runtime {
//!     use std::sync::Arc;
//!     use orchestra_scheduler::conformance::Subject;
//!     # type MyRuntime = orchestra_scheduler::runtime::memory::MemoryRuntime;
//!
//!     orchestra_scheduler::runtime_suite!(laws, async {
//!         Subject::of_shells(Arc::new(MyRuntime::new()))
//!     });
//! }
//! # fn main() {}
//! ```

pub mod laws;
mod subject;

pub use subject::{Script, Subject};

use std::fmt;
use std::pin::Pin;

#[cfg(doc)]
use crate::runtime::ContainerRuntime;

/// How a runtime broke a law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl Violation {
    /// What was seen, and what the law asks.
    pub fn new(context: impl Into<String>) -> Self {
        Self(context.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

impl From<crate::error::Error> for Violation {
    fn from(error: crate::error::Error) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

type Check =
    for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = Result<(), Violation>> + Send + 'a>>;

/// A law and how it is checked.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Law {
    /// Its name, which states it.
    pub name: &'static str,
    check: Check,
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

impl Law {
    /// Checks a fresh subject.
    pub async fn check(&self, subject: &Subject) -> Result<(), Violation> {
        (self.check)(subject).await
    }
}

/// Hands the name of every law to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_runtime_law {
    ($callback:path $(, $($args:tt)*)?) => {
        $callback! {
            [$($($args)*)?]
            start_is_shown_by_list,
            a_running_id_is_refused,
            a_failed_start_leaves_nothing,
            list_drops_the_ended,
            kill_returns_after_the_end,
            kill_is_idempotent,
            unknown_ids_are_not_found,
            wait_answers_every_waiter,
            a_dropped_wait_changes_nothing,
            the_exit_code_is_reported,
            stop_lets_the_container_end_itself,
            stop_kills_after_the_grace,
            containers_do_not_disturb_each_other,
            output_holds_what_was_written,
            output_is_bounded,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_law_tests {
    ([$name:ident, $subject:expr] $($law:ident,)+) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression of the subject may name anything in scope")]
            use super::*;
            $(
                #[tokio::test]
                async fn $law() -> ::std::result::Result<(), $crate::conformance::Violation> {
                    let subject = $subject.await;
                    $crate::conformance::laws::$law(&subject).await
                }
            )+
        }
    };
}

/// Stamps one `#[tokio::test]` for each law of [`ContainerRuntime`](crate::ContainerRuntime) into a module.
///
/// Takes the name of the module and a future that makes a fresh [`Subject`]; each test makes its own.
#[macro_export]
macro_rules! runtime_suite {
    ($name:ident, $subject:expr) => {
        $crate::__each_runtime_law! { $crate::__runtime_law_tests, $name, $subject }
    };
}

macro_rules! list {
    ([] $($law:ident,)+) => {
        /// Every law, in the order of the trait's documentation.
        pub const LAWS: &[Law] = &[
            $(Law { name: stringify!($law), check: |subject| Box::pin(laws::$law(subject)) },)+
        ];
    };
}

__each_runtime_law!(list);
