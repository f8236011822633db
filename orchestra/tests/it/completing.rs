//! What the mesh's attempts tell the resolver.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use orchestra::Orchestra;
use orchestra::core::{Endpoint, InstanceId, Labels};
use orchestra::discovery::outlier::{self, Change, Reason, Trigger};
use orchestra::discovery::{
    Event, Incarnation, Instance, Resolver, Revision, RoundRobin, Scope, SmoothRoundRobin,
    Snapshot, reported, resolver,
};
use orchestra::mesh::conformance::pick::Subject;
use orchestra::mesh::pick::Pick;
use orchestra::mesh::{Body, breaker};
use orchestra::wire::pick::ResolverPick;

use crate::support::{Counted, Hand, counter, get, heard, known, no_retries, register, status};

fn over(ids: &[InstanceId]) -> Arc<dyn Pick> {
    let resolver = Resolver::new("cart".parse().unwrap(), resolver::Config::default());
    let instances = ids.iter().zip(1..).map(|(id, port)| {
        let endpoint = Endpoint::Tcp(([127, 0, 0, 1], port).into());
        let service = resolver.service().clone();
        Arc::new(Instance::new(
            service,
            id.clone(),
            Incarnation::new(1),
            endpoint,
        ))
    });
    let members = instances.collect();
    resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), members));
    Arc::new(ResolverPick::new(resolver))
}

orchestra::mesh::pick_suite!(resolver_pick, Subject::new(over));

