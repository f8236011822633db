//! Self-preservation: when very many leases lapse together, the registry is doubted, not the instances.
//!
//! Instances that crash do so one by one; a registry that was cut off, or restarted without its memory, loses
//! many leases within moments. So when, within a window, more than a share of a population lapses (and at least
//! [`min_lapsed`](Config::min_lapsed) of at least [`min_leases`](Config::min_leases)), the lapsed are held: they
//! stay listed, and health checks decide which of them take calls. Below that size leases simply expire.
//!
//! The idea is Netflix Eureka's. What differs, each because of a known fault of it: only leases that *lapsed*
//! count, never those that were given back; the population is what is known now, not a count that is renewed
//! every 15 minutes; and a hold ends by itself, when enough of the lapsed are back, when the source has
//! confirmed often enough that they are gone, or after [`max_hold`](Config::max_hold). No ghost stays for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestra_core::Monotonic;

/// When leases are held, and for how long.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::preserve::Config;
///
/// let mut config = Config::default();
/// assert_eq!((config.percent, config.min_lapsed, config.min_leases), (15, 3, 10));
/// config.max_hold = Duration::from_secs(300);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// More than this share of the population must lapse, in percent; 100 or more turns it off.
    pub percent: u8,
    /// At least so many must lapse.
    pub min_lapsed: usize,
    /// The population is at least this large.
    pub min_leases: usize,
    /// The time within which lapses count as one event, and the least time between two confirmations.
    pub window: Duration,
    /// So many confirmations by the source end a hold.
    pub confirmations: u32,
    /// A hold never lasts longer.
    pub max_hold: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            percent: 15,
            min_lapsed: 3,
            min_leases: 10,
            window: Duration::from_secs(60),
            confirmations: 5,
            max_hold: Duration::from_secs(15 * 60),
        }
    }
}

/// Why a hold ended.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::preserve::{Config, End, Preservation, Transition};
///
/// let mut leases = Preservation::new(Config::default());
/// for id in ["a", "b", "c"] {
///     leases.lapse(id, Monotonic::ZERO);
/// }
/// leases.judge(7, Monotonic::ZERO);
/// for id in ["a", "b", "c"] {
///     leases.settle(&id);
/// }
/// let left = leases.judge(10, Monotonic::ZERO + Duration::from_secs(1));
/// assert!(matches!(left, Some(Transition::Left { end: End::Recovered, .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// All of the lapsed are back or were given back, or enough of them when a window has passed.
    Recovered,
    /// The source went on saying that they are gone.
    Confirmed,
    /// It lasted too long.
    TimedOut,
}

/// A hold began or ended.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::preserve::{Config, End, Preservation, Transition};
///
/// let mut leases = Preservation::new(Config::default());
/// for id in ["a", "b", "c"] {
///     leases.lapse(id, Monotonic::ZERO);
/// }
/// assert_eq!(leases.judge(7, Monotonic::ZERO), Some(Transition::Entered { held: 3 }));
/// let left = leases.judge(7, Monotonic::ZERO + Duration::from_secs(15 * 60));
/// let released = vec!["a", "b", "c"];
/// assert_eq!(left, Some(Transition::Left { end: End::TimedOut, released }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transition<K> {
    /// Everything that lapsed within the window is held from now on.
    Entered {
        /// How many are held.
        held: usize,
    },
    /// What was still held lapses now.
    Left {
        /// Why.
        end: End,
        /// Those that lapse, in order.
        released: Vec<K>,
    },
}

/// The lapses of one population: the leases of a source, or those of one service in it.
///
/// Pure: it is told what lapses and what returns, and [`judge`](Self::judge) decides. Memory is bounded by the
/// number of leases that lapse within a window.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::preserve::{Config, Preservation, Transition};
///
/// let mut leases = Preservation::new(Config::default());
/// for id in ["a", "b", "c"] {
///     leases.lapse(id, Monotonic::ZERO);
/// }
/// // Three of ten lapsed; seven are left.
/// assert_eq!(leases.judge(7, Monotonic::ZERO), Some(Transition::Entered { held: 3 }));
/// assert!(leases.holds(&"a"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Preservation<K> {
    config: Config,
    lapsed: BTreeMap<K, Monotonic>,
    hold: Option<Hold>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    since: Monotonic,
    /// When the last confirmation was counted; the beginning at first.
    counted: Monotonic,
    confirmations: u32,
}

impl<K: Ord + Clone> Preservation<K> {
    /// No lapses yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            lapsed: BTreeMap::new(),
            hold: None,
        }
    }

    /// The lease of `key` was not renewed in time.
    pub fn lapse(&mut self, key: K, now: Monotonic) {
        self.lapsed.insert(key, now);
    }

    /// It is listed again, or was given back: either way there is nothing to hold.
    pub fn settle(&mut self, key: &K) {
        self.lapsed.remove(key);
    }

    /// The source was asked anew and still does not list the lapsed ones.
    ///
    /// At most one confirmation counts per window, so that a source which is asked often is not believed sooner.
    pub fn confirm(&mut self, now: Monotonic) {
        if let Some(hold) = &mut self.hold
            && now.since(hold.counted) >= self.config.window
        {
            hold.counted = now;
            hold.confirmations = hold.confirmations.saturating_add(1);
        }
    }

    /// Decides, with `live` leases that are listed now.
    pub fn judge(&mut self, live: usize, now: Monotonic) -> Option<Transition<K>> {
        match self.hold {
            None => {
                let window = self.config.window;
                self.lapsed.retain(|_, at| now.since(*at) < window);
                self.is_mass(live).then(|| {
                    self.hold = Some(Hold {
                        since: now,
                        counted: now,
                        confirmations: 0,
                    });
                    Transition::Entered {
                        held: self.lapsed.len(),
                    }
                })
            }
            Some(hold) => self.end(hold, live, now).map(|end| {
                self.hold = None;
                let released = std::mem::take(&mut self.lapsed).into_keys().collect();
                Transition::Left { end, released }
            }),
        }
    }

    fn end(&self, hold: Hold, live: usize, now: Monotonic) -> Option<End> {
        // The last ones are on their way when the others are back: they are given the rest of the window.
        let back = !self.is_mass(live) && now.since(hold.since) >= self.config.window;
        if back || self.lapsed.is_empty() {
            Some(End::Recovered)
        } else if hold.confirmations >= self.config.confirmations {
            Some(End::Confirmed)
        } else if now.since(hold.since) >= self.config.max_hold {
            Some(End::TimedOut)
        } else {
            None
        }
    }

    fn is_mass(&self, live: usize) -> bool {
        let lapsed = self.lapsed.len();
        let leases = live.saturating_add(lapsed);
        lapsed >= self.config.min_lapsed.max(1)
            && leases >= self.config.min_leases
            && lapsed.saturating_mul(100) > leases.saturating_mul(self.config.percent.into())
    }

    /// Whether lapsed leases are held now.
    pub fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether this one is held.
    pub fn holds(&self, key: &K) -> bool {
        self.hold.is_some() && self.lapsed.contains_key(key)
    }

    /// Whether it lapsed lately or is held: what is known of it may still be needed.
    pub fn remembers(&self, key: &K) -> bool {
        self.lapsed.contains_key(key)
    }

    /// Those that lapsed lately or are held, in order.
    pub fn lapsed(&self) -> impl Iterator<Item = &K> {
        self.lapsed.keys()
    }
}

#[cfg(test)]
mod tests;
