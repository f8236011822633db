//! Priority levels with gradual failover, and panic.
//!
//! Level 0 takes all calls while enough of it is available; what it cannot take spills over to level 1, and
//! so on. In whole percent, as Envoy computes it (`LoadBalancerBase` in its `load_balancer_impl.cc`):
//!
//! ```text
//! healthy(p)   = min(100, overprovisioning * healthy hosts / (all hosts - excluded hosts))
//! degraded(p)  = min(100, overprovisioning * degraded hosts / (all hosts - excluded hosts))
//! normalized   = min(100, sum of healthy(p) and degraded(p) over all levels)
//! load(p)      = min(what is left of 100, healthy(p) * 100 / normalized)    level by level,
//!                then the same for the degraded hosts
//! ```
//!
//! What rounding leaves over goes to the first level with healthy hosts, or else to the first with degraded
//! ones. Where `normalized` is below 100, a level whose available hosts are fewer than the panic threshold
//! is in panic: its calls go to any of its hosts, since the few that are left would only be overloaded. If
//! every level is in panic, the calls are spread by the number of hosts, well or not.

use std::fmt;

/// How many hosts, or how much weight, a level has.
///
/// Numbers that contradict each other (more healthy hosts than hosts) are taken as they come: availability
/// is cut at 100 percent.
///
/// ```
/// use orchestra_discovery::priority::Counts;
///
/// let half = Counts { healthy: 5, total: 10, ..Counts::default() };
/// assert_eq!((half.degraded, half.excluded), (0, 0));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Those that are well.
    pub healthy: u64,
    /// Those that answer and had rather not.
    pub degraded: u64,
    /// Those that count neither for nor against the level, such as those not yet checked.
    pub excluded: u64,
    /// All of them.
    pub total: u64,
}

impl Counts {
    fn considered(self) -> u64 {
        self.total.saturating_sub(self.excluded)
    }
}

/// One priority level.
///
/// ```
/// use orchestra_discovery::priority::{Counts, Level};
///
/// let by_hosts = Level::from(Counts { healthy: 5, total: 10, ..Counts::default() });
/// assert_eq!(by_hosts.weights, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Level {
    /// Its hosts.
    pub hosts: Counts,
    /// Their weights, if availability is to be measured by weight; panic always goes by hosts.
    pub weights: Option<Counts>,
}

impl From<Counts> for Level {
    fn from(hosts: Counts) -> Self {
        Self {
            hosts,
            weights: None,
        }
    }
}

/// What becomes of a call to a level in panic.
///
/// ```
/// use orchestra_discovery::priority::{Config, OnPanic};
///
/// let mut config = Config::default();
/// assert_eq!(config.on_panic, OnPanic::AnyHost);
/// config.on_panic = OnPanic::Fail;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnPanic {
    /// Any of the level's hosts gets it.
    #[default]
    AnyHost,
    /// It fails, so that a service which fails as a whole is not kept down by its callers.
    Fail,
}

/// When to fail over, and when to panic.
///
/// ```
/// use orchestra_discovery::priority::Config;
///
/// let mut calm = Config::default();
/// assert_eq!((calm.overprovisioning, calm.panic_threshold), (140, 50));
/// calm.panic_threshold = 0;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// In percent: at 140 a level takes all its calls until fewer than 100/140 of it are available.
    pub overprovisioning: u32,
    /// In percent of a level's hosts; 0 means never to panic, and above 100 counts as 100.
    pub panic_threshold: u32,
    /// What becomes of a call to a level in panic.
    pub on_panic: OnPanic,
}

impl Default for Config {
    /// 140 percent, panic below 50 percent, any host in panic.
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            panic_threshold: 50,
            on_panic: OnPanic::AnyHost,
        }
    }
}

/// Which of a level's hosts a call is for.
///
/// ```
/// use orchestra_discovery::priority::{Availability, Config, Counts, PriorityLoad};
///
/// let none = Counts { total: 4, ..Counts::default() };
/// let load = PriorityLoad::new(&Config::default(), &[none.into()]);
/// assert_eq!(load.choose(0), Some((0, Availability::Panic)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All of them.
    Panic,
}

/// A level's part of the calls.
///
/// ```
/// use orchestra_discovery::priority::{Config, Counts, PriorityLoad};
///
/// let half = Counts { healthy: 1, total: 2, ..Counts::default() };
/// let all = Counts { healthy: 2, total: 2, ..Counts::default() };
/// let load = PriorityLoad::new(&Config::default(), &[half.into(), all.into()]);
/// let healthy: Vec<_> = load.shares().iter().map(|share| share.healthy).collect();
/// assert_eq!(healthy, [70, 30]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Share {
    /// Percent of all calls that go to its healthy hosts.
    pub healthy: u8,
    /// Percent of all calls that go to its degraded hosts.
    pub degraded: u8,
    /// Whether the calls go to any of its hosts instead.
    pub panic: bool,
}

/// How calls are divided among the levels; made anew when a count changes, in time linear in the levels.
///
/// The shares of one or more levels add up to exactly 100. If no level has anything available and none may
/// panic, or no level has a host, level 0 gets everything and the pick finds nobody there.
///
/// ```
/// use orchestra_discovery::priority::{Availability, Config, Counts, PriorityLoad};
///
/// let half = Counts { healthy: 1, total: 2, ..Counts::default() };
/// let full = Counts { healthy: 2, total: 2, ..Counts::default() };
/// let load = PriorityLoad::new(&Config::default(), &[half.into(), full.into()]);
///
/// let percent: Vec<u8> = load.shares().iter().map(|share| share.healthy).collect();
/// assert_eq!(percent, [70, 30]);
/// assert_eq!(load.choose(69), Some((0, Availability::Healthy)));
/// assert_eq!(load.choose(70), Some((1, Availability::Healthy)));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PriorityLoad {
    shares: Box<[Share]>,
    on_panic: OnPanic,
}

