use crate::id::Epoch;
use crate::step::Operation;

/// What a participant does with a call, and what is heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    /// What it does by itself: a new action takes effect, a known one is answered from the record.
    Done,
    /// It refuses.
    Rejected,
    /// It is busy.
    Retryable,
    /// It takes effect, and the answer is lost.
    LostAfter,
    /// It is lost on the way, or is on its way still.
    LostBefore,
    /// As before, and known only when the attempt's time is over.
    Silence,
}

/// What became of a batch whose append was answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Landing {
    /// It is not in the log.
    Never,
    /// It is in the log.
    Landed,
    /// It will be, unless the store refuses it then.
    Later,
}

/// A call on its way: whose, which, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Letter {
    pub(super) step: u32,
    pub(super) op: Operation,
    pub(super) iteration: u32,
    pub(super) epoch: Epoch,
}

/// One thing that happens next. Steps are named by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    /// The call of a step is answered.
    Answer(u32, Reply),
    /// Time passes until the saga wants to be woken.
    Pass,
    /// The owner dies and another takes over: at rest, or when a call was served whose answer is not in
    /// the log.
    Crash(Option<(u32, Reply)>),
    /// The append of an answer fails, and the owner reads the saga again.
    Stumble((u32, Reply), Landing),
    /// A batch lands whose append had failed.
    Land,
    /// A call arrives that nobody waits for any more.
    Arrive(Letter),
    /// A signal is sent, by the number of its name: a new one, or the last one again.
    Signal(u8, bool),
    Heartbeat(u32),
    Cancel,
    Pause,
    Resume,
    Retry,
    Revoke,
    /// Somebody looks at the participant and says what became of an operation: whether it took effect.
    Resolve(u32, Operation, bool),
}

impl Choice {
    /// Whether something goes wrong, or somebody intervenes.
    pub(super) const fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Answer(_, Reply::Done)
                | Self::Pass
                | Self::Land
                | Self::Arrive(_)
                | Self::Resume
                | Self::Signal(..)
                | Self::Heartbeat(_)
        )
    }
}
