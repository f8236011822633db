//! `kill -9` of a real process on a real file, again and again.
//!
//! The child is this test binary, run for `the_process_that_is_killed` alone. It starts sagas whose
//! participant is an SQLite file behind the barrier, and prints each id once its start is durable. The
//! parent kills it at random moments, and in the end continues what was left by itself.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, IdempotencyKey};
use orchestra_saga::barrier::sqlite::{Abort, Barrier, Barriered};
use orchestra_saga::{
    BarrierCall, Call, Definition, ErrorKind, Executor, Failure, Filter, Handle, Operation, Retry,
    SagaId, SqliteStore, Start, Status,
};
use rusqlite::Connection;

const DIRECTORY: &str = "ORCHESTRA_SAGA_KILL_DIRECTORY";
const ROUND: &str = "ORCHESTRA_SAGA_KILL_ROUND";
const ROUNDS: u64 = 8;

fn participant(directory: &Path) -> Connection {
    let db = Connection::open(directory.join("participant.db")).expect("opened");
    db.busy_timeout(Duration::from_secs(10)).expect("set");
    db.pragma_update(None, "journal_mode", "WAL").expect("set");
    db
}

fn install(directory: &Path) {
    let db = participant(directory);
    Barrier::install(&db).expect("installed");
    let sql = "CREATE TABLE effect (saga TEXT, step TEXT, change INTEGER)";
    db.execute_batch(sql).expect("created");
}

/// The effect of a call, in a transaction with its record.
fn serve(directory: &Path, call: &Call, refuse: bool) -> Result<(), Failure> {
    let mut db = participant(directory);
    let busy = |error: orchestra_saga::Error| Failure::retryable(error.to_string());
    let tx = Barrier::begin(&mut db).map_err(busy)?;
    let answer = Barrier::run(&tx, &BarrierCall::from(call), |tx| {
        let change = if call.op == Operation::Action { 1 } else { -1 };
        let sql = "INSERT INTO effect VALUES (?1, ?2, ?3)";
        tx.execute(sql, (call.saga.to_string(), call.step.as_str(), change))?;
        if refuse {
            return Err(Abort::rejected("declined"));
        }
        Ok(())
    });
    let answer = answer.map_err(busy)?;
    tx.commit()
        .map_err(|error| Failure::unknown(error.to_string()))?;
    match answer {
        Barriered::Rejected(reason) => Err(Failure::rejected(reason)),
        Barriered::Tombstoned | Barriered::Stale(_) => Err(Failure::rejected("too late")),
        _ => Ok(()),
    }
}

async fn act(directory: Arc<PathBuf>, call: Call, refuse: bool) -> Result<u32, Failure> {
    let work = tokio::task::spawn_blocking(move || serve(&directory, &call, refuse));
    work.await
        .map_err(|error| Failure::unknown(error.to_string()))??;
    Ok(1)
}

