//! Lines of the `tracing` layer.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Timestamp, WallClock};
use orchestra_observe::{LogLayer, Masker, Tracer, layer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{Level, error, info, info_span, span, warn};
use tracing_subscriber::layer::SubscriberExt;

#[derive(Debug, Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Noon;

impl WallClock for Noon {
    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(43_200)
    }
}

fn text(max_line: usize, body: impl FnOnce()) -> String {
    let paper = Paper::default();
    let layer = LogLayer::builder()
        .wall_clock(Arc::new(Noon))
        .masker(Arc::new(Masker::new().deny("diagnosis")))
        .max_line(max_line)
        .build(paper.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, body);
    let bytes = paper.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

fn lines(body: impl FnOnce()) -> Vec<Value> {
    let text = text(16 * 1024, body);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_event_is_one_line_of_json() {
    let text = text(4096, || {
        info!(target: "shop::orders", order = 41, ok = true, ratio = 0.5, "accepted \"x\"\n");
    });
    assert_eq!(
        text,
        "{\"time\":\"1970-01-01T12:00:00.000000Z\",\"level\":\"INFO\",\"target\":\"shop::orders\",\
         \"message\":\"accepted \\\"x\\\"\\n\",\
         \"fields\":{\"order\":41,\"ok\":true,\"ratio\":0.5}}\n"
    );
}

#[test]
fn what_json_has_no_number_for_is_a_text() {
    let lines = lines(|| {
        info!(
            nan = f64::NAN,
            wide = u128::MAX,
            inf = f64::INFINITY,
            n = -1
        );
    });
    let expected = json!({"nan": "NaN", "wide": u128::MAX.to_string(), "inf": "inf", "n": -1});
    assert_eq!(lines[0]["fields"], expected);
}

#[derive(Debug)]
struct Outer(io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("login failed")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "read by Debug")]
struct Login {
    user: &'static str,
    password: Option<&'static str>,
}

/// Everywhere a secret can come in.
fn leak() {
    let span = info_span!(
        "login of",
        user = "ada@example.org",
        api_key = "plain-secret-1",
        later = tracing::field::Empty,
        token = tracing::field::Empty,
    );
    let _entered = span.enter();
    span.record("later", "password=plain-secret-2");
    span.record("token", "plain-secret-3");
    let login = Login {
        user: "bob@example.org",
        password: Some("plain-secret-4"),
    };
    let source = io::Error::other("postgres://app:plain-secret-5@db");
    let error = Outer(source);
    let chain: &(dyn std::error::Error + 'static) = &error;
    warn!(
        ?login,
        card = 4_111_111_111_111_111_u64,
        wide = 4_111_111_111_111_111_u128,
        cause = chain,
        diagnosis = "plain-secret-6",
        pin = 1234,
        "cookie: plain-secret-7; b=plain-secret-8",
    );
    error!(header = %"Authorization: Bearer plain-secret-9", "no");
}

#[test]
fn no_secret_reaches_the_writer_from_anywhere() {
    let text = text(16 * 1024, leak);
    for secret in ["plain-secret", "example.org", "4111", "1234"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("login failed: postgres://[masked:userinfo]@db"));
    assert!(text.contains("[masked:card]"));
}

#[test]
fn fields_of_spans_stand_in_the_lines_below_them() {
    let lines = lines(|| {
        let outer = info_span!("request", route = "/orders", status = tracing::field::Empty);
        let _outer = outer.enter();
        let _inner = info_span!("charge", attempt = 1).entered();
        outer.record("status", 201);
        outer.record("route", "/orders/41");
        info!("done");
    });
    assert_eq!(
        lines[0]["spans"],
        json!([
            {"name": "request", "fields": {"route": "/orders/41", "status": 201}},
            {"name": "charge", "fields": {"attempt": 1}},
        ])
    );
}

#[test]
fn lines_within_a_trace_carry_its_ids() {
    let tracer = Tracer::builder().build();
    let span = tracer.span("checkout").start();
    let trace = span.context().trace_id().to_string();
    let id = span.context().span_id().to_string();
    let lines = lines(|| {
        info!("before");
        let _entered = layer::log_span(&span).entered();
        let _inner = info_span!("inner").entered();
        info!("within");
        info!(trace_id = "not an id", "still within");
    });
    assert_eq!(lines[0].get("trace_id"), None);
    for line in &lines[1..] {
        assert_eq!(line["trace_id"], trace.as_str());
        assert_eq!(line["span_id"], id.as_str());
    }
    assert_eq!(lines[2]["fields"]["trace_id"], "not an id");
}

#[test]
fn two_layers_mask_each_by_its_own_rules() {
    let (strict, plain) = (Paper::default(), Paper::default());
    let masker = Arc::new(Masker::new().deny("diagnosis"));
    let first = LogLayer::builder().masker(masker).build(strict.clone());
    let subscriber = tracing_subscriber::registry()
        .with(first)
        .with(LogLayer::new(plain.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let span = info_span!("visit", diagnosis = "flu", room = tracing::field::Empty).entered();
        span.record("room", 3);
        info!("seen");
    });
    let fields = |paper: &Paper| {
        let line: Value = serde_json::from_slice(&paper.0.lock()).unwrap();
        line["spans"][0]["fields"].clone()
    };
    assert_eq!(fields(&strict), json!({"diagnosis": "[masked]", "room": 3}));
    assert_eq!(fields(&plain), json!({"diagnosis": "flu", "room": 3}));
}

#[test]
fn a_line_is_never_longer_than_allowed_and_always_json() {
    for max in [1024, 2048, 5000] {
        for (length, fill) in [(10, "x"), (900, "\u{1}"), (5_000, "ä\""), (100_000, "y")] {
            let value = fill.repeat(length);
            let text = text(max, || {
                let _outer = span!(Level::INFO, "outer", a = %value, b = 1).entered();
                let _inner = span!(Level::INFO, "inner", c = %value).entered();
                info!(d = %value, e = %value, f = 2, "{value}");
            });
            assert!(text.len() <= max, "{} of {max}", text.len());
            let line: Value = serde_json::from_str(text.trim_end()).unwrap();
            let cut = length > max;
            assert!(!cut || line["truncated"] == true || text.contains("[truncated]"));
        }
    }
}

#[test]
fn a_writer_that_fails_costs_the_line_and_is_counted() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("disk full"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let layer = LogLayer::new(Broken);
    let subscriber = tracing_subscriber::registry().with(layer.clone());
    tracing::subscriber::with_default(subscriber, || {
        info!("one");
        info!("two");
    });
    assert_eq!(layer.lost(), 2);
}

#[test]
fn lines_of_many_threads_do_not_mix() {
    let paper = Paper::default();
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(paper.clone()));
    let dispatch = tracing::Dispatch::new(subscriber);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dispatch = &dispatch;
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || {
                    for round in 0..500 {
                        info!(thread, round, "x");
                    }
                });
            });
        }
    });
    let text = String::from_utf8(paper.0.lock().clone()).unwrap();
    let parsed = text.lines().map(serde_json::from_str::<Value>);
    let rounds = parsed.map(|line| line.unwrap()["fields"]["round"].as_u64().unwrap());
    assert_eq!(rounds.sum::<u64>(), 4 * (0..500).sum::<u64>());
}
