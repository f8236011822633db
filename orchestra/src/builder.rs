use std::fmt;
use std::sync::Arc;

use orchestra_core::{Clock, TokioClock};

use crate::error::Result;
use crate::running::Orchestra;

/// Takes an implementation of each trait and puts the platform together.
///
/// Nothing is required: the registry is in memory unless one is given, and there is a scheduler only if
/// there is a runtime, and sagas only if there is a store.
#[must_use = "nothing runs before `build`"]
pub struct Builder {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Option<u64>,
    #[cfg(feature = "discovery")]
    pub(crate) discovery: discovery::Parts,
    #[cfg(feature = "scheduler")]
    pub(crate) scheduler: scheduler::Parts,
    #[cfg(feature = "saga")]
    pub(crate) saga: saga::Parts,
    #[cfg(feature = "mesh")]
    pub(crate) mesh: mesh::Parts,
    #[cfg(feature = "observe")]
    pub(crate) observe: observe::Parts,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(TokioClock::new()),
            seed: None,
            #[cfg(feature = "discovery")]
            discovery: discovery::Parts::default(),
            #[cfg(feature = "scheduler")]
            scheduler: scheduler::Parts::default(),
            #[cfg(feature = "saga")]
            saga: saga::Parts::default(),
            #[cfg(feature = "mesh")]
            mesh: mesh::Parts::default(),
            #[cfg(feature = "observe")]
            observe: observe::Parts::default(),
        }
    }

    /// Measures time by this clock everywhere; tokio's unless given. Sleeping follows tokio's in any case.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes every draw repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Puts everything together and starts it, sagas first: they are recovered before a process is
    /// started, and a store that is in use fails the build while nothing runs.
    ///
    /// Must be called within a tokio runtime with time and I/O. Cancelled, what was started ends as its
    /// parts are dropped.
    pub async fn build(self) -> Result<Orchestra> {
        Orchestra::start(self).await
    }
}

/// What the parts hear and read in common.
impl Builder {
    /// Adds the metrics to what listens already.
    pub(crate) fn observe_events(&mut self) -> Result<()> {
        #[cfg(all(
            feature = "observe",
            any(
                feature = "discovery",
                feature = "scheduler",
                feature = "saga",
                feature = "mesh"
            )
        ))]
        {
            let metrics = crate::wire::events::Telemetry::register(&self.observe.metrics)?;
            #[cfg(feature = "discovery")]
            self.discovery.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "scheduler")]
            self.scheduler.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "mesh")]
            self.mesh.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "saga")]
            self.saga.listen(metrics);
        }
        Ok(())
    }
}

#[cfg(all(feature = "discovery", feature = "mesh"))]
pub(crate) use mesh::AdjustResolver;

#[cfg(feature = "discovery")]
mod discovery {
    use std::sync::Arc;

    use orchestra_core::Listener;
    use orchestra_discovery::registry::memory;
    use orchestra_discovery::{Event, MemoryRegistry, Registry};

    use super::Builder;
    use crate::fan::Fan;

    #[derive(Default)]
    pub(crate) struct Parts {
        pub(crate) registry: Option<Arc<dyn Registry>>,
        pub(crate) events: Fan<Event>,
    }

    #[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
    impl Builder {
        /// Where instances are registered; in memory unless given.
        pub fn registry(mut self, registry: impl Registry + 'static) -> Self {
            self.discovery.registry = Some(Arc::new(registry));
            self
        }

        pub(crate) fn registry_or_memory(&mut self) -> Arc<dyn Registry> {
            self.discovery.registry.take().unwrap_or_else(|| {
                let config = memory::Config::default()
                    .clock(Arc::clone(&self.clock))
                    .listener(Arc::new(self.discovery.events.clone()));
                Arc::new(MemoryRegistry::new(config))
            })
        }

        /// Hears what resolvers do. A registry that is given has a listener of its own.
        pub fn on_discovery(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
            self.discovery.events.add(listener);
            self
        }
    }
}

#[cfg(feature = "scheduler")]
mod scheduler {
    use std::sync::Arc;

    use orchestra_core::Listener;
    use orchestra_scheduler::reconciler;
    use orchestra_scheduler::{ContainerRuntime, Event, Node, Reconciler, Workload};

    use super::Builder;
    use crate::error::Result;
    use crate::fan::Fan;

    type Adjust = Box<dyn FnOnce(reconciler::Builder) -> reconciler::Builder + Send>;

    #[derive(Default)]
    pub(crate) struct Parts {
        pub(crate) runtime: Option<Arc<dyn ContainerRuntime>>,
        pub(crate) nodes: Vec<Node>,
        pub(crate) workloads: Vec<Workload>,
        pub(crate) events: Fan<Event>,
        adjust: Option<Adjust>,
    }

