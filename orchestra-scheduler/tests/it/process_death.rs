//! What is left when the platform dies, and what the next one makes of it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orchestra_scheduler::runtime::process::ProcessRuntime;
use orchestra_scheduler::{Bytes, ContainerRuntime, ErrorKind, Event, Limits};
use parking_lot::Mutex;

use crate::process::{is_alive, line, shell};

const DIRECTORY: &str = "PLATFORM_DIRECTORY";
const SCRIPT: &str = "PLATFORM_SCRIPT";

/// A platform with one child, as a process of its own that the tests below kill.
#[tokio::test]
#[ignore = "the other tests of this file run it as a process"]
async fn platform() {
    let directory = std::env::var(DIRECTORY).unwrap();
    let script = std::env::var(SCRIPT).unwrap();
    let runtime = ProcessRuntime::open(&directory).await.unwrap();
    // Enough for any child here; where limits are not enforced there is no cgroup to clean up.
    let spec = shell("a", &script).limits(Limits::new().memory(Bytes::mib(256)));
    let child = runtime.start(spec).await.unwrap();
    line(&runtime, "a", "ready").await;
    let output = runtime
        .output(&crate::support::instance("a"))
        .await
        .unwrap();
    let offspring = output
        .lines
        .iter()
        .find_map(|line| line.text.parse::<u32>().ok());
    let pids = format!("{} {}", child.pid.unwrap(), offspring.unwrap_or(0));
    let at = Path::new(&directory);
    std::fs::write(at.join("pids.draft"), pids).unwrap();
    std::fs::rename(at.join("pids.draft"), at.join("pids")).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Starts such a platform, and kills it once its child has written `ready`.
async fn died_platform(directory: &Path, script: &str) -> (u32, u32) {
    let mut platform = Process::new(std::env::current_exe().unwrap());
    let platform = platform
        .args(["--exact", "process_death::platform", "--ignored"])
        .env(DIRECTORY, directory)
        .env(SCRIPT, script)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut platform = platform.spawn().unwrap();
    let mut pids = None;
    for _ in 0..2_000 {
        pids = std::fs::read_to_string(directory.join("pids")).ok();
        if pids.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    platform.kill().unwrap();
    platform.wait().unwrap();
    let pids = pids.expect("the platform never started its child");
    let (child, offspring) = pids.split_once(' ').unwrap();
    (child.parse().unwrap(), offspring.parse().unwrap())
}

const MARK: &str = "PLATFORM_MARK";

/// A platform that starts children as fast as it can, until it is killed.
#[tokio::test]
#[ignore = "the other tests of this file run it as a process"]
async fn busy_platform() {
    let directory = std::env::var(DIRECTORY).unwrap();
    let mark = std::env::var(MARK).unwrap();
    let runtime = ProcessRuntime::open(&directory).await.unwrap();
    for number in 0..200 {
        // Deaf to the lifeline: only a platform can end it.
        let spec = shell(&format!("i{number}"), "exec sleep 300 <&-").env(MARK, &mark);
        runtime.start(spec).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// The processes, other than the platform itself, whose environment holds the mark.
fn marked(mark: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_marked = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environ.split(|&byte| byte == 0);
        let expected = format!("{MARK}={mark}");
        variables.any(|variable| variable == expected.as_bytes()) && is_alive(*pid)
    };
    pids.filter(is_marked).collect()
}

#[tokio::test]
async fn a_platform_killed_at_any_moment_leaves_nothing_to_the_next() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut draws = fastrand::Rng::with_seed(seed);
    let mut started = 0;
    for round in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let mark = format!("{seed}-{round}");
        let mut platform = Process::new(std::env::current_exe().unwrap());
        let platform = platform
            .args(["--exact", "process_death::busy_platform", "--ignored"])
            .env(DIRECTORY, directory.path())
            .env(MARK, &mark)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut platform = platform.spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(draws.u64(5..150))).await;
        platform.kill().unwrap();
        platform.wait().unwrap();

        let (runtime, killed) = reopen(directory.path()).await;
        started += killed.len();
        // What was still at the gate ends by itself; what was let through is in a record.
        let gone = async {
            while !marked(&mark).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(2), gone).await;
        assert!(waited.is_ok(), "left: {:?}", marked(&mark));
        runtime.shutdown().await;
    }
    assert!(started > 0, "no round killed a platform with children");
}

async fn dies_within(pid: u32, limit: Duration) -> bool {
    let gone = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, gone).await.is_ok()
}

async fn reopen(directory: &Path) -> (ProcessRuntime, Vec<u32>) {
    let killed = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&killed);
    let listener = move |event: &Event| {
        if let Event::LeftoverKilled { pid, .. } = event {
            heard.lock().push(*pid);
        }
    };
    let options = ProcessRuntime::options().listener(Arc::new(listener));
    let runtime = options.open(directory).await.unwrap();
    let killed = killed.lock().clone();
    (runtime, killed)
}