fn with(code: StatusCode, name: &'static str, value: &'static str) -> Response<Body> {
    let mut response = status(code);
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

/// A breaker that never opens, so that the detection of outliers alone decides.
fn no_breaker() -> breaker::Config {
    breaker::Config::default().consecutive_failures(1_000)
}

#[tokio::test]
async fn an_instance_that_asks_to_be_left_alone_is_until_the_time_is_up() {
    // Long after its failure has been forgotten, and with the time that it asked for over.
    let cases = [
        (StatusCode::SERVICE_UNAVAILABLE, Some("200"), [false, true]),
        (StatusCode::TOO_MANY_REQUESTS, Some("200"), [false, true]),
        (StatusCode::SERVICE_UNAVAILABLE, None, [true, true]),
        (StatusCode::TOO_MANY_REQUESTS, None, [true, true]),
    ];
    for (code, retry_after, is_called) in cases {
        let clock = Arc::new(Hand::default());
        let orchestra = Orchestra::builder()
            .policy(no_retries())
            .clock(Arc::clone(&clock) as _)
            .seed(7)
            .build()
            .await
            .unwrap();
        let first_busy = move |before| match (before, retry_after) {
            (0, Some(after)) => with(code, "retry-after", after),
            (0, None) => status(code),
            _ => status(StatusCode::OK),
        };
        let busy = Counted::start(&orchestra, "busy", Labels::new(), first_busy).await;
        let well = |_| status(StatusCode::OK);
        let _well = Counted::start(&orchestra, "well", Labels::new(), well).await;
        known(&orchestra, "cart", 2).await;
        let client = orchestra.client("cart").unwrap();
        while busy.calls() == 0 {
            client.send(get("/")).await.unwrap();
        }
        for is_called in is_called {
            clock.advance(101);
            let before = busy.calls();
            for _ in 0..50 {
                client.send(get("/")).await.unwrap();
            }
            let case = format!("{code} {retry_after:?}");
            assert_eq!(busy.calls() > before, is_called, "{case}");
        }
        orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

/// What the bad one of two instances does.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Answers(u16),
    RefusesConnections,
    Hangs,
}

impl Bad {
    /// Where it is, and what keeps that so.
    async fn start(self) -> (Endpoint, Box<dyn Send>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        match self {
            Self::Answers(code) => {
                let code = StatusCode::from_u16(code).unwrap();
                let (endpoint, serving) =
                    crate::support::server(Arc::new(move |_| status(code))).await;
                (endpoint, Box::new(serving))
            }
            Self::RefusesConnections => (endpoint, Box::new(())),
            // Connections wait in the backlog.
            Self::Hangs => (endpoint, Box::new(listener)),
        }
    }
}

#[tokio::test]
async fn outlier_detection_is_told_whose_failure_it_was() {
    let cases = [
        (
            Bad::RefusesConnections,
            Some(Trigger::ConsecutiveLocalOrigin),
        ),
        (Bad::Hangs, Some(Trigger::ConsecutiveLocalOrigin)),
        (Bad::Answers(502), Some(Trigger::ConsecutiveGateway)),
        (Bad::Answers(503), Some(Trigger::ConsecutiveGateway)),
        (Bad::Answers(504), Some(Trigger::ConsecutiveGateway)),
        (Bad::Answers(500), None),
        (Bad::Answers(429), None),
    ];
    for (bad, expected) in cases {
        let three = NonZeroU32::new(3);
        let mut envoy = outlier::envoy::Config::default();
        envoy.always_eject_one_host = true;
        envoy.split_local_origin = true;
        envoy.consecutive_5xx = None;
        envoy.consecutive_gateway_failure = three;
        envoy.consecutive_local_origin_failure = three;
        envoy.enforcing.consecutive_gateway_failure = outlier::Percent::ALL;
        let (listener, events) = heard();
        let orchestra = Orchestra::builder()
            .policy(no_retries().attempt_timeout(Duration::from_millis(50)))
            .breaker(no_breaker())
            .resolver(move |_, config| {
                let outliers = outlier::Config::Envoy(envoy.clone());
                let turns = Arc::new(RoundRobin::default());
                config.balancer(turns).outliers(outliers)
            })
            .on_discovery(listener)
            .build()
            .await
            .unwrap();
        let (endpoint, _kept) = bad.start().await;
        let _lease = register(&orchestra, "cart", "bad", endpoint).await;
        let well = |_| status(StatusCode::OK);
        let well = Counted::start(&orchestra, "well", Labels::new(), well).await;
        known(&orchestra, "cart", 2).await;
        let client = orchestra.client("cart").unwrap();
        for _ in 0..10 {
            drop(client.send(get("/")).await);
        }
        let ejections: Vec<_> = {
            let events = events.lock();
            let triggers = events.iter().filter_map(|event| match event {
                Event::Outlier {
                    id,
                    change: Change::Ejected { reason, .. },
                    ..
                } => Some((id.to_string(), *reason)),
                _ => None,
            });
            triggers.collect()
        };
        let (length, called) = (three.unwrap(), if expected.is_some() { 7 } else { 5 });
        let reason = expected.map(|trigger| Reason::Streak { trigger, length });
        let expected: Vec<_> = reason
            .map(|reason| ("bad".to_owned(), reason))
            .into_iter()
            .collect();
        assert_eq!(ejections, expected, "{bad:?}");
        assert_eq!(well.calls(), called, "{bad:?}: the rest of the ten calls");
        let counted = counter(
            &orchestra,
            "orchestra_discovery_outliers_total",
            &[("service", "cart"), ("change", "ejected")],
        );
        assert_eq!(counted, ejections.len() as u64, "{bad:?}");
        orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test]
async fn instances_are_weighed_by_the_load_that_they_report() {
    let clock = Arc::new(Hand::default());
    let orchestra = Orchestra::builder()
        .clock(Arc::clone(&clock) as _)
        .resolver(|_, config| {
            let mut reported = reported::Config::default();
            reported.blackout = Duration::ZERO;
            let turns = Arc::new(SmoothRoundRobin);
            config.balancer(turns).reported(reported)
        })
        .build()
        .await
        .unwrap();
    let load = |text| move |_| with(StatusCode::OK, "endpoint-load-metrics", text);
    let idle = load("TEXT rps_fractional=100, application_utilization=0.1");
    let idle = Counted::start(&orchestra, "idle", Labels::new(), idle).await;
    let busy = load("TEXT rps_fractional=100, application_utilization=0.9");
    let busy = Counted::start(&orchestra, "busy", Labels::new(), busy).await;
    known(&orchestra, "cart", 2).await;
    let client = orchestra.client("cart").unwrap();
    let mut shares = Vec::new();
    for _ in 0..2 {
        let before = (idle.calls(), busy.calls());
        for _ in 0..100 {
            client.send(get("/")).await.unwrap();
        }
        shares.push((idle.calls() - before.0, busy.calls() - before.1));
        clock.advance(2);
    }
    assert_eq!(shares, [(50, 50), (90, 10)]);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}
