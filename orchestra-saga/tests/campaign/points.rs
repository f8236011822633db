//! Every point at which a process can be told to die: the one table of the campaign.

use crate::store::Kind;

/// Who dies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A worker is killed.
    Worker,
    /// The ledger is killed.
    Ledger,
    /// A worker is stopped for longer than its lease, and wakes as a zombie.
    Zombie,
}

/// A point in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) who: Who,
    pub(crate) when: &'static str,
    pub(crate) what: &'static str,
    /// It dies at one of the first so many times that it comes by there.
    pub(crate) within: u32,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {} {}", self.who, self.when, self.what)
    }
}

/// Before and after the append that holds such an event.
const EVENTS: &[(&str, u32)] = &[
    ("saga_started", 12),
    ("step_scheduled", 24),
    ("step_completed", 24),
    ("step_failed", 4),
    ("step_unknown", 4),
    ("step_heartbeat", 2),
    ("timer_set", 8),
    ("timer_fired", 6),
    ("signal_awaited", 3),
    ("signal_received", 2),
    ("signal_taken", 2),
    ("probe_scheduled", 2),
    ("probe_completed", 2),
    ("probe_failed", 1),
    ("compensation_started", 6),
    ("compensation_scheduled", 8),
    ("compensation_completed", 8),
    ("compensation_failed", 3),
    ("saga_restarted", 1),
    ("saga_parked", 2),
    ("saga_retried", 1),
    ("saga_paused", 2),
    ("saga_resumed", 1),
    ("saga_revoked", 1),
    ("saga_cancel_requested", 2),
    ("saga_recovered", 1),
    ("saga_completed", 8),
    ("saga_compensated", 5),
];

/// Before and after these operations of a store, whichever it is.
const OPERATIONS: &[(&str, u32)] = &[
    ("define", 2),
    ("load", 12),
    ("find_start", 2),
    ("timers", 8),
    ("list", 6),
    ("save_snapshot", 10),
    ("load_snapshot", 10),
];

/// Where one process has the store.
const OWNED: &[(&str, u32)] = &[("claim", 1)];

/// Where several share it.
const SHARED: &[(&str, u32)] = &[("lease", 4), ("renew", 4), ("release", 1), ("holders", 3)];

/// In the worker's client of the ledger.
const CALLS: &[(&str, u32)] = &[
    ("the action", 16),
    ("the compensation", 6),
    ("the probe", 2),
];

/// In the ledger.
const LEDGER: &[(&str, &str, u32)] = &[
    ("before", "the transaction", 30),
    ("before", "the commit", 30),
    ("after", "the commit", 30),
    ("after", "the answer", 30),
];

/// Where a worker becomes a zombie.
const ZOMBIES: &[(&str, &str, u32)] = &[
    ("before sending", "the action", 16),
    ("before reading the answer of", "the action", 16),
    ("after", "the action", 16),
    ("before sending", "the compensation", 4),
    ("before", "saga_started", 12),
    ("before", "step_scheduled", 16),
    ("after", "step_scheduled", 16),
    ("before", "step_completed", 16),
    ("after", "compensation_scheduled", 4),
    ("before", "saga_completed", 8),
    ("before", "renew", 3),
    ("after", "lease", 3),
];

/// The points of a campaign on such a store.
pub(crate) fn table(kind: Kind) -> Vec<Point> {
    let owners = if kind.is_shared() { SHARED } else { OWNED };
    let mut points = Vec::new();
    for &(what, within) in &[EVENTS, OPERATIONS, owners].concat() {
        points.extend(["before", "after"].map(|when| point(Who::Worker, when, what, within)));
    }
    for &(what, within) in CALLS {
        let whens = ["before sending", "before reading the answer of", "after"];
        points.extend(whens.map(|when| point(Who::Worker, when, what, within)));
    }
    let placed = |who| move |&(when, what, within): &_| point(who, when, what, within);
    points.extend(LEDGER.iter().map(placed(Who::Ledger)));
    if kind.is_shared() {
        points.extend(ZOMBIES.iter().map(placed(Who::Zombie)));
    }
    points
}

const fn point(who: Who, when: &'static str, what: &'static str, within: u32) -> Point {
    Point {
        who,
        when,
        what,
        within,
    }
}
