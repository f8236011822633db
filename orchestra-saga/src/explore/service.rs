//! What does the work behind the barriers: a model that always succeeds, or the closures of the definition.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::law::{Law, Violation};
use super::setup::Setup;
use crate::definition::{Body, Spec};
use crate::payload::Payload;
use crate::status::Status;
use crate::step::{Call, Caller, Operation, StepOutcome};

/// What does the work.
pub(super) enum Service<'a> {
    Model,
    Real(Real<'a>),
}

/// The closures of the definition, and the service that they call.
pub(super) struct Real<'a> {
    pub(super) reset: Box<dyn FnMut() + 'a>,
    pub(super) check: Box<dyn FnMut(Status) -> Result<(), String> + 'a>,
    pub(super) caller: Option<Arc<dyn Caller>>,
    /// A hash of all that was asked of it so far, in order: its state follows from that.
    pub(super) history: [u8; 32],
}

impl Service<'_> {
    pub(super) const fn is_real(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// Begins a sequence.
    pub(super) fn reset(&mut self) {
        if let Self::Real(real) = self {
            (real.reset)();
            real.history = [0; 32];
        }
    }

    pub(super) const fn history(&self) -> Option<[u8; 32]> {
        match self {
            Self::Model => None,
            Self::Real(real) => Some(real.history),
        }
    }

    /// Asks whether all is well at the end of a saga.
    pub(super) fn check(&mut self, status: Status) -> Result<(), Violation> {
        match self {
            Self::Model => Ok(()),
            Self::Real(real) => (real.check)(status).map_err(|seen| {
                Law::Consistent.broken(format!("the saga is {status}, and {seen}"))
            }),
        }
    }

    /// Does what the call asks for.
    pub(super) fn work(
        &mut self,
        setup: &Setup,
        step: u32,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        let spec = setup.spec(step);
        match self {
            Self::Model => model(setup, spec, call),
            Self::Real(real) => {
                let outcome = real.run(setup, spec, call)?;
                real.remember(call, &outcome);
                Ok(outcome)
            }
        }
    }
}

fn model(setup: &Setup, spec: &Spec, call: &Call) -> Result<StepOutcome, Violation> {
    if let Some(Body::Request(request)) = body(spec, call.op)
        && let Err(reason) = request.resolve(call)
    {
        let (step, op) = (&call.step, call.op);
        let seen = format!("the {op} of {step} cannot be requested: {reason}");
        return Err(Law::RequestsCanBeMade.broken(seen));
    }
    Ok(StepOutcome::Done(match call.op {
        Operation::Compensation => Payload::default(),
        Operation::Action | Operation::Probe => setup.output(&call.step),
    }))
}

fn body(spec: &Spec, op: Operation) -> Option<&Body> {
    match op {
        Operation::Action => Some(&spec.action),
        Operation::Compensation => spec.compensation.as_ref(),
        Operation::Probe => spec.probe.as_ref(),
    }
}

impl Real<'_> {
    fn run(&self, setup: &Setup, spec: &Spec, call: &Call) -> Result<StepOutcome, Violation> {
        let run = async {
            match body(spec, call.op) {
                Some(Body::Code(step)) => Arc::clone(step).run(call.clone()).await,
                Some(Body::Request(request)) => match (request.resolve(call), &self.caller) {
                    (Ok(request), Some(caller)) => caller.call(request).await,
                    (Ok(_), None) => StepOutcome::Done(setup.output(&call.step)),
                    (Err(reason), _) => StepOutcome::Rejected(reason),
                },
                _ => StepOutcome::Done(setup.output(&call.step)),
            }
        };
        let (step, op) = (&call.step, call.op);
        match AssertUnwindSafe(run).catch_unwind().now_or_never() {
            Some(Ok(outcome)) => Ok(outcome),
            Some(Err(_panic)) => {
                Err(Law::AnswersAtOnce.broken(format!("the {op} of {step} panics")))
            }
            None => Err(Law::AnswersAtOnce.broken(format!(
                "the {op} of {step} waits for something; explore it with a service in this process"
            ))),
        }
    }

    fn remember(&mut self, call: &Call, outcome: &StepOutcome) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.history);
        let told = (call.step.as_str(), call.op, call.iteration, &call.key);
        hasher.update(format!("{told:?} {outcome:?}").as_bytes());
        self.history = *hasher.finalize().as_bytes();
    }
}
