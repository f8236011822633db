//! Whatever is done to it, the store answers as the one in memory does.

use orchestra_core::Timestamp;
use orchestra_saga::store::{Filter, Open};
use orchestra_saga::{
    Append, Claim, ErrorKind, Event, MemoryStore, Partition, Result, SagaStore, Snapshot, Status,
    Version,
};
use proptest::prelude::*;

use super::{at, fresh, key, note, saga, start};

const SAGAS: u64 = 4;

#[derive(Debug, Clone)]
enum Act {
    Claim(u32),
    /// The saga, the claim counted from the last, how far the expected version is off, events, key, wake, status.
    Append(u64, usize, i64, usize, Option<u8>, Option<u64>, usize),
    Load(u64, u64),
    Timers(u32, u64, usize),
    List(
        bool,
        Option<usize>,
        Option<u32>,
        Option<u64>,
        usize,
        Option<&'static str>,
    ),
    Find(u8),
    Save(u64, u8),
    Purge(usize, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let append = (
        0..SAGAS,
        prop_oneof![8 => Just(0_usize), 1 => 1..4_usize],
        prop_oneof![8 => Just(0_i64), 1 => -1..=1_i64],
        1..4_usize,
        prop::option::weighted(0.4, 0..3_u8),
        prop::option::of(0..6_u64),
        0..Status::ALL.len(),
    );
    let list = (
        any::<bool>(),
        prop::option::of(0..Status::ALL.len()),
        prop::option::of(0..3_u32),
        prop::option::of(0..SAGAS),
        0..5_usize,
        // All are of the first, and none of the other.
        prop::option::of(prop_oneof![3 => Just("d"), 1 => Just("e")]),
    );
    prop_oneof![
        2 => (0..2_u32).prop_map(Act::Claim),
        12 => append.prop_map(|(a, b, c, d, e, f, g)| Act::Append(a, b, c, d, e, f, g)),
        4 => (0..SAGAS, 0..6_u64).prop_map(|(a, b)| Act::Load(a, b)),
        3 => (0..3_u32, 0..6_u64, 0..4_usize).prop_map(|(a, b, c)| Act::Timers(a, b, c)),
        4 => list.prop_map(|(a, b, c, d, e, f)| Act::List(a, b, c, d, e, f)),
        2 => (0..4_u8).prop_map(Act::Find),
        2 => (0..SAGAS, any::<u8>()).prop_map(|(a, b)| Act::Save(a, b)),
        1 => (0..3_usize, 0..6_u64).prop_map(|(a, b)| Act::Purge(a, b)),
    ]
}

/// What was claimed so far, the last first, and the time, which goes on.
struct Course {
    claims: Vec<Claim>,
    second: u64,
}

impl Course {
    fn claim(&self, back: usize) -> Option<Claim> {
        self.claims
            .iter()
            .rev()
            .nth(back)
            .or_else(|| self.claims.last())
            .copied()
    }

    fn now(&mut self) -> Timestamp {
        self.second += 1;
        at(self.second)
    }
}

/// The answer as text: the same from stores that are alike.
fn text<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        // The saga of an error means something here only; elsewhere it is for people.
        Err(error) if error.kind() == ErrorKind::DuplicateStart => format!("{:?}", error.saga()),
        Err(error) => format!("{:?} {:?}", error.kind(), error.epoch()),
    }
}

async fn apply(store: &dyn SagaStore, act: &Act, course: &mut Course) -> String {
    match *act {
        Act::Claim(partition) => {
            let claim = store.claim(Partition(partition), "test").await;
            if let Ok(claim) = &claim {
                course.claims.push(*claim);
            }
            text(claim)
        }
        Act::Append(number, back, off, count, named, wake, status) => {
            let Some(claim) = course.claim(back) else {
                return String::new();
            };
            let id = saga(number);
            let found = store.load(id, Version(0)).await.unwrap().len() as u64;
            let expected = Version(found.saturating_add_signed(off));
            let mut events: Vec<Event> = (1..=count).map(|n| note(&n.to_string())).collect();
            if expected == Version(0) && off == 0 {
                events[0] = start(id).events.remove(0);
            }
            let append = Append::new(id, expected, course.now(), events)
                .status(Status::ALL[status])
                .wake(wake.map(at))
                .start_key(named.map(|named| key(&named.to_string())));
            text(store.append(claim, &append).await)
        }
        Act::Load(number, after) => text(store.load(saga(number), Version(after)).await),
        Act::Timers(partition, now, limit) => {
            text(store.timers(Partition(partition), at(now), limit).await)
        }
        Act::List(open, status, partition, after, limit, definition) => {
            let mut filter = Filter::default().after(after.map(saga)).limit(limit);
            filter.open = if open { Open::Only } else { Open::Any };
            filter.status = status.map(|status| Status::ALL[status]);
            filter.partition = partition.map(Partition);
            if let Some(name) = definition {
                filter = filter.definition(name);
            }
            text(store.list(&filter).await)
        }
        Act::Find(named) => text(store.find_start(&key(&named.to_string())).await),
        Act::Save(number, byte) => {
            let snapshot = Snapshot::new(Version(u64::from(byte)), vec![byte; 3]);
            let saved = text(store.save_snapshot(saga(number), snapshot).await);
            saved + &text(store.load_snapshot(saga(number)).await)
        }
        Act::Purge(back, before) => match course.claim(back) {
            Some(claim) => text(store.purge(claim, at(before), 100).await),
            None => String::new(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_course_has_the_answers_of_the_memory(acts in prop::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, memory) = (fresh().await, MemoryStore::default());
            let course = || Course { claims: Vec::new(), second: 0 };
            let (mut ours, mut theirs) = (course(), course());
            for (number, act) in acts.iter().enumerate() {
                let found = apply(&store, act, &mut ours).await;
                let wanted = apply(&memory, act, &mut theirs).await;
                prop_assert_eq!(found, wanted, "{}: {:?}", number, act);
            }
            store.close().await;
            Ok(())
        })?;
    }
}
