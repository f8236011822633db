//! What happens when: on a disk that fails in every way a disk fails.

mod closing;
mod crashing;
mod failing;
mod forgetting;
mod model;
mod opening;
mod room;
mod sim;
mod stalling;
mod tearing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};

use super::frame::Header;
use super::place::Place;
use super::recover::{Recovery, recover};
use super::segment::{FRONT, Found, Name, Window};
use super::{Config, JournalStore, compact};
use crate::error::Result;
use crate::event::{Event, Recorded, Started};
use crate::id::{Partition, SagaId, Version};
use crate::store::{Append, Claim, SagaStore};
use sim::Sim;

const HOME: Partition = Partition(0);

/// The smallest segments, and a checkpoint whenever one is full.
fn small() -> Config {
    Config::default().segment_bytes(0).checkpoint_bytes(0)
}

fn directory() -> PathBuf {
    PathBuf::from("/sagas")
}

fn open(sim: &Sim) -> Result<JournalStore> {
    JournalStore::open_on(Arc::new(sim.clone()), directory(), small(), None)
}

fn recovered(sim: &Sim) -> Result<Recovery> {
    let disk: Arc<dyn super::disk::Disk> = Arc::new(sim.clone());
    recover(&disk, &directory(), small().room())
}

/// Ends the threads without a checkpoint, as a process that dies does.
fn halt(store: &JournalStore) {
    store.core().stop();
    for thread in std::mem::take(&mut *store.handle.threads.lock()) {
        thread.join().expect("no thread panics");
    }
}

fn tidy(store: &JournalStore) -> Result<()> {
    compact::tidy(store.core())
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_nanos(second * 1_000_000_000)
}

fn saga(number: u64) -> SagaId {
    SagaId::from_parts(at(1), u128::from(number))
}

fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::new(format!("key-{number}")).expect("valid")
}

fn start(number: u64) -> Append {
    let input = serde_json::json!({ "number": number }).into();
    let started = Started::new("definition", "1", "hash", input);
    let started = Event::SagaStarted(Arc::new(started));
    Append::new(saga(number), Version(0), at(number), vec![started])
}

/// One event more, which is so long.
fn more(number: u64, expected: u64, length: usize) -> Append {
    let reason = "x".repeat(length);
    let event = Event::SagaCancelRequested { reason };
    Append::new(saga(number), Version(expected), at(number), vec![event])
}

/// What was acknowledged, and the one batch that may be there all the same.
#[derive(Debug, Default)]
struct Ledger {
    logs: BTreeMap<SagaId, Vec<Recorded>>,
    doubtful: Option<(SagaId, Vec<Recorded>)>,
    purged: Vec<SagaId>,
    doubtful_purge: Vec<SagaId>,
}

impl Ledger {
    async fn append(&mut self, store: &JournalStore, claim: Claim, append: &Append) -> Result<()> {
        let events: Vec<_> = append.recorded(claim.epoch).collect();
        self.doubtful = Some((append.saga, events.clone()));
        store.append(claim, append).await?;
        self.doubtful = None;
        self.logs.entry(append.saga).or_default().extend(events);
        Ok(())
    }

    /// Whether a store holds what was acknowledged, and nothing that was not said.
    async fn check(&self, store: &JournalStore) {
        for (saga, log) in &self.logs {
            let found = store.load(*saga, Version(0)).await.expect("read");
            if self.doubtful_purge.contains(saga) && found.is_empty() {
                continue;
            }
            let mut with_doubtful = log.clone();
            if let Some((doubtful, events)) = &self.doubtful
                && doubtful == saga
            {
                with_doubtful.extend(events.iter().cloned());
            }
            assert!(
                found == *log || found == with_doubtful,
                "saga {saga} has {} events where {} were acknowledged",
                found.len(),
                log.len()
            );
        }
        for saga in &self.purged {
            assert_eq!(store.load(*saga, Version(0)).await.expect("read"), []);
        }
        let mut streamed: BTreeMap<SagaId, Vec<Recorded>> = BTreeMap::new();
        let mut after = crate::Position::START;
        loop {
            let page = store.read(after, 7).await.expect("read");
            let Some(last) = page.last() else {
                break;
            };
            assert!(page.is_sorted_by_key(|entry| entry.position) && last.position > after);
            after = last.position;
            for entry in page {
                streamed.entry(entry.saga).or_default().push(entry.recorded);
            }
        }
        let all = crate::Filter::default().limit(usize::MAX);
        let listed = store.list(&all).await.expect("listed");
        assert_eq!(listed.len(), streamed.len());
        for summary in listed {
            let log = store.load(summary.saga, Version(0)).await.expect("read");
            assert_eq!(log.len() as u64, summary.version.0);
            assert_eq!(
                streamed[&summary.saga], log,
                "the stream of {}",
                summary.saga
            );
        }
    }
}

/// The frames of a segment as it was written.
fn frames(sim: &Sim, number: u32) -> Vec<Header> {
    let file = super::disk::Disk::open(sim, &directory().join(Name::fresh(number).file()));
    let file = file.expect("there");
    let end = super::bytes::length(usize::try_from(file.length().expect("known")).expect("small"));
    let mut window = Window::new(file);
    let mut frames = Vec::new();
    let mut place = Place::new(number, FRONT);
    while let Found::Frame(header, _) = window.frame(place.offset(), end).expect("read") {
        frames.push(header);
        place = header.end();
    }
    frames
}

fn segment_path(number: u32) -> PathBuf {
    directory().join(Name::fresh(number).file())
}

fn is_segment(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| Name::parse(&name.to_string_lossy()))
        .is_some()
}
