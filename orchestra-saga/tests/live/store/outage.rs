//! What the server refuses, and what it does when it goes away.

use std::time::Duration;

use orchestra_saga::{
    Append, Claim, ErrorKind, Partition, PostgresStore, SagaId, SagaStore, Version,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::server::Server;
use super::{at, more, note, open, raw, saga, schema, start};

/// Appends until it is told to stop, as an executor does: after an error it reads the log. Returns the
/// notes that were acknowledged, or found.
async fn write(
    store: PostgresStore,
    claim: Claim,
    id: SagaId,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> (SagaId, Vec<String>, u32) {
    let (mut kept, mut errors) = (Vec::new(), 0);
    store.append(claim, &start(id)).await.unwrap();
    while !*stop.borrow_and_update() {
        let version = Version(kept.len() as u64 + 1);
        let text = format!("{id} {}", kept.len());
        let append = Append::new(id, version, at(2), vec![note(&text)]);
        match store.append(claim, &append).await {
            Ok(_) => kept.push(text),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Store | ErrorKind::Busy),
                    "{error:?}"
                );
                errors += 1;
                let log = loop {
                    match store.load(id, Version(0)).await {
                        Ok(log) => break log,
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                };
                if log.len() == kept.len() + 2 {
                    kept.push(text);
                }
                assert_eq!(
                    log.len(),
                    kept.len() + 1,
                    "acknowledged and gone, or written twice"
                );
            }
        }
    }
    (id, kept, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_among_appends_loses_nothing_acknowledged() {
    let mut server = Server::start(&[]).await;
    let store = server.store().await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        drop(tasks.spawn(write(store.clone(), claim, saga(number), stopped.clone())));
    }
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        if round % 2 == 0 {
            server.kill().await;
        } else {
            server.stop().await;
        }
        server.restart().await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    stop.send(true).unwrap();
    let (mut written, mut lost) = (0, 0);
    for (id, kept, errors) in tasks.join_all().await {
        let log = store.load(id, Version(0)).await.unwrap();
        let found: Vec<_> = log
            .iter()
            .skip(1)
            .map(|recorded| recorded.event.clone())
            .collect();
        let kept: Vec<_> = kept.iter().map(|text| note(text)).collect();
        assert_eq!(found, kept, "of {id}");
        written += kept.len();
        lost += errors;
    }
    assert!(written > 500, "only {written} appends in all");
    assert!(lost > 0, "no append was hit by four deaths");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_calls_end_in_their_time_and_go_on_after_it_is_back() {
    let mut server = Server::start(&["fsync=off"]).await;
    let config = server.config().timeout(Duration::from_secs(1));
    let store = PostgresStore::connect(config).await.unwrap();
    let claim = store.claim(Partition(0), "test").await.unwrap();
    store.append(claim, &start(saga(1))).await.unwrap();
    server.stop().await;
    let begun = Instant::now();
    let (append, key) = (more(saga(1), 1, "unknown"), super::key("none"));
    let (append, load, find) = tokio::join!(
        store.append(claim, &append),
        store.load(saga(1), Version(0)),
        store.find_start(&key),
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(append.unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(load.unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(find.unwrap_err().kind(), ErrorKind::Store);
    let late = PostgresStore::connect(server.config()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Store);
    server.restart().await;
    let version = loop {
        match store.append(claim, &more(saga(1), 1, "back")).await {
            Ok(version) => break version,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Store, "{error}"),
        }
    };
    assert_eq!(version, Version(2));
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_busy() {
    let server = Server::start(&[
        "fsync=off",
        "max_connections=2",
        "superuser_reserved_connections=0",
        "max_wal_senders=0",
    ])
    .await;
    let _held = [server.raw().await, server.raw().await];
    let refused = PostgresStore::connect(server.config()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(refused.is_retryable());
}

/// A trigger that fails for the frames with this text, as the server fails for reasons that a test cannot make.
async fn fail(schema: &str, text: &str, code: &str, times: u32) {
    let sql = format!(
        "CREATE SEQUENCE {schema}.failures_{code};
         CREATE FUNCTION {schema}.fail_{code}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('{schema}.failures_{code}') <= {times} THEN
                 RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail_{code} BEFORE INSERT ON {schema}.frame FOR EACH ROW
             WHEN (NEW.body LIKE '%{text}%') EXECUTE FUNCTION {schema}.fail_{code}()"
    );
    raw().await.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_has_its_kind_and_fails_nobody_else() {
    let schema = schema();
    let store = open(&schema).await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    let kinds = [
        ("53100", ErrorKind::Full),
        ("53200", ErrorKind::Busy),
        ("55P03", ErrorKind::Busy),
        ("40P01", ErrorKind::Busy),
        ("XX001", ErrorKind::Corrupt),
        ("23514", ErrorKind::Store),
    ];
    for (code, _) in kinds {
        fail(&schema, &format!("fails with {code}"), code, u32::MAX).await;
    }
    fail(&schema, "conflicts", "40001", 3).await;
    for number in 0..40 {
        store.append(claim, &start(saga(number))).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for number in 0..40 {
        let bad = usize::try_from(number)
            .ok()
            .and_then(|number| kinds.get(number).copied());
        let text = match &bad {
            Some((code, _)) => format!("fails with {code}"),
            None if number == 20 => "conflicts".to_owned(),
            None => "good".to_owned(),
        };
        let (store, append) = (store.clone(), more(saga(number), 1, &text));
        drop(tasks.spawn(async move {
            let kind = store
                .append(claim, &append)
                .await
                .map_err(|error| error.kind());
            let wanted = bad.map_or(Ok(Version(2)), |(_, kind)| Err(kind));
            assert_eq!(kind, wanted, "{text}");
        }));
    }
    tasks.join_all().await;
}
