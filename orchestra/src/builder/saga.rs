use std::sync::Arc;

use orchestra_core::{Listener, ServiceName};
use orchestra_saga::executor;
use orchestra_saga::{Config, Definition, Executor, MemoryStore, Notice, SagaStore};

use super::Builder;

type Adjust = Box<dyn FnOnce(executor::Builder) -> executor::Builder + Send>;

#[derive(Default)]
pub(crate) struct Parts {
    store: Option<Arc<dyn SagaStore>>,
    definitions: Vec<Definition>,
    events: Vec<Box<dyn for<'a> Listener<Notice<'a>>>>,
    adjust: Option<Adjust>,
    config: Config,
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
        let in_memory = || -> Arc<dyn SagaStore> { Arc::new(MemoryStore::default()) };
        let store = self.store.take();
        let store = store.or_else(|| (!self.config.persistence.is_enabled).then(in_memory))?;
        let mut builder = prepare(Executor::builder(store).config(self.config));
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
    /// Where sagas are kept. Without one there are no sagas, unless the configuration says that they need not
    /// outlive the process.
    pub fn saga_store(mut self, store: impl SagaStore + 'static) -> Self {
        self.saga.store = Some(Arc::new(store));
        self
    }

    /// A saga that can be started and continued.
    pub fn definition(mut self, definition: Definition) -> Self {
        self.saga.definitions.push(definition);
        self
    }

    /// How sagas are kept, and what definitions go by that are read from the store: unless it is changed with
    /// [`executor`](Self::executor).
    pub fn saga_config(mut self, config: Config) -> Self {
        self.saga.config = config;
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
