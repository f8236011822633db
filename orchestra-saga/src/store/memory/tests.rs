use super::*;
use crate::event::Started;
use crate::status::Status;

const HOME: Partition = Partition(3);

fn saga(number: u64) -> SagaId {
    SagaId::from_parts(Timestamp::UNIX_EPOCH, u128::from(number))
}

fn start(number: u64) -> Append {
    let started = Started::new("definition", "1", "hash", crate::Payload::default());
    let started = Event::SagaStarted(Arc::new(started));
    Append::new(
        saga(number),
        Version(0),
        Timestamp::UNIX_EPOCH,
        vec![started],
    )
}

fn end(number: u64) -> Append {
    let ended = vec![Event::SagaCompleted];
    let append = Append::new(saga(number), Version(1), Timestamp::UNIX_EPOCH, ended);
    append.status(Status::Completed)
}

#[tokio::test]
async fn the_saga_that_ended_first_makes_room() {
    let store = MemoryStore::new(3);
    let claim = store.claim(HOME, "test").await.unwrap();
    for append in [start(1), start(2), start(3), end(2), end(1)] {
        store.append(claim, &append).await.unwrap();
    }
    let left = async || {
        let all = store.list(&Filter::default()).await.unwrap();
        let left: Vec<_> = all.iter().map(|summary| summary.saga).collect();
        left
    };
    store.append(claim, &start(4)).await.unwrap();
    assert_eq!(left().await, [1, 3, 4].map(saga));
    store.append(claim, &start(5)).await.unwrap();
    assert_eq!(left().await, [3, 4, 5].map(saga));
    let refused = store.append(claim, &start(6)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    store.append(claim, &end(4)).await.unwrap();
    assert_eq!(
        store
            .purge(claim, Timestamp::from_unix_nanos(1), 9)
            .await
            .unwrap(),
        1
    );
    store.append(claim, &start(6)).await.unwrap();
    assert_eq!(left().await, [3, 5, 6].map(saga));
    let refused = store.append(claim, &start(7)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
}

#[tokio::test]
async fn a_saga_that_was_revoked_ended_when_it_was_undone() {
    let store = MemoryStore::new(2);
    let claim = store.claim(HOME, "test").await.unwrap();
    for append in [start(1), end(1), start(2), end(2)] {
        store.append(claim, &append).await.unwrap();
    }
    let reason = "its parent goes back".to_owned();
    let undone = vec![Event::SagaRevoked { reason }, Event::SagaCompensated];
    let append = Append::new(saga(1), Version(2), Timestamp::UNIX_EPOCH, undone);
    let append = append.status(Status::Compensated);
    store.append(claim, &append).await.unwrap();
    for (next, left) in [(3, [1, 3]), (4, [3, 4])] {
        store.append(claim, &start(next)).await.unwrap();
        let all = store.list(&Filter::default()).await.unwrap();
        let found: Vec<_> = all.iter().map(|summary| summary.saga).collect();
        assert_eq!(found, left.map(saga));
    }
}

#[tokio::test]
async fn nothing_gathers_behind_a_saga_that_lives_on() {
    let store = MemoryStore::new(4);
    let claim = store.claim(HOME, "test").await.unwrap();
    store.append(claim, &start(0)).await.unwrap();
    for number in 1..=10_000 {
        store.append(claim, &start(number)).await.unwrap();
        store.append(claim, &end(number)).await.unwrap();
        let inner = store.inner.lock();
        assert!(inner.stream.batches.len() < 200 && inner.ended.len() <= 3);
    }
    let all = store.read(Position::START, 100).await.unwrap();
    let found: Vec<_> = all
        .iter()
        .map(|entry| (entry.position.as_u128(), entry.saga))
        .collect();
    let mut expected = vec![(1, saga(0))];
    for number in 9_998..=10_000 {
        let first = 2 * u128::from(number);
        expected.extend([(first, saga(number)), (first + 1, saga(number))]);
    }
    assert_eq!(found, expected);
    // Whoever stands in the middle of what is gone, or between two events of a batch, misses nothing that is left.
    for (after, rest) in [(1, 6), (7_777, 6), (19_996, 5), (19_997, 4), (20_001, 0)] {
        let after = Position::from_u128(after);
        assert_eq!(store.read(after, 100).await.unwrap().len(), rest);
    }
}

#[tokio::test]
async fn a_batch_is_read_from_its_middle() {
    let store = MemoryStore::default();
    let claim = store.claim(HOME, "test").await.unwrap();
    let mut append = start(1);
    let reason = || "twice".to_owned();
    let more = |_| Event::SagaCancelRequested { reason: reason() };
    append.events.extend((0..2).map(more));
    store.append(claim, &append).await.unwrap();
    for after in 0..=3 {
        let entries = store.read(Position::from_u128(after), 9).await.unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| entry.recorded.version.0)
            .collect();
        let after = u64::try_from(after).unwrap();
        assert_eq!(found, (after + 1..=3).collect::<Vec<_>>());
    }
    assert_eq!(store.read(Position::START, 2).await.unwrap().len(), 2);
}
