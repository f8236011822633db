use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Inner, Orchestra};
use crate::builder::Builder;
use crate::error::Result;

impl Orchestra {
    pub(crate) async fn start(mut builder: Builder) -> Result<Self> {
        let stop = CancellationToken::new();
        let tasks = Mutex::new(JoinSet::new());
        builder.observe_events()?;
        #[cfg(feature = "observe")]
        let tracer = builder.observe.tracer(&builder.clock, builder.seed);
        #[cfg(feature = "discovery")]
        let registry = builder.registry_or_memory();
        #[cfg(all(feature = "discovery", feature = "mesh"))]
        let clients = builder.clients(&registry)?;
        #[cfg(all(feature = "discovery", feature = "mesh", feature = "saga"))]
        for service in builder.saga.services() {
            // Followed from now on, so that the first step finds whom it calls.
            clients.for_steps(service)?;
        }
        #[cfg(feature = "saga")]
        let sagas = {
            #[cfg(all(feature = "discovery", feature = "mesh"))]
            let executor = {
                let caller = crate::wire::steps::MeshCaller::new(clients.clone());
                #[cfg(feature = "observe")]
                let caller = caller.traced(tracer.clone());
                builder.executor_builder(|executor| executor.caller(caller))
            };
            #[cfg(not(all(feature = "discovery", feature = "mesh")))]
            let executor = builder.executor_builder(std::convert::identity);
            match executor {
                Some(executor) => Some(executor.build().await?),
                None => None,
            }
        };
        #[cfg(feature = "scheduler")]
        let reconciler = builder.start_reconciler()?;
        #[cfg(feature = "scheduler")]
        let scheduler = reconciler
            .as_ref()
            .map(orchestra_scheduler::Reconciler::handle);
        #[cfg(all(feature = "discovery", feature = "scheduler"))]
        if let Some(scheduler) = &scheduler {
            let liveness = crate::wire::registration::Liveness::new(scheduler.clone());
            tasks
                .lock()
                .spawn(liveness.run(Arc::clone(&registry), stop.clone()));
        }
        let inner = Inner {
            clock: builder.clock,
            stop,
            tasks,
            #[cfg(feature = "discovery")]
            registry,
            #[cfg(all(feature = "discovery", feature = "mesh"))]
            clients,
            #[cfg(feature = "mesh")]
            gateways: Mutex::default(),
            #[cfg(feature = "mesh")]
            mesh_events: builder.mesh.events,
            #[cfg(feature = "mesh")]
            seed: builder.seed,
            #[cfg(feature = "scheduler")]
            reconciler: Mutex::new(reconciler),
            #[cfg(feature = "scheduler")]
            scheduler,
            #[cfg(feature = "saga")]
            sagas,
            #[cfg(feature = "observe")]
            metrics: builder.observe.metrics,
            #[cfg(feature = "observe")]
            tracer,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
