//! The gRPC probe against the health servicer of grpcio. `ORCH_TEST_GRPC_PYTHON` names a Python that has
//! `grpcio` and `grpcio-health-checking`.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Monotonic;
use orchestra_discovery::{
    GrpcProbe, HealthCheck, Incarnation, Instance, PickContext, Probe, Resolver, Revision, Scope,
    Snapshot, Verdict, health, priority, resolver,
};
use orchestra_testkit::Process;
use tokio::io::AsyncWriteExt;

use crate::variable;

const SOON: Duration = Duration::from_secs(20);

struct Servicer {
    process: Process,
    stdin: tokio::process::ChildStdin,
    ports: [u16; 2],
}

impl Servicer {
    async fn start(ports: [u16; 2]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/health/servicer.py");
        let mut command = Command::new(variable("ORCH_TEST_GRPC_PYTHON"));
        command.arg(script).args(ports.map(|port| port.to_string()));
        let mut process = Process::spawn(command).unwrap();
        let stdin = process.take_stdin().unwrap();
        let line = process
            .wait_for_line(|line| line.starts_with("ports "), SOON)
            .await;
        let line = line.unwrap();
        let mut bound = line
            .text()
            .split(' ')
            .skip(1)
            .map(|port| port.parse().unwrap());
        let ports = [bound.next().unwrap(), bound.next().unwrap()];
        Self {
            process,
            stdin,
            ports,
        }
    }

    /// Sets the status of services; `-` is the whole server.
    async fn set(&mut self, statuses: &[&str]) {
        let before = self.times_set();
        for status in statuses {
            let line = format!("{status}\n");
            self.stdin.write_all(line.as_bytes()).await.unwrap();
        }
        self.stdin.flush().await.unwrap();
        until("set", || self.times_set() == before + statuses.len()).await;
    }

    fn times_set(&self) -> usize {
        let lines = self.process.lines();
        lines.iter().filter(|line| line.text() == "set").count()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn instance(port: u16) -> Instance {
    let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
    let (service, id) = ("payments".parse().unwrap(), "p-1".parse().unwrap());
    Instance::new(service, id, Incarnation::new(1), endpoint)
}

fn critical(reason: &str) -> Verdict {
    Verdict::Critical(reason.to_owned())
}

#[tokio::test]
async fn grpc_probe_agrees_with_the_servicer_of_grpcio() {
    let mut servicer = Servicer::start([0, 0]).await;
    servicer
        .set(&["a.Up SERVING", "a.Down NOT_SERVING", "a.Odd UNKNOWN"])
        .await;
    let payments = instance(servicer.ports[0]);
    let expected = [
        ("", Verdict::Pass),
        ("a.Up", Verdict::Pass),
        ("a.Down", critical("not serving")),
        ("a.Odd", Verdict::Fail("serving status unknown".to_owned())),
        ("a.Absent", critical("service unknown")),
    ];
    for (service, verdict) in expected {
        let probe = GrpcProbe::new(service).unwrap();
        assert_eq!(probe.probe(&payments).await, verdict, "{service}");
        // Once more, on the connection that was kept.
        assert_eq!(probe.probe(&payments).await, verdict, "{service}");
    }
    let without = instance(servicer.ports[1]);
    let probe = GrpcProbe::new("").unwrap();
    assert_eq!(probe.probe(&without).await, critical("no health service"));
    let lenient = probe.pass_unimplemented();
    assert_eq!(lenient.probe(&without).await, Verdict::Pass);
    servicer.process.kill().unwrap();
}

#[tokio::test]
async fn checker_follows_the_servicer_through_a_change_a_pause_and_a_restart() {
    let mut servicer = Servicer::start([0, 0]).await;
    let ports = servicer.ports;
    // Its only member is down: in panic it would be called all the same.
    let mut calm = priority::Config::default();
    calm.panic_threshold = 0;
    let config = resolver::Config::default().priorities(calm);
    let payments = Resolver::new("payments".parse().unwrap(), config);
    let members = vec![Arc::new(instance(ports[0]))];
    let scope = Scope::Service("payments".parse().unwrap());
    payments.apply(&Snapshot::new(scope, Revision::new(1), members));
    let mut config = health::Config::default().interval(Duration::from_millis(50));
    config.timeout = Duration::from_millis(500);
    config.damping = None;
    let probe = Arc::new(GrpcProbe::new("").unwrap());
    let check = HealthCheck::start(probe, payments.clone(), config);
    let is_up = || payments.pick(&PickContext::new(Monotonic::ZERO, 0)).is_ok();
    until("up", is_up).await;

    servicer.set(&["- NOT_SERVING"]).await;
    until("said to be down", || !is_up()).await;
    servicer.set(&["- SERVING"]).await;
    until("up again", is_up).await;

    servicer.process.pause().unwrap();
    until("paused", || !is_up()).await;
    servicer.process.resume().unwrap();
    until("resumed", is_up).await;

    servicer.process.kill().unwrap();
    servicer.process.wait().await.unwrap();
    until("gone", || !is_up()).await;
    let servicer = Servicer::start(ports).await;
    until("back", is_up).await;
    check.shutdown().await.unwrap();
    servicer.process.kill().unwrap();
}
