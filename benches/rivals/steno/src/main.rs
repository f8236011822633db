//! steno's sagas of actions that do nothing, each with an undo action, in memory.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;
#[path = "../../../src/tasks.rs"]
mod tasks;

use std::sync::Arc;

use measure::Session;
use steno::{
    ActionContext, ActionError, ActionFunc, ActionRegistry, DagBuilder, InMemorySecStore, Node,
    SagaDag, SagaId, SagaName, SagaType, SecClient,
};
use tasks::{shared_by, two_workers};
use tokio::runtime::Runtime;

#[derive(Debug)]
struct Noop;

impl SagaType for Noop {
    type ExecContextType = ();
}

async fn act(_: ActionContext<Noop>) -> Result<u32, ActionError> {
    Ok(7)
}

async fn refuse(_: ActionContext<Noop>) -> Result<u32, ActionError> {
    Err(ActionError::action_failed("refused".to_owned()))
}

async fn undo(_: ActionContext<Noop>) -> Result<(), anyhow::Error> {
    Ok(())
}

/// What every saga is made of.
struct Sagas {
    client: SecClient,
    dag: Arc<SagaDag>,
    registry: Arc<ActionRegistry<Noop>>,
    succeed: bool,
}

impl Sagas {
    /// A chain of so many actions, the last of which is refused unless they are to succeed.
    fn new(steps: u32, succeed: bool) -> Self {
        let mut registry = ActionRegistry::new();
        let mut dag = DagBuilder::new(SagaName::new("noop"));
        for step in 1..=steps {
            let name = format!("step_{step}");
            let action = if step == steps && !succeed {
                ActionFunc::new_action(&name, refuse, undo)
            } else {
                ActionFunc::new_action(&name, act, undo)
            };
            dag.append(Node::action(&name, &name, &*action));
            registry.register(action);
        }
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let dag = dag.build().expect("a valid graph");
        Self {
            client: steno::sec(log, Arc::new(InMemorySecStore::new())),
            dag: Arc::new(SagaDag::new(dag, serde_json::json!(7))),
            registry: Arc::new(registry),
            succeed,
        }
    }

    async fn run(&self) {
        let id = SagaId::new_v4();
        let (dag, registry) = (Arc::clone(&self.dag), Arc::clone(&self.registry));
        let created = self.client.saga_create(id, Arc::new(()), dag, registry);
        let finished = created.await.expect("created");
        self.client.saga_start(id).await.expect("started");
        assert_eq!(finished.await.kind.is_ok(), self.succeed);
    }
}

fn main() {
    let runtime = two_workers();
    let session = Session::of("steno");
    let rate = |sagas: &Arc<Sagas>, concurrent: u64, figure: &str, unit: &str, parts: u32| {
        let batches = batches(sagas, &runtime, concurrent);
        session.rate_of_parts(&[figure], unit, parts, batches);
    };
    for (what, succeed) in [("3_steps", true), ("fails_at_step_3", false)] {
        let sagas = Arc::new(runtime.block_on(async { Sagas::new(3, succeed) }));
        for concurrent in [1, 64] {
            let figure = format!("saga_{what}_memory_{concurrent}_at_once");
            rate(&sagas, concurrent, &figure, "sagas/s", 1);
        }
    }
    let sagas = Arc::new(runtime.block_on(async { Sagas::new(100, true) }));
    for concurrent in [1, 64] {
        let figure = format!("saga_chain_100_memory_{concurrent}_at_once");
        rate(&sagas, concurrent, &figure, "steps/s", 100);
    }
}

fn batches(
    sagas: &Arc<Sagas>,
    runtime: &Runtime,
    concurrent: u64,
) -> impl FnMut(u64) -> std::time::Duration {
    let sagas = Arc::clone(sagas);
    shared_by(concurrent, runtime, move |count| {
        let sagas = Arc::clone(&sagas);
        async move {
            for _ in 0..count {
                sagas.run().await;
            }
        }
    })
}
