//! What to do next, so that what runs becomes what is wanted: pure, without clock, chance or I/O.
//!
//! A workload has *seats*, numbered from zero, one for each replica that is wanted. A seat is held by at
//! most one instance, and it is given up only when the end of that instance was observed. So a replacement
//! can never run beside the one it replaces, whatever happened to it: that is fencing.
//!
//! ```text
//!          placed            ready
//! Pending --------> Starting -------> Ready
//!                      |                |
//!                      +----------------+--- unwanted, outdated ----> Stopping (asked to end)
//!                      |                |                                |
//!                      +-- too slow ----+-- lapsed, node lost ---+-------+
//!                                                                v
//!                                        Fenced (killed, its end not observed yet)
//!
//! from every phase but Pending:  end observed --> Pending
//! ```
//!
//! Ends that nobody asked for make the seat wait: not after the first, then by a backoff that starts over
//! once an instance was ready for long enough.

mod plan;
mod seat;
mod state;

pub use plan::{Action, plan};
pub use state::{Replica, Seat, State};

use std::fmt;
use std::time::Duration;

use orchestra_core::Backoff;

/// How far an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The seat waits for an instance: for a node, or for its backoff.
    Pending,
    /// The instance was started and is not ready yet.
    Starting,
    /// The instance serves.
    Ready,
    /// The instance was asked to end.
    Stopping,
    /// The instance is being killed; the seat stays taken until its end was seen.
    Fenced,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Fenced => "fenced",
        })
    }
}

/// The knobs of the decisions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tuning {
    /// How long a seat waits after the second and later failures in a row; the first is made good at once.
    pub backoff: Backoff,
    /// How long an instance must have been ready for the failures before it to be forgotten.
    pub stable_after: Duration,
    /// How long a refused placement, stop or kill waits for the next try.
    pub retry: Duration,
}

impl Default for Tuning {
    /// Half a second doubling to 30 s; ten seconds; one second.
    fn default() -> Self {
        Self {
            backoff: Backoff::exponential(Duration::from_millis(500), 2.0)
                .cap(Duration::from_secs(30))
                .jitter(orchestra_core::Jitter::Equal),
            stable_after: Duration::from_secs(10),
            retry: Duration::from_secs(1),
        }
    }
}