    impl Parts {
        fn reconciler(&mut self) -> Option<reconciler::Builder> {
            let builder = Reconciler::builder(self.runtime.take()?);
            Some(match self.adjust.take() {
                Some(adjust) => adjust(builder),
                None => builder,
            })
        }
    }

    #[cfg_attr(docsrs, doc(cfg(feature = "scheduler")))]
    impl Builder {
        /// What starts and stops instances.
        pub fn runtime(mut self, runtime: impl ContainerRuntime + 'static) -> Self {
            self.scheduler.runtime = Some(Arc::new(runtime));
            self
        }

        /// A node that instances run on.
        pub fn node(mut self, node: Node) -> Self {
            self.scheduler.nodes.push(node);
            self
        }

        /// What is to run from the start.
        pub fn workload(mut self, workload: Workload) -> Self {
            self.scheduler.workloads.push(workload);
            self
        }

        /// Changes the reconciler before it starts: its scorers, its launch hook, its knobs.
        /// Clock, listener and seed are set afterwards.
        pub fn reconciler(
            mut self,
            adjust: impl FnOnce(reconciler::Builder) -> reconciler::Builder + Send + 'static,
        ) -> Self {
            self.scheduler.adjust = Some(Box::new(adjust));
            self
        }

        /// Starts the reconciler, if there is a runtime to act through.
        pub(crate) fn start_reconciler(&mut self) -> Result<Option<Reconciler>> {
            let Some(mut builder) = self.scheduler.reconciler() else {
                return Ok(None);
            };
            builder = builder
                .clock(Arc::clone(&self.clock))
                .listener(Arc::new(self.scheduler.events.clone()));
            if let Some(seed) = self.seed {
                builder = builder.seed(seed);
            }
            let reconciler = builder.start();
            let handle = reconciler.handle();
            for node in self.scheduler.nodes.drain(..) {
                handle.add_node(node)?;
            }
            for workload in self.scheduler.workloads.drain(..) {
                handle.set_workload(workload);
            }
            Ok(Some(reconciler))
        }

        /// Hears what the scheduler does.
        pub fn on_scheduler(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
            self.scheduler.events.add(listener);
            self
        }
    }
}

#[cfg(feature = "saga")]
mod saga {
    use std::sync::Arc;

    use orchestra_core::{Listener, ServiceName};
    use orchestra_saga::executor;
    use orchestra_saga::{Definition, Executor, Notice, SagaStore};

    use super::Builder;

    type Adjust = Box<dyn FnOnce(executor::Builder) -> executor::Builder + Send>;

    #[derive(Default)]
    pub(crate) struct Parts {
        store: Option<Arc<dyn SagaStore>>,
        definitions: Vec<Definition>,
        events: Vec<Box<dyn for<'a> Listener<Notice<'a>>>>,
        adjust: Option<Adjust>,
    }

    impl Parts {
        pub(crate) fn listen(&mut self, listener: impl for<'a> Listener<Notice<'a>> + 'static) {
            self.events.push(Box::new(listener));
        }

        /// Whom the declarative steps call.
        pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
            self.definitions.iter().flat_map(Definition::services)
        }

        fn executor(
            &mut self,
            prepare: impl FnOnce(executor::Builder) -> executor::Builder,
        ) -> Option<executor::Builder> {
            let mut builder = prepare(Executor::builder(self.store.take()?));
            for definition in self.definitions.drain(..) {
                builder = builder.definition(definition);
            }
            Some(match self.adjust.take() {
                Some(adjust) => adjust(builder),
                None => builder,
            })
        }
    }

    #[cfg_attr(docsrs, doc(cfg(feature = "saga")))]
    impl Builder {
        /// Where sagas are kept.
        pub fn saga_store(mut self, store: impl SagaStore + 'static) -> Self {
            self.saga.store = Some(Arc::new(store));
            self
        }

        /// A saga that can be started and continued.
        pub fn definition(mut self, definition: Definition) -> Self {
            self.saga.definitions.push(definition);
            self
        }

        /// Hears what the sagas do.
        pub fn on_saga(mut self, listener: impl for<'a> Listener<Notice<'a>> + 'static) -> Self {
            self.saga.listen(listener);
            self
        }

        /// The executor to build, if there is a store; what is wished for comes after `prepare`.
        pub(crate) fn executor_builder(
            &mut self,
            prepare: impl FnOnce(executor::Builder) -> executor::Builder,
        ) -> Option<executor::Builder> {
            let events = std::mem::take(&mut self.saga.events);
            let builder = self.saga.executor(prepare)?;
            let mut builder = builder.clock(Arc::clone(&self.clock));
            builder = builder.listener(move |notice: &Notice<'_>| {
                for listener in &events {
                    listener.on_event(notice);
                }
            });
            Some(match self.seed {
                Some(seed) => builder.seed(seed),
                None => builder,
            })
        }

        /// Changes the executor before it starts: its limits, its partition, who carries out declarative
        /// steps. Clock, listener and seed are set afterwards.
        pub fn executor(
            mut self,
            adjust: impl FnOnce(executor::Builder) -> executor::Builder + Send + 'static,
        ) -> Self {
            self.saga.adjust = Some(Box::new(adjust));
            self
        }
    }
}

