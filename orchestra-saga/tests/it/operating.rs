//! What operators and callers meet: limits, cancelling, shutting down, stores that fail.

use std::fmt::{self, Write as _};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::executor::Cancel;
use orchestra_saga::{
    Append, Blueprint, Call, Cause, Claim, Config, Definition, Entry, Error, ErrorKind, Event,
    Executor, Failure, Filter, Holder, MemoryStore, Notice, Operation, Operator, Partition,
    Position, Recorded, Result, SagaId, SagaStore, Snapshot, Start, Status, StepName, Summary,
    Timer, Version,
};
use parking_lot::Mutex;

use crate::checkout::{Answer, World, checkout};
use crate::plain::as_if_distant;

async fn executor(store: impl SagaStore + 'static, world: &Arc<World>) -> Executor {
    let builder = Executor::builder(store).definition(checkout(world));
    builder.build().await.expect("built")
}

#[tokio::test(start_paused = true)]
async fn too_many_running_sagas_are_refused_and_room_comes_back() {
    let world = World::new();
    world.script("check", Operation::Action, &[Answer::Silence]);
    let builder = Executor::builder(MemoryStore::default()).definition(checkout(&world));
    let one = NonZeroU32::MIN;
    let executor = builder.max_running(one).build().await.expect("built");
    let first = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    let refused = executor
        .start(Start::of("checkout"))
        .await
        .expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.is_retryable());
    executor.wait(first).await.expect("ended");
    tokio::time::sleep(Duration::from_millis(1)).await;
    executor.start(Start::of("checkout")).await.expect("room");
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_takes_no_room() {
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let builder = Executor::builder(MemoryStore::default()).definition(checkout(&world));
    let one = NonZeroU32::MIN;
    let executor = builder.max_running(one).build().await.expect("built");
    let parked = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    executor.settled(parked).await.expect("parked");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(executor.running(), 0);
    let listed = executor
        .list(&Filter::of(Status::Parked))
        .await
        .expect("listed");
    assert_eq!(
        listed.iter().map(|line| line.saga).collect::<Vec<_>>(),
        [parked]
    );
    let other = executor.start(Start::of("checkout")).await.expect("room");
    executor.wait(other).await.expect("ended");
    assert_eq!(
        executor.wait(parked).await.expect("ended").status,
        Status::Completed
    );
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_cancelled_while_it_waits_for_a_retry() {
    let world = World::new();
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let mut d = Definition::builder("patient", "1");
    d.step("busy", (), move |_: Call, (): ()| {
        seen.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, _>(Failure::retryable_after("later", Duration::from_secs(20))) }
    })
    .compensate(|_: Call, (): (), _: Option<u32>| async { Ok(()) });
    let builder = Executor::builder(MemoryStore::default()).definition(checkout(&world));
    let builder = builder.definition(d.build().expect("valid"));
    let executor = builder.build().await.expect("built");
    let saga = executor.start(Start::of("patient")).await.expect("started");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    let answer = executor.cancel(saga, "customer left").await.expect("told");
    assert_eq!(answer, Cancel::Requested);
    let view = executor.wait(saga).await.expect("ended");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(view.status, Status::Compensated);
    let reason = "customer left".to_owned();
    assert_eq!(view.cause, Some(Cause::Cancelled { reason }));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let again = executor.cancel(saga, "again").await.expect("told");
    assert_eq!(again, Cancel::TooLate);
}