/// Three steps that can be undone, each third saga declined at the pivot.
fn definition(directory: &Path) -> Definition {
    let directory = Arc::new(directory.to_owned());
    let patient = Retry::new(20, Backoff::exponential(Duration::from_millis(5), 1.5));
    let mut d = Definition::builder("kill", "1");
    let number = d.input::<u64>();
    let mut last: Option<Handle<u32>> = None;
    for name in ["a", "b", "c"] {
        let (doing, undoing) = (Arc::clone(&directory), Arc::clone(&directory));
        let mut step = d
            .step(name, number, move |call, _: u64| {
                act(Arc::clone(&doing), call, false)
            })
            .retry(patient);
        if let Some(last) = last {
            step = step.after(last);
        }
        last = Some(step.compensate(move |call, _: u64, _: Option<u32>| {
            let undone = act(Arc::clone(&undoing), call, false);
            async move { undone.await.map(drop) }
        }));
    }
    let mut pay = d
        .step("pay", number, move |call, number: u64| {
            act(Arc::clone(&directory), call, number.is_multiple_of(3))
        })
        .retry(patient);
    if let Some(last) = last {
        pay = pay.after(last);
    }
    pay.pivot();
    d.build().expect("valid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of the child process of the kill test, which runs it by name"]
async fn the_process_that_is_killed() {
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("a directory"));
    let round: u64 = std::env::var(ROUND)
        .expect("a round")
        .parse()
        .expect("a number");
    let store = SqliteStore::open(directory.join("sagas.db"))
        .await
        .expect("opened");
    let builder = Executor::builder(store).definition(definition(&directory));
    let executor = builder.build().await.expect("built");
    for number in 0..100_000u64 {
        let key = IdempotencyKey::new(format!("{round}-{number}")).expect("valid");
        let start = Start::of("kill").key(key).input(&number).expect("json");
        let saga = executor.start(start).await.expect("started");
        println!("saga {saga}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn child(directory: &Path, round: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args([
            "--exact",
            "killing::the_process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("a child")
}

/// Runs a child until it has acknowledged so many sagas, kills it, and returns what it acknowledged.
fn kill_after(directory: &Path, round: u64, acknowledged: usize) -> Vec<SagaId> {
    let mut child = child(directory, round);
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut sagas = Vec::new();
    let mut killed = false;
    // What was printed before the kill is still read after it: it was acknowledged.
    for line in lines {
        let Ok(line) = line else {
            break;
        };
        if let Some((_, id)) = line.split_once("saga ")
            && let Ok(id) = id.trim().parse()
        {
            sagas.push(id);
        }
        if sagas.len() >= acknowledged && !killed {
            killed = true;
            child.kill().expect("killed");
        }
    }
    child.wait().expect("reaped");
    assert!(
        killed,
        "the child of round {round} ended by itself after {} sagas",
        sagas.len()
    );
    sagas
}

fn effects(directory: &Path) -> HashMap<String, Vec<i64>> {
    let db = participant(directory);
    let sql = "SELECT saga, sum(change) FROM effect GROUP BY saga, step";
    let mut sql = db.prepare(sql).expect("prepared");
    let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let mut effects: HashMap<String, Vec<i64>> = HashMap::new();
    for row in rows.expect("queried") {
        let (saga, count): (String, i64) = row.expect("a row");
        effects.entry(saga).or_default().push(count);
    }
    effects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    install(directory.path());
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let path = directory.path().to_owned();
        let count = 3 + usize::try_from(round * 7).expect("small");
        let run = tokio::task::spawn_blocking(move || kill_after(&path, round, count));
        acknowledged.extend(run.await.expect("joined"));
    }
    let store = SqliteStore::open(directory.path().join("sagas.db"))
        .await
        .expect("opened");
    let builder = Executor::builder(store.clone()).definition(definition(directory.path()));
    let executor = builder.build().await.expect("built");
    assert_eq!(executor.epoch().0, ROUNDS + 1);
    for saga in &acknowledged {
        executor.wait(*saga).await.expect("ended");
    }
    let all = executor
        .list(&Filter::default().limit(100_000))
        .await
        .expect("listed");
    let known: BTreeSet<_> = all.iter().map(|line| line.saga).collect();
    assert!(
        acknowledged.is_subset(&known),
        "an acknowledged start was lost"
    );
    let mut ended: HashMap<Status, usize> = HashMap::new();
    for line in &all {
        let status = executor.wait(line.saga).await.expect("ended").status;
        *ended.entry(status).or_default() += 1;
        let counts = effects(directory.path()).remove(&line.saga.to_string());
        let counts = counts.unwrap_or_default();
        match status {
            Status::Completed => assert_eq!(counts, [1; 4], "{}", line.saga),
            Status::Compensated => {
                assert!(
                    counts.iter().all(|count| *count == 0),
                    "{}: {counts:?}",
                    line.saga
                );
            }
            other => panic!("saga {} ended {other}", line.saga),
        }
    }
    assert!(
        ended[&Status::Completed] > 10 && ended[&Status::Compensated] > 5,
        "{ended:?}"
    );
    executor.shutdown().await;
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_store_in_use_names_its_process() {
    let directory = tempfile::tempdir().expect("a directory");
    install(directory.path());
    let mut child = child(directory.path(), 0);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let begun = lines.any(|line| line.is_ok_and(|line| line.contains("saga ")));
    let path = directory.path().join("sagas.db");
    let refused = SqliteStore::open(&path).await;
    let pid = child.id();
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(begun, "the child started no saga");
    let error = refused.expect_err("the child has it");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(
        error.to_string().contains(&format!("process {pid}")),
        "{error}"
    );
    assert!(
        error.to_string().contains(&*path.to_string_lossy()),
        "{error}"
    );
    SqliteStore::open(&path)
        .await
        .expect("free")
        .close()
        .await
        .expect("closed");
}

#[tokio::test]
async fn what_was_acknowledged_is_read_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    install(directory.path());
    let path = directory.path().join("sagas.db");
    let mut histories = Vec::new();
    for _ in 0..2 {
        let store = SqliteStore::open(&path).await.expect("opened");
        let builder = Executor::builder(store.clone()).definition(definition(directory.path()));
        let executor = builder.build().await.expect("built");
        let key = IdempotencyKey::new("once").expect("valid");
        let start = Start::of("kill").key(key).input(&1u64).expect("json");
        let saga = executor.start(start).await.expect("started");
        assert_eq!(
            executor.wait(saga).await.expect("ended").status,
            Status::Completed
        );
        histories.push((saga, executor.history(saga).await.expect("read")));
        executor.shutdown().await;
        store.close().await.expect("closed");
    }
    assert_eq!(histories[0], histories[1]);
}
