//! mesh circuit breakers as discovery gates: one breaker per instance, bound once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use orchestra_core::{Listener, Monotonic, Outcome};
use orchestra_discovery::gate::Open;
use orchestra_discovery::{Gate, GateToken, Gates, Instance, Refusal};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config, Permit};

/// Binds a [`Breaker`] to each instance that a resolver learns of.
///
/// A breaker lives as long as the registration: an instance that registers anew begins closed.
pub struct Breakers {
    config: Config,
    listener: Arc<dyn Listener<orchestra_mesh::Event>>,
}

impl Breakers {
    /// Breakers with this configuration; an unusable one is refused here, once.
    pub fn new(
        config: Config,
        listener: Arc<dyn Listener<orchestra_mesh::Event>>,
    ) -> Result<Self, orchestra_mesh::Error> {
        Breaker::new(config)?;
        Ok(Self { config, listener })
    }
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Gates for Breakers {
    fn bind(&self, instance: &Instance) -> Arc<dyn Gate> {
        // Breakers that opened together must not all probe together.
        let mut hasher = DefaultHasher::new();
        instance.id.hash(&mut hasher);
        let breaker = Breaker::new(self.config.seed(hasher.finish()));
        // The configuration was accepted before, and the seed cannot spoil it.
        breaker.map_or_else(
            |_refused| Arc::new(Open) as Arc<dyn Gate>,
            |breaker| {
                let observed = breaker.observed(&instance.id, Arc::clone(&self.listener));
                Arc::new(BreakerGate(observed))
            },
        )
    }
}

#[derive(Debug)]
struct BreakerGate(Breaker);

impl Gate for BreakerGate {
    fn try_admit(&self, now: Monotonic) -> Result<GateToken, Refusal> {
        match self.0.try_acquire(now) {
            Ok(permit) => Ok(GateToken::new(permit.into_raw())),
            Err(rejected) => Err(Refusal::new("circuit open", rejected.retry_after)),
        }
    }

    fn settle(&self, token: GateToken, outcome: Outcome, now: Monotonic) {
        self.0
            .release(Permit::from_raw(token.as_u64()), outcome, now);
    }
}
