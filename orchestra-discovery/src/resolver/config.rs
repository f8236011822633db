use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Labels, Listener};

use super::Resolver;
use super::log::DecisionLog;
use super::zoning::Zoning;
use crate::balance::{Balancer, P2c, TAU};
use crate::event::{Event, Events};
use crate::gate::Gates;
use crate::subset::SubsetConfig;
use crate::subsetting::Subsetting;
use crate::{outlier, priority, reported, slow_start};

/// What a [`Resolver`](crate::Resolver) is made of.
///
/// Unless told otherwise: power of two choices, no gates, robust detection of outliers, panic below half of
/// the members, failover by priority at 140 percent; no slow start, no zones, no subsets.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_discovery::{Weighted, outlier, resolver, slow_start};
///
/// let config = resolver::Config::default()
///     .balancer(Arc::new(Weighted::default()))
///     .outliers(outlier::Config::Envoy(outlier::envoy::Config::default()))
///     .slow_start(slow_start::Config::new(Duration::from_secs(30)));
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) balancer: Arc<dyn Balancer>,
    pub(super) gates: Option<Arc<dyn Gates>>,
    pub(super) bypass_gates: bool,
    pub(super) outliers: outlier::Config,
    pub(super) priorities: priority::Config,
    pub(super) zoning: Option<Zoning>,
    pub(super) slow_start: Option<slow_start::Config>,
    pub(super) reported: Option<reported::Config>,
    pub(super) subsets: Option<SubsetConfig>,
    pub(super) subsetting: Option<Subsetting>,
    pub(super) require_check: bool,
    pub(super) latency_decay: Duration,
    pub(super) seed: u64,
    pub(super) log: Option<Arc<DecisionLog>>,
    pub(super) pick_events: bool,
    pub(super) events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            balancer: Arc::new(P2c),
            gates: None,
            bypass_gates: false,
            outliers: outlier::Config::default(),
            priorities: priority::Config::default(),
            zoning: None,
            slow_start: None,
            reported: None,
            subsets: None,
            subsetting: None,
            require_check: false,
            latency_decay: TAU,
            seed: 0,
            log: None,
            pick_events: false,
            events: Events::default(),
        }
    }
}

impl Config {
    /// Chooses with this balancer.
    #[must_use]
    pub fn balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = balancer;
        self
    }

    /// Admits through these gates.
    #[must_use]
    pub fn gates(mut self, gates: Arc<dyn Gates>) -> Self {
        self.gates = Some(gates);
        self
    }

    /// Where every gate refuses, goes past them, spread over all, instead of failing; an event says so.
    #[must_use]
    pub fn bypass_gates(mut self) -> Self {
        self.bypass_gates = true;
        self
    }

    /// Detects outliers by this rule.
    #[must_use]
    pub fn outliers(mut self, outliers: outlier::Config) -> Self {
        self.outliers = outliers;
        self
    }

    /// Fails over and panics like this.
    #[must_use]
    pub fn priorities(mut self, priorities: priority::Config) -> Self {
        self.priorities = priorities;
        self
    }

    /// Divides calls among zones like this.
    #[must_use]
    pub fn zoning(mut self, zoning: Zoning) -> Self {
        self.zoning = Some(zoning);
        self
    }

    /// Lets new and recovered members warm up.
    #[must_use]
    pub fn slow_start(mut self, slow_start: slow_start::Config) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Weighs members by the load that they report ([`Completion::load`](crate::Completion::load)).
    #[must_use]
    pub fn reported(mut self, reported: reported::Config) -> Self {
        self.reported = Some(reported);
        self
    }

    /// Divides the members into subsets that a [`PickContext`](crate::PickContext) may ask for.
    #[must_use]
    pub fn subsets(mut self, subsets: SubsetConfig) -> Self {
        self.subsets = Some(subsets);
        self
    }

    /// Uses a part of the members only, this client's own.
    #[must_use]
    pub fn subsetting(mut self, subsetting: Subsetting) -> Self {
        self.subsetting = Some(subsetting);
        self
    }

    /// Gives no calls to a member before a health check has found it well.
    #[must_use]
    pub fn require_check(mut self) -> Self {
        self.require_check = true;
        self
    }

    /// Lets latencies decay with this time constant, 10 seconds unless told otherwise.
    #[must_use]
    pub fn latency_decay(mut self, tau: Duration) -> Self {
        self.latency_decay = tau;
        self
    }

    /// Draws for the detection of outliers from this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Records inputs and picks here.
    #[must_use]
    pub fn record(mut self, log: Arc<DecisionLog>) -> Self {
        self.log = Some(log);
        self
    }

    pub(super) fn unrecorded(mut self) -> Self {
        self.log = None;
        self
    }

    /// Tells the listener of every pick too.
    #[must_use]
    pub fn pick_events(mut self) -> Self {
        self.pick_events = true;
        self
    }

    /// Tells this listener when members change, and what is decided about them.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

impl Resolver {
    /// Whether it was made with subsets by exactly the keys of these labels, so that a pick that asks for them
    /// gets one of them or what the selector's fallback says.
    pub fn divides_by(&self, asked: &Labels) -> bool {
        let subsets = self.0.config.subsets.as_ref();
        subsets.is_some_and(|subsets| subsets.divides_by(asked))
    }
}
