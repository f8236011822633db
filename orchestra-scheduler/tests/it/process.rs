//! Real processes: everything here starts some.

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
