use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use orchestra_testkit::process::{Process, Stream, count_matching, find_matching};
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(100);

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// A mark that no other process carries.
fn unique(name: &str) -> String {
    format!("{name}-{}-{:016x}", std::process::id(), fastrand::u64(..))
}

async fn gone(marker: &str) -> bool {
    counted(marker, 0).await
}

/// Whether so many processes carry the mark before long.
async fn counted(marker: &str, wanted: usize) -> bool {
    for _ in 0..200 {
        if count_matching(marker).unwrap() == wanted {
            return true;
        }
        tokio::time::sleep(MOMENT / 10).await;
    }
    false
}

#[tokio::test]
async fn output_of_both_streams_is_kept_by_line() {
    let mut process = Process::spawn(shell("echo one; echo two >&2; printf three")).unwrap();
    assert!(process.wait().await.unwrap().success());
    let three = process
        .wait_for_line(|line| line == "three", SOON)
        .await
        .unwrap();
    assert_eq!(three.stream(), Stream::Stdout);
    let two = process
        .wait_for_line(|line| line == "two", SOON)
        .await
        .unwrap();
    assert_eq!(two.stream(), Stream::Stderr);
    assert_eq!(process.lines().len(), 3);
}

#[tokio::test]
async fn a_line_printed_later_is_waited_for() {
    let process = Process::spawn(shell("read go; echo went $go; read end")).unwrap();
    let wanted = process.wait_for_line(|line| line.starts_with("went"), MOMENT);
    assert_eq!(wanted.await.unwrap_err().kind(), ErrorKind::TimedOut);

    let mut process = process;
    let mut stdin = process.take_stdin().unwrap();
    stdin.write_all(b"north\n").await.unwrap();
    let line = process
        .wait_for_line(|line| line.starts_with("went"), SOON)
        .await
        .unwrap();
    assert_eq!(line.text(), "went north");
}

#[tokio::test]
async fn a_line_that_can_no_longer_come_fails_at_once_with_the_last_lines() {
    let process = Process::spawn(shell("echo disk full >&2; exit 3")).unwrap();
    let error = process
        .wait_for_line(|line| line == "ready", SOON)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("disk full"), "{error}");
}

#[tokio::test]
async fn only_the_last_lines_are_kept() {
    let count = Process::MAX_LINES + 10;
    let mut process = Process::spawn(shell(&format!("seq {count}; echo end"))).unwrap();
    process
        .wait_for_line(|line| line == "end", SOON)
        .await
        .unwrap();
    process.wait().await.unwrap();
    assert_eq!(process.lines().len(), Process::MAX_LINES);
    assert_eq!(process.lines()[0].text(), "12");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = Process::spawn(Command::new("/no/such/program")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn kill_reaches_the_whole_group_and_cannot_be_caught() {
    let marker = unique("group");
    let mut command = shell("trap '' TERM; sleep 60 & sleep 60 & echo up; wait");
    command.env("MARKER", &marker);
    let mut process = Process::spawn(command).unwrap();
    process
        .wait_for_line(|line| line == "up", SOON)
        .await
        .unwrap();
    // One that is just becoming its program has no environment for a moment.
    assert!(counted(&marker, 3).await);

    process.kill().unwrap();
    assert_eq!(process.wait_within(SOON).await.unwrap().signal(), Some(9));
    assert!(gone(&marker).await);
    process.kill().unwrap();
}

#[tokio::test]
async fn terminate_can_be_caught_and_interrupt_too() {
    for (signal, expected) in [("TERM", 4), ("INT", 5)] {
        // It starts no process meanwhile: a shell that is just forking may miss what is sent to its group.
        let script = format!("trap 'exit {expected}' {signal}; echo up; while :; do :; done");
        // Whoever runs the tests in the background ignores interrupts, and no shell below can change that.
        let mut command = Command::new("env");
        command.args(["--default-signal", "sh", "-c", &script]);
        let mut process = Process::spawn(command).unwrap();
        process
            .wait_for_line(|line| line == "up", SOON)
            .await
            .unwrap();
        match signal {
            "TERM" => process.terminate().unwrap(),
            _ => process.interrupt().unwrap(),
        }
        assert_eq!(
            process.wait_within(SOON).await.unwrap().code(),
            Some(expected)
        );
    }
}

#[tokio::test]
async fn a_paused_process_is_alive_and_does_nothing_until_resumed() {
    let marker = unique("frozen");
    let mut command = shell("while read line; do echo got $line; done");
    command.env("MARKER", &marker);
    let mut process = Process::spawn(command).unwrap();
    let mut stdin = process.take_stdin().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    process
        .wait_for_line(|line| line == "got one", SOON)
        .await
        .unwrap();

    process.pause().unwrap();
    stdin.write_all(b"two\n").await.unwrap();
    let while_paused = process
        .wait_for_line(|line| line == "got two", MOMENT)
        .await;
    assert_eq!(while_paused.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(find_matching(&marker).unwrap(), [process.pid()]);
    assert_eq!(process.try_wait().unwrap(), None);

    process.resume().unwrap();
    process
        .wait_for_line(|line| line == "got two", SOON)
        .await
        .unwrap();

    process.pause().unwrap();
    process.kill().unwrap();
    assert_eq!(process.wait_within(SOON).await.unwrap().signal(), Some(9));
}

#[tokio::test]
async fn waiting_gives_up_after_the_limit_and_can_be_repeated() {
    let mut process = Process::spawn(shell("read end; exit 6")).unwrap();
    let error = process.wait_within(MOMENT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(process.take_stdin());
    assert_eq!(process.wait().await.unwrap().code(), Some(6));
    assert_eq!(process.wait().await.unwrap().code(), Some(6));
}

#[tokio::test]
async fn the_child_sees_the_end_of_its_input_when_the_pipe_is_dropped() {
    let mut process = Process::spawn(shell("read line || echo orphaned")).unwrap();
    let early = process
        .wait_for_line(|line| line == "orphaned", MOMENT)
        .await;
    assert_eq!(early.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(process.take_stdin());
    process
        .wait_for_line(|line| line == "orphaned", SOON)
        .await
        .unwrap();
}

#[tokio::test]
async fn dropping_kills_the_group_even_if_its_leader_has_ended() {
    let marker = unique("dropped");
    let mut command = shell("sleep 60 >/dev/null 2>&1 & echo up");
    command.env("MARKER", &marker);
    let mut process = Process::spawn(command).unwrap();
    process.wait().await.unwrap();
    assert!(counted(&marker, 1).await);

    drop(process);
    assert!(gone(&marker).await);
}

#[test]
fn a_marker_is_found_in_the_command_line_and_nothing_is_found_by_none() {
    let marker = unique("argument");
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read end", &marker])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(find_matching(&marker).unwrap(), [child.id()]);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(count_matching(&marker).unwrap(), 0);
    assert_eq!(count_matching("").unwrap(), 0);
}