#[tokio::test]
async fn a_child_that_watches_its_lifeline_ends_with_the_platform() {
    let directory = tempfile::tempdir().unwrap();
    let (child, _) = died_platform(directory.path(), "echo ready; exec cat").await;
    assert!(dies_within(child, Duration::from_secs(2)).await);
    let (runtime, killed) = reopen(directory.path()).await;
    assert_eq!(killed, [0; 0]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_child_that_does_not_watch_is_killed_by_the_next_platform() {
    let directory = tempfile::tempdir().unwrap();
    let (child, _) = died_platform(directory.path(), "echo ready; exec sleep 300").await;
    assert!(!dies_within(child, Duration::from_millis(300)).await);
    let cgroups = crate::process_limits::cgroups(directory.path());
    assert!(cgroups.iter().all(|path| path.is_dir()));
    let (runtime, killed) = reopen(directory.path()).await;
    assert!(!is_alive(child));
    assert_eq!(killed, [child]);
    assert!(cgroups.iter().all(|path| !path.exists()));
    assert_eq!(runtime.list().await.unwrap(), []);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_child_frozen_when_the_platform_dies_is_gone_or_killed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo ready; kill -STOP $$; exec cat";
    let (child, _) = died_platform(directory.path(), script).await;
    let (runtime, _) = reopen(directory.path()).await;
    assert!(!is_alive(child));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_child_frozen_after_the_platform_died_is_killed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' HUP; echo ready; exec sleep 300";
    let (child, _) = died_platform(directory.path(), script).await;
    let frozen = Process::new("sh")
        .args(["-c", &format!("kill -STOP {child}")])
        .status();
    assert!(frozen.unwrap().success());
    let (runtime, killed) = reopen(directory.path()).await;
    assert!(!is_alive(child));
    assert_eq!(killed, [child]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn offspring_that_outlived_its_leader_is_killed_by_the_next_platform() {
    let directory = tempfile::tempdir().unwrap();
    let script = "sleep 300 & echo $!; echo ready; read -r _";
    let (child, offspring) = died_platform(directory.path(), script).await;
    assert!(dies_within(child, Duration::from_secs(2)).await);
    assert!(is_alive(offspring));
    let (runtime, killed) = reopen(directory.path()).await;
    assert!(!is_alive(offspring));
    assert_eq!(killed, [child], "reported by its group");
    runtime.shutdown().await;
}

/// Somebody else's process, leader of its own group.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut command = Process::new("sleep");
        Self(command.arg("300").process_group(0).spawn().unwrap())
    }

    fn started(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields
            .split_ascii_whitespace()
            .nth(19)
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap()
        .trim()
        .to_owned()
}

fn write_record(directory: &Path, pid: u32, started: u64, boot: &str) {
    let text = format!("instance=a\npid={pid}\nstarted={started}\nboot={boot}\npipe=1\n");
    std::fs::write(directory.join(format!("{pid}-{started}.child")), text).unwrap();
}

#[tokio::test]
async fn a_stranger_that_was_given_the_number_of_a_child_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let stranger = Stranger::new();
    let (pid, started) = (stranger.0.id(), stranger.started());
    write_record(directory.path(), pid, started - 1, &boot_id());
    write_record(directory.path(), pid, started, "another-boot");
    let (runtime, killed) = reopen(directory.path()).await;
    assert_eq!(killed, [0; 0]);
    assert!(is_alive(pid));
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "the records are done with, the lock stays");
    runtime.shutdown().await;

    // The same record, rightly filled in, does kill: the two above were spared for their difference.
    write_record(directory.path(), pid, started, &boot_id());
    let mut stranger = stranger;
    let (runtime, killed) = reopen(directory.path()).await;
    assert_eq!(killed, [pid]);
    stranger.0.wait().unwrap();
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_record_that_makes_no_sense_does_not_keep_the_platform_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("1-1.child"), "pid=1\ngarbage").unwrap();
    let (runtime, killed) = reopen(directory.path()).await;
    assert_eq!(killed, [0; 0]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_second_platform_on_the_same_directory_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let first = ProcessRuntime::open(directory.path()).await.unwrap();
    let error = ProcessRuntime::open(directory.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryInUse);
    let (path, pid) = (
        directory.path().display().to_string(),
        std::process::id().to_string(),
    );
    assert!(
        error.to_string().contains(&path) && error.to_string().contains(&pid),
        "{error}"
    );
    first.shutdown().await;
    ProcessRuntime::open(directory.path())
        .await
        .unwrap()
        .shutdown()
        .await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ProcessRuntime::open(file.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .contains(&file.path().display().to_string()),
        "{error}"
    );
}
