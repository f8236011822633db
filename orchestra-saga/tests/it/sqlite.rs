//! What is particular to the store in one file.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::event::Started;
use orchestra_saga::{
    Append, Claim, ErrorKind, Event, Filter, MemoryStore, Partition, Position, Result, SagaId,
    SagaStore, Snapshot, SqliteStore, Status, Version,
};
use proptest::prelude::*;

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_nanos(second * 1_000_000_000)
}

fn saga(number: u8) -> SagaId {
    SagaId::from_parts(at(1_000 + u64::from(number)), u128::from(number))
}

fn started() -> Event {
    let started = Started::new("model", "1", "none", orchestra_saga::Payload::default());
    Event::SagaStarted(Arc::new(started))
}

fn note(text: impl Into<String>) -> Event {
    Event::SagaCancelRequested {
        reason: text.into(),
    }
}

/// Something that is done to a store.
#[derive(Debug, Clone)]
enum Act {
    Claim(u8),
    Append(Batch),
    Snapshot(u8, u8),
    Purge(u8, u64, usize),
    /// Closed and opened again, or only dropped, as a process does that ends.
    Reopen,
}

#[derive(Debug, Clone)]
struct Batch {
    saga: u8,
    /// Which of the claims made so far, the last first.
    claim: usize,
    /// How far from the version that the saga has.
    off: u64,
    events: u8,
    begins: bool,
    key: Option<u8>,
    status: usize,
    at: u64,
    wake: Option<u64>,
}

fn batch() -> impl Strategy<Value = Batch> {
    let often = |value: u64, other: u64| prop_oneof![9 => Just(value), 1 => Just(other)];
    (
        (
            0..6_u8,
            prop_oneof![8 => Just(0), 2 => 0..4_usize],
            often(0, 1),
        ),
        (1..4_u8, prop_oneof![9 => Just(true), 1 => Just(false)]),
        proptest::option::of(0..4_u8),
        (0..5_usize, 0..20_u64, proptest::option::of(0..20_u64)),
    )
        .prop_map(
            |((saga, claim, off), (events, begins), key, (status, at, wake))| Batch {
                saga,
                claim,
                off,
                events,
                begins,
                key,
                status,
                at,
                wake,
            },
        )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0..2_u8).prop_map(Act::Claim),
        12 => batch().prop_map(Act::Append),
        1 => (0..6_u8, any::<u8>()).prop_map(|(saga, byte)| Act::Snapshot(saga, byte)),
        1 => (0..4_u8, 0..25_u64, 0..4_usize).prop_map(|(claim, at, limit)| Act::Purge(claim, at, limit)),
        1 => Just(Act::Reopen),
    ]
}

/// A store beside the model of it.
struct Pair {
    model: MemoryStore,
    store: SqliteStore,
    claims: Vec<Claim>,
    begun: HashSet<u8>,
}

impl Pair {
    async fn act(&mut self, path: &Path, act: Act) {
        match act {
            Act::Claim(partition) => self.claim(partition).await,
            Act::Append(batch) => self.append(batch).await,
            Act::Snapshot(number, byte) => {
                let snapshot = Snapshot::new(Version(1), vec![byte]);
                let (saga, again) = (saga(number), snapshot.clone());
                self.model
                    .save_snapshot(saga, snapshot)
                    .await
                    .expect("saved");
                self.store.save_snapshot(saga, again).await.expect("saved");
            }
            Act::Purge(claim, before, limit) => {
                let claim = self.chosen(usize::from(claim));
                let model = self.model.purge(claim, at(before), limit).await;
                let store = self.store.purge(claim, at(before), limit).await;
                // Which of several go first is not a law, so all go.
                assert_eq!(told(&store), told(&model));
                if model.is_ok() {
                    let model = self.model.purge(claim, at(before), 100).await;
                    let store = self.store.purge(claim, at(before), 100).await;
                    assert_eq!(told(&store), told(&model));
                }
            }
            Act::Reopen => {
                self.store.close().await.expect("closed");
                self.store = SqliteStore::open(path).await.expect("opened");
            }
        }
    }