impl PriorityLoad {
    /// The division for these levels, the most preferred first.
    pub fn new(config: &Config, levels: &[Level]) -> Self {
        let available: Vec<Available> = levels
            .iter()
            .map(|level| Available::new(config, level))
            .collect();
        let normalized = normalized(&available);
        let threshold = if normalized == 100 {
            0
        } else {
            config.panic_threshold.min(100)
        };
        let panic = |level: &Level| Share {
            panic: is_in_panic(level.hosts, threshold),
            ..Share::default()
        };
        let mut shares: Box<[Share]> = levels.iter().map(panic).collect();
        let total_panic = shares.iter().all(|share| share.panic);
        if total_panic {
            spread_by_hosts(&mut shares, levels);
        } else if normalized > 0 {
            distribute(&mut shares, &available, normalized);
        } else {
            give_to_first(&mut shares, 100);
        }
        Self {
            shares,
            on_panic: config.on_panic,
        }
    }

    /// The part of each level.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Whether there are levels and all of them are in panic.
    pub fn is_total_panic(&self) -> bool {
        !self.shares.is_empty() && self.shares.iter().all(|share| share.panic)
    }

    /// The level and the kind of host for a call; `None` if there is no level, or if the chosen one is in
    /// panic and calls to it are to fail.
    ///
    /// The draw is uniform and used for nothing else: what is left of it says little about chance. No
    /// allocation; linear in the levels.
    pub fn choose(&self, draw: u64) -> Option<(usize, Availability)> {
        let (level, availability) = self.by_load(draw % 100)?;
        match (self.shares.get(level)?.panic, self.on_panic) {
            (false, _) => Some((level, availability)),
            (true, OnPanic::AnyHost) => Some((level, Availability::Panic)),
            (true, OnPanic::Fail) => None,
        }
    }

    fn by_load(&self, percent: u64) -> Option<(usize, Availability)> {
        let healthy = self.shares.iter().map(|share| share.healthy);
        let degraded = self.shares.iter().map(|share| share.degraded);
        let healthy = healthy
            .enumerate()
            .map(|(level, load)| (level, load, Availability::Healthy));
        let degraded = degraded
            .enumerate()
            .map(|(level, load)| (level, load, Availability::Degraded));
        let mut upto = 0;
        healthy.chain(degraded).find_map(|(level, load, kind)| {
            upto += u64::from(load);
            (percent < upto).then_some((level, kind))
        })
    }
}

impl fmt::Debug for PriorityLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.shares).finish()
    }
}

/// What a level can take, in percent of all calls.
#[derive(Clone, Copy)]
struct Available {
    healthy: u8,
    degraded: u8,
}

impl Available {
    fn new(config: &Config, level: &Level) -> Self {
        let counts = level.weights.unwrap_or(level.hosts);
        let considered = u128::from(counts.considered());
        let percent = |part: u64| {
            let scaled = u128::from(config.overprovisioning) * u128::from(part);
            let percent = scaled.checked_div(considered).unwrap_or(0);
            u8::try_from(percent.min(100)).unwrap_or(100)
        };
        Self {
            healthy: percent(counts.healthy),
            degraded: percent(counts.degraded),
        }
    }
}

fn normalized(available: &[Available]) -> u8 {
    available.iter().fold(0, |sum: u8, level| {
        sum.saturating_add(level.healthy)
            .min(100)
            .saturating_add(level.degraded)
            .min(100)
    })
}

fn is_in_panic(hosts: Counts, threshold: u32) -> bool {
    let considered = u128::from(hosts.considered());
    let available = u128::from(hosts.healthy) + u128::from(hosts.degraded);
    if considered == 0 {
        threshold > 0
    } else {
        100 * available < u128::from(threshold) * considered
    }
}

fn distribute(shares: &mut [Share], available: &[Available], normalized: u8) {
    let mut left: u8 = 100;
    let mut take = |available: u8| {
        let share = u16::from(available) * 100 / u16::from(normalized);
        let share = u8::try_from(share).unwrap_or(100).min(left);
        left -= share;
        share
    };
    for (share, level) in shares.iter_mut().zip(available) {
        share.healthy = take(level.healthy);
    }
    for (share, level) in shares.iter_mut().zip(available) {
        share.degraded = take(level.degraded);
    }
    let first = |kind: fn(&Available) -> u8| available.iter().position(|level| kind(level) > 0);
    if let Some(share) = first(|level| level.healthy).and_then(|level| shares.get_mut(level)) {
        share.healthy += left;
    } else if let Some(share) =
        first(|level| level.degraded).and_then(|level| shares.get_mut(level))
    {
        share.degraded += left;
    }
}

fn spread_by_hosts(shares: &mut [Share], levels: &[Level]) {
    let total: u128 = levels
        .iter()
        .map(|level| u128::from(level.hosts.total))
        .sum();
    let mut left = 100;
    for (share, level) in shares.iter_mut().zip(levels) {
        let percent = 100 * u128::from(level.hosts.total);
        let percent = percent.checked_div(total).unwrap_or(0);
        share.healthy = u8::try_from(percent).unwrap_or(100).min(left);
        left -= share.healthy;
    }
    let first = levels.iter().position(|level| level.hosts.total > 0);
    if let Some(share) = shares.get_mut(first.unwrap_or(0)) {
        share.healthy += left;
    }
}

fn give_to_first(shares: &mut [Share], percent: u8) {
    if let Some(first) = shares.first_mut() {
        first.healthy = percent;
    }
}

#[cfg(test)]
mod tests;
