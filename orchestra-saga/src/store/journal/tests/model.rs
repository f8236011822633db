//! The journal answers as the store in memory does, whatever is asked of it and however it was reopened.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::status::Status;
use crate::store::{Filter, MemoryStore, Snapshot};

#[derive(Debug, Clone)]
enum Step {
    Claim(u32),
    Start {
        saga: u64,
        key: Option<u64>,
        wake: Option<u64>,
        old_claim: bool,
    },
    Append {
        saga: u64,
        off: u64,
        status: usize,
        wake: Option<u64>,
        length: usize,
    },
    Snapshot {
        saga: u64,
        bytes: usize,
    },
    Purge {
        before: u64,
        limit: usize,
    },
    Tidy,
    Close,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let saga = || 1..12_u64;
    let wake = || proptest::option::of(1..9_u64);
    prop_oneof![
        1 => (0..2_u32).prop_map(Step::Claim),
        6 => (saga(), proptest::option::of(1..6_u64), wake(), proptest::bool::weighted(0.1))
            .prop_map(|(saga, key, wake, old_claim)| Step::Start { saga, key, wake, old_claim }),
        12 => (saga(), prop_oneof![9 => Just(0), 1 => 1..3_u64], 0..5_usize, wake(), 0..5000_usize)
            .prop_map(|(saga, off, status, wake, length)| Step::Append { saga, off, status, wake, length }),
        2 => (saga(), 1..3000_usize).prop_map(|(saga, bytes)| Step::Snapshot { saga, bytes }),
        2 => (1..14_u64, 1..6_usize).prop_map(|(before, limit)| Step::Purge { before, limit }),
        1 => Just(Step::Tidy),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ]
}

struct Pair {
    sim: Sim,
    journal: JournalStore,
    memory: MemoryStore,
    claims: [Option<Claim>; 2],
    old: Option<Claim>,
}

fn kind<T>(result: Result<T>) -> std::result::Result<T, (ErrorKind, Option<SagaId>)> {
    result.map_err(|error| (error.kind(), error.saga()))
}

impl Pair {
    fn new() -> Self {
        let sim = Sim::default();
        Self {
            journal: open(&sim).expect("opened"),
            sim,
            memory: MemoryStore::default(),
            claims: [None; 2],
            old: None,
        }
    }

    /// The claim that fits the saga's home, by its number.
    fn claim(&self, saga: u64) -> Claim {
        let partition = Partition(u32::from(saga.is_multiple_of(4)));
        let held = self.claims[usize::from(saga.is_multiple_of(4))];
        held.unwrap_or_else(|| Claim::new(partition, crate::Epoch(0)))
    }

