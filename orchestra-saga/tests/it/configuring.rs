//! The knobs of the design, each turned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Backoff;
use orchestra_saga::{
    Call, Caller, Cause, Config, Definition, ErrorKind, Event, Executor, Failure, Filter, Handle,
    MemoryStore, Retry, SagaStore, Start, Status, StepOutcome, StepRequest, Unwind,
};
use parking_lot::Mutex;

use crate::plain::as_if_distant;

async fn executor(config: Config, definition: Definition) -> Executor {
    let builder = Executor::builder(MemoryStore::default()).config(config);
    builder.definition(definition).build().await.expect("built")
}

/// A step that is always busy, and how often it was asked.
fn busy(config: &Config) -> (Definition, Arc<AtomicU32>) {
    let asked = Arc::<AtomicU32>::default();
    let mut d = Definition::builder("busy", "1").config(config);
    let first = d
        .step("first", (), |_: Call, (): ()| async { Ok(1) })
        .compensate(|_: Call, (): (), _: Option<u32>| async { Ok(()) });
    let counts = Arc::clone(&asked);
    d.step("second", first, move |_: Call, _: u32| {
        counts.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, _>(Failure::retryable("busy: quota of the day")) }
    })
    .compensate(|_: Call, _: u32, _: Option<u32>| async { Ok(()) });
    (d.build().expect("valid"), asked)
}

async fn run(config: Config, definition: Definition) -> orchestra_saga::SagaView {
    let executor = executor(config, definition).await;
    let saga = executor.start(Start::of("busy")).await.expect("started");
    executor.settled(saga).await.expect("settled")
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = Config::default();
    let secs = Duration::from_secs;
    assert_eq!(config.execution.timeout, Some(secs(300)));
    assert_eq!(config.execution.step_timeout, secs(30));
    assert_eq!(config.execution.retry.max_retries(), 3);
    assert!(config.compensation.is_enabled && config.compensation.is_parallel);
    assert_eq!(config.compensation.timeout, secs(60));
    assert_eq!(config.compensation.retry.max_retries(), 2);
    assert!(config.persistence.is_enabled);
    assert_eq!(config.persistence.snapshot_every, 5);
}

