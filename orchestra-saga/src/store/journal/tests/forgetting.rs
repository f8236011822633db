//! What a purge costs, and what it and compaction leave.

use super::*;
use crate::Status;
use crate::error::ErrorKind;
use crate::store::journal::core::Need;
use crate::store::journal::files::OPEN;
use crate::store::journal::frame::Draft;

/// So many sagas that ended one after the other, each as long as that.
async fn ended(store: &JournalStore, claim: Claim, sagas: std::ops::RangeInclusive<u64>) {
    for number in sagas {
        store.append(claim, &start(number)).await.expect("appended");
        let end = more(number, 1, 3000).status(Status::Completed);
        store.append(claim, &end).await.expect("appended");
    }
}

/// Two checkpoints behind everything, so that the segments before may be rewritten. Whoever calls keeps the
/// store's own thread from it.
async fn checkpoints(store: &JournalStore, claim: Claim, number: u64) {
    assert!(store.core().tidying.is_locked());
    for number in [number, number + 1] {
        store.append(claim, &start(number)).await.expect("appended");
        let end = more(number, 1, 40_000);
        store.append(claim, &end).await.expect("appended");
        let end = more(number, 2, 40_000);
        store.append(claim, &end).await.expect("appended");
        compact::checkpoint(store.core()).expect("a checkpoint");
    }
}

#[expect(clippy::await_holding_lock, reason = "it keeps a thread from tidying")]
#[tokio::test]
async fn a_purge_reads_those_that_it_forgets_and_no_others() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    ended(&store, claim, 1..=300).await;
    let tidying = store.core().tidying.lock();
    for number in 1..=20 {
        let before = sim.world().reads;
        let purged = store.purge(claim, at(1000), 1).await.expect("purged");
        assert_eq!(purged, 1);
        let gone = store.load(saga(number), Version(0)).await.expect("read");
        assert_eq!(gone, [], "the first to end is the first to go");
        let reads = sim.world().reads - before;
        // Two frames, each in two reads at most, and the header of a segment.
        assert!(reads <= 8, "{reads} reads");
    }
    assert_eq!(
        store.purge(claim, at(151), 1000).await.expect("purged"),
        130
    );
    assert_eq!(store.purge(claim, at(151), 1000).await.expect("purged"), 0);
    let left = crate::Filter::default().limit(1000);
    assert_eq!(store.list(&left).await.expect("listed").len(), 150);
    drop(tidying);
    halt(&store);
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    assert_eq!(store.purge(claim, at(161), 1000).await.expect("purged"), 10);
    halt(&store);
}

#[expect(clippy::await_holding_lock, reason = "it keeps a thread from tidying")]
#[tokio::test]
async fn an_id_that_was_purged_and_began_again_is_read_as_what_it_is_now() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let tidying = store.core().tidying.lock();
    ended(&store, claim, 1..=30).await;
    checkpoints(&store, claim, 100).await;
    drop(tidying);
    halt(&store);
    let store = open(&sim).expect("opened");
    let tidying = store.core().tidying.lock();
    let claim = store.claim(HOME, "test").await.expect("claimed");
    // Somebody knows where the saga is, and has not read it yet.
    let jobs = Arc::clone(&store.core().jobs);
    let permits = u32::try_from(jobs.available_permits()).expect("few");
    let all = jobs.acquire_many(permits).await.expect("open");
    store.core().state().warm = u32::MAX;
    let mut reading = Box::pin(store.load(saga(1), Version(0)));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(reading.as_mut().poll(&mut cx).is_pending());
    let core = store.core();
    let entries = core.state().log.index.ended(HOME, at(100), 100);
    let purge = JournalStore::burial(core, &entries).expect("read");
    let frame = Draft::purge(claim, &purge).expect("drawn up");
    let forget = |state: &mut super::super::State, _: &Header, _: &[u8]| state.log.purge(&purge);
    let purged = store.write(frame, Need::Urgent, |_, _| Ok(Place::NONE), forget);
    purged.await.expect("purged");
    store
        .append(claim, &start(1))
        .await
        .expect("it begins again");
    checkpoints(&store, claim, 200).await;
    compact::compact(core).expect("compacted");
    assert!(
        !sim.paths().contains(&segment_path(1)),
        "its frames are gone"
    );
    drop(all);
    assert_eq!(reading.await.expect("read").len(), 1);
    drop(tidying);
    halt(&store);
}

#[expect(clippy::await_holding_lock, reason = "it keeps a thread from tidying")]
#[tokio::test]
async fn a_damaged_segment_does_not_keep_the_others_from_giving_room_back() {
    for at_once in [1000, 10] {
        let sim = Sim::default();
        let store = open(&sim).expect("opened");
        let claim = store.claim(HOME, "test").await.expect("claimed");
        store.append(claim, &start(900)).await.expect("one stays");
        let tidying = store.core().tidying.lock();
        ended(&store, claim, 1..=150).await;
        checkpoints(&store, claim, 901).await;
        while store.purge(claim, at(500), at_once).await.expect("purged") > 0 {}
        checkpoints(&store, claim, 903).await;
        // The first has something that is needed, the third has nothing.
        for number in [1, 3] {
            let last = *frames(&sim, number).last().expect("a frame");
            let offset = last.place.offset() as usize;
            sim.edit(&segment_path(number), |bytes| bytes[offset + 20] ^= 1);
        }
        let failed = compact::compact(store.core()).expect_err("two are damaged");
        assert_eq!(failed.kind(), ErrorKind::Corrupt);
        let left: Vec<_> = sim
            .paths()
            .into_iter()
            .filter(|path| is_segment(path))
            .collect();
        for number in [1, 3] {
            assert!(
                left.contains(&segment_path(number)),
                "{number} is kept: {left:?}"
            );
        }
        for number in [2, 4, 5, 6] {
            assert!(
                !left.contains(&segment_path(number)),
                "{number} is gone: {left:?}"
            );
        }
        assert_eq!(
            store.load(saga(900), Version(0)).await.expect("read").len(),
            1
        );
        drop(tidying);
        halt(&store);
    }
}

#[tokio::test]
async fn few_files_are_open_however_many_segments_there_are() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    ended(&store, claim, 1..=1600).await;
    halt(&store);
    let store = open(&sim).expect("opened");
    let core = store.core();
    let names: Vec<_> = core
        .state()
        .log
        .table
        .iter()
        .map(|segment| segment.name)
        .collect();
    assert!(names.len() > OPEN + 10, "{}", names.len());
    let often = core.files.open(names[0]).expect("opened");
    for number in 1..=1600 {
        let log = store.load(saga(number), Version(0)).await.expect("read");
        assert_eq!(log.len(), 2);
        // What is read often stays open, though it is the oldest.
        let again = core.files.open(names[0]).expect("opened");
        assert!(Arc::ptr_eq(&often, &again));
    }
    // Those that are written, and what the threads hold.
    let open_now = sim.world().open;
    assert!((OPEN..OPEN + 6).contains(&open_now), "{open_now}");
    halt(&store);
}
