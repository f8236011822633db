//! What the journal costs, counted where the operating system sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestra_saga::{Call, Definition, Executor, Handle, JournalStore, Start, Status};

const DIRECTORY: &str = "ORCHESTRA_SAGA_SYNC_DIRECTORY";
const STEPS: usize = 5;
const SAGAS: usize = 20;

fn chain() -> Definition {
    let mut d = Definition::builder("chain", "1");
    let input = d.input::<u64>();
    let mut last: Option<Handle<u64>> = None;
    for number in 0..STEPS {
        let mut step = d.step(
            &format!("step-{number}"),
            input,
            |_: Call, n: u64| async move { Ok(n) },
        );
        if let Some(last) = last {
            step = step.after(last);
        }
        last = Some(step.compensate(|_: Call, _: u64, _: Option<u64>| async { Ok(()) }));
    }
    d.build().expect("valid")
}

/// Calls that do nothing but stand in the trace.
fn mark(directory: &Path, what: &str) {
    assert!(std::fs::metadata(directory.join(what)).is_err());
}

#[tokio::test]
#[ignore = "the body of the child process whose calls are counted, which runs it by name"]
async fn the_process_whose_calls_are_counted() {
    let directory = std::path::PathBuf::from(std::env::var(DIRECTORY).expect("a directory"));
    let store = JournalStore::open(directory.join("sagas"))
        .await
        .expect("opened");
    let builder = Executor::builder(store.clone()).definition(chain());
    let executor = builder.build().await.expect("built");
    // The segment that is prepared ahead is synced as well, once.
    while std::fs::read_dir(directory.join("sagas"))
        .expect("listed")
        .count()
        < 3
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    mark(&directory, "mark-begin");
    for number in 0..SAGAS {
        let start = Start::of("chain").input(&number).expect("json");
        let saga = executor.start(start).await.expect("started");
        let view = executor.wait(saga).await.expect("ended");
        assert_eq!(view.status, Status::Completed);
    }
    mark(&directory, "mark-end");
    executor.shutdown().await;
    store.close().await.expect("closed");
}

/// The calls that sync, between the marks of a trace.
fn syncs(trace: &str) -> Vec<&str> {
    let lines = trace
        .lines()
        .skip_while(|line| !line.contains("mark-begin"));
    let lines = lines.take_while(|line| !line.contains("mark-end"));
    let calls = [
        "fdatasync(",
        "fsync(",
        "sync_file_range(",
        "msync(",
        "syncfs(",
        "sync(",
    ];
    lines
        .filter(|line| calls.iter().any(|call| line.contains(call)))
        .collect()
}

/// The number of the thread that made a call of the trace.
fn thread_of(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// Where the tracer is missing or forbidden, only this is shown: one line of the code syncs, and so what
/// the tests of the store count at that line is what the system does.
fn one_line_syncs() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut found = Vec::new();
    let mut open = vec![source.join("journal.rs"), source.join("journal")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(path)
                    .expect("listed")
                    .map(|entry| entry.expect("read").path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("read");
        found.extend(text.matches(".sync_data(").map(|_| path.clone()));
    }
    assert_eq!(found, [source.join("journal/disk.rs")]);
}

#[test]
fn a_lone_saga_of_n_steps_costs_n_plus_one_syncs() {
    one_line_syncs();
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=%file,fdatasync,fsync,sync_file_range,msync,syncfs,sync",
            "-o",
        ])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "syncing::the_process_whose_calls_are_counted",
            "--ignored",
        ])
        .env(DIRECTORY, directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(status) = command.status() else {
        println!("there is no strace: the calls were not counted");
        return;
    };
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    if !text.contains("mark-") {
        println!("strace may not trace here ({status}): the calls were not counted");
        return;
    }
    assert!(status.success(), "{status}");
    // The writer has a thread to itself; another prepares the next segments, and nobody waits for it.
    let syncs = syncs(&text);
    let mut threads = BTreeMap::<&str, usize>::new();
    for line in &syncs {
        *threads.entry(thread_of(line)).or_default() += 1;
    }
    let writer = threads.iter().max_by_key(|(_, calls)| **calls);
    let writer = *writer.expect("somebody syncs").0;
    let (written, prepared): (Vec<&str>, Vec<&str>) = syncs
        .iter()
        .copied()
        .partition(|line| thread_of(line) == writer);
    assert_eq!(written.len(), SAGAS * (STEPS + 1), "{syncs:?}");
    assert!(
        written.iter().all(|line| line.contains("fdatasync(")),
        "{syncs:?}"
    );
    assert!(prepared.len() <= 4, "{syncs:?}");
}
