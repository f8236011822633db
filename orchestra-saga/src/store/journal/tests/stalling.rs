//! A disk that does not answer, and callers that do not wait for it.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::store::Filter;

/// Asks, and gives up.
fn give_up(asked: impl Future) {
    let mut asked = std::pin::pin!(asked);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(asked.as_mut().poll(&mut cx), Poll::Pending));
}

/// A store whose writer waits for the disk.
async fn stalled(sim: &Sim) -> (JournalStore, Claim) {
    let store = open(sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    store.append(claim, &start(1)).await.expect("appended");
    sim.hold();
    give_up(store.append(claim, &start(2)));
    while store.core().state().flying.is_none() {
        tokio::task::yield_now().await;
    }
    (store, claim)
}

#[tokio::test]
async fn callers_that_give_up_leave_no_seat_behind() {
    let sim = Sim::default();
    let (store, claim) = stalled(&sim).await;
    for _ in 0..1_000 {
        give_up(store.list(&Filter::default()));
        give_up(store.load(saga(2), Version(0)));
        give_up(store.append(claim, &start(2)));
    }
    give_up(store.append(claim, &start(3)));
    for _ in 0..1_000 {
        give_up(store.load(saga(3), Version(0)));
    }
    {
        let state = store.core().state();
        let flying = state.flying.as_ref().expect("stalled").waiters.seats();
        assert!(flying <= 1, "{flying}");
        assert!(state.group.waiters.seats() <= 1);
    }
    // Whoever stays is woken, though others left before and after.
    let before = Box::pin(store.load(saga(3), Version(0)));
    let mut cx = Context::from_waker(Waker::noop());
    let mut staying = Box::pin(store.load(saga(2), Version(0)));
    assert!(staying.as_mut().poll(&mut cx).is_pending());
    drop(before);
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn({
        let store = store.clone();
        async move { store.load(saga(3), Version(0)).await }
    });
    tokio::task::yield_now().await;
    sim.release();
    assert_eq!(staying.await.expect("read").len(), 1);
    assert_eq!(
        waiting
            .join_next()
            .await
            .expect("one")
            .expect("ran")
            .expect("read")
            .len(),
        1
    );
    halt(&store);
}

#[tokio::test]
async fn a_list_waits_for_what_it_rests_on_and_for_nothing_else() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    for number in 1..=9 {
        let start = start(number).start_key(Some(key(number)));
        store.append(claim, &start).await.expect("appended");
    }
    sim.hold();
    give_up(store.append(claim, &more(6, 1, 10).status(crate::Status::Completed)));
    // Whoever continues all sagas, page by page, does not wait for the first of them each time.
    let page = Filter::open().limit(5);
    assert_eq!(store.list(&page).await.expect("durable").len(), 5);
    let found = store.find_start(&key(9)).await.expect("durable");
    assert_eq!(found, Some(saga(9)));
    // That the sixth is left out is not durable yet.
    give_up(store.list(&page.clone().after(Some(saga(5)))));
    give_up(store.list(&page.limit(6)));
    let last = Filter::open().after(Some(saga(6)));
    assert_eq!(store.list(&last).await.expect("durable").len(), 3);
    give_up(store.append(claim, &start(11).start_key(Some(key(11)))));
    give_up(store.find_start(&key(11)));
    sim.release();
    halt(&store);
}

#[tokio::test]
async fn a_purge_is_not_shown_before_it_is_durable() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let ended = start(1).start_key(Some(key(1)));
    let ended = ended.status(crate::Status::Completed);
    store.append(claim, &ended).await.expect("appended");
    store.append(claim, &start(2)).await.expect("appended");
    sim.hold();
    let mut purging = tokio::task::JoinSet::new();
    purging.spawn({
        let store = store.clone();
        async move { store.purge(claim, at(9), 10).await }
    });
    while store.core().state().flying.is_none() {
        tokio::task::yield_now().await;
    }
    give_up(store.load(saga(1), Version(0)));
    give_up(store.load_snapshot(saga(1)));
    give_up(store.find_start(&key(1)));
    give_up(store.list(&Filter::default()));
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn({
        let store = store.clone();
        async move { store.read(crate::Position::START, 9).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(reading.try_join_next().is_none());
    assert_eq!(
        store.load(saga(2), Version(0)).await.expect("read").len(),
        1
    );
    // It never will be: nobody was told that the saga is gone, and whoever opens the store may find it.
    sim.world().failing_sync = Some(0);
    sim.release();
    let failed = purging
        .join_next()
        .await
        .expect("one")
        .expect("ran")
        .expect_err("not durable");
    assert_eq!(failed.kind(), crate::ErrorKind::Store);
    assert!(
        reading
            .join_next()
            .await
            .expect("one")
            .expect("ran")
            .is_err()
    );
    assert!(store.load(saga(1), Version(0)).await.is_err());
    assert!(store.find_start(&key(1)).await.is_err());
    halt(&store);
}

#[tokio::test]
async fn what_waits_for_room_is_bounded_by_bytes_and_by_who_still_waits() {
    let sim = Sim::default();
    let (store, claim) = stalled(&sim).await;
    let mut refused = 0;
    for version in 1..3_000 {
        let more = more(1, version, 45_000);
        let mut append = Box::pin(store.append(claim, &more));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(append.as_mut().poll(&mut cx).is_pending());
        drop(append);
        let state = store.core().state();
        if state.log.index.find(saga(1)).expect("known").version == Version(version) {
            refused += 1;
            drop(state);
            // The next asks for the same again.
            for _ in 0..1_000 {
                give_up(store.append(claim, &more));
            }
            break;
        }
    }
    assert_eq!(refused, 1, "there is not room for everything");
    let state = store.core().state();
    assert!(state.group.bytes < 65 << 20, "{}", state.group.bytes);
    assert!(state.room.seats() <= 1, "{}", state.room.seats());
    drop(state);
    sim.release();
    halt(&store);
}

#[tokio::test]
async fn reads_that_were_given_up_are_not_begun_one_after_the_other() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    store.append(claim, &start(1)).await.expect("appended");
    sim.hold_reads();
    let before = sim.world().reads;
    for _ in 0..2_000 {
        give_up(store.read(crate::Position::START, 10));
    }
    sim.release();
    assert_eq!(
        store
            .read(crate::Position::START, 10)
            .await
            .expect("read")
            .len(),
        1
    );
    let reads = sim.world().reads - before;
    assert!(reads < 500, "{reads}");
    halt(&store);
}

#[tokio::test]
async fn a_claim_that_nobody_heard_of_keeps_the_partition_from_nobody() {
    let sim = Sim::default();
    let (store, _) = stalled(&sim).await;
    let other = Partition(7);
    give_up(store.claim(other, "impatient"));
    let long = std::time::Duration::MAX;
    give_up(store.lease(other, "impatient too", long));
    sim.release();
    let claim = store.lease(other, "patient", long).await.expect("asked");
    let claim = claim.expect("free");
    assert_eq!(claim.epoch, crate::Epoch(3), "an epoch is given once");
    let holders = store.holders().await.expect("known");
    let held = holders.iter().find(|holder| holder.claim == claim);
    assert_eq!(held.map(|holder| &*holder.owner), Some("patient"));
    halt(&store);
}
