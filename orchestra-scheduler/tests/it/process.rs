//! Real processes: everything here starts some.

#![expect(clippy::panic, reason = "a helper of a test fails like the test")]

use std::time::Duration;

use orchestra_scheduler::runtime::process::ProcessRuntime;
use orchestra_scheduler::runtime::{Exit, Stream};
use orchestra_scheduler::{Command, ContainerRuntime, ContainerSpec, ErrorKind};

use crate::support::{instance, service};

pub(crate) fn shell(id: &str, script: &str) -> ContainerSpec {
    let command = Command::new("sh").args(["-c", script]);
    ContainerSpec::new(instance(id), service("svc"), command)
}

/// Waits until a container has written a line.
pub(crate) async fn line(runtime: &ProcessRuntime, id: &str, text: &str) {
    let written = async {
        loop {
            let output = runtime.output(&instance(id)).await.unwrap();
            if output.lines.iter().any(|line| line.text == text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), written).await;
    waited.unwrap_or_else(|_| panic!("{id} never wrote {text}"));
}

#[tokio::test]
async fn the_environment_is_what_the_spec_gives_and_path() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    let command = Command::new("env");
    let spec =
        ContainerSpec::new(instance("a"), service("svc"), command).env("COLOR", "blue = sky");
    runtime.start(spec).await.unwrap();
    assert_eq!(runtime.wait(&instance("a")).await.unwrap(), Exit::code(0));
    let output = runtime.output(&instance("a")).await.unwrap();
    let mut names: Vec<_> = output.lines.iter().map(|line| line.text.as_str()).collect();
    names.retain(|line| !line.starts_with("PATH=") && !line.starts_with("_="));
    assert_eq!(names, ["COLOR=blue = sky"]);
    runtime.shutdown().await;
}

/// The child begins as a shell, which drops what it cannot name.
#[tokio::test]
async fn a_variable_that_would_not_arrive_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    for name in ["my.setting", "LOG-LEVEL", "1ST", "IFS", "OPTIND", "PPID"] {
        let spec = ContainerSpec::new(instance("a"), service("svc"), Command::new("env"));
        let refused = runtime.start(spec.env(name, "7")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains(name), "{refused}");
    }
    runtime.shutdown().await;
}

#[tokio::test]
async fn both_streams_are_captured_and_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    runtime
        .start(shell("a", "echo out; echo err >&2; exit 3"))
        .await
        .unwrap();
    assert_eq!(
        runtime.wait(&instance("a")).await.unwrap().exit_code(),
        Some(3)
    );
    let output = runtime.output(&instance("a")).await.unwrap();
    let find = |text: &str| output.lines.iter().find(|line| line.text == text).unwrap();
    assert_eq!(find("out").stream, Stream::Out);
    assert_eq!(find("err").stream, Stream::Err);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_missing_program_is_an_error_of_start() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    let command = Command::new("no-such-program");
    let spec = ContainerSpec::new(instance("a"), service("svc"), command);
    let error = runtime.start(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProgramNotFound);
    assert!(error.to_string().contains("no-such-program"), "{error}");
    runtime.shutdown().await;
}

