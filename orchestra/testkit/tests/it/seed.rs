//! Each case runs this test binary again, with the variable set as the case wants it.

use std::process::{Command, Output};

use orchestra_testkit::Seed;

const VARIABLE: &str = "ORCHESTRA_TESTKIT_SEED_CASE";

#[test]
#[ignore = "the subject: started by the other tests, with and without a seed"]
fn subject_that_fails() {
    let seed = Seed::from_env_or_random(VARIABLE);
    panic!("drew {}", seed.rng().u64(..));
}

fn run_subject(seed: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "seed::subject_that_fails",
        "--nocapture",
    ]);
    match seed {
        Some(seed) => command.env(VARIABLE, seed),
        None => command.env_remove(VARIABLE),
    };
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, after) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before:?} in {text}"));
    after.split_whitespace().next().unwrap()
}

#[test]
fn a_failure_names_the_seed_that_repeats_it() {
    let first = run_subject(None);
    let seed = word_after(&first, "repeat with ORCHESTRA_TESTKIT_SEED_CASE=");
    let again = run_subject(Some(seed));
    assert_eq!(word_after(&first, "drew "), word_after(&again, "drew "));
}

#[test]
fn seeds_differ_where_none_is_given() {
    let (one, two) = (run_subject(None), run_subject(None));
    assert_ne!(word_after(&one, "drew "), word_after(&two, "drew "));
}

#[test]
fn decimal_and_hexadecimal_are_the_same_seed() {
    let drawn = |seed| word_after(&run_subject(Some(seed)), "drew ").to_owned();
    assert_eq!(drawn("255"), drawn("0xff"));
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    let output = run_subject(Some("twelve"));
    assert!(output.contains("=\"twelve\" is not a seed"), "{output}");
}

#[test]
fn a_test_that_passes_says_nothing() {
    let seed = Seed::fixed("X", 7);
    assert_eq!(seed.to_string(), "X=7");
    assert_eq!(seed.rng().u64(..), fastrand::Rng::with_seed(7).u64(..));
}
