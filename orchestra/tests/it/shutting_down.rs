//! The end comes in order.

use std::sync::Arc;
use std::time::Duration;

use orchestra::Orchestra;
use orchestra::core::{Listener, NodeId, ServiceName};
use orchestra::saga::step::Call;
use orchestra::saga::{Definition, MemoryStore, Notice, Start, Status};
use orchestra::scheduler::runtime::memory::MemoryRuntime;
use orchestra::scheduler::workload::Readiness;
use orchestra::scheduler::{Command, Event, Node, Resources, Template, Workload};
use parking_lot::Mutex;

fn slow_saga() -> Definition {
    let mut saga = Definition::builder("slow", "1");
    for number in 0..3 {
        let step = |_: Call, (): ()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        saga.step(&format!("step-{number}"), (), step).read_only();
    }
    saga.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn sagas_come_to_rest_before_instances_are_stopped() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (steps, stops) = (Arc::clone(&order), Arc::clone(&order));
    let stopping: Arc<dyn Listener<Event>> = Arc::new(move |event: &Event| {
        if matches!(event, Event::Stopping { .. }) {
            stops.lock().push("instance stopped");
        }
    });
    let worker = ServiceName::new("worker").unwrap();
    let template = Template::new(Command::new("worker")).readiness(Readiness::Started);
    let orchestra = Orchestra::builder()
        .runtime(MemoryRuntime::new())
        .node(Node::new(
            NodeId::new("node-1").unwrap(),
            Resources::new().cpu(1_000),
        ))
        .workload(Workload::new(worker.clone(), template).replicas(2))
        .on_scheduler(stopping)
        .saga_store(MemoryStore::default())
        .definition(slow_saga())
        .on_saga(move |notice: &Notice<'_>| {
            if matches!(notice, Notice::Attempted { .. }) {
                steps.lock().push("step done");
            }
        })
        .build()
        .await
        .unwrap();
    let handle = orchestra.scheduler().unwrap().clone();
    handle
        .until(|status| status.ready(&worker) == 2)
        .await
        .unwrap();
    let sagas = orchestra.sagas().unwrap();
    let id = sagas.start(Start::of("slow")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    let order = order.lock().clone();
    let last_step = order.iter().rposition(|what| *what == "step done").unwrap();
    let first_stop = order
        .iter()
        .position(|what| *what == "instance stopped")
        .unwrap();
    assert!(last_step < first_stop, "{order:?}");
    assert_eq!(handle.status().instances().count(), 0);
    assert!(!sagas.status(id).await.unwrap().status.is_terminal() || order.len() >= 5);
    // Again there is nothing left to do.
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_was_not_given_is_not_there() {
    let orchestra = Orchestra::builder().build().await.unwrap();
    assert!(orchestra.scheduler().is_none() && orchestra.sagas().is_none());
    orchestra.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_saga_goes_on_where_a_platform_was_shut_down() {
    let store = Arc::new(MemoryStore::default());
    let build = |store: Arc<MemoryStore>| async move {
        Orchestra::builder()
            .saga_store(store)
            .definition(slow_saga())
            .build()
            .await
            .unwrap()
    };
    let first = build(Arc::clone(&store)).await;
    let id = first
        .sagas()
        .unwrap()
        .start(Start::of("slow"))
        .await
        .unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    let second = build(store).await;
    let end = second.sagas().unwrap().wait(id).await.unwrap().status;
    assert_eq!(end, Status::Completed);
    second.shutdown(Duration::from_secs(5)).await.unwrap();
}
