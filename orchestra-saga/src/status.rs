//! What people see of a saga.

use std::fmt;
use std::sync::Arc;

use orchestra_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::event::Cause;
use crate::id::{SagaId, StepName, Version};
use crate::machine::{Machine, Phase, Progress, Stage, State, StepState};
use crate::payload::Payload;
use crate::step::Operation;

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Going forward.
    Started,
    /// Going back.
    Compensating,
    /// Nothing is begun until an operator resumes it.
    Paused,
    /// A step that may not be given up does not succeed; tried again slowly, or by an operator.
    Parked,
    /// Ended: every step took effect.
    Completed,
    /// Ended: every effect is undone.
    Compensated,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Started,
        Self::Compensating,
        Self::Paused,
        Self::Parked,
        Self::Completed,
        Self::Compensated,
    ];

    /// The status as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Compensating => "compensating",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// Whether the saga has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// The status of a state.
    pub fn of(state: &State) -> Self {
        match state.phase() {
            Phase::Completed => Self::Completed,
            Phase::Compensated => Self::Compensated,
            _ if state.is_paused => Self::Paused,
            _ if state.is_parked() => Self::Parked,
            Phase::Compensating => Self::Compensating,
            Phase::Unborn | Phase::Running => Self::Started,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// An attempt is in flight, or the next one is due soon.
    Running,
    /// Tried again slowly.
    Parked,
    /// It took effect.
    Completed,
    /// It had no effect.
    Failed,
    /// Nobody knows whether it had an effect.
    Unknown,
    /// It is being undone.
    Compensating,
    /// It is undone.
    Compensated,
}

/// A saga as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SagaView {
    /// The saga.
    pub id: SagaId,
    /// Its definition.
    pub definition: Arc<str>,
    /// Its definition's version.
    pub definition_version: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// The number of its events.
    pub version: Version,
    /// Its input.
    pub input: Payload,
    /// When it was started.
    pub started: Timestamp,
    /// The time of its last event.
    pub updated: Timestamp,
    /// Why it goes, or went, back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// When it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The steps that are under way, forward or back: more than one where branches run beside each other.
    pub current: Vec<StepName>,
    /// How many steps it has.
    pub total_steps: usize,
    /// How many of its steps are done and not undone.
    pub completed_steps: usize,
    /// Whether it has not ended.
    pub is_active: bool,
    /// Its steps in the order of definition.
    pub steps: Vec<StepView>,
}

/// A step as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepView {
    /// Its name.
    pub name: StepName,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts of the action.
    pub attempts: u32,
    /// Attempts of the compensation.
    pub compensation_attempts: u32,
    /// What it returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// What it said when it last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which operation is parked, and when it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedUntil>,
}

/// A parked operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ParkedUntil {
    /// Doing or undoing.
    pub op: Operation,
    /// When it is tried again.
    pub retry: Timestamp,
}

impl SagaView {
    /// The output of a step.
    pub fn output(&self, step: &str) -> Option<&Payload> {
        let step = self.steps.iter().find(|view| view.name.as_str() == step)?;
        step.output.as_ref()
    }

    pub(crate) fn of(machine: &Machine) -> Self {
        let definition: &Definition = machine.definition();
        let state = machine.state();
        let steps = definition.steps.iter().zip(&state.steps);
        let steps: Vec<_> = steps.map(|(spec, step)| step.view(&spec.name)).collect();
        let status = Status::of(state);
        let moves = |step: &&StepView| {
            matches!(
                step.status,
                StepStatus::Running | StepStatus::Parked | StepStatus::Compensating
            )
        };
        let is_done = |step: &&StepView| step.status == StepStatus::Completed;
        Self {
            id: machine.saga(),
            definition: Arc::clone(&definition.id),
            definition_version: Arc::clone(&definition.version),
            status,
            version: state.version,
            input: state.input.clone(),
            started: state.started,
            updated: state.updated,
            cause: state.cause().cloned(),
            ended: status.is_terminal().then_some(state.updated),
            current: steps
                .iter()
                .filter(moves)
                .map(|step| step.name.clone())
                .collect(),
            total_steps: steps.len(),
            completed_steps: steps.iter().filter(is_done).count(),
            is_active: !status.is_terminal(),
            steps,
        }
    }
}

impl StepState {
    fn view(&self, name: &StepName) -> StepView {
        let parked = |op, progress: &Progress| match progress.stage {
            Stage::Parked(retry) => Some(ParkedUntil { op, retry }),
            _ => None,
        };
        StepView {
            name: name.clone(),
            status: self.status(),
            attempts: self.action.attempt,
            compensation_attempts: self.undo().attempt,
            output: self.output.clone(),
            reason: self.rest().reason.clone(),
            parked: parked(Operation::Action, &self.action)
                .or_else(|| parked(Operation::Compensation, self.undo())),
        }
    }

    fn status(&self) -> StepStatus {
        match (self.undo().stage, self.action.stage) {
            (Stage::Done, _) => StepStatus::Compensated,
            (Stage::Parked(_), _) | (Stage::Pending, Stage::Parked(_)) => StepStatus::Parked,
            (Stage::Pending, Stage::Pending) => StepStatus::Pending,
            (Stage::Pending, Stage::Done) => StepStatus::Completed,
            (Stage::Pending, Stage::Rejected) if self.tainted => StepStatus::Unknown,
            (Stage::Pending, Stage::Rejected) => StepStatus::Failed,
            (Stage::Pending, Stage::Unknown) => StepStatus::Unknown,
            (Stage::Pending, Stage::Running | Stage::Interrupted | Stage::Waiting(_)) => {
                StepStatus::Running
            }
            _ => StepStatus::Compensating,
        }
    }
}
