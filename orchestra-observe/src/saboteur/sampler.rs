use orchestra_core::{TraceContext, TraceId};
use parking_lot::Mutex;

use crate::sample::{Candidate, Decision, Sampler, Threshold};

type Question = (TraceId, Option<TraceContext>, String);

/// Answers a question that is asked twice in a row differently the second time. Breaks law 1.
#[derive(Debug)]
pub struct Wavers<S> {
    inner: S,
    last: Mutex<Option<Question>>,
}

impl<S: Sampler> Wavers<S> {
    /// Wavers where `inner` does not.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            last: Mutex::new(None),
        }
    }
}

impl<S: Sampler> Sampler for Wavers<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        let name = candidate.name.to_owned();
        let question = (candidate.trace, candidate.parent.cloned(), name);
        let again = self.last.lock().replace(question.clone()) == Some(question);
        match self.inner.sample(candidate) {
            Decision::Record { .. } if again => Decision::Drop,
            decision => decision,
        }
    }
}

/// Keeps the traces of little randomness, as samplers before the consistent ones did. Breaks law 2.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepsLeast;

impl Sampler for KeepsLeast {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        if candidate.randomness() < 1 << 55 {
            Decision::Record { threshold: None }
        } else {
            Decision::Drop
        }
    }
}

/// States a higher threshold than it decides by, so that its spans count for too many. Breaks law 3.
#[derive(Debug, Clone, Copy)]
pub struct Boasts<S>(pub S);

impl<S: Sampler> Sampler for Boasts<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        shifted(self.0.sample(candidate), |least| least + (1 << 53))
    }
}

/// States a lower threshold than it decides by, so that its spans count for too few. Breaks law 4.
#[derive(Debug, Clone, Copy)]
pub struct Understates<S>(pub S);

impl<S: Sampler> Sampler for Understates<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        shifted(self.0.sample(candidate), |least| least / 2)
    }
}

fn shifted(decision: Decision, shift: fn(u64) -> u64) -> Decision {
    match decision {
        Decision::Record {
            threshold: Some(threshold),
        } => Decision::Record {
            threshold: Threshold::new(shift(threshold.least())),
        },
        other => other,
    }
}
