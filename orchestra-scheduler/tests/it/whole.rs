//! The loop over real processes.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::InstanceId;
use orchestra_scheduler::reconciler::{Placed, Status};
use orchestra_scheduler::runtime::process::ProcessRuntime;
use orchestra_scheduler::workload::Readiness;
use orchestra_scheduler::{
    Command, ContainerRuntime, ContainerSpec, Handle, Reconciler, Template, Workload,
};

use crate::process::is_alive;
use crate::support::{node, service};

/// A service that ends when it is asked to or when its platform dies, and says who it is.
fn payments() -> Workload {
    let script = "trap 'exit 0' TERM; echo I am $INSTANCE; while :; do sleep 60 & wait; done";
    let template = Template::new(Command::new("sh").args(["-c", script]))
        .readiness(Readiness::Started)
        .stop_grace(Duration::from_secs(5));
    Workload::new(service("payments"), template).replicas(2)
}

async fn settled(handle: &Handle, without: &[InstanceId]) -> Vec<InstanceId> {
    let is_there = |status: &Status| {
        status.is_settled() && status.instances().all(|(id, _)| !without.contains(id))
    };
    let status = tokio::time::timeout(Duration::from_secs(20), handle.until(is_there));
    let status = status.await.expect("not settled in 20 s").unwrap();
    status.instances().map(|(id, _)| id.clone()).collect()
}

fn pid(handle: &Handle, id: &InstanceId) -> u32 {
    let status = handle.status();
    let mut found = status.instances().filter(|(other, _)| *other == id);
    found.next().and_then(|(_, instance)| instance.pid).unwrap()
}

fn signal(name: &str, pid: u32) {
    let script = format!("kill -{name} {pid}");
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn killed_and_frozen_processes_are_replaced_and_shutdown_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Arc::new(ProcessRuntime::open(directory.path()).await.unwrap());
    let reconciler = Reconciler::builder(Arc::clone(&runtime) as Arc<dyn ContainerRuntime>)
        .launch(|placed: &Placed, spec: ContainerSpec| {
            spec.env("INSTANCE", placed.instance.as_str())
        })
        .start();
    let handle = reconciler.handle();
    for name in ["node-1", "node-2"] {
        handle.add_node(node(name, 1_000)).unwrap();
    }
    handle.set_workload(payments());
    let first = settled(&handle, &[]).await;

    let killed = first[0].clone();
    signal("KILL", pid(&handle, &killed));
    let second = settled(&handle, std::slice::from_ref(&killed)).await;
    assert_eq!(second.len(), 2);

    let frozen = second[0].clone();
    let frozen_pid = pid(&handle, &frozen);
    signal("STOP", frozen_pid);
    handle.lapsed(&frozen);
    let third = settled(&handle, &[killed, frozen]).await;
    assert!(!is_alive(frozen_pid));

    for id in &third {
        let expected = format!("I am {id}");
        let written = async {
            while runtime
                .output(id)
                .await
                .unwrap()
                .lines
                .first()
                .is_none_or(|line| line.text != expected)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), written).await;
        waited.expect("the environment does not depend on the instance");
    }
    reconciler.shutdown().await;
    assert_eq!(runtime.list().await.unwrap(), []);
    for id in &third {
        assert!(
            runtime.wait(id).await.unwrap().is_success(),
            "{id} was not given its grace"
        );
    }
}
