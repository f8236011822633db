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
