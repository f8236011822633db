//! Limits that bite. Where the machine offers no cgroups these say so and check nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestra_scheduler::runtime::Enforcement;
use orchestra_scheduler::runtime::process::ProcessRuntime;
use orchestra_scheduler::{Bytes, ContainerRuntime, Event, Limits};
use parking_lot::Mutex;

use crate::process::{line, shell};
use crate::support::instance;

async fn open() -> (tempfile::TempDir, ProcessRuntime) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    (directory, runtime)
}

/// The cgroups that the records of a state directory name.
pub(crate) fn cgroups(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let records = entries.filter(|path| path.extension().is_some_and(|e| e == "child"));
    let texts = records.map(|path| std::fs::read_to_string(path).unwrap());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines
        .filter_map(|line| line.strip_prefix("cgroup=").map(PathBuf::from))
        .collect()
}

#[tokio::test]
async fn a_child_beyond_its_memory_limit_is_killed_and_its_cgroup_removed() {
    let (directory, runtime) = open().await;
    if runtime.capabilities().memory_limit == Enforcement::Unenforced {
        eprintln!("SKIPPED: no usable memory cgroup: {runtime:?}");
        return;
    }
    // The gate keeps the child until something is written; then it reads without end into memory.
    let spec = shell("hog", "echo ready; sleep 0.2; exec tail /dev/zero");
    let spec = spec.limits(Limits::new().memory(Bytes::mib(32)));
    runtime.start(spec).await.unwrap();
    line(&runtime, "hog", "ready").await;
    let made = cgroups(directory.path());
    assert!(
        !made.is_empty() && made.iter().all(|path| path.is_dir()),
        "{made:?}"
    );
    let id = instance("hog");
    let exit = tokio::time::timeout(Duration::from_secs(30), runtime.wait(&id));
    let exit = exit.await.expect("not killed in 30 s").unwrap();
    assert!(exit.is_out_of_memory(), "{exit}");
    assert!(made.iter().all(|path| !path.exists()), "{made:?}");
    runtime.shutdown().await;
}

/// CPU time of a process in hundredths of a second.
fn cpu_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often the kernel held a cgroup back.
fn throttled(cgroup: &Path) -> u64 {
    let stat = std::fs::read_to_string(cgroup.join("cpu.stat")).unwrap();
    let count = stat
        .lines()
        .find_map(|line| line.strip_prefix("nr_throttled "));
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_child_gets_no_more_cpu_than_its_limit() {
    let (directory, runtime) = open().await;
    if runtime.capabilities().cpu_limit == Enforcement::Unenforced {
        eprintln!("SKIPPED: no usable cpu cgroup: {runtime:?}");
        return;
    }
    let spec = shell("spin", "echo ready; while :; do :; done").limits(Limits::new().cpu(100));
    let pid = runtime.start(spec).await.unwrap().pid.unwrap();
    line(&runtime, "spin", "ready").await;
    let cgroup = cgroups(directory.path()).remove(0);
    let (start, before) = (tokio::time::Instant::now(), cpu_time(pid));
    let held_back = async {
        while throttled(&cgroup) < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), held_back).await;
    waited.expect("a loop that never ends was not held back");
    let used = cpu_time(pid) - before;
    // A tenth of a CPU is ten hundredths of a second in each second, and a period's worth more at the ends.
    let allowed = start.elapsed().as_secs_f64() * 10.0 + 5.0;
    assert!(
        used as f64 <= allowed,
        "used {used} hundredths of {allowed}"
    );
    runtime.shutdown().await;
    assert!(!cgroup.exists());
}

#[tokio::test]
async fn limits_that_cannot_be_enforced_are_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reasons);
    let listener = move |event: &Event| {
        if let Event::LimitsUnenforced { reason } = event {
            heard.lock().push(reason.clone());
        }
    };
    let options = ProcessRuntime::options()
        .cgroup_parent("/no-such-parent")
        .listener(Arc::new(listener));
    let runtime = options.open(directory.path()).await.unwrap();
    assert_eq!(runtime.capabilities().memory_limit, Enforcement::Unenforced);
    assert_eq!(runtime.capabilities().cpu_limit, Enforcement::Unenforced);
    for id in ["a", "b"] {
        let spec = shell(id, "exit 0").limits(Limits::new().cpu(100));
        runtime.start(spec).await.unwrap();
        assert!(runtime.wait(&instance(id)).await.unwrap().is_success());
    }
    assert_eq!(reasons.lock().len(), 1);
    runtime.shutdown().await;
}