#[cfg(feature = "mesh")]
mod mesh {
    use std::collections::HashMap;
    use std::sync::Arc;

    use orchestra_core::{Listener, ServiceName};
    #[cfg(feature = "discovery")]
    use orchestra_discovery::{Registry, resolver};
    use orchestra_mesh::{Event, Policy, breaker};

    use super::Builder;
    #[cfg(feature = "discovery")]
    use crate::clients::{Clients, Plan};
    #[cfg(feature = "discovery")]
    use crate::error::Result;
    use crate::fan::Fan;
    #[cfg(feature = "discovery")]
    use crate::wire::gate::Breakers;

    #[cfg(feature = "discovery")]
    pub(crate) type AdjustResolver =
        Box<dyn Fn(&ServiceName, resolver::Config) -> resolver::Config + Send + Sync>;

    #[derive(Default)]
    pub(crate) struct Parts {
        #[cfg(feature = "discovery")]
        resolver: Option<AdjustResolver>,
        pub(crate) breaker: breaker::Config,
        pub(crate) policy: Policy,
        pub(crate) policies: HashMap<ServiceName, Policy>,
        pub(crate) headers: http::HeaderMap,
        pub(crate) events: Fan<Event>,
    }

    #[cfg(feature = "discovery")]
    impl Builder {
        /// What makes a client of each service that is called.
        pub(crate) fn clients(&mut self, registry: Arc<dyn Registry>) -> Result<Clients> {
            let mesh = &mut self.mesh;
            let events = Arc::new(mesh.events.clone());
            Ok(Clients::new(Plan {
                registry,
                gates: Arc::new(Breakers::new(mesh.breaker, events)?),
                resolver: mesh.resolver.take(),
                policy: mesh.policy.clone(),
                policies: std::mem::take(&mut mesh.policies),
                headers: std::mem::take(&mut mesh.headers),
                clock: Arc::clone(&self.clock),
                seed: self.seed,
                discovery_events: self.discovery.events.clone(),
                mesh_events: mesh.events.clone(),
            }))
        }
    }

    #[cfg(feature = "discovery")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
    impl Builder {
        /// Changes how the clients of a service choose an instance: its balancer, its gates. Without it
        /// they take the better of two and each instance has a circuit breaker. The listener is set
        /// afterwards.
        pub fn resolver(
            mut self,
            adjust: impl Fn(&ServiceName, resolver::Config) -> resolver::Config + Send + Sync + 'static,
        ) -> Self {
            self.mesh.resolver = Some(Box::new(adjust));
            self
        }
    }

    #[cfg_attr(docsrs, doc(cfg(feature = "mesh")))]
    impl Builder {
        /// How calls to a service are made whose own policy was not set.
        pub fn policy(mut self, policy: Policy) -> Self {
            self.mesh.policy = policy;
            self
        }

        /// How calls to this service are made.
        pub fn policy_for(mut self, service: ServiceName, policy: Policy) -> Self {
            self.mesh.policies.insert(service, policy);
            self
        }

        /// Sent with every request to every service: a token by which services know the platform.
        pub fn header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
            self.mesh.headers.insert(name, value);
            self
        }

        /// How the circuit breaker of each instance decides.
        pub fn breaker(mut self, config: breaker::Config) -> Self {
            self.mesh.breaker = config;
            self
        }

        /// Hears what clients, breakers and gateways do.
        pub fn on_mesh(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
            self.mesh.events.add(listener);
            self
        }
    }
}

#[cfg(feature = "observe")]
mod observe {
    use std::sync::Arc;

    use orchestra_core::Clock;
    use orchestra_observe::{Registry, Tracer};

    use super::Builder;

    #[derive(Default)]
    pub(crate) struct Parts {
        pub(crate) metrics: Registry,
        tracer: Option<Tracer>,
    }

    impl Parts {
        pub(crate) fn tracer(&mut self, clock: &Arc<dyn Clock>, seed: Option<u64>) -> Tracer {
            self.tracer.take().unwrap_or_else(|| {
                let builder = Tracer::builder().clock(Arc::clone(clock));
                match seed {
                    Some(seed) => builder.seed(seed).build(),
                    None => builder.build(),
                }
            })
        }
    }

    #[cfg_attr(docsrs, doc(cfg(feature = "observe")))]
    impl Builder {
        /// Where the platform registers its metrics; a registry of its own unless given.
        pub fn metrics(mut self, metrics: Registry) -> Self {
            self.observe.metrics = metrics;
            self
        }

        /// Who begins the spans of saga steps; one that follows the caller's decision unless given.
        pub fn tracer(mut self, tracer: Tracer) -> Self {
            self.observe.tracer = Some(tracer);
            self
        }
    }
}
