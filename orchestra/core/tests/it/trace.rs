use orchestra_core::{SpanId, TraceContext, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn parse(text: &str) -> Option<TraceContext> {
    text.parse().ok()
}

/// The cases of the W3C trace context test suite (`test/test.py`) that concern one header.
#[test]
fn traceparent_is_judged_as_the_recommendation_says() {
    let with = |version: &str, tail: &str| format!("{version}-{TRACE}-{SPAN}-{tail}");
    for text in [
        with("00", "00"),
        with("00", "01"),
        with("00", "ff"),
        with("cc", "01"),
        with("cc", "01-what"),
        with("cc", "01-"),
        format!(" {}\t", with("00", "01")),
    ] {
        assert!(parse(&text).is_some(), "{text}");
    }
    let zeros = |n: usize| "0".repeat(n);
    for text in [
        with("00", "01-"),
        with("00", "01-what"),
        with("00", "01.what"),
        with("cc", "01.what"),
        with("ff", "01"),
        with("0", "01"),
        with("000", "01"),
        with("0X", "01"),
        with("00", "0"),
        with("00", "0G"),
        with("00", "001"),
        with("00", "0A"),
        format!("00-{}-{SPAN}-01", zeros(32)),
        format!("00-{TRACE}-{}-01", zeros(16)),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!("00-{TRACE}0-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &SPAN[1..]),
        format!("00-{TRACE}-{SPAN}"),
        String::new(),
        "é".repeat(40),
    ] {
        assert!(parse(&text).is_none(), "{text}");
    }
}

#[test]
fn unknown_flags_are_dropped_and_known_ones_kept() {
    let context = parse(&format!("00-{TRACE}-{SPAN}-ff")).unwrap();
    assert_eq!(context.flags().bits(), 3);
    assert!(context.flags().is_sampled() && context.flags().is_random());
    let unsampled = context.flags().with_sampled(false);
    assert_eq!(unsampled, TraceFlags::RANDOM);
    assert_eq!(context.to_string(), format!("00-{TRACE}-{SPAN}-03"));
}

#[test]
fn a_higher_version_is_written_as_version_zero() {
    let context = parse(&format!("cc-{TRACE}-{SPAN}-01-future")).unwrap();
    assert_eq!(context.to_string(), format!("00-{TRACE}-{SPAN}-01"));
}

#[test]
fn a_bad_tracestate_is_dropped_alone() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let context = TraceContext::from_headers(&parent, ["a=1,a=2"]).unwrap();
    assert!(context.state().is_empty());
    let context = TraceContext::from_headers(&parent, ["a=1", "b=2"]).unwrap();
    assert_eq!(context.state().to_string(), "a=1,b=2");
    assert_eq!(context.child(SpanId::from_draw(9)).state(), context.state());
}

#[test]
fn tracestate_is_judged_as_the_recommendation_says() {
    let parse = |text: &str| TraceState::from_headers([text]).ok();
    for text in [
        "",
        ",",
        "a=1, b=2 ,\tc=3",
        "foo@bar=1",
        "a-_*/=1",
        "0a=1",
        "a= inner space",
        "a=~!",
    ] {
        assert!(parse(text).is_some(), "{text:?}");
    }
    for text in [
        "a", "=1", "a=", "A=1", "a=1=2", "a b=1", "a=1,a=1", "a@b@c=1", "@a=1", "é=1", "a=é",
    ] {
        assert!(parse(text).is_none(), "{text:?}");
    }
    let many = |n: usize| {
        (0..n)
            .map(|i| format!("k{i}=1"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert!(parse(&many(32)).is_some());
    assert!(parse(&many(33)).is_none());
    assert!(parse(&format!("a={}", "x".repeat(257))).is_none());
    assert!(parse(&"a=1,".repeat(10_000)).is_none());
}

#[test]
fn the_newest_member_comes_first_and_the_oldest_goes() {
    let full: Vec<_> = (0..32).map(|i| format!("k{i}=1")).collect();
    let state = TraceState::from_headers(full.iter().map(String::as_str)).unwrap();
    let state = state.with("k5", "2").unwrap().with("new", "3").unwrap();
    assert!(state.to_string().starts_with("new=3,k5=2,k0=1,"));
    assert_eq!(state.value("k31"), None);
    assert_eq!(state.to_string().split(',').count(), 32);
}

proptest! {
    #[test]
    fn a_context_survives_its_header(trace in 1_u128.., span in 1_u64.., sampled: bool) {
        let (trace, span) = (TraceId::new(trace).unwrap(), SpanId::new(span).unwrap());
        let context = TraceContext::root(trace, span, sampled);
        prop_assert_eq!(context.to_string().parse::<TraceContext>().unwrap(), context);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,80}|[0-9a-f-]{50,60}") {
        let _unused = text.parse::<TraceContext>();
        let _unused = TraceState::from_headers([text.as_str()]);
    }
}

#[test]
fn zero_is_no_id() {
    assert!(TraceId::new(0).is_none() && SpanId::new(0).is_none());
    assert_eq!(SpanId::from_draw(0).as_number(), 1);
}
