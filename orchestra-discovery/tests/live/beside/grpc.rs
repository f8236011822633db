//! gRPC: its ring hash, and its detection of outliers, as grpcio (the C core) has them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use orchestra_core::Monotonic;
use orchestra_discovery::outlier::{self, Counts, Detector, Host, Interval, Percent, grpc};
use orchestra_discovery::{RingHash, hash};
use serde_json::{Value, json};

use super::{by_hash, counted, keys, resolver_at};
use crate::variable;

/// One call as gRPC made it.
struct Call {
    server: u32,
    is_ok: bool,
    at: Duration,
}

/// Carries out a plan; gives the ports of the servers and the calls.
async fn peers(servers: u32, policy: Value, plan: &str) -> (Vec<u16>, Vec<Call>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plan");
    std::fs::write(&file, plan).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/beside/peers.py");
    let config = json!({"loadBalancingConfig": [policy]}).to_string();
    let mut command = tokio::process::Command::new(variable("ORCH_TEST_GRPC_PYTHON"));
    command
        .arg(script)
        .arg(servers.to_string())
        .arg(config)
        .arg(&file);
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await;
    let output = output.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let ports = lines
        .next()
        .unwrap()
        .split(' ')
        .map(|port| port.parse().unwrap());
    let call = |line: &str| {
        let mut words = line.split(' ');
        Call {
            server: words.next().unwrap().parse().unwrap(),
            is_ok: words.next() == Some("ok"),
            at: Duration::from_millis(words.next().unwrap().parse().unwrap()),
        }
    };
    (ports.collect(), lines.map(call).collect())
}

#[tokio::test]
async fn ring_hash_picks_are_those_of_grpc() {
    for servers in [3, 20] {
        let mut plan = String::new();
        let keys: Vec<_> = keys(1_500).collect();
        for key in &keys {
            writeln!(plan, "{key} 0 -").unwrap();
        }
        let policy = json!({"ring_hash_experimental": {"requestHashHeader": "x-key"}});
        let (ports, calls) = peers(servers, policy, &plan).await;
        let ring = RingHash::new(hash::ring::Config::grpc()).unwrap();
        let ours = resolver_at(ring, &ports, &vec![1; ports.len()]);
        assert_eq!(calls.len(), keys.len());
        for (key, call) in keys.iter().zip(&calls) {
            let port = ports[call.server as usize];
            assert_eq!(by_hash(&ours, hash::of(key.as_bytes())), port, "{key}");
        }
        let used = counted(calls.iter().map(|call| ports[call.server as usize]));
        assert_eq!(used.len(), ports.len());
    }
}

const SERVERS: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Whom a detector of ours has ejected at the end of each second that is told the same calls, and the calls that
/// gRPC made in that second.
fn beside(config: grpc::Config, calls: &[Call]) -> Vec<(BTreeSet<u32>, Vec<&Call>)> {
    let mut detector = Detector::new(outlier::Config::Grpc(config));
    for number in 0..SERVERS {
        detector.insert(Host::new(number), Monotonic::ZERO);
    }
    let seconds = calls.last().unwrap().at.as_secs();
    let mut told = Vec::new();
    let mut now = Monotonic::ZERO;
    for second in 0..seconds {
        let of_second = |call: &&Call| call.at.as_secs() == second;
        let made: Vec<_> = calls.iter().filter(of_second).collect();
        let counts = |host: Host| {
            let mut counts = Counts::default();
            for call in made.iter().filter(|call| call.server == host.number()) {
                counts.success += u32::from(call.is_ok);
                counts.total += 1;
            }
            Interval {
                external: counts,
                ..Interval::default()
            }
        };
        now = now + SECOND;
        detector.sweep(now, second, counts);
        let out = (0..SERVERS).filter(|&n| detector.is_ejected(Host::new(n)));
        told.push((out.collect(), made));
    }
    told
}

/// A call every few milliseconds for these spans, in each of which these servers fail.
fn plan(spans: &[(Duration, &str)]) -> String {
    let mut plan = String::new();
    for (span, failing) in spans {
        for _ in 0..span.as_millis() / 4 {
            writeln!(plan, "- 3 {failing}").unwrap();
        }
    }
    plan
}

fn policy(detection: &Value) -> Value {
    let mut whole = json!({
        "interval": "1s",
        "baseEjectionTime": "30s",
        "maxEjectionPercent": 50,
        "childPolicy": [{"round_robin": {}}],
    });
    let fields = whole.as_object_mut().unwrap();
    fields.extend(detection.as_object().unwrap().clone());
    json!({"outlier_detection_experimental": whole})
}

fn ours() -> grpc::Config {
    let mut config = grpc::Config::default();
    config.interval = SECOND;
    config.max_ejection = Percent::new(50);
    config
}

/// Whom gRPC does not call any more.
fn left_out(calls: &[&Call]) -> BTreeSet<u32> {
    let called: BTreeSet<_> = calls.iter().map(|call| call.server).collect();
    (0..SERVERS).filter(|n| !called.contains(n)).collect()
}

#[tokio::test]
async fn success_rates_and_failures_eject_whom_grpc_ejects() {
    let rates = json!({"successRateEjection": {
        "stdevFactor": 1900, "enforcementPercentage": 100, "minimumHosts": 5, "requestVolume": 5,
    }});
    let failures = json!({"failurePercentageEjection": {
        "threshold": 50, "enforcementPercentage": 100, "minimumHosts": 5, "requestVolume": 5,
    }});
    let (mut by_rates, mut by_failures) = (ours(), ours());
    let mut rate = grpc::SuccessRate::default();
    rate.request_volume = 5;
    by_rates.success_rate = Some(rate);
    let mut failure = grpc::FailurePercentage::default();
    failure.request_volume = 5;
    failure.threshold = Percent::new(50);
    by_failures.failure_percentage = Some(failure);
    // Three of ten that are equally dead hide each other from the standard deviation, and not from the limit.
    for (detection, ours, failing, out) in [
        (&rates, &by_rates, "4", 1),
        (&rates, &by_rates, "2,4,7", 0),
        (&failures, &by_failures, "2,4,7", 3),
    ] {
        let plan = plan(&[(SECOND * 4, failing)]);
        let (_, calls) = peers(SERVERS, policy(detection), &plan).await;
        let seconds = beside(ours.clone(), &calls);
        let (_, last) = seconds.last().unwrap();
        let (told, _) = &seconds[seconds.len() - 2];
        assert_eq!(
            (told.len(), told),
            (out, &left_out(last)),
            "{detection} {failing}"
        );
    }
}

#[tokio::test]
async fn no_more_are_ejected_than_with_grpc() {
    let mut detection = json!({"failurePercentageEjection": {
        "threshold": 50, "enforcementPercentage": 100, "minimumHosts": 5, "requestVolume": 5,
    }});
    detection["maxEjectionPercent"] = json!(20);
    let mut ours = ours();
    ours.max_ejection = Percent::new(20);
    let mut failure = grpc::FailurePercentage::default();
    failure.request_volume = 5;
    failure.threshold = Percent::new(50);
    ours.failure_percentage = Some(failure);
    let plan = plan(&[(SECOND * 4, "1,2,4,7")]);
    let (_, calls) = peers(SERVERS, policy(&detection), &plan).await;
    let seconds = beside(ours, &calls);
    let (told, made) = seconds.last().unwrap();
    assert_eq!((told.len(), left_out(made).len()), (2, 2));
}
