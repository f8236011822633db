//! How the parts are set up, and what of it differs from run to run.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_discovery::priority::OnPanic;
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    LeastRequest, P2c, Revision, RoundRobin, Weighted, cache, outlier, priority, resolver,
};

use super::plan::PROCESSES;
use super::secs;

pub(super) const TTL: Duration = Duration::from_secs(6);
pub(super) const TOMBSTONE: Duration = Duration::from_secs(20);
pub(super) const MAX_SERVICES: usize = 8;
pub(super) const MAX_PROBES: usize = 8;
/// Of records that are not there by a lease.
pub(super) const LASTING: Duration = Duration::from_secs(80_000);

/// What is drawn once per run.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is drawn for itself, and none excludes another"
)]
pub(super) struct Setup {
    pub(super) calm: bool,
    pub(super) fails_in_panic: bool,
    pub(super) require_check: bool,
    pub(super) bypass: bool,
    /// So many processes at most.
    pub(super) most: u8,
    pub(super) statics: bool,
    pub(super) balancer: u8,
    pub(super) outliers: u8,
    pub(super) damping: bool,
    pub(super) garbled: bool,
    forgetful: bool,
}

impl Setup {
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        let is_large = rng.u8(..5) > 0;
        Self {
            most: if is_large { PROCESSES } else { 2 },
            calm: rng.u8(..3) == 0,
            fails_in_panic: rng.u8(..4) == 0,
            require_check: rng.bool(),
            bypass: rng.u8(..3) == 0,
            statics: is_large && rng.bool(),
            balancer: rng.u8(..4),
            outliers: rng.u8(..4),
            damping: rng.bool(),
            garbled: rng.bool(),
            forgetful: rng.bool(),
        }
    }

    pub(super) fn resolver(&self) -> resolver::Config {
        let mut priorities = priority::Config::default();
        if self.calm {
            priorities.panic_threshold = 0;
        }
        if self.fails_in_panic {
            priorities.on_panic = OnPanic::Fail;
        }
        let config = resolver::Config::default()
            .priorities(priorities)
            .pick_events();
        let config = match self.balancer {
            0 => config.balancer(Arc::new(P2c)),
            1 => config.balancer(Arc::new(RoundRobin::default())),
            2 => config.balancer(Arc::new(Weighted::default())),
            _ => config.balancer(Arc::new(LeastRequest::default())),
        };
        let config = match self.outliers {
            0 => config.outliers(outlier::Config::Envoy(outlier::envoy::Config::default())),
            _ => config,
        };
        let config = if self.bypass {
            config.bypass_gates()
        } else {
            config
        };
        if self.require_check {
            config.require_check()
        } else {
            config
        }
    }
}

pub(super) fn begun(mut config: memory::Config, wall: i64) -> memory::Config {
    config.start = Revision::new(u64::try_from(wall).unwrap() << 20);
    config
}

pub(super) fn gathering(setup: Setup, seed: u64) -> cache::Config {
    let mut config = cache::Config::default();
    if setup.forgetful {
        // Two changes at once are more than it remembers.
        config.max_changes = NonZeroUsize::MIN;
    }
    config.seed = Some(seed);
    config.refresh = secs(10);
    config.tombstone = TOMBSTONE;
    config.negative_ttl = secs(3);
    config.max_services = NonZeroUsize::new(MAX_SERVICES).unwrap();
    config.max_negative = NonZeroUsize::new(4).unwrap();
    config.preserve.window = secs(5);
    config.preserve.confirmations = 3;
    config.preserve.max_hold = secs(30);
    config
}
