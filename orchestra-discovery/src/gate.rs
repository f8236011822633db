//! Whether a chosen instance may be called: the place of a circuit breaker or a limiter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Monotonic, Outcome};

use crate::instance::Instance;

/// What a gate remembers of an admission; only the gate that gave it out understands it.
///
/// ```
/// use orchestra_discovery::GateToken;
///
/// let generation = 7;
/// assert_eq!(GateToken::new(generation).as_u64(), generation);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct GateToken(u64);

impl GateToken {
    /// A token of these bits.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A call that is not admitted.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::Refusal;
///
/// let open = Refusal::new("the breaker is open", Some(Duration::from_secs(5)));
/// assert_eq!(open.retry_after, Some(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Refusal {
    /// Why, in a few words.
    pub reason: &'static str,
    /// When asking again may make sense.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal for this reason.
    pub const fn new(reason: &'static str, retry_after: Option<Duration>) -> Self {
        Self {
            reason,
            retry_after,
        }
    }
}

/// Admits calls to one instance.
///
/// Laws:
/// 1. Every token given out is settled at most once; a token whose instance was removed meanwhile is never
///    settled.
/// 2. [`Outcome::Neutral`] gives the admission back and teaches nothing; `now` may then be the moment of
///    the admission.
/// 3. Neither call blocks, allocates or panics.
///
/// ```
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_discovery::{Gate, gate::Open};
///
/// let token = Open.try_admit(Monotonic::ZERO).map_err(|refusal| refusal.reason)?;
/// Open.settle(token, Outcome::Success, Monotonic::from_nanos(9));
/// # Ok::<(), &'static str>(())
/// ```
pub trait Gate: fmt::Debug + Send + Sync {
    /// Asks for one call.
    fn try_admit(&self, now: Monotonic) -> Result<GateToken, Refusal>;

    /// Says what became of it.
    fn settle(&self, token: GateToken, outcome: Outcome, now: Monotonic);
}

/// Makes the gate of each new registration; it is asked once per incarnation.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Gate, Gates, Instance, gate::Open};
///
/// #[derive(Debug)]
/// struct AlwaysOpen;
///
/// impl Gates for AlwaysOpen {
///     fn bind(&self, _: &Instance) -> Arc<dyn Gate> {
///         Arc::new(Open)
///     }
/// }
/// ```
pub trait Gates: fmt::Debug + Send + Sync {
    /// The gate of this instance.
    fn bind(&self, instance: &Instance) -> Arc<dyn Gate>;
}

/// The gate that admits everything, and the maker of such gates.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Gate, gate::Open};
///
/// assert!(Open.try_admit(Monotonic::ZERO).is_ok());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open;

impl Gate for Open {
    fn try_admit(&self, _: Monotonic) -> Result<GateToken, Refusal> {
        Ok(GateToken::default())
    }

    fn settle(&self, _: GateToken, _: Outcome, _: Monotonic) {}
}

impl Gates for Open {
    fn bind(&self, _: &Instance) -> Arc<dyn Gate> {
        Arc::new(Self)
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        impl<T: Gate + ?Sized> Gate for $pointer<T> {
            fn try_admit(&self, now: Monotonic) -> Result<GateToken, Refusal> {
                (**self).try_admit(now)
            }

            fn settle(&self, token: GateToken, outcome: Outcome, now: Monotonic) {
                (**self).settle(token, outcome, now);
            }
        }

        impl<T: Gates + ?Sized> Gates for $pointer<T> {
            fn bind(&self, instance: &Instance) -> Arc<dyn Gate> {
                (**self).bind(instance)
            }
        }
    )+};
}

forward!(Arc, Box);