    async fn claim(&mut self, partition: u8) {
        let partition = Partition(u32::from(partition));
        let model = self.model.claim(partition, "test").await.expect("claimed");
        let store = self.store.claim(partition, "test").await.expect("claimed");
        assert_eq!(store, model);
        self.claims.push(model);
    }

    fn chosen(&self, number: usize) -> Claim {
        let number = number % self.claims.len();
        self.claims[self.claims.len() - 1 - number]
    }

    async fn append(&mut self, batch: Batch) {
        let log = self.model.load(saga(batch.saga), Version(0)).await;
        let version = log.expect("read").len() as u64;
        if version == 0 && self.begun.contains(&batch.saga) {
            // An id that was purged is never used again.
            return;
        }
        let mut events: Vec<_> = (0..batch.events)
            .map(|number| note(format!("{number} '\u{fc}\u{0}")))
            .collect();
        if version == 0 && batch.begins {
            events[0] = started();
        }
        let key = batch.key.map(|key| format!("key-{key}"));
        let key = key.map(|key| IdempotencyKey::new(key).expect("valid"));
        let expected = Version(version + batch.off);
        let append = Append::new(saga(batch.saga), expected, at(batch.at), events)
            .status(Status::ALL[batch.status])
            .wake(batch.wake.map(at))
            .start_key(key.filter(|_| version == 0));
        let claim = self.chosen(batch.claim);
        let model = self.model.append(claim, &append).await;
        let store = self.store.append(claim, &append).await;
        assert_eq!(told(&store), told(&model), "{append:?}");
        if store.is_ok() {
            self.begun.insert(batch.saga);
        }
    }

    /// Everything that can be read is the same.
    async fn compare(&self) {
        let (store, model) = (&self.store, &self.model);
        for number in 0..6 {
            for after in [0, 1, 4] {
                let found = store.load(saga(number), Version(after)).await;
                let wanted = model.load(saga(number), Version(after)).await;
                assert_eq!(found.expect("read"), wanted.expect("read"));
            }
            let found = store.load_snapshot(saga(number)).await.expect("read");
            assert_eq!(
                found,
                model.load_snapshot(saga(number)).await.expect("read")
            );
        }
        for number in 0..4 {
            let key = IdempotencyKey::new(format!("key-{number}")).expect("valid");
            let found = store.find_start(&key).await.expect("read");
            assert_eq!(found, model.find_start(&key).await.expect("read"));
        }
        let mut filters = vec![Filter::default(), Filter::open(), Filter::open().limit(2)];
        filters.extend(Status::ALL.map(Filter::of));
        filters.push(
            Filter::default()
                .partition(Partition(1))
                .after(Some(saga(1))),
        );
        for filter in filters {
            let found = store.list(&filter).await.expect("read");
            assert_eq!(
                found,
                model.list(&filter).await.expect("read"),
                "{filter:?}"
            );
        }
        for (partition, now, limit) in [(0, 30, 9), (1, 30, 9), (0, 10, 2)] {
            let partition = Partition(partition);
            let found = store.timers(partition, at(now), limit).await.expect("read");
            let wanted = model.timers(partition, at(now), limit).await;
            assert_eq!(found, wanted.expect("read"));
        }
        assert_eq!(stream(store).await, stream(model).await);
    }
}

/// What the stream passes, in pieces.
async fn stream(store: &dyn SagaStore) -> Vec<(SagaId, orchestra_saga::Recorded)> {
    let (mut position, mut passed) = (Position::START, Vec::new());
    loop {
        let entries = store.read(position, 3).await.expect("read");
        let Some(last) = entries.last() else {
            return passed;
        };
        assert!(entries.iter().all(|entry| entry.position > position));
        position = last.position;
        passed.extend(
            entries
                .into_iter()
                .map(|entry| (entry.saga, entry.recorded)),
        );
    }
}

