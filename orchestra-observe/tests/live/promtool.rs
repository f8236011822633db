//! `promtool check metrics` finds no fault in the page: neither an error nor a lint.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use orchestra_observe::Format;

use super::{program, registry};

fn check(page: &str) -> Output {
    let mut child = Command::new(program("ORCH_TEST_PROMTOOL"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_text_page_passes() {
    let page = Format::Text.render(&registry().snapshot());
    let output = check(&page);
    assert!(output.status.success(), "{}\n{page}", complaint(&output));
    assert_eq!(complaint(&output), "");
}

#[test]
fn a_broken_page_does_not_pass() {
    let page = Format::Text.render(&registry().snapshot());
    let broken = page.replace("le=\"+Inf\"", "le=\"Inf+\"");
    assert!(!check(&broken).status.success());
}
