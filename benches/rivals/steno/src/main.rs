//! steno's sagas of three actions that do nothing, each with an undo action, in memory.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;
#[path = "../../../src/tasks.rs"]
mod tasks;

use std::sync::Arc;

use measure::Session;
use tasks::{shared_by, two_workers};
use steno::{
    ActionContext, ActionError, ActionFunc, ActionRegistry, DagBuilder, InMemorySecStore, Node,
    SagaDag, SagaId, SagaName, SagaType, SecClient,
};

#[derive(Debug)]
struct Noop;

impl SagaType for Noop {
    type ExecContextType = ();
}

async fn act(_: ActionContext<Noop>) -> Result<u32, ActionError> {
    Ok(7)
}

async fn undo(_: ActionContext<Noop>) -> Result<(), anyhow::Error> {
    Ok(())
}

/// What every saga is made of.
struct Sagas {
    client: SecClient,
    dag: Arc<SagaDag>,
    registry: Arc<ActionRegistry<Noop>>,
}

impl Sagas {
    fn new() -> Self {
        let mut registry = ActionRegistry::new();
        let mut dag = DagBuilder::new(SagaName::new("noop"));
        for name in ["one", "two", "three"] {
            let action = ActionFunc::new_action(name, act, undo);
            dag.append(Node::action(name, name, &*action));
            registry.register(action);
        }
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let dag = dag.build().expect("a valid graph");
        Self {
            client: steno::sec(log, Arc::new(InMemorySecStore::new())),
            dag: Arc::new(SagaDag::new(dag, serde_json::json!(7))),
            registry: Arc::new(registry),
        }
    }

    async fn run(&self) {
        let id = SagaId::new_v4();
        let (dag, registry) = (Arc::clone(&self.dag), Arc::clone(&self.registry));
        let created = self.client.saga_create(id, Arc::new(()), dag, registry);
        let finished = created.await.expect("created");
        self.client.saga_start(id).await.expect("started");
        assert!(finished.await.kind.is_ok());
    }
}

fn main() {
    let runtime = two_workers();
    let session = Session::of("steno");
    let sagas = Arc::new(runtime.block_on(async { Sagas::new() }));
    for concurrent in [1, 64] {
        let work = |count| {
            let sagas = Arc::clone(&sagas);
            async move {
                for _ in 0..count {
                    sagas.run().await;
                }
            }
        };
        let figure = format!("saga_3_steps_memory_{concurrent}_at_once");
        session.rate(&figure, "sagas/s", shared_by(concurrent, &runtime, work));
    }
}
