use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, request};
use orchestra_core::{Backoff, Deadline, Jitter, Monotonic};
use orchestra_mesh::retry::{Condition, Course, Failure, Policy, Repeatable, RetryOn, Stop};
use proptest::prelude::*;

use crate::upstream::{Checked, Failure as Broken};

const NOW: Monotonic = Monotonic::ZERO;
const BUSY: Failure = Failure::Status(StatusCode::SERVICE_UNAVAILABLE);

fn parts(method: &str) -> Result<request::Parts, Broken> {
    let request = Request::builder().method(method).body(())?;
    Ok(request.into_parts().0)
}

fn fixed() -> Policy {
    Policy::default().backoff(Backoff::fixed(Duration::from_millis(10)))
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, http::HeaderValue::from_static(value));
    headers
}

#[test]
fn what_may_have_been_processed_is_repeated_only_if_it_may_be() -> Checked {
    let policy = fixed();
    for (method, idempotent) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("PUT", true),
        ("DELETE", true),
        ("TRACE", true),
        ("POST", false),
        ("PATCH", false),
        ("CUSTOM", false),
    ] {
        for failure in [BUSY, Failure::Reset, Failure::Timeout] {
            let next =
                Course::new(&policy, &parts(method)?, Deadline::NEVER).next(failure, None, NOW, 0);
            assert_eq!(next.is_ok(), idempotent, "{method} {failure:?}");
        }
        for failure in [Failure::Connect, Failure::Unsent, Failure::RefusedStream] {
            let next =
                Course::new(&policy, &parts(method)?, Deadline::NEVER).next(failure, None, NOW, 0);
            assert!(next.is_ok(), "{method} {failure:?}");
        }
    }
    let mut keyed = parts("POST")?;
    keyed.headers = headers("idempotency-key", "k");
    let mut course = Course::new(&policy, &keyed, Deadline::NEVER);
    assert!(course.next(Failure::Reset, None, NOW, 0).is_ok());
    let always = fixed().repeatable(Repeatable::Always);
    let mut course = Course::new(&always, &parts("POST")?, Deadline::NEVER);
    assert!(course.next(Failure::Reset, None, NOW, 0).is_ok());
    Ok(())
}

#[test]
fn each_condition_matches_what_its_name_says() -> Checked {
    let status = |code| StatusCode::from_u16(code).map(Failure::Status);
    let all = [
        Failure::Connect,
        Failure::Unsent,
        Failure::RefusedStream,
        Failure::Reset,
        Failure::Timeout,
        status(409)?,
        status(404)?,
        status(500)?,
        status(502)?,
        status(503)?,
        status(504)?,
        Failure::RequestBody,
    ];
    let cases: [(&str, &[usize]); 7] = [
        ("5xx", &[0, 1, 2, 3, 4, 7, 8, 9, 10]),
        ("gateway-error", &[8, 9, 10]),
        ("connect-failure", &[0]),
        ("refused-stream", &[2]),
        ("reset", &[0, 1, 2, 3, 4]),
        ("reset-before-request", &[1]),
        ("retriable-4xx", &[5]),
    ];
    for (name, expected) in cases {
        let retry_on: RetryOn = name.parse()?;
        assert_eq!(retry_on.to_string(), name);
        for (index, failure) in all.into_iter().enumerate() {
            assert_eq!(
                retry_on.matches(failure),
                expected.contains(&index),
                "{name} {failure:?}"
            );
        }
    }
    let listed = RetryOn::new([Condition::ConnectFailure]).statuses([StatusCode::NOT_FOUND]);
    assert!(listed.matches(status(404)?) && listed.matches(Failure::Connect));
    assert!(!listed.matches(status(500)?));
    Ok(())
}

#[test]
fn a_peer_that_asks_for_time_gets_it_within_limits() -> Checked {
    let policy = fixed().max_retry_after(Duration::from_secs(5));
    let get = parts("GET")?;
    let next = |name, value, deadline| {
        let mut course = Course::new(&policy, &get, deadline);
        course.next(BUSY, Some(&headers(name, value)), NOW, 0)
    };
    let ten_millis = Duration::from_millis(10);
    let two = Duration::from_secs(2);
    assert_eq!(next("retry-after", "2", Deadline::NEVER), Ok(two));
    assert_eq!(next("retry-after", "0", Deadline::NEVER), Ok(ten_millis));
    assert_eq!(next("retry-after", "soon", Deadline::NEVER), Ok(ten_millis));
    assert_eq!(
        next("retry-after", "6", Deadline::NEVER),
        Err(Stop::Deadline)
    );
    assert_eq!(
        next("retry-after", "2", Deadline::after(NOW, two)),
        Err(Stop::Deadline)
    );
    assert_eq!(
        next("x-envoy-overloaded", "true", Deadline::NEVER),
        Err(Stop::PeerOverloaded)
    );
    assert_eq!(
        next("x-envoy-ratelimited", "true", Deadline::NEVER),
        Err(Stop::PeerOverloaded)
    );
    Ok(())
}

#[test]
fn a_policy_of_no_retries_has_none() -> Checked {
    let policy = Policy::never();
    let mut course = Course::new(&policy, &parts("GET")?, Deadline::NEVER);
    assert_eq!(
        course.next(Failure::Connect, None, NOW, 0),
        Err(Stop::Exhausted)
    );
    Ok(())
}

proptest! {
    #[test]
    fn retries_never_outlast_count_or_deadline(
        draws in prop::collection::vec(any::<u64>(), 1..40),
        max in 0_u32..10,
        limit in 1_u64..2_000,
        took in 0_u64..200,
    ) {
        let policy = Policy::default()
            .max_retries(max)
            .backoff(Backoff::exponential(Duration::from_millis(25), 2.0).jitter(Jitter::Full));
        let parts = parts("GET").map_err(|error| TestCaseError::fail(error.to_string()))?;
        let deadline = Deadline::after(NOW, Duration::from_millis(limit));
        let mut course = Course::new(&policy, &parts, deadline);
        let (mut now, mut retries) = (NOW, 0);
        for draw in draws {
            now = now + Duration::from_millis(took);
            let Ok(delay) = course.next(Failure::Reset, None, now, draw) else { break };
            now = now + delay;
            retries += 1;
            prop_assert!(!deadline.is_expired(now));
            prop_assert!(delay <= Duration::from_millis(25 << (retries - 1)));
        }
        prop_assert!(retries <= max);
    }
}
