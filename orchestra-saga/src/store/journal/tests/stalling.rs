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
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.load(saga(3), Version(0)).await }
    });
    tokio::task::yield_now().await;
    sim.release();
    assert_eq!(staying.await.expect("read").len(), 1);
    assert_eq!(waiting.await.expect("ran").expect("read").len(), 1);
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
