//! Starting, stopping, dying.

use std::net::TcpListener;
use std::time::Duration;

use orchestra_testkit::Process;
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use tempfile::TempDir;

use crate::running::{Shop, binary, command, eventually, services_on, transcript};

async fn fails_to_start(mut command: std::process::Command, words: &[&str]) {
    command.env_remove("RUST_BACKTRACE");
    let mut process = Process::spawn(command).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(20), process.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(!status.success());
    eventually("the error is printed", Duration::from_secs(2), async || {
        !process.lines().is_empty()
    })
    .await;
    let text = transcript(&process);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = TempDir::new().unwrap();
    let mut shop = std::process::Command::new(binary());
    shop.args(["--serve", "--port", &port, "--data"])
        .arg(data.path());
    fails_to_start(shop, &[&format!("127.0.0.1:{port}")]).await;
    assert_eq!(services_on(data.path()), [0; 0]);
    assert!(
        !data.path().join("payment.db").exists(),
        "a service was started"
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_said_at_start() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    fails_to_start(command(&file.join("below"), &[]), &["file/below"]).await;
}

#[tokio::test]
async fn a_note_of_sockets_that_is_wrong_deletes_nothing() {
    let data = TempDir::new().unwrap();
    let precious = TempDir::new().unwrap();
    let note = precious.path().display().to_string();
    std::fs::write(data.path().join("sockets"), note).unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    assert!(precious.path().exists());
    shop.close().await;
}

#[tokio::test]
async fn a_directory_in_use_is_said_at_start() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    let owner = shop.process.pid().to_string();
    fails_to_start(command(data.path(), &[]), &["in use", &owner]).await;
    shop.close().await;
}

#[tokio::test]
async fn a_killed_platform_leaves_no_running_orphan() {
    let data = TempDir::new().unwrap();
    let mut shop = Shop::open(data.path(), &[]).await;
    assert_eq!(shop.services().len(), 12);
    shop.process.kill().unwrap();
    shop.process.wait().await.unwrap();
    eventually("all services ended", Duration::from_secs(2), async || {
        shop.services().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_frozen_orphan_is_killed_by_the_next_start() {
    // Orphans come to this process, as they would to an init: the kernel wakes a stopped process group
    // that is left without any parent in its session, and this one must stay frozen.
    set_child_subreaper(Some(getpid())).unwrap();
    let data = TempDir::new().unwrap();
    let mut shop = Shop::open(data.path(), &[]).await;
    let frozen = shop.services()[0];
    let pid = Pid::from_raw(i32::try_from(frozen).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    shop.process.kill().unwrap();
    shop.process.wait().await.unwrap();
    let limit = Duration::from_secs(2);
    eventually("the others ended", limit, async || {
        shop.services() == [frozen]
    })
    .await;
    let next = Shop::open(data.path(), &[]).await;
    assert!(
        !next.services().contains(&frozen),
        "the frozen one is still there"
    );
    assert_eq!(next.services().len(), 12);
    next.close().await;
}

#[tokio::test]
async fn a_run_that_is_interrupted_ends_in_order() {
    let data = TempDir::new().unwrap();
    let mut run = std::process::Command::new(binary());
    run.args(["--port", "0", "--data"]).arg(data.path());
    let mut process = Process::spawn(run).unwrap();
    process
        .wait_for_line(|line| line.starts_with("healthy"), Duration::from_secs(30))
        .await
        .unwrap();
    process.interrupt().unwrap();
    let status = tokio::time::timeout(Duration::from_secs(20), process.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(130), "{}", transcript(&process));
    assert_eq!(services_on(data.path()), [0; 0]);
}
