use proptest::prelude::*;

use super::*;
use crate::instance::Incarnation;
use crate::source::{RemovalReason, Revision, Scope, Snapshot};

fn service() -> ServiceName {
    "orders".parse().unwrap()
}

fn at(millis: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_millis(1_000 + millis)
}

fn up(id: u32, incarnation: u64, weight: u32) -> Change {
    let id = format!("i{id}").parse().unwrap();
    let endpoint = "10.0.0.1:80".parse().unwrap();
    let mut instance = Instance::new(service(), id, Incarnation::new(incarnation), endpoint);
    instance.weight = weight;
    Change::Upserted(Arc::new(instance))
}

fn gone(id: u32, incarnation: u64) -> Change {
    Change::Removed(Removal {
        service: service(),
        id: format!("i{id}").parse().unwrap(),
        incarnation: Incarnation::new(incarnation),
        reason: RemovalReason::Expired,
    })
}

fn config(window: u64, max_batch: usize) -> Config {
    Config::default()
        .window(Duration::from_millis(window))
        .max_batch(NonZeroUsize::new(max_batch).unwrap())
}

fn members(start: &[Change]) -> Snapshot {
    let mut members = Snapshot::new(Scope::All, Revision::new(0), Vec::new());
    members.advance(Revision::new(0), start);
    members
}

#[test]
fn first_change_after_quiet_passes_and_the_next_waits_for_the_window() {
    let mut changes = Coalescer::new(config(100, 8));
    assert_eq!(changes.due(), None);
    changes.offer([up(1, 1, 1)]);
    assert_eq!(changes.take(at(0)), [up(1, 1, 1)]);
    changes.offer([up(1, 1, 2)]);
    changes.offer([up(2, 1, 1), up(1, 1, 3)]);
    assert_eq!(changes.due(), Some(at(100)));
    assert_eq!(changes.take(at(99)), []);
    assert_eq!(changes.take(at(100)), [up(1, 1, 3), up(2, 1, 1)]);
    changes.offer([up(3, 1, 1)]);
    assert_eq!(changes.take(at(300)), [up(3, 1, 1)]);
}

#[test]
fn full_batch_does_not_wait() {
    let mut changes = Coalescer::new(config(100, 2));
    changes.offer([up(1, 1, 1)]);
    changes.take(at(0));
    changes.offer([up(1, 1, 2)]);
    assert_eq!(changes.take(at(1)), []);
    changes.offer([up(2, 1, 2)]);
    assert_eq!(changes.take(at(1)), [up(1, 1, 2), up(2, 1, 2)]);
}

#[test]
fn window_of_zero_lets_everything_pass() {
    let mut changes = Coalescer::new(Config::off());
    for weight in 1..5 {
        changes.offer([up(1, 1, weight)]);
        assert_eq!(changes.take(at(0)), [up(1, 1, weight)]);
    }
}

#[test]
fn replacement_stays_a_removal_and_an_upsert() {
    let mut changes = Coalescer::new(Config::default());
    changes.offer([gone(1, 4), up(1, 5, 1), gone(1, 5), up(1, 6, 1)]);
    assert_eq!(changes.take(at(0)), [gone(1, 5), up(1, 6, 1)]);
}

fn change() -> impl Strategy<Value = Change> {
    (0..4_u32, 0..5_u64, 0..3_u32, any::<bool>()).prop_map(|(id, incarnation, weight, removed)| {
        if removed {
            gone(id, incarnation)
        } else {
            up(id, incarnation, weight)
        }
    })
}

proptest! {
    /// Whatever was there before, incarnations that go back included.
    #[test]
    fn batch_has_the_effect_of_its_changes(
        start in prop::collection::vec(change(), 0..6),
        batch in prop::collection::vec(change(), 0..30),
    ) {
        let (mut expected, mut found) = (members(&start), members(&start));
        expected.advance(Revision::new(1), &batch);
        let mut changes = Coalescer::new(Config::default());
        changes.offer(batch);
        let merged = changes.take(at(0));
        found.advance(Revision::new(1), &merged);
        prop_assert_eq!(found, expected);
        prop_assert!(merged.len() <= 8);
    }
}

#[test]
fn what_is_flushed_does_not_wait_and_what_follows_does() {
    let mut changes = Coalescer::new(config(100, 64));
    changes.offer([up(1, 1, 1)]);
    assert_eq!(changes.take(at(0)), [up(1, 1, 1)]);
    changes.offer([up(2, 1, 1), gone(1, 1)]);
    assert_eq!(changes.take(at(10)), []);
    assert_eq!(changes.flush(at(10)), [up(2, 1, 1), gone(1, 1)]);
    assert_eq!(changes.flush(at(10)), []);
    changes.offer([gone(2, 1)]);
    assert_eq!(changes.due(), Some(at(110)));
    assert_eq!(changes.take(at(110)), [gone(2, 1)]);
}

#[test]
fn a_million_changes_end_in_the_same_set() {
    let mut rng = fastrand::Rng::with_seed(0x0C0A_1E5C);
    let (mut expected, mut found) = (members(&[]), members(&[]));
    let mut changes = Coalescer::new(config(100, 64));
    let pool: Vec<Change> = (0..8_000)
        .map(|index| {
            let (id, incarnation) = (index % 200, u64::from(index / 2_000));
            if rng.u8(..) < 100 {
                gone(id, incarnation)
            } else {
                up(id, incarnation, rng.u32(..4))
            }
        })
        .collect();
    let mut batches = 0_u32;
    for moment in 0..1_000_000_u64 {
        let change = &pool[rng.usize(..pool.len())];
        expected.advance(Revision::new(moment), std::slice::from_ref(change));
        changes.offer([change.clone()]);
        // A tenth of a millisecond apart: a window holds a thousand.
        let batch = changes.take(at(moment / 10));
        if !batch.is_empty() {
            batches += 1;
            found.advance(Revision::new(moment), &batch);
        }
    }
    found.advance(Revision::new(999_999), &changes.take(at(1_000_000)));
    assert_eq!(found, expected);
    assert!(batches < 40_000, "{batches} batches of up to 64 instances");
}
