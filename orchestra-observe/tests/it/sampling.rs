//! Consistent sampling and trace context in headers.

use http::HeaderMap;
use orchestra_core::{SpanId, TraceContext, TraceId};
use orchestra_observe::propagate::{extract, inject};
use orchestra_observe::sample::{Candidate, threshold_of};
use orchestra_observe::{
    AlwaysOff, AlwaysOn, ErrorKind, ParentBased, Ratio, Sampler, SpanKind, Threshold, Tracer,
};
use proptest::prelude::*;

fn root(trace: TraceId) -> Candidate<'static> {
    Candidate::root(trace, "GET /", SpanKind::Server)
}

fn context(parent: &str, state: &str) -> TraceContext {
    TraceContext::from_headers(parent, [state]).unwrap()
}

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn a_ratio_outside_zero_to_one_is_refused() {
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = Ratio::new(ratio).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRatio, "{ratio}");
    }
    assert_eq!(Ratio::new(0.0).unwrap().threshold(), None);
    assert_eq!(Ratio::new(1.0).unwrap().threshold(), Some(Threshold::ALL));
}

#[test]
fn thresholds_are_written_as_the_specification_has_them() {
    // The table of "TraceState: Probability Sampling".
    let table = [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.125, "e")];
    for (ratio, text) in table {
        let threshold = Ratio::new(ratio).unwrap().threshold().unwrap();
        assert_eq!(threshold.to_string(), text);
        assert_eq!(text.parse::<Threshold>().unwrap(), threshold);
    }
    for text in ["", "E", "g", "000000000000000", "+1"] {
        assert!(text.parse::<Threshold>().is_err(), "{text:?}");
    }
}

#[test]
fn the_root_tells_its_threshold_and_children_pass_it_on() {
    let root_sampler = ParentBased::new(Ratio::new(0.5).unwrap());
    let front = Tracer::builder().sampler(root_sampler).seed(1).build();
    let back = Tracer::builder()
        .sampler(ParentBased::new(AlwaysOff))
        .seed(2)
        .build();
    let mut kept = 0;
    for _ in 0..200 {
        let span = front.span("GET /").start();
        let expected = span.is_recorded().then(|| "8".parse().unwrap());
        assert_eq!(threshold_of(span.context().state()), expected);
        assert_eq!(span.context().flags().is_sampled(), span.is_recorded());

        let mut headers = HeaderMap::new();
        inject(span.context(), &mut headers);
        let incoming = extract(&headers).unwrap();
        let called = back.span("charge").parent(&incoming).start();
        assert_eq!(called.is_recorded(), span.is_recorded());
        assert_eq!(called.context().trace_id(), span.context().trace_id());
        assert_eq!(called.context().state(), span.context().state());
        kept += u32::from(span.is_recorded());
    }
    assert!((70..130).contains(&kept), "{kept} of 200 were kept");
}

#[test]
fn a_decision_against_the_parent_takes_its_threshold_away_and_keeps_the_rest() {
    let incoming = context(SAMPLED, "congo=t61,ot=th:8;rv:00000000000001,dd=1");
    let off = Tracer::builder().sampler(AlwaysOff).build();
    let span = off.span("x").parent(&incoming).start();
    assert_eq!(
        span.context().state().to_string(),
        "ot=rv:00000000000001,congo=t61,dd=1"
    );
    let bare = context(SAMPLED, "congo=t61,ot=th:8");
    let span = off.span("x").parent(&bare).start();
    assert_eq!(span.context().state().to_string(), "congo=t61");
    let on = Tracer::builder().sampler(AlwaysOn).build();
    let unsampled = context(UNSAMPLED, "congo=t61");
    let span = on.span("x").parent(&unsampled).start();
    assert_eq!(span.context().state().to_string(), "ot=th:0,congo=t61");
    assert!(span.context().flags().is_sampled());
}

#[test]
fn stated_randomness_decides_in_place_of_the_trace_id() {
    let half = Ratio::new(0.5).unwrap();
    let high = context(UNSAMPLED, "ot=rv:ffffffffffffff");
    let low = context(UNSAMPLED, "ot=rv:00000000000000");
    let broken = context(UNSAMPLED, "ot=rv:ff");
    let child = |parent| Candidate::child(parent, "x", SpanKind::Server);
    assert!(half.sample(&child(&high)).is_recorded());
    assert!(!half.sample(&child(&low)).is_recorded());
    assert_eq!(child(&broken).randomness(), 0x00ce_929d_0e0e_4736);
}

#[test]
fn a_broken_or_doubled_traceparent_is_no_context() {
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", value.parse().unwrap());
        }
        headers
    };
    assert!(extract(&headers(&[SAMPLED])).is_some());
    assert!(extract(&headers(&[])).is_none());
    assert!(extract(&headers(&["00-junk"])).is_none());
    assert!(extract(&headers(&[SAMPLED, SAMPLED])).is_none());
}

#[test]
fn injecting_replaces_the_context_of_the_caller() {
    let mut headers = HeaderMap::new();
    headers.append("traceparent", SAMPLED.parse().unwrap());
    headers.append("traceparent", SAMPLED.parse().unwrap());
    headers.append("tracestate", "a=1".parse().unwrap());
    let own = TraceContext::root(TraceId::from_draw(1), SpanId::from_draw(2), false);
    inject(&own, &mut headers);
    assert_eq!(extract(&headers), Some(own));
    assert!(!headers.contains_key("tracestate"));
}

proptest! {
    #[test]
    fn what_a_lower_ratio_keeps_a_higher_one_keeps(
        trace in any::<u128>(),
        ratios in (0.0..=1.0_f64, 0.0..=1.0_f64),
    ) {
        let (low, high) = (ratios.0.min(ratios.1), ratios.0.max(ratios.1));
        let (low, high) = (Ratio::new(low).unwrap(), Ratio::new(high).unwrap());
        let candidate = root(TraceId::from_draw(trace));
        prop_assert!(
            !low.sample(&candidate).is_recorded() || high.sample(&candidate).is_recorded()
        );
    }

    #[test]
    fn thresholds_survive_their_text(least in 0_u64..1 << 56) {
        let threshold = Threshold::new(least).unwrap();
        prop_assert_eq!(threshold.to_string().parse::<Threshold>().unwrap(), threshold);
        prop_assert!(threshold.adjusted_count() >= 1.0);
    }

    #[test]
    fn contexts_survive_the_headers(
        trace in any::<u128>(),
        span in any::<u64>(),
        sampled in any::<bool>(),
        members in prop::collection::btree_map("[a-z][a-z0-9]{0,5}", "[!-+\\--<>-~]{1,8}", 0..5),
    ) {
        let plain = TraceContext::root(TraceId::from_draw(trace), SpanId::from_draw(span), sampled);
        let state: Vec<_> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let states = state.iter().map(String::as_str);
        let context = TraceContext::from_headers(&plain.to_string(), states).unwrap();
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        prop_assert_eq!(extract(&headers), Some(context));
    }
}