type Told<T> = std::result::Result<T, (ErrorKind, Option<SagaId>, Option<orchestra_saga::Epoch>)>;

/// An answer, an error by what it means.
fn told<T: Clone>(answer: &Result<T>) -> Told<T> {
    match answer {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err((error.kind(), error.saga(), error.epoch())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_answers_as_the_store_in_memory(acts in proptest::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("built").block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("sagas.db");
            let store = SqliteStore::open(&path).await.expect("opened");
            let mut pair = Pair { model: MemoryStore::default(), store, claims: Vec::new(), begun: HashSet::new() };
            pair.claim(1).await;
            pair.claim(0).await;
            for (number, act) in acts.into_iter().enumerate() {
                pair.act(&path, act).await;
                if number % 8 == 0 {
                    pair.compare().await;
                }
            }
            pair.compare().await;
        });
    }
}

async fn opened() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(directory.path().join("sagas.db")).await;
    (directory, store.expect("opened"))
}

#[tokio::test]
async fn a_position_is_not_given_again_after_a_purge() {
    let (directory, store) = opened().await;
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    let ended = Append::new(saga(1), Version(0), at(1), vec![started()]);
    let ended = ended.status(Status::Completed);
    store.append(claim, &ended).await.expect("appended");
    let passed = store.read(Position::START, 9).await.expect("read");
    let seen = passed[0].position;
    assert_eq!(store.purge(claim, at(2), 9).await.expect("purged"), 1);
    store.close().await.expect("closed");

    let store = SqliteStore::open(directory.path().join("sagas.db")).await;
    let store = store.expect("opened");
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    let next = Append::new(saga(2), Version(0), at(3), vec![started()]);
    store.append(claim, &next).await.expect("appended");
    let passed = store.read(seen, 9).await.expect("read");
    assert_eq!(passed.len(), 1, "what came after what was seen is passed");
}

#[tokio::test]
async fn a_purge_forgets_many_in_pieces() {
    let (_directory, store) = opened().await;
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    for number in 0..200 {
        let append = Append::new(saga(number), Version(0), at(1), vec![started()]);
        store.append(claim, &append).await.expect("appended");
        for version in 1..6 {
            let append = Append::new(saga(number), Version(version), at(1), vec![note("more")]);
            let append = append.status(Status::Completed);
            store.append(claim, &append).await.expect("appended");
        }
    }
    assert_eq!(store.purge(claim, at(2), 150).await.expect("purged"), 150);
    assert_eq!(store.purge(claim, at(2), 150).await.expect("purged"), 50);
    let left = store.list(&Filter::default()).await.expect("read");
    assert_eq!(left, []);
    assert_eq!(store.read(Position::START, 9).await.expect("read"), []);
}

#[tokio::test]
async fn another_layout_is_named_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sagas.db");
    let file = rusqlite::Connection::open(&path).expect("opened");
    let old = "CREATE TABLE saga (id INTEGER PRIMARY KEY); PRAGMA user_version = 1";
    file.execute_batch(old).expect("written");
    drop(file);
    let error = SqliteStore::open(&path).await.expect_err("an old layout");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains("has layout 1, not 2"), "{text}");
}

