use std::time::Duration;

use orchestra_core::{ErrorClass, Outcome};

#[test]
fn only_failure_counts_against_an_instance() {
    let all = [
        Outcome::Success,
        Outcome::Failure,
        Outcome::Overloaded,
        Outcome::Neutral,
    ];
    assert_eq!(all.map(Outcome::is_failure), [false, true, false, false]);
    assert_eq!(all.map(Outcome::is_success), [true, false, false, false]);
}

#[test]
fn a_permanent_error_is_the_only_one_not_to_retry() {
    let after = Some(Duration::from_secs(1));
    let all = [
        ErrorClass::Permanent,
        ErrorClass::Transient,
        ErrorClass::Throttled { after },
    ];
    assert_eq!(all.map(ErrorClass::is_retryable), [false, true, true]);
    assert_eq!(all.map(ErrorClass::retry_after), [None, None, after]);
}
