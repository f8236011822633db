use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use orchestra_core::{Clock, Listener, ServiceName, Silent, TokioClock};
use parking_lot::Mutex;

use super::{Client, Shared};
use crate::budget::Budget;
use crate::connect::{self, Pool};
use crate::event::Event;
use crate::pick::Pick;
use crate::{Error, Policy};

/// The settings of a [`Client`].
#[must_use]
pub struct Builder {
    service: ServiceName,
    pick: Arc<dyn Pick>,
    policy: Policy,
    budget: Option<Arc<Budget>>,
    connect: connect::Config,
    headers: HeaderMap,
    clock: Option<Arc<dyn Clock>>,
    listener: Arc<dyn Listener<Event>>,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new(service: ServiceName, pick: Arc<dyn Pick>) -> Self {
        Self {
            service,
            pick,
            policy: Policy::default(),
            budget: None,
            connect: connect::Config::default(),
            headers: HeaderMap::new(),
            clock: None,
            listener: Arc::new(Silent),
            seed: None,
        }
    }

    /// Limits and retries.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Shares a budget with other clients, in place of one by the policy.
    pub fn shared_budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// How connections are made and kept.
    pub fn connect(mut self, connect: connect::Config) -> Self {
        self.connect = connect;
        self
    }

    /// Sent with every request, in place of what the request itself has under that name: a token by which
    /// the service knows its callers, for example.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same for several headers.
    pub fn headers(mut self, headers: &HeaderMap) -> Self {
        self.headers.extend(headers.clone());
        self
    }

    /// The clock; that of tokio by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who hears of attempts and calls.
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.listener = listener;
        self
    }

    /// The seed of jitter, span ids and the draws of picks; random by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the settings. No connection is made before the first call.
    pub fn build(self) -> Result<Client, Error> {
        let named = |error: Error| error.with_service(&self.service);
        self.policy.check().map_err(named)?;
        let budget = match self.budget {
            Some(shared) => shared,
            None => Arc::new(Budget::new(self.policy.budget).map_err(named)?),
        };
        let clock = self.clock.unwrap_or_else(|| Arc::new(TokioClock::new()));
        let rng = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Ok(Client {
            shared: Arc::new(Shared {
                service: self.service,
                pick: self.pick,
                policy: self.policy,
                headers: self.headers,
                budget,
                pool: Pool::new(self.connect, Arc::clone(&clock)),
                clock,
                listener: self.listener,
                rng: Mutex::new(rng),
            }),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("service", &self.service)
            .field("pick", &self.pick)
            .field("policy", &self.policy)
            .field("connect", &self.connect)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
