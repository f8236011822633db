//! The loop over a scripted runtime, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, NodeId, ServiceName};
use orchestra_scheduler::event::FenceReason;
use orchestra_scheduler::reconcile::{Phase, Tuning};
use orchestra_scheduler::reconciler::{Placed, PlacementListener, Status};
use orchestra_scheduler::runtime::memory::{Behavior, MemoryRuntime};
use orchestra_scheduler::runtime::{Capabilities, Container, Exit, Output};
use orchestra_scheduler::workload::Readiness;
use orchestra_scheduler::{
    ContainerRuntime, ContainerSpec, Error, ErrorKind, Event, Handle, Reconciler, Workload,
};
use parking_lot::Mutex;

use crate::support::{node, service, workload};

type Log = Arc<Mutex<Vec<Event>>>;

struct World {
    runtime: MemoryRuntime,
    reconciler: Reconciler,
    handle: Handle,
    log: Log,
}

fn world(script: impl Fn(&ContainerSpec) -> Behavior + Send + Sync + 'static) -> World {
    let runtime = MemoryRuntime::scripted(script);
    let log = Log::default();
    let heard = Arc::clone(&log);
    let listener = move |event: &Event| heard.lock().push(event.clone());
    let reconciler = Reconciler::builder(Arc::new(runtime.clone()))
        .listener(Arc::new(listener))
        .seed(7)
        .start();
    let handle = reconciler.handle();
    for name in ["node-1", "node-2", "node-3"] {
        handle.add_node(node(name, 1_000)).unwrap();
    }
    World {
        runtime,
        reconciler,
        handle,
        log,
    }
}

fn obedient() -> World {
    world(|_| Behavior::new())
}

fn ready_at_once(name: &str, replicas: u32) -> Workload {
    let mut workload = workload(name, 100).replicas(replicas);
    workload.template.readiness = Readiness::Started;
    workload
}

fn phase(status: &Status, id: &InstanceId) -> Option<Phase> {
    let mut found = status.instances().filter(|(other, _)| *other == id);
    found.next().map(|(_, instance)| instance.phase)
}

fn ids(status: &Status) -> Vec<InstanceId> {
    status.instances().map(|(id, _)| id.clone()).collect()
}

async fn settled(handle: &Handle) -> Status {
    let settled = handle.until(Status::is_settled);
    let waited = tokio::time::timeout(Duration::from_secs(120), settled).await;
    waited.expect("not settled in two minutes").unwrap()
}

async fn starting(handle: &Handle, svc: &ServiceName) -> InstanceId {
    let is_starting = |status: &Status| {
        let seats = status.workload(svc).map(|workload| &workload.instances);
        seats.is_some_and(|seats| seats.iter().all(|seat| seat.phase == Phase::Starting))
    };
    let status = handle.until(is_starting).await.unwrap();
    ids(&status).remove(0)
}

/// The position in the log of the first event that this likes.
fn position(log: &Log, like: impl Fn(&Event) -> bool) -> Option<usize> {
    log.lock().iter().position(like)
}