/// Whether a process runs, sleeps or is stopped.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// The number that a container has written on a line of its own.
async fn written_pid(runtime: &ProcessRuntime, id: &str) -> u32 {
    for _ in 0..2_000 {
        let output = runtime.output(&instance(id)).await.unwrap();
        if let Some(pid) = output.lines.iter().find_map(|line| line.text.parse().ok()) {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{id} never wrote a number");
}

async fn open() -> (tempfile::TempDir, ProcessRuntime) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    (directory, runtime)
}

#[tokio::test]
async fn a_frozen_child_can_be_killed() {
    let (_directory, runtime) = open().await;
    let child = runtime
        .start(shell("a", "echo ready; kill -STOP $$"))
        .await
        .unwrap();
    line(&runtime, "a", "ready").await;
    let exit = runtime.kill(&instance("a")).await.unwrap();
    assert_eq!(exit, Exit::signal(9).forced());
    assert!(!is_alive(child.pid.unwrap()));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_frozen_child_that_is_stopped_gets_its_chance_to_end() {
    let (_directory, runtime) = open().await;
    let script = "trap 'exit 7' TERM; echo ready; kill -STOP $$; while :; do sleep 60 & wait; done";
    runtime.start(shell("a", script)).await.unwrap();
    line(&runtime, "a", "ready").await;
    let exit = runtime
        .stop(&instance("a"), Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(exit, Exit::code(7));
    runtime.shutdown().await;
}

#[tokio::test]
async fn nothing_of_the_group_outlives_a_stop_or_the_end_of_its_leader() {
    let (_directory, runtime) = open().await;
    let stubborn = "trap '' TERM; sleep 300 & echo $!; wait";
    runtime.start(shell("stopped", stubborn)).await.unwrap();
    let offspring = written_pid(&runtime, "stopped").await;
    assert!(is_alive(offspring));
    let exit = runtime
        .stop(&instance("stopped"), Duration::from_millis(50))
        .await
        .unwrap();
    assert!(exit.is_forced());
    assert!(!is_alive(offspring));

    runtime
        .start(shell("ended", "sleep 300 & echo $!; exit 0"))
        .await
        .unwrap();
    assert!(runtime.wait(&instance("ended")).await.unwrap().is_success());
    assert!(!is_alive(written_pid(&runtime, "ended").await));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_child_reads_no_end_of_file_while_the_platform_lives() {
    let (_directory, runtime) = open().await;
    let script = "echo ready; read -r _; echo platform died; exit 5";
    runtime.start(shell("a", script)).await.unwrap();
    line(&runtime, "a", "ready").await;
    let id = instance("a");
    let waited = tokio::time::timeout(Duration::from_millis(100), runtime.wait(&id));
    assert!(waited.await.is_err());
    runtime.shutdown().await;
}

#[tokio::test]
async fn shutdown_and_drop_leave_no_process() {
    let (_directory, runtime) = open().await;
    let one = runtime
        .start(shell("a", "sleep 300"))
        .await
        .unwrap()
        .pid
        .unwrap();
    assert!(is_alive(one));
    runtime.shutdown().await;
    assert!(!is_alive(one));

    let (_directory, runtime) = open().await;
    let other = runtime
        .start(shell("a", "sleep 300"))
        .await
        .unwrap()
        .pid
        .unwrap();
    drop(runtime);
    for _ in 0..1_000 {
        if !is_alive(other) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {other} outlived its runtime");
}

#[tokio::test]
async fn a_start_that_is_dropped_takes_effect_wholly_or_not_at_all() {
    let (directory, runtime) = open().await;
    for round in 0..20_u64 {
        let id = format!("i{round}");
        let start = runtime.start(shell(&id, "sleep 300"));
        let _dropped = tokio::time::timeout(Duration::from_micros(round * 200), start).await;
    }
    runtime.shutdown().await;
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["lock"], "a record outlived its child");
}

#[tokio::test]
async fn a_full_runtime_refuses_and_an_ended_container_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::options()
        .max_running(1)
        .open(directory.path())
        .await
        .unwrap();
    runtime.start(shell("a", "sleep 300")).await.unwrap();
    let error = runtime.start(shell("b", "true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.is_retryable());
    runtime.kill(&instance("a")).await.unwrap();
    runtime.start(shell("b", "true")).await.unwrap();
    runtime.shutdown().await;
}

#[tokio::test]
async fn impossible_specs_are_refused_and_leave_no_record() {
    let (directory, runtime) = open().await;
    let empty = ContainerSpec::new(instance("a"), service("svc"), Command::new(""));
    let zero = shell("b", "a\0b");
    let name = shell("c", "true").env("A=B", "c");
    for spec in [empty, zero, name] {
        assert_eq!(
            runtime.start(spec).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    let elsewhere = shell("d", "true").directory("/no/such/directory");
    let error = runtime.start(elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
    let records = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(records, 1, "the lock alone");
    runtime.shutdown().await;
}

#[test]
fn children_do_not_outlive_the_tokio_runtime_they_were_started_on() {
    // What is to follow the child may not have begun when the runtime ends.
    dies_with(tokio::runtime::Builder::new_current_thread());
    dies_with(tokio::runtime::Builder::new_multi_thread());
}

fn dies_with(mut tokio: tokio::runtime::Builder) {
    let directory = tempfile::tempdir().unwrap();
    let tokio = tokio.enable_all().build().unwrap();
    let (runtime, pid) = tokio.block_on(async {
        let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
        let child = runtime.start(shell("a", "exec sleep 300")).await.unwrap();
        (runtime, child.pid.unwrap())
    });
    assert!(is_alive(pid));
    drop(tokio);
    // The signal is sent, and a process takes a moment to die.
    for _ in 0..10_000 {
        if !is_alive(pid) {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(!is_alive(pid));
    drop(runtime);
}