#[tokio::test(start_paused = true)]
async fn no_retry_is_a_number_of_retries() {
    for retries in [0, 2] {
        let mut config = Config::default();
        config.execution.retry = config.execution.retry.with_retries(retries);
        let (definition, asked) = busy(&config);
        assert_eq!(run(config, definition).await.status, Status::Compensated);
        assert_eq!(asked.load(Ordering::Relaxed), retries + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_growth_of_delays_is_as_told() {
    let mut config = Config::default();
    let backoff = Backoff::linear(Duration::from_secs(1)).jitter(orchestra_core::Jitter::None);
    config.execution.retry = Retry::new(3, backoff);
    let begun = tokio::time::Instant::now();
    let (definition, _) = busy(&config);
    run(config, definition).await;
    assert_eq!(begun.elapsed().as_secs(), 6, "1 + 2 + 3");
}

#[tokio::test(start_paused = true)]
async fn a_saga_without_time_goes_back_at_once_and_one_without_limit_does_not() {
    let waits = |config: &Config| {
        let mut d = Definition::builder("busy", "1").config(config);
        let first = d
            .step("first", (), |_: Call, (): ()| async { Ok(1) })
            .compensate(|_: Call, (): (), _: Option<u32>| async { Ok(()) });
        let slept = d.sleep("nap", first, Duration::from_secs(200));
        let told = d.signal("told", slept, "go", None);
        d.step("last", told, |_: Call, (): ()| async { Ok(1) })
            .read_only();
        d.build().expect("valid")
    };
    let mut config = Config::default();
    let begun = tokio::time::Instant::now();
    let view = run(config, waits(&config)).await;
    assert_eq!(view.cause, Some(Cause::TimedOut));
    assert_eq!(begun.elapsed().as_secs(), 300);
    config.execution.timeout = Some(Duration::ZERO);
    let begun = tokio::time::Instant::now();
    let view = run(config, waits(&config)).await;
    assert_eq!(view.cause, Some(Cause::TimedOut));
    assert!(begun.elapsed() < Duration::from_secs(1));
    config.execution.timeout = None;
    let executor = executor(config, waits(&config)).await;
    let saga = executor.start(Start::of("busy")).await.expect("started");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    executor.signal(saga, "go", None, &()).await.expect("told");
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_slower_than_its_time_is_unknown() {
    let mut config = Config::default();
    config.execution.step_timeout = Duration::from_secs(2);
    let mut d = Definition::builder("busy", "1").config(&config);
    d.step("slow", (), |_: Call, (): ()| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(1)
    })
    .compensate(|_: Call, (): (), _: Option<u32>| async { Ok(()) });
    let begun = tokio::time::Instant::now();
    let view = run(config, d.build().expect("valid")).await;
    assert_eq!(view.status, Status::Compensated);
    assert!(matches!(view.cause, Some(Cause::Unknown { .. })));
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_way_back_a_failure_is_parked() {
    let mut config = Config::default();
    config.compensation.is_enabled = false;
    let (definition, _) = busy(&config);
    let view = run(config, definition).await;
    assert_eq!(view.status, Status::Parked);
    assert_eq!(config.compensation.unwind(), Unwind::Never);
}

#[tokio::test(start_paused = true)]
async fn branches_are_undone_together_or_one_after_the_other() {
    for (is_parallel, together) in [(true, 2), (false, 1)] {
        let mut config = Config::default();
        config.compensation.is_parallel = is_parallel;
        let (now, most) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let mut d = Definition::builder("busy", "1").config(&config);
        let mut branch = |name: &str| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            d.step(name, (), |_: Call, (): ()| async { Ok(1) })
                .compensate(move |_: Call, (): (), _: Option<u32>| {
                    let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                    async move {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    }
                })
        };
        let (left, right): (Handle<u32>, Handle<u32>) = (branch("left"), branch("right"));
        d.step("join", (left, right), |_: Call, _: (u32, u32)| async {
            Err::<u32, _>(Failure::rejected("no"))
        })
        .read_only();
        run(config, d.build().expect("valid")).await;
        assert_eq!(most.load(Ordering::SeqCst), together);
    }
}

#[tokio::test(start_paused = true)]
async fn compensations_are_tried_as_often_and_as_long_as_told() {
    for (retries, limit) in [(0, 60), (4, 60), (1, 2)] {
        let mut config = Config::default();
        let backoff = Backoff::fixed(Duration::from_millis(10));
        config.compensation.retry = Retry::new(retries, backoff);
        config.compensation.timeout = Duration::from_secs(limit);
        let (asked, longest) = (
            Arc::<AtomicU32>::default(),
            Arc::<Mutex<Duration>>::default(),
        );
        let mut d = Definition::builder("busy", "1").config(&config);
        let (counts, times) = (Arc::clone(&asked), Arc::clone(&longest));
        let first = d
            .step("first", (), |_: Call, (): ()| async { Ok(1) })
            .compensate(move |_: Call, (): (), _: Option<u32>| {
                counts.fetch_add(1, Ordering::Relaxed);
                let times = Arc::clone(&times);
                async move {
                    let begun = tokio::time::Instant::now();
                    let watch = Watch(begun, times);
                    tokio::time::sleep(Duration::from_secs(3_600)).await;
                    drop(watch);
                    Ok(())
                }
            });
        d.step("second", first, |_: Call, _: u32| async {
            Err::<u32, _>(Failure::rejected("no"))
        })
        .read_only();
        let view = run(config, d.build().expect("valid")).await;
        assert_eq!(view.status, Status::Parked);
        assert_eq!(asked.load(Ordering::Relaxed), retries + 1);
        let share = Duration::from_secs(limit) / (retries + 1);
        assert_eq!(longest.lock().as_millis(), share.as_millis());
    }
}

/// Notes how long it lived.
struct Watch(tokio::time::Instant, Arc<Mutex<Duration>>);

impl Drop for Watch {
    fn drop(&mut self) {
        *self.1.lock() = self.0.elapsed();
    }
}

#[tokio::test(start_paused = true)]
async fn without_persistence_the_store_is_not_touched() {
    let given = Arc::<MemoryStore>::default();
    let mut config = Config::default();
    config.persistence.is_enabled = false;
    let (definition, _) = busy(&config);
    let builder = Executor::builder(Arc::clone(&given)).config(config);
    let executor = builder.definition(definition).build().await.expect("built");
    let view = executor.run(Start::of("busy")).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
    assert!(
        given
            .list(&Filter::default())
            .await
            .expect("listed")
            .is_empty()
    );
    assert!(given.holders().await.expect("listed").is_empty());
}

fn chain(steps: usize) -> Definition {
    let mut d = Definition::builder("chain", "1");
    let mut last = d.input::<u32>();
    for number in 0..steps {
        let step = d.step(
            &format!("step-{number}"),
            last,
            |_: Call, n: u32| async move { Ok(n) },
        );
        last = step.compensate(|_: Call, _: u32, _: Option<u32>| async { Ok(()) });
    }
    let nap = d.sleep("nap", last, Duration::from_secs(60));
    d.step("last", nap, |_: Call, (): ()| async { Ok(1) })
        .read_only();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_kept_every_so_many_steps() {
    for (every, steps, kept) in [
        (0, 12, None),
        (5, 4, None),
        (5, 5, Some(5)),
        (5, 12, Some(10)),
        (3, 12, Some(9)),
    ] {
        let store = Arc::<MemoryStore>::default();
        let mut config = Config::default();
        config.persistence.snapshot_every = every;
        let builder = Executor::builder(as_if_distant(Arc::clone(&store))).config(config);
        let executor = builder
            .definition(chain(steps))
            .build()
            .await
            .expect("built");
        let start = Start::of("chain").input(&1).expect("json");
        let saga = executor.start(start).await.expect("started");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let snapshot = store.load_snapshot(saga).await.expect("read");
        let log = store
            .load(saga, orchestra_saga::Version(0))
            .await
            .expect("read");
        let done = snapshot.map(|snapshot| {
            let before = log
                .iter()
                .take_while(|recorded| recorded.version <= snapshot.version);
            before
                .filter(|recorded| matches!(recorded.event, Event::StepCompleted { .. }))
                .count()
        });
        assert_eq!(done, kept, "every {every} of {steps}");
        executor.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_snapshot_is_taken_of_what_is_read_as_fast() {
    let store = Arc::<MemoryStore>::default();
    let builder = Executor::builder(Arc::clone(&store)).definition(chain(12));
    let executor = builder.build().await.expect("built");
    let start = Start::of("chain").input(&1).expect("json");
    let saga = executor.run(start).await.expect("ran").id;
    assert_eq!(store.load_snapshot(saga).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn some_errors_are_not_tried_again() {
    for (text, times) in [("quota", 1), ("disk", 4)] {
        let asked = Arc::<AtomicU32>::default();
        let counts = Arc::clone(&asked);
        let mut d = Definition::builder("busy", "1");
        d.step("only", (), move |_: Call, (): ()| {
            counts.fetch_add(1, Ordering::Relaxed);
            async { Err::<u32, _>(Failure::retryable("busy: quota of the day")) }
        })
        .non_retryable([text])
        .read_only();
        let view = run(Config::default(), d.build().expect("valid")).await;
        assert!(matches!(view.cause, Some(Cause::Rejected { .. })));
        assert_eq!(asked.load(Ordering::Relaxed), times, "{text}");
    }
}

/// Answers every request the same, and counts.
#[derive(Debug)]
struct Refusing(Arc<AtomicU32>);

#[async_trait]
impl Caller for Refusing {
    async fn call(&self, _: StepRequest) -> StepOutcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        let reason = "429: quota of the day".to_owned();
        StepOutcome::Retryable {
            reason,
            after: None,
        }
    }
}

const DOCUMENT: &str = r#"{
    "id": "busy", "version": "1",
    "steps": [
        { "name": "nap", "sleep_ms": 10000 },
        { "name": "ask", "service": "bank", "method": "GET", "endpoint": "/", "kind": "read_only" }
    ]
}"#;

#[tokio::test(start_paused = true)]
async fn documents_go_by_the_configuration_where_they_say_nothing() {
    let mut config = Config::default();
    config.execution.retry = config.execution.retry.with_retries(1);
    let with = |member: &str| DOCUMENT.replace(r#""kind""#, &format!("{member}, \"kind\""));
    for (text, times) in [
        (DOCUMENT.to_owned(), 2),
        (with(r#""retries": 6"#), 7),
        (with(r#""retries": 6, "non_retryable": ["quota"]"#), 1),
    ] {
        let asked = Arc::<AtomicU32>::default();
        let definition = Definition::from_json_with(&text, &config).expect("valid");
        let builder =
            Executor::builder(MemoryStore::default()).caller(Refusing(Arc::clone(&asked)));
        let executor = builder.definition(definition).build().await.expect("built");
        executor.run(Start::of("busy")).await.expect("ended");
        assert_eq!(asked.load(Ordering::Relaxed), times, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_of_the_store_goes_by_the_configuration_of_the_executor() {
    let store = Arc::<MemoryStore>::default();
    let asked = Arc::<AtomicU32>::default();
    let build = async |text: &str, config: Config| {
        let definition = Definition::from_json_with(text, &config).expect("valid");
        let builder = Executor::builder(Arc::clone(&store)).config(config);
        let builder = builder.caller(Refusing(Arc::clone(&asked)));
        builder.definition(definition).build().await.expect("built")
    };
    let mut config = Config::default();
    config.execution.retry = config.execution.retry.with_retries(4);
    let first = build(DOCUMENT, config).await;
    let saga = first.start(Start::of("busy")).await.expect("started");
    first.shutdown().await;
    let second = build(&DOCUMENT.replace("bank", "shop"), config).await;
    second.wait(saga).await.expect("ended");
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    let wrong = Definition::from_json_with(&DOCUMENT.replace("kind", "kinds"), &config);
    assert_eq!(
        wrong.expect_err("refused").kind(),
        ErrorKind::InvalidDefinition
    );
}

/// A change of the configuration refuses new definitions; a saga in flight has the deadline that it began with.
#[tokio::test(start_paused = true)]
async fn a_saga_in_flight_goes_on_though_its_pause_is_now_too_long() {
    const PATIENT: &str = r#"{
        "id": "patient", "version": "1",
        "steps": [
            { "name": "nap", "sleep_ms": 600000 },
            { "name": "ask", "signal": "go", "timeout_ms": 1000, "kind": "read_only" }
        ]
    }"#;
    let store = Arc::<MemoryStore>::default();
    let build = async |config: Config, text: &str| {
        let definition = Definition::from_json_with(text, &config).expect("valid");
        let builder = Executor::builder(Arc::clone(&store)).config(config);
        builder.definition(definition).build().await.expect("built")
    };
    let mut config = Config::default();
    config.execution.timeout = None;
    let first = build(config, PATIENT).await;
    let saga = first.start(Start::of("patient")).await.expect("started");
    first.shutdown().await;
    config = Config::default();
    let refused = Definition::from_json_with(PATIENT, &config).expect_err("too long");
    assert_eq!(refused.kind(), ErrorKind::InvalidDefinition);
    let second = build(config, &PATIENT.replace("600000", "100")).await;
    second.signal(saga, "go", None, &3).await.expect("told");
    let view = second.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
}
