//! `kill -9` of a real process that writes a journal, again and again.
//!
//! The child is this test binary, run for `the_process_that_is_killed` alone. It prints the id of each saga
//! once its start is durable, and again once it has ended.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orchestra_saga::{
    Call, Definition, ErrorKind, Executor, Filter, Handle, JournalStore, SagaId, SagaStore, Start,
    Status,
};

const DIRECTORY: &str = "ORCHESTRA_SAGA_JOURNAL_DIRECTORY";
const ROUNDS: u64 = 8;

fn definition() -> Definition {
    let mut d = Definition::builder("kill", "1");
    let number = d.input::<u64>();
    let mut last: Option<Handle<u64>> = None;
    for name in ["a", "b", "c"] {
        let mut step = d.step(name, number, |_: Call, number: u64| async move {
            tokio::task::yield_now().await;
            Ok(number)
        });
        if let Some(last) = last {
            step = step.after(last);
        }
        last = Some(step.compensate(|_: Call, _: u64, _: Option<u64>| async { Ok(()) }));
    }
    d.build().expect("valid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of the child process of the kill test, which runs it by name"]
async fn the_process_that_is_killed() {
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("a directory"));
    let store = JournalStore::open(directory).await.expect("opened");
    let builder = Executor::builder(store).definition(definition());
    let executor = std::sync::Arc::new(builder.build().await.expect("built"));
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let executor = std::sync::Arc::clone(&executor);
        lanes.spawn(async move {
            for number in 0..100_000_u64 {
                let start = Start::of("kill").input(&number).expect("json");
                let saga = executor.start(start).await.expect("started");
                println!("saga {saga}");
                executor.wait(saga).await.expect("ended");
                println!("ended {saga}");
            }
        });
    }
    while lanes.join_next().await.is_some() {}
}

fn child(directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args([
            "--exact",
            "journal_killing::the_process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("a child")
}

#[derive(Default)]
struct Said {
    started: BTreeSet<SagaId>,
    ended: BTreeSet<SagaId>,
}

/// Runs a child until it has acknowledged so many sagas, and kills it.
fn kill_after(directory: &Path, acknowledged: usize, said: &mut Said) {
    let mut child = child(directory);
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut seen, mut killed) = (0, false);
    // What was printed before the kill is still read after it: it was acknowledged.
    for line in lines.map_while(Result::ok) {
        if let Some((_, id)) = line.split_once("saga ")
            && let Ok(id) = id.trim().parse()
        {
            said.started.insert(id);
            seen += 1;
        }
        if let Some((_, id)) = line.split_once("ended ")
            && let Ok(id) = id.trim().parse()
        {
            said.ended.insert(id);
        }
        if seen >= acknowledged && !killed {
            killed = true;
            child.kill().expect("killed");
        }
    }
    child.wait().expect("reaped");
    assert!(killed, "the child ended by itself after {seen} sagas");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sagas");
    let mut said = Said::default();
    for round in 0..ROUNDS {
        let (path, mut known) = (path.clone(), std::mem::take(&mut said));
        let count = 5 + usize::try_from(round * 37).expect("small");
        let run = tokio::task::spawn_blocking(move || {
            kill_after(&path, count, &mut known);
            known
        });
        said = run.await.expect("joined");
    }
    let store = JournalStore::open(&path).await.expect("opened");
    for saga in &said.ended {
        let log = store.load(*saga, orchestra_saga::Version(0)).await;
        let last = log.expect("read").pop().expect("events");
        assert_eq!(last.event, orchestra_saga::Event::SagaCompleted);
    }
    let builder = Executor::builder(store.clone()).definition(definition());
    let executor = builder.build().await.expect("built");
    assert_eq!(executor.epoch().0, ROUNDS + 1);
    for saga in &said.started {
        let view = executor.wait(*saga).await.expect("an acknowledged start");
        assert_eq!(view.status, Status::Completed);
    }
    let all = executor.list(&Filter::default().limit(1_000_000)).await;
    let all = all.expect("listed");
    assert!(all.len() >= said.started.len() && said.ended.len() > 100);
    for line in &all {
        let view = executor.wait(line.saga).await.expect("ended");
        assert_eq!(view.status, Status::Completed);
    }
    executor.shutdown().await;
    store.close().await.expect("closed");
    let store = JournalStore::open(&path).await.expect("opened");
    assert_eq!(
        (store.recovered().frames, &store.recovered().torn),
        (0, &None)
    );
    assert_eq!(store.recovered().sagas, all.len());
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_journal_in_use_names_its_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sagas");
    let mut child = child(&path);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let begun = lines.any(|line| line.is_ok_and(|line| line.contains("saga ")));
    let refused = JournalStore::open(&path).await;
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
    JournalStore::open(&path)
        .await
        .expect("free")
        .close()
        .await
        .expect("closed");
}
