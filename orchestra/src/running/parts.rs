//! What a platform consists of, for whoever wants to use a part directly.

use super::Orchestra;

#[cfg(feature = "discovery")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
impl Orchestra {
    /// Where instances are registered.
    pub fn registry(&self) -> &std::sync::Arc<dyn orchestra_discovery::Registry> {
        &self.inner.registry
    }
}

#[cfg(all(feature = "discovery", feature = "mesh"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
impl Orchestra {
    /// A client of a service: a `tower::Service` that finds, balances, breaks and retries.
    ///
    /// The first client of a service begins to follow it in the registry, or the cache; until its first
    /// snapshot is there, calls fail as those of a service without instances: [`resolved`](Self::resolved) waits
    /// for it. Must be called within the runtime.
    /// An error if the name is not valid, the platform is shutting down, or 4,096 services are called.
    pub fn client(&self, service: &str) -> crate::Result<orchestra_mesh::Client> {
        self.inner.clients.client(&name(service)?)
    }

    /// Waits until the clients of a service know its instances, be they none: as long as its source fails, so
    /// give it a limit. With health checks, instances take calls only when the first probe has found them well.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use orchestra::Orchestra;
    /// use orchestra::discovery::Registration;
    ///
    /// let orchestra = Orchestra::builder().build().await?;
    /// let ttl = Duration::from_secs(10);
    /// let cart = Registration::new("cart".parse()?, "cart-1".parse()?, "127.0.0.1:9".parse()?, ttl);
    /// orchestra.registry().register(cart).await?;
    /// tokio::time::timeout(Duration::from_secs(1), orchestra.resolved("cart")).await??;
    /// assert_eq!(orchestra.resolver("cart")?.members().len(), 1);
    /// orchestra.shutdown(Duration::from_secs(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolved(&self, service: &str) -> crate::Result<()> {
        self.inner.clients.resolved(&name(service)?).await
    }

    /// What clients resolve through, if there are sources beside the registry, or the builder was told of a
    /// cache; else they ask the registry itself.
    pub fn cache(&self) -> Option<&orchestra_discovery::Cache> {
        self.inner.clients.cache()
    }

    /// The resolver that the clients of a service share.
    pub fn resolver(&self, service: &str) -> crate::Result<orchestra_discovery::Resolver> {
        self.inner.clients.resolver(&name(service)?)
    }
}

#[cfg(all(feature = "discovery", feature = "mesh"))]
fn name(service: &str) -> crate::Result<orchestra_core::ServiceName> {
    let name = orchestra_core::ServiceName::new(service);
    name.map_err(|error| crate::Error::new(crate::ErrorKind::Config, error.to_string()))
}

#[cfg(feature = "mesh")]
#[cfg_attr(docsrs, doc(cfg(feature = "mesh")))]
impl Orchestra {
    /// Begins a gateway with the platform's clock, listeners and seed; give it routes, clients and mounted
    /// services, and hand it to [`Orchestra::serve`].
    pub fn gateway(&self) -> orchestra_mesh::gateway::Builder {
        let builder = orchestra_mesh::Gateway::builder()
            .clock(std::sync::Arc::clone(&self.inner.clock))
            .listener(std::sync::Arc::new(self.inner.mesh_events.clone()));
        match self.inner.seed {
            Some(seed) => builder.seed(seed),
            None => builder,
        }
    }

    /// Binds a gateway and serves it until [`Orchestra::shutdown`]. Returns where it listens, with the
    /// ports that were chosen for port 0. An address that is taken is named by the error.
    pub async fn serve(
        &self,
        gateway: &orchestra_mesh::Gateway,
        endpoints: impl IntoIterator<Item = orchestra_core::Endpoint> + Send,
    ) -> crate::Result<Vec<orchestra_core::Endpoint>> {
        let endpoints = Vec::from_iter(endpoints);
        let serving = gateway.serve(endpoints).await?;
        let bound = serving.endpoints().to_vec();
        self.inner.gateways.lock().push(serving);
        Ok(bound)
    }
}

#[cfg(feature = "scheduler")]
#[cfg_attr(docsrs, doc(cfg(feature = "scheduler")))]
impl Orchestra {
    /// What runs, and what should; `None` if the platform was built without a runtime.
    pub fn scheduler(&self) -> Option<&orchestra_scheduler::Handle> {
        self.inner.scheduler.as_ref()
    }
}

#[cfg(feature = "saga")]
#[cfg_attr(docsrs, doc(cfg(feature = "saga")))]
impl Orchestra {
    /// The sagas; `None` if the platform was built without a store.
    pub fn sagas(&self) -> Option<&orchestra_saga::Executor> {
        self.inner.sagas.as_ref()
    }
}

#[cfg(feature = "observe")]
#[cfg_attr(docsrs, doc(cfg(feature = "observe")))]
impl Orchestra {
    /// The metrics of the platform, and of whoever registers others.
    pub fn metrics(&self) -> &orchestra_observe::Registry {
        &self.inner.metrics
    }

    /// Who begins spans; the finished ones are in [`Tracer::spans`](orchestra_observe::Tracer::spans).
    pub fn tracer(&self) -> &orchestra_observe::Tracer {
        &self.inner.tracer
    }
}
