use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::front::Front;
use crate::definition::Definition;
use crate::event::{Cause, present};
use crate::id::{StepName, Version};
use crate::payload::Payload;

/// So many steps that can move are looked through for a name before it is searched for.
const LIKELY: usize = 4;

/// Which way a saga goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Its log is empty.
    #[default]
    Unborn,
    /// Forward.
    Running,
    /// Back.
    Compensating,
    /// Every step took effect.
    Completed,
    /// Every effect is undone.
    Compensated,
}

impl Phase {
    /// Whether nothing will happen any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

/// The fold of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) input: Payload,
    pub(crate) started: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) trace: Option<Arc<str>>,
    pub(crate) cancel: Option<String>,
    pub(crate) cause: Option<Box<Cause>>,
    /// The save-point to which it goes back, if not to the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back_to: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_paused: bool,
    /// Signals in the order of their arrival.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signals: Vec<Signalled>,
    #[serde(with = "sparse")]
    pub(crate) steps: Vec<StepState>,
    /// What of the steps matters now; made from them, so it is not written down.
    #[serde(skip)]
    pub(crate) front: Front,
}

/// A signal that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signalled {
    pub(crate) name: Arc<str>,
    pub(crate) id: Option<IdempotencyKey>,
    /// Until a step takes it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub(crate) payload: Option<Payload>,
}

/// One step of a saga. What is as at the beginning is not written down.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StepState {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) action: Progress,
    /// Some attempt may have taken effect without an answer.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tainted: bool,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) input: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) output: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<Timestamp>,
    /// How often the saga went back past it to a save-point.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) iteration: u32,
    /// As a save-point: how often the saga went back to it.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) restarts: u32,
    /// Its effect is another saga's.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) is_copied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rest: Option<Box<Rest>>,
}

/// What a step has that did not go well, or is undone: most never do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rest {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) undo: Progress,
    /// The question whether it took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<Progress>,
    /// What it said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// How far a long attempt came.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) details: Option<Payload>,
}

impl Rest {
    const NOTHING: Self = Self {
        undo: Progress::NOTHING,
        probe: None,
        reason: None,
        details: None,
    };
}

impl Default for Rest {
    fn default() -> Self {
        Self::NOTHING
    }
}

impl StepState {
    pub(crate) fn rest(&self) -> &Rest {
        static NOTHING: Rest = Rest::NOTHING;
        self.rest.as_deref().unwrap_or(&NOTHING)
    }

    pub(super) fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub(crate) fn undo(&self) -> &Progress {
        &self.rest().undo
    }
}

/// How far an operation of a step has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// The number of the last attempt.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) attempt: u32,
    /// Attempts since the beginning or since an operator's retry.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tries: u32,
    /// The delay before the next attempt in nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delay: u64,
    /// How often it was parked since the beginning or since an operator's retry.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) parked: u32,
}

impl Progress {
    pub(super) const NOTHING: Self = Self {
        stage: Stage::Pending,
        attempt: 0,
        tries: 0,
        delay: 0,
        parked: 0,
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Steps as those that differ from the beginning, by their numbers: most of a long saga has not begun.
mod sparse {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{StepState, is_default};
    use crate::definition::Definition;

    #[derive(Serialize, Deserialize)]
    struct Sparse<S> {
        count: usize,
        begun: Vec<(usize, S)>,
    }

    pub(super) fn serialize<S: Serializer>(
        steps: &[StepState],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let begun = steps.iter().enumerate();
        let begun = begun.filter(|(_, step)| !is_default(*step)).collect();
        let count = steps.len();
        Sparse { count, begun }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<StepState>, D::Error> {
        let Sparse { count, begun } = Sparse::<StepState>::deserialize(deserializer)?;
        if count > Definition::MAX_STEPS {
            return Err(D::Error::custom("more steps than a definition may have"));
        }
        let mut steps = vec![StepState::default(); count];
        for (number, state) in begun {
            let step = steps.get_mut(number);
            *step.ok_or_else(|| D::Error::custom("a step beyond the last"))? = state;
        }
        Ok(steps)
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    #[default]
    Pending,
    /// Until a signal comes.
    Listening,
    /// The intent is durable and the call is in flight.
    Running,
    /// The call was in flight when its process died.
    Interrupted,
    /// The next attempt is due then.
    Waiting(Timestamp),
    /// As [`Stage::Waiting`], slowly and visibly.
    Parked(Timestamp),
    Done,
    /// It will not be tried again and had no effect, unless the step is tainted.
    Rejected,
    /// It will not be tried again and may have had an effect.
    Unknown,
}

impl State {
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            phase: Phase::Unborn,
            version: Version(0),
            input: Payload::default(),
            started: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            deadline: None,
            trace: None,
            cancel: None,
            cause: None,
            back_to: None,
            is_paused: false,
            signals: Vec::new(),
            steps: vec![StepState::default(); steps],
            front: Front::default(),
        }
    }

    /// Which way it goes.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of events folded.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Why it goes back.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_deref()
    }

    /// The step of a number that the definition gave out.
    #[expect(clippy::indexing_slicing, reason = "there is a state for each step")]
    pub(crate) fn step(&self, step: u32) -> &StepState {
        &self.steps[step as usize]
    }

    /// The number of a step, which is most likely one that can move.
    pub(super) fn number_of(&self, definition: &Definition, step: &StepName) -> Option<u32> {
        let mut likely = self.front.open.iter().take(LIKELY);
        let found = likely.find(|&&number| definition.spec(number).name.is(step));
        found.copied().or_else(|| definition.index_of(step))
    }

    /// The signal of that name which has waited longest to be taken.
    pub(crate) fn signal(&self, name: &str) -> Option<&Signalled> {
        let mut waiting = self.signals.iter();
        waiting.find(|signal| *signal.name == *name && signal.payload.is_some())
    }

    /// Whether a step is parked.
    pub fn is_parked(&self) -> bool {
        !self.phase.is_terminal() && self.front.parked > 0
    }

    /// Whether calls are in flight.
    pub fn is_in_flight(&self) -> bool {
        self.front.in_flight > 0
    }
}