#[tokio::test]
async fn a_frame_that_is_missing_or_changed_is_noticed() {
    for damage in [
        "DELETE FROM frame WHERE position = 2",
        "UPDATE frame SET body = '[]' WHERE position = 2",
        "UPDATE frame SET body = '[' WHERE position = 2",
        "UPDATE saga SET version = 4",
    ] {
        let (directory, store) = opened().await;
        let claim = store.claim(Partition(0), "test").await.expect("claimed");
        let append = Append::new(saga(1), Version(0), at(1), vec![started()]);
        store.append(claim, &append).await.expect("appended");
        for version in 1..3 {
            let append = Append::new(saga(1), Version(version), at(1), vec![note("more")]);
            store.append(claim, &append).await.expect("appended");
        }
        store.close().await.expect("closed");
        let file = rusqlite::Connection::open(directory.path().join("sagas.db"));
        let file = file.expect("opened");
        assert_eq!(file.execute(damage, []).expect("damaged"), 1);
        let error = store.load(saga(1), Version(0)).await.expect_err(damage);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
        assert_eq!(error.saga(), Some(saga(1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_for_ever() {
    const SAGAS: u8 = 64;
    const ROUNDS: u64 = 128;
    let (directory, store) = opened().await;
    let store = Arc::new(store);
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    let text = "x".repeat(8 << 10);
    let mut sagas = tokio::task::JoinSet::new();
    for number in 0..SAGAS {
        let (store, text) = (Arc::clone(&store), text.clone());
        sagas.spawn(async move {
            for version in 0..ROUNDS {
                let event = if version == 0 { started() } else { note(&text) };
                let append = Append::new(saga(number), Version(version), at(1), vec![event]);
                store.append(claim, &append).await.expect("appended");
            }
        });
    }
    sagas.join_all().await;
    let length = |name: &str| {
        let file = std::fs::metadata(directory.path().join(name));
        file.map_or(0, |file| file.len() >> 20)
    };
    // Of more than 64 MiB that were written.
    assert!(
        length("sagas.db-wal") < 40,
        "{} MiB",
        length("sagas.db-wal")
    );
    store.close().await.expect("closed");
    assert_eq!(length("sagas.db-wal"), 0);
    assert!(length("sagas.db") >= 64, "{} MiB", length("sagas.db"));
    let found = store.load(saga(0), Version(ROUNDS - 1)).await;
    assert_eq!(found.expect("read")[0].event, note(text));
}

#[test]
fn whoever_asked_in_a_runtime_that_has_ended_keeps_nobody_waiting() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .expect("built")
    };
    let first = runtime();
    let (_directory, store) = first.block_on(opened());
    // The only thread for such work is taken, so what is asked for is never looked up.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let busy = first.spawn_blocking(move || held.recv());
    first.block_on(async {
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..8 {
            let store = store.clone();
            asked.spawn(async move { store.load(saga(number), Version(0)).await });
        }
        tokio::task::yield_now().await;
        asked.detach_all();
    });
    first.shutdown_background();
    drop(release);
    drop(busy);
    runtime().block_on(async {
        let found = store.load(saga(1), Version(0)).await;
        assert_eq!(found.expect("read"), []);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_are_read_at_once_are_each_their_own() {
    let (_directory, store) = opened().await;
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    for number in 0..100 {
        let append = Append::new(saga(number), Version(0), at(1), vec![started()]);
        store.append(claim, &append).await.expect("appended");
        let text = note(number.to_string());
        let append = Append::new(saga(number), Version(1), at(1), vec![text]);
        store.append(claim, &append).await.expect("appended");
    }
    let mut readers = tokio::task::JoinSet::new();
    for number in (0..100).cycle().take(1_000) {
        let store = store.clone();
        readers.spawn(async move {
            let found = store.load(saga(number), Version(1)).await.expect("read");
            assert_eq!(found[0].event, note(number.to_string()));
        });
    }
    readers.join_all().await;
}

#[tokio::test]
async fn a_closed_store_writes_nothing_more_and_is_closed_twice() {
    let (_directory, store) = opened().await;
    let claim = store.claim(Partition(0), "test").await.expect("claimed");
    store.close().await.expect("closed");
    store.close().await.expect("closed");
    let append = Append::new(saga(1), Version(0), at(1), vec![started()]);
    let error = store.append(claim, &append).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_eq!(store.load(saga(1), Version(0)).await.expect("read"), []);
}