#[tokio::test]
async fn a_saga_whose_steps_answer_at_once_hears_that_it_is_cancelled() {
    let mut d = Definition::builder("hasty", "1");
    let mut last = d.input::<u32>();
    for number in 0..2_000 {
        let act = |_: Call, n: u32| async move { Ok(n + 1) };
        let step = d.step(&format!("step-{number}"), last, act);
        last = step.compensate(|_: Call, _: u32, _: Option<u32>| async { Ok(()) });
    }
    let builder = Executor::builder(MemoryStore::default()).definition(d.build().expect("valid"));
    let executor = builder.build().await.expect("built");
    let start = Start::of("hasty").input(&0).expect("json");
    let saga = executor.start(start).await.expect("started");
    let answer = executor.cancel(saga, "enough").await.expect("told");
    assert_eq!(answer, Cancel::Requested);
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_saga_or_definition_is_said_so() {
    let world = World::new();
    let executor = executor(MemoryStore::default(), &world).await;
    let nobody = SagaId::from_bytes([1; 16]);
    assert_eq!(
        executor.status(nobody).await.expect_err("none").kind(),
        ErrorKind::NotFound
    );
    let cancelled = executor.cancel(nobody, "x").await;
    assert_eq!(cancelled.expect_err("none").kind(), ErrorKind::NotFound);
    let history = executor.history(nobody).await;
    assert_eq!(history.expect_err("none").kind(), ErrorKind::NotFound);
    let unknown = executor
        .start(Start::of("nothing"))
        .await
        .expect_err("none");
    assert_eq!(unknown.kind(), ErrorKind::UnknownDefinition);
    assert_eq!(
        unknown.to_string(),
        "no saga definition nothing; this executor has checkout 1"
    );
    assert_eq!(executor.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_there_is_neither_resolved_nor_skipped() {
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let executor = executor(MemoryStore::default(), &world).await;
    let saga = executor.start(Start::of("checkout")).await.expect("begun");
    executor.settled(saga).await.expect("parked");
    let ada = Operator::new("ada", "told by telephone");
    let typo = StepName::new("notfy").expect("a name");
    let skipped = executor.skip(saga, &typo, Operation::Action, ada.clone());
    let refused = skipped.await.expect_err("no such step");
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.to_string().contains("no step notfy"), "{refused}");
    let notify = StepName::new("notify").expect("a name");
    let skipped = executor.skip(saga, &notify, Operation::Action, ada);
    assert!(skipped.await.expect("there"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_keeps_the_result_in_flight_and_starts_nothing() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let slow = Arc::new(tokio::sync::Notify::new());
    let begun = Arc::new(tokio::sync::Notify::new());
    let (wait, tell) = (Arc::clone(&slow), Arc::clone(&begun));
    let mut d = Definition::builder("slow", "1");
    let first = d
        .step("first", (), move |_: Call, (): ()| {
            let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
            async move {
                tell.notify_one();
                wait.notified().await;
                Ok(1u32)
            }
        })
        .read_only();
    d.step("second", first, |_: Call, n: u32| async move { Ok(n + 1) })
        .read_only();
    let d = Arc::new(d.build().expect("valid"));
    let build = || {
        let builder = Executor::builder(Arc::clone(&store)).definition(Arc::clone(&d));
        builder.definition(checkout(&world)).build()
    };
    let executor = build().await.expect("built");
    let saga = executor.start(Start::of("slow")).await.expect("started");
    begun.notified().await;
    let waiting = executor.clone();
    let waiter = async move { waiting.wait(saga).await };
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        slow.notify_one();
    };
    let (waited, (), ()) = tokio::join!(waiter, executor.shutdown(), stopping);
    assert_eq!(waited.expect_err("stopped").kind(), ErrorKind::ShuttingDown);
    let refused = executor
        .start(Start::of("slow"))
        .await
        .expect_err("stopped");
    assert_eq!(refused.kind(), ErrorKind::ShuttingDown);
    let log = store.load(saga, Version(0)).await.expect("read");
    let names: Vec<_> = log.iter().map(|recorded| recorded.event.name()).collect();
    assert_eq!(names, ["saga_started", "step_scheduled", "step_completed"]);
    let next = build().await.expect("built");
    let view = next.wait(saga).await.expect("ended");
    assert_eq!(view.output("second"), Some(&serde_json::json!(2).into()));
    assert_eq!(view.steps[0].attempts, 1);
}

/// A store that refuses so many appends, some of them after writing.
#[derive(Debug)]
struct Failing {
    store: MemoryStore,
    appends: AtomicU32,
}

#[async_trait]
impl SagaStore for Failing {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        self.store.claim(partition, owner).await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let failed = || Err(Error::new(ErrorKind::Store, "the disk is gone"));
        match self.appends.fetch_add(1, Ordering::Relaxed) % 4 {
            1 => failed(),
            3 => {
                self.store.append(claim, append).await?;
                failed()
            }
            _ => self.store.append(claim, append).await,
        }
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        self.store.load(saga, after).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.store.find_start(key).await
    }

    async fn timers(&self, of: Partition, now: Timestamp, limit: usize) -> Result<Vec<Timer>> {
        self.store.timers(of, now, limit).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.store.list(filter).await
    }

    async fn save_snapshot(&self, _: SagaId, _: Snapshot) -> Result<()> {
        Err(Error::new(ErrorKind::Store, "no room"))
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        self.store.load_snapshot(saga).await
    }

    async fn lease(&self, of: Partition, owner: &str, term: Duration) -> Result<Option<Claim>> {
        self.store.lease(of, owner, term).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.store.renew(claim, term).await
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.store.release(claim).await
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.store.holders().await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        self.store.read(after, limit).await
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        self.store.define(blueprint).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        self.store.definition(hash).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.store.purge(claim, before, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_fails_no_step() {
    let world = World::new();
    let store = Failing {
        store: MemoryStore::default(),
        appends: AtomicU32::new(0),
    };
    let mut config = Config::default();
    config.persistence.snapshot_every = 1;
    let builder = Executor::builder(store).definition(checkout(&world));
    let executor = builder.config(config).build().await.expect("built");
    let saga = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
    assert!(world.effects().values().all(|count| *count == 1));
    assert_eq!(world.effects().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_read_in_place_of_the_log_and_only_if_intact() {
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let store = Arc::new(MemoryStore::default());
    let distant = as_if_distant(Arc::clone(&store));
    let builder = Executor::builder(distant).definition(checkout(&world));
    let mut config = Config::default();
    config.persistence.snapshot_every = 1;
    let executor = builder.config(config).build().await.expect("built");
    let saga = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    let parked = executor.settled(saga).await.expect("parked");
    let snapshot = store
        .load_snapshot(saga)
        .await
        .expect("read")
        .expect("kept");
    assert!(snapshot.version <= parked.version && snapshot.version > Version(1));

    let torn = Snapshot {
        hash: [0; 32],
        ..snapshot.clone()
    };
    store.save_snapshot(saga, torn).await.expect("saved");
    assert_eq!(executor.status(saga).await.expect("from the log"), parked);
    let mut text = String::from_utf8(snapshot.bytes).expect("json");
    // What earlier versions kept had other fields, of which a later one would see half.
    let earlier = text.replace("check done", "another output");
    let earlier = earlier.replace("\"folded\":", "\"state\":");
    let earlier = Snapshot::new(snapshot.version, earlier.into_bytes());
    store.save_snapshot(saga, earlier).await.expect("saved");
    assert_eq!(executor.status(saga).await.expect("from the log"), parked);
    text = text.replace("check done", "another output");
    let forged = Snapshot::new(snapshot.version, text.into_bytes());
    store.save_snapshot(saga, forged).await.expect("saved");
    let view = executor.status(saga).await.expect("from the snapshot");
    assert_eq!(
        view.output("check"),
        Some(&serde_json::json!("another output").into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_definition_continues_nothing_and_says_so() {
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let store = Arc::new(MemoryStore::default());
    let first = executor(Arc::clone(&store), &world).await;
    let saga = first.start(Start::of("checkout")).await.expect("started");
    first.settled(saga).await.expect("parked");
    first.shutdown().await;

    let mut d = Definition::builder("checkout", "1");
    d.step("check", (), |_: Call, (): ()| async { Ok(1) })
        .read_only();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let listener = move |notice: &Notice<'_>| {
        if let Notice::Unrecoverable { saga, error } = notice {
            hearing.lock().push((*saga, error.kind()));
        }
    };
    let builder = Executor::builder(Arc::clone(&store)).definition(d.build().expect("valid"));
    let second = builder.listener(listener).build().await.expect("built");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(*heard.lock(), [(saga, ErrorKind::DefinitionChanged)]);
    let status = second.status(saga).await;
    assert_eq!(
        status.expect_err("changed").kind(),
        ErrorKind::DefinitionChanged
    );
    // One asks first, and the other while the log is read for it.
    let (one, other) = tokio::join!(second.cancel(saga, "a"), second.cancel(saga, "b"));
    for asked in [one, other] {
        let kind = asked.expect_err("changed").kind();
        assert_eq!(kind, ErrorKind::DefinitionChanged);
    }
    let open = second.list(&Filter::open()).await.expect("listed");
    assert_eq!(open.len(), 1);
}

/// Hears errors, as a subscriber of `tracing`.
struct Errors(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                let _infallible = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_is_an_error_in_the_log() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let _listening = tracing::subscriber::set_default(Errors(Arc::clone(&told)));
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let executor = executor(MemoryStore::default(), &world).await;
    let saga = executor.start(Start::of("checkout")).await.expect("begun");
    executor.settled(saga).await.expect("parked");
    let told = told.lock();
    let [line] = &told[..] else {
        panic!("one line, not {told:?}");
    };
    for part in [&*format!("saga={saga}"), "step=notify", "op=action"] {
        assert!(line.contains(part), "{line} names {part}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_listener_hears_every_event_in_order() {
    let world = World::new();
    world.script("charge", Operation::Action, &[Answer::Rejected]);
    let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    let listener = move |notice: &Notice<'_>| {
        if let Notice::Appended { events, .. } = notice {
            hearing.lock().extend_from_slice(events);
        }
    };
    let builder = Executor::builder(MemoryStore::default()).definition(checkout(&world));
    let executor = builder.listener(listener).build().await.expect("built");
    let saga = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    executor.wait(saga).await.expect("ended");
    let history = executor.history(saga).await.expect("read");
    let logged: Vec<_> = history.into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(*heard.lock(), logged);
}
