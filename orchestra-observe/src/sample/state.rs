//! The member `ot` of the tracestate.

use orchestra_core::{TraceContext, TraceId, TraceState};

use super::threshold::RANGE;
use super::{Decision, Threshold};

pub(super) fn low_bits(trace: TraceId) -> u64 {
    u64::try_from(trace.as_number() & u128::from(RANGE - 1)).unwrap_or_default()
}

/// A part of the member `ot` of the tracestate, whose parts are `key:value` with `;` between.
fn member<'a>(state: &'a TraceState, key: &str) -> Option<&'a str> {
    let parts = state.value("ot")?.split(';');
    let mut values = parts.filter_map(|part| part.split_once(':'));
    values
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

pub(super) fn randomness(state: &TraceState) -> Option<u64> {
    let value = member(state, "rv").filter(|value| value.len() == 14)?;
    value.parse().ok().map(Threshold::least)
}

/// The threshold that a trace was sampled by, if its root wrote one down.
pub fn threshold_of(state: &TraceState) -> Option<Threshold> {
    member(state, "th")?.parse().ok()
}

/// The context of the span that the decision is about: the flag is the decision, and the tracestate tells
/// its threshold, or no more tells one that is not true any more.
pub(crate) fn decided(context: &TraceContext, decision: Decision) -> TraceContext {
    let threshold = match decision {
        Decision::Record { threshold } => threshold,
        Decision::Drop => None,
    };
    let same_flag = context.flags().is_sampled() == decision.is_recorded();
    if same_flag && threshold == threshold_of(context.state()) {
        return context.clone();
    }
    let flags = context.flags().with_sampled(decision.is_recorded());
    let parent = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        flags.bits()
    );
    let state = with_threshold(context.state(), threshold);
    TraceContext::from_headers(&parent, [state.as_str()]).unwrap_or_else(|_| context.clone())
}

fn with_threshold(state: &TraceState, threshold: Option<Threshold>) -> String {
    let old = state.value("ot").unwrap_or_default();
    let kept = old.split(';').filter(|part| !part.starts_with("th:"));
    let new = threshold.map(|threshold| format!("th:{threshold}"));
    let parts: Vec<&str> = new
        .as_deref()
        .into_iter()
        .chain(kept.filter(|part| !part.is_empty()))
        .collect();
    if let Ok(state) = state.with("ot", &parts.join(";")) {
        return state.to_string();
    }
    // No part is left, or too much for one member: the member goes.
    let text = state.to_string();
    let others = text.split(',').filter(|part| !part.starts_with("ot="));
    others.collect::<Vec<_>>().join(",")
}