#[tokio::test(start_paused = true)]
async fn replicas_are_spread_over_the_nodes() {
    let World {
        reconciler, handle, ..
    } = obedient();
    handle.set_workload(ready_at_once("payments", 3));
    let status = settled(&handle).await;
    let loads: Vec<_> = status.nodes.iter().map(|node| node.instances).collect();
    assert_eq!(loads, [1, 1, 1]);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_ended_is_replaced_under_another_id() {
    let World {
        runtime,
        reconciler,
        handle,
        log,
    } = obedient();
    handle.set_workload(ready_at_once("payments", 2));
    let before = ids(&settled(&handle).await);
    runtime.end(&before[0], Exit::code(1)).await.unwrap();
    handle
        .until(|status| !ids(status).contains(&before[0]))
        .await
        .unwrap();
    let after = ids(&settled(&handle).await);
    assert_eq!(after.len(), 2);
    assert!(after.contains(&before[1]) && !after.contains(&before[0]));
    let replaced =
        |event: &Event| matches!(event, Event::Replaced { old, .. } if *old == before[0]);
    assert!(position(&log, replaced).is_some());
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_instance_is_gone_before_its_replacement_starts() {
    let slow = Duration::from_secs(30);
    let World {
        runtime,
        reconciler,
        handle,
        log,
    } = world(move |_| Behavior::new().ignore_stop().die_slowly(slow));
    let payments = service("payments");
    handle.set_workload(ready_at_once("payments", 1));
    let victim = ids(&settled(&handle).await).remove(0);

    handle.lapsed(&victim);
    tokio::time::sleep(Duration::from_secs(29)).await;
    // It does not die yet: its seat stays taken, and nothing else of the service runs.
    assert_eq!(phase(&handle.status(), &victim), Some(Phase::Fenced));
    let running = runtime.list().await.unwrap();
    assert_eq!(
        running.iter().map(|c| &c.instance).collect::<Vec<_>>(),
        [&victim]
    );

    handle
        .until(|status| status.ready(&payments) == 1)
        .await
        .unwrap();
    let exited = position(
        &log,
        |e| matches!(e, Event::Exited { instance, exit: Some(exit), .. } if *instance == victim && exit.is_forced()),
    );
    let started = position(
        &log,
        |e| matches!(e, Event::Started { instance, .. } if *instance != victim),
    );
    let fenced = position(&log, |e| {
        matches!(
            e,
            Event::Fenced {
                reason: FenceReason::LeaseLapsed,
                ..
            }
        )
    });
    assert!(fenced.unwrap() < exited.unwrap() && exited.unwrap() < started.unwrap());
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_instance_never_serves_again() {
    let World {
        reconciler, handle, ..
    } = world(|_| Behavior::new().die_slowly(Duration::from_secs(5)));
    handle.set_workload(ready_at_once("payments", 1));
    let victim = ids(&settled(&handle).await).remove(0);
    handle.lapsed(&victim);
    handle.ready(&victim);
    assert_eq!(phase(&handle.status(), &victim), Some(Phase::Fenced));
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_not_ready_in_time_is_fenced_and_replaced() {
    let World {
        reconciler,
        handle,
        log,
        ..
    } = obedient();
    let mut slow = workload("payments", 100);
    slow.template.start_grace = Duration::from_secs(3);
    handle.set_workload(slow);
    let first = starting(&handle, &service("payments")).await;
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert_eq!(phase(&handle.status(), &first), Some(Phase::Starting));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(phase(&handle.status(), &first), None);
    let late = |e: &Event| matches!(e, Event::Fenced { instance, reason: FenceReason::StartTimeout, .. } if *instance == first);
    assert!(position(&log, late).is_some());
    let second = starting(&handle, &service("payments")).await;
    assert_ne!(first, second);
    handle.ready(&second);
    settled(&handle).await;
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_not_killed_until_it_returned() {
    let World {
        runtime,
        reconciler,
        handle,
        ..
    } = world(|_| Behavior::new().start_after(Duration::from_secs(10)));
    handle.set_workload(ready_at_once("payments", 1));
    let first = starting(&handle, &service("payments")).await;
    handle.lapsed(&first);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(phase(&handle.status(), &first), Some(Phase::Fenced));
    settled(&handle).await;
    // Had the kill been sent at once it would have missed, and both would run now.
    assert_eq!(runtime.list().await.unwrap().len(), 1);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_slows_down() {
    let World {
        reconciler,
        handle,
        log,
        ..
    } = world(|_| Behavior::new().exit_after(Duration::from_millis(10), Exit::code(1)));
    handle.set_workload(ready_at_once("payments", 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let starts = log
        .lock()
        .iter()
        .filter(|e| matches!(e, Event::Started { .. }))
        .count();
    // Delays 0, then between half and the whole of 0.5, 1, 2, 4, 8, 16, 30 s.
    assert!((7..=12).contains(&starts), "{starts} starts in a minute");
    let restarts = handle.status().workloads[0].instances[0].restarts;
    assert!(restarts as usize >= starts - 1);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_tried_again() {
    let attempts = Arc::new(Mutex::new(0));
    let World {
        reconciler,
        handle,
        log,
        ..
    } = world(move |_| {
        let mut attempts = attempts.lock();
        *attempts += 1;
        if *attempts <= 2 {
            Behavior::new().fail_start("no image")
        } else {
            Behavior::new()
        }
    });
    handle.set_workload(ready_at_once("payments", 1));
    let status = settled(&handle).await;
    assert_eq!(status.workloads[0].instances[0].restarts, 2);
    let failed = log
        .lock()
        .iter()
        .filter(|e| matches!(e, Event::StartFailed { reason, .. } if reason.contains("no image")))
        .count();
    assert_eq!(failed, 2);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_node_is_reported_once_and_placed_when_there_is_room() {
    let World {
        reconciler,
        handle,
        log,
        ..
    } = obedient();
    let mut large = ready_at_once("large", 1);
    large.template.resources = large.template.resources.cpu(2_000);
    handle.set_workload(large);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let reports = log
        .lock()
        .iter()
        .filter(|e| matches!(e, Event::Unschedulable(_)))
        .count();
    assert_eq!(reports, 1);
    let seat = handle.status().workloads[0].instances[0].clone();
    assert_eq!(
        seat.unschedulable.unwrap().to_string(),
        "no node of 3 can carry a replica of large: insufficient cpu (3)"
    );
    handle.add_node(node("node-4", 4_000)).unwrap();
    let status = settled(&handle).await;
    assert_eq!(
        status.workloads[0].instances[0].node,
        Some(NodeId::new("node-4").unwrap())
    );
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_ran_on_a_lost_node_moves_and_nothing_goes_back() {
    let World {
        reconciler, handle, ..
    } = obedient();
    handle.set_workload(ready_at_once("payments", 3));
    settled(&handle).await;
    let lost = NodeId::new("node-2").unwrap();
    handle.lost(&lost).unwrap();
    handle
        .until(|status| {
            status
                .instances()
                .all(|(_, i)| i.node.as_ref() != Some(&lost))
        })
        .await
        .unwrap();
    let status = settled(&handle).await;
    assert!(
        status
            .instances()
            .all(|(_, i)| i.node.as_ref() != Some(&lost))
    );
    assert_eq!(status.instances().count(), 3);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_template_replaces_one_replica_at_a_time() {
    let World {
        reconciler,
        handle,
        log,
        ..
    } = obedient();
    handle.set_workload(ready_at_once("payments", 3));
    let old = ids(&settled(&handle).await);
    log.lock().clear();
    let mut newer = ready_at_once("payments", 3);
    newer.template = newer.template.env("VERSION", "2");
    handle.set_workload(newer);
    handle
        .until(|status| status.is_settled() && ids(status).iter().all(|id| !old.contains(id)))
        .await
        .unwrap();
    let mut missing = 0_i32;
    for event in log.lock().iter() {
        match event {
            Event::Stopping { .. } => missing += 1,
            Event::Ready { .. } => missing -= 1,
            _ => {}
        }
        assert!(missing <= 1, "two replicas are away at once");
    }
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_down_stops_the_highest_seats() {
    let World {
        runtime,
        reconciler,
        handle,
        ..
    } = obedient();
    handle.set_workload(ready_at_once("payments", 3));
    let before = settled(&handle).await;
    handle.set_workload(ready_at_once("payments", 1));
    let after = settled(&handle).await;
    assert_eq!(
        after.workloads[0].instances,
        before.workloads[0].instances[..1]
    );
    assert_eq!(runtime.list().await.unwrap().len(), 1);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_stops_with_grace_kills_the_rest_and_leaves_nothing() {
    let World {
        runtime,
        reconciler,
        handle,
        log,
    } = world(|spec| match spec.service.as_str() {
        "stubborn" => Behavior::new().ignore_stop(),
        _ => Behavior::new(),
    });
    handle.set_workload(ready_at_once("payments", 2));
    handle.set_workload(ready_at_once("stubborn", 1));
    settled(&handle).await;
    reconciler.shutdown().await;
    assert_eq!(runtime.list().await.unwrap(), []);
    assert_eq!(handle.status().instances().count(), 0);
    assert!(
        handle
            .status()
            .nodes
            .iter()
            .all(|node| node.reserved == orchestra_scheduler::Resources::new())
    );
    let forced =
        |e: &&Event| matches!(e, Event::Exited { exit: Some(exit), .. } if exit.is_forced());
    assert_eq!(log.lock().iter().filter(forced).count(), 1);
    let late = handle.until(|_| false).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::ShutDown);
}

#[derive(Default)]
struct Placements(Mutex<Vec<(bool, u32, InstanceId)>>);

impl PlacementListener for Placements {
    fn started(&self, placed: &Placed) {
        self.0
            .lock()
            .push((true, placed.ordinal, placed.instance.clone()));
    }

    fn stopped(&self, placed: &Placed) {
        self.0
            .lock()
            .push((false, placed.ordinal, placed.instance.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_seat_is_announced_free_before_it_is_announced_taken_again() {
    let runtime = MemoryRuntime::new();
    let placements = Arc::new(Placements::default());
    let reconciler = Reconciler::builder(Arc::new(runtime.clone()))
        .placements(Arc::clone(&placements) as Arc<dyn PlacementListener>)
        .launch(|placed: &Placed, spec: ContainerSpec| {
            spec.env("INSTANCE", placed.instance.as_str())
        })
        .tuning(Tuning::default())
        .start();
    let handle = reconciler.handle();
    handle.add_node(node("node-1", 1_000)).unwrap();
    handle.set_workload(ready_at_once("payments", 1));
    let first = ids(&settled(&handle).await).remove(0);
    handle.lapsed(&first);
    handle
        .until(|status| !ids(status).contains(&first))
        .await
        .unwrap();
    let second = ids(&settled(&handle).await).remove(0);
    reconciler.shutdown().await;
    let expected = [
        (true, 0, first.clone()),
        (false, 0, first),
        (true, 0, second.clone()),
        (false, 0, second),
    ];
    assert_eq!(*placements.0.lock(), expected);
}

/// Refuses to kill, this many times.
#[derive(Debug)]
struct Refusing {
    inner: MemoryRuntime,
    left: Mutex<u32>,
}

#[async_trait::async_trait]
impl ContainerRuntime for Refusing {
    async fn start(&self, spec: ContainerSpec) -> Result<Container, Error> {
        self.inner.start(spec).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit, Error> {
        self.inner.stop(id, grace).await
    }

    async fn kill(&self, id: &InstanceId) -> Result<Exit, Error> {
        {
            let mut left = self.left.lock();
            if *left > 0 {
                *left -= 1;
                return Err(Error::new(ErrorKind::Io, format!("{id} cannot be reached")));
            }
        }
        self.inner.kill(id).await
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        self.inner.list().await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Exit, Error> {
        self.inner.wait(id).await
    }

    async fn output(&self, id: &InstanceId) -> Result<Output, Error> {
        self.inner.output(id).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_keeps_its_seat_until_it_can() {
    let inner = MemoryRuntime::new();
    let left = Mutex::new(5);
    let runtime = Arc::new(Refusing {
        inner: inner.clone(),
        left,
    });
    let reconciler = Reconciler::builder(runtime).start();
    let handle = reconciler.handle();
    handle.add_node(node("node-1", 1_000)).unwrap();
    handle.set_workload(ready_at_once("payments", 1));
    let victim = ids(&settled(&handle).await).remove(0);
    handle.lapsed(&victim);
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(ids(&handle.status()), std::slice::from_ref(&victim));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let status = settled(&handle).await;
    assert!(!ids(&status).contains(&victim));
    assert_eq!(inner.list().await.unwrap().len(), 1);
    reconciler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_panics_costs_its_instance_and_not_the_loop() {
    let mut panics = 2;
    let panics = Mutex::new(std::iter::from_fn(move || {
        panics -= 1;
        Some(panics >= 0)
    }));
    let reconciler = Reconciler::builder(Arc::new(MemoryRuntime::new()))
        .launch(move |_: &Placed, spec: ContainerSpec| {
            let is_doomed = panics.lock().next() == Some(true);
            assert!(!is_doomed, "no spec for you");
            spec
        })
        .start();
    let handle = reconciler.handle();
    handle.add_node(node("node-1", 1_000)).unwrap();
    handle.set_workload(ready_at_once("payments", 1));
    let status = settled(&handle).await;
    assert_eq!(status.workloads[0].instances[0].restarts, 2);
    assert_eq!(
        status.nodes[0].instances, 1,
        "the room of the lost ones was given back"
    );
    reconciler.shutdown().await;
}
