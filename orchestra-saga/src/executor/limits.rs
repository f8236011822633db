use crate::error::{Error, ErrorKind, Result};
use crate::payload::Payload;
use crate::step::{Call, Operation, StepOutcome};

/// What a saga may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of one input, output, signal or heartbeat.
    pub(super) payload: usize,
    /// Events after which signals and heartbeats are refused.
    pub(super) events: u64,
}

impl Limits {
    pub(super) fn check_input(&self, payload: &Payload) -> Result<()> {
        if payload.len() <= self.payload {
            return Ok(());
        }
        let (found, most) = (payload.len(), self.payload);
        let message = format!("{found} bytes of payload, and {most} are allowed");
        Err(Error::new(ErrorKind::TooLarge, message))
    }

    /// An output that is too large to keep is as good as unheard: the step took effect.
    pub(super) fn check_outcome(&self, call: &Call, outcome: StepOutcome) -> StepOutcome {
        match outcome {
            StepOutcome::Done(output) if output.len() > self.payload => {
                if call.op == Operation::Compensation {
                    return StepOutcome::Done(Payload::default());
                }
                let (found, most) = (output.len(), self.payload);
                StepOutcome::Unknown(format!("{found} bytes of output, and {most} are allowed"))
            }
            outcome => outcome,
        }
    }
}