    async fn append(&self, claim: Claim, append: &Append) {
        let found = kind(self.journal.append(claim, append).await);
        let wanted = kind(self.memory.append(claim, append).await);
        assert_eq!(found, wanted, "{} at {}", append.saga, append.expected);
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Claim(number) => {
                let partition = Partition(number);
                let found = self.journal.claim(partition, "a").await.expect("claimed");
                let wanted = self.memory.claim(partition, "a").await.expect("claimed");
                assert_eq!(found, wanted);
                self.old = self.claims[number as usize].replace(found);
            }
            Step::Start {
                saga,
                key: named,
                wake,
                old_claim,
            } => {
                let claim = self
                    .old
                    .filter(|_| old_claim)
                    .unwrap_or_else(|| self.claim(saga));
                let start = start(saga).start_key(named.map(key)).wake(wake.map(at));
                self.append(claim, &start).await;
            }
            Step::Append {
                saga,
                off,
                status,
                wake,
                length,
            } => {
                let known = self.memory.load(super::saga(saga), Version(0)).await;
                let version = known.expect("read").len() as u64 + off;
                let more = more(saga, version, length).wake(wake.map(at));
                self.append(self.claim(saga), &more.status(Status::ALL[status]))
                    .await;
            }
            Step::Snapshot { saga, bytes } => {
                let snapshot = Snapshot::new(Version(1), vec![3; bytes]);
                let id = super::saga(saga);
                self.journal
                    .save_snapshot(id, snapshot.clone())
                    .await
                    .expect("saved");
                self.memory
                    .save_snapshot(id, snapshot)
                    .await
                    .expect("saved");
            }
            Step::Purge { before, limit } => {
                for claim in self.claims.into_iter().flatten() {
                    let found = self.journal.purge(claim, at(before), limit).await;
                    let wanted = self.memory.purge(claim, at(before), limit).await;
                    assert_eq!(kind(found), kind(wanted));
                }
            }
            Step::Tidy => tidy(&self.journal).expect("tidied"),
            Step::Close => {
                self.journal.close().await.expect("closed");
                self.journal = open(&self.sim).expect("opened");
            }
            Step::Crash => {
                // A snapshot for which nobody waits may go; so that both have the same, it does not.
                let tail = self.journal.core().state().tail;
                self.journal.core().wait_durable(tail).expect("durable");
                halt(&self.journal);
                self.sim = self.sim.after_power_loss(|| false);
                self.journal = open(&self.sim).expect("opened");
            }
        }
    }

    async fn compare(&self) {
        for number in 1..12 {
            let id = saga(number);
            for after in [0, 2] {
                let found = self.journal.load(id, Version(after)).await.expect("read");
                assert_eq!(
                    found,
                    self.memory.load(id, Version(after)).await.expect("read")
                );
            }
            let found = self.journal.load_snapshot(id).await.expect("read");
            assert!(
                found == self.memory.load_snapshot(id).await.expect("read"),
                "snapshot of {id}"
            );
        }
        for number in 1..6 {
            let found = self.journal.find_start(&key(number)).await.expect("read");
            assert_eq!(
                found,
                self.memory.find_start(&key(number)).await.expect("read")
            );
        }
        for filter in [
            Filter::default(),
            Filter::open(),
            Filter::of(Status::Parked).limit(2),
        ] {
            let found = self.journal.list(&filter).await.expect("read");
            assert_eq!(found, self.memory.list(&filter).await.expect("read"));
        }
        for partition in [Partition(0), Partition(1)] {
            let sorted = |mut timers: Vec<crate::Timer>| {
                assert!(timers.is_sorted_by_key(|timer| timer.at));
                timers.sort_by_key(|timer| (timer.at, timer.saga));
                timers
            };
            let found = self
                .journal
                .timers(partition, at(7), 99)
                .await
                .expect("read");
            let wanted = self
                .memory
                .timers(partition, at(7), 99)
                .await
                .expect("read");
            assert_eq!(sorted(found), sorted(wanted));
        }
        // Where an id was purged and used again, the store in memory also passes the new events at the old
        // places.
        let stream = async |store: &dyn SagaStore| {
            let page = store
                .read(crate::Position::START, usize::MAX)
                .await
                .expect("read");
            let mut seen = std::collections::HashSet::new();
            let mut entries: Vec<_> = page
                .into_iter()
                .rev()
                .map(|entry| (entry.saga, entry.recorded))
                .collect();
            entries.retain(|(saga, recorded)| seen.insert((*saga, recorded.version)));
            entries
        };
        let (found, wanted) = (stream(&self.journal).await, stream(&self.memory).await);
        assert!(
            found == wanted,
            "{} and {} events",
            found.len(),
            wanted.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_is_the_store_in_memory_that_lasts(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("built").block_on(async {
            let mut pair = Pair::new();
            for (number, step) in steps.into_iter().enumerate() {
                pair.run(step).await;
                if number.is_multiple_of(10) {
                    pair.compare().await;
                }
            }
            pair.run(Step::Crash).await;
            pair.compare().await;
            halt(&pair.journal);
        });
    }
}
