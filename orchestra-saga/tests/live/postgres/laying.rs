//! The tables: made once, checked, moved.

use std::time::Duration;

use orchestra_saga::{ErrorKind, Filter, Partition, Position, PostgresStore, SagaStore};
use tokio::task::JoinSet;

use super::{config, more, open, raw, saga, schema, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_come_first_make_the_tables_once() {
    let schema = schema();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let schema = schema.clone();
        drop(tasks.spawn(async move {
            let store = open(&schema).await;
            let claim = store.claim(Partition(number), "test").await.unwrap();
            store
                .append(claim, &start(saga(number.into())))
                .await
                .unwrap();
        }));
    }
    tasks.join_all().await;
    let listed = open(&schema).await.list(&Filter::default()).await.unwrap();
    assert_eq!(listed.len(), 8);
}

#[tokio::test]
async fn tables_of_another_layout_are_refused() {
    let schema = schema();
    open(&schema).await.close().await;
    let sql = format!("UPDATE {schema}.layout SET number = 99");
    raw().await.batch_execute(&sql).await.unwrap();
    let refused = PostgresStore::connect(config(&schema)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(
        refused.to_string(),
        format!("saga store {schema} has layout 99, not 1")
    );
}

#[tokio::test]
async fn on_a_server_that_counts_from_a_lower_number_the_stream_goes_on() {
    let schema = schema();
    let store = open(&schema).await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    store.append(claim, &start(saga(1))).await.unwrap();
    // As if it had been written on a server with many more transactions.
    let sql = format!("UPDATE {schema}.frame SET tx = tx + 1000000000000");
    raw().await.batch_execute(&sql).await.unwrap();
    store.close().await;
    let store = open(&schema).await;
    store
        .append(claim, &more(saga(1), 1, "here"))
        .await
        .unwrap();
    for _ in 0..200 {
        let seen = store.read(Position::START, 10).await.unwrap();
        let versions: Vec<_> = seen.iter().map(|entry| entry.recorded.version.0).collect();
        if versions == [1, 2] {
            return;
        }
        assert_eq!(versions[..], [1][..versions.len()]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the stream does not go on");
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let store = super::fresh().await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    store.append(claim, &start(saga(1))).await.unwrap();
    store.close().await;
    let refused = store
        .append(claim, &more(saga(1), 1, "late"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Store);
    assert!(
        refused.to_string().starts_with("the saga store is closed"),
        "{refused}"
    );
    assert!(store.claim(Partition(0), "test").await.is_err());
    assert!(
        store
            .load(saga(1), orchestra_saga::Version(0))
            .await
            .is_err()
    );
}
