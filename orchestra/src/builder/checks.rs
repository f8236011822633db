use std::sync::Arc;

use orchestra_core::ServiceName;
use orchestra_discovery::Probe;
use orchestra_discovery::health::{self, Reach};

use super::Builder;
use crate::checks::Check;

#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
impl Builder {
    /// Probes the instances of every service that is called, whose own check was not set; none is probed unless
    /// this is called.
    ///
    /// An instance that fails gets no calls, and one that passes and was ejected as an outlier gets calls again.
    /// The clock and the listener are set afterwards.
    ///
    /// ```
    /// use std::time::Duration;
    /// use async_trait::async_trait;
    /// use orchestra::Orchestra;
    /// use orchestra::discovery::{Instance, Probe, Verdict, health};
    ///
    /// struct Trusting;
    ///
    /// #[async_trait]
    /// impl Probe for Trusting {
    ///     async fn probe(&self, _: &Instance) -> Verdict {
    ///         Verdict::Pass
    ///     }
    /// }
    ///
    /// let every = health::Config::default().interval(Duration::from_secs(10));
    /// let builder = Orchestra::builder().health_check(Trusting, every);
    /// # drop(builder);
    /// ```
    pub fn health_check(mut self, probe: impl Probe + 'static, config: health::Config) -> Self {
        self.checks.general = Some(Check::new(Arc::new(probe), config));
        self
    }

    /// Probes the instances of this service, if it is called.
    pub fn health_check_for(
        mut self,
        service: ServiceName,
        probe: impl Probe + 'static,
        config: health::Config,
    ) -> Self {
        let check = Check::new(Arc::new(probe), config);
        self.checks.services.insert(service, check);
        self
    }

    /// How far health checks may go, whichever probe makes them: where a registration leads elsewhere, no
    /// probe is made and the instance is unhealthy. Unless told otherwise as [`Reach::default`], so to no Unix
    /// socket. A probe's own reach limits it further, and it alone judges the addresses of an endpoint that is a
    /// host name, when it connects: give the probe the same reach.
    pub fn probe_reach(mut self, reach: Reach) -> Self {
        self.checks.reach = reach;
        self
    }
}
