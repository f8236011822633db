//! What happened in a sequence, for people.

use std::fmt;
use std::time::Duration;

use super::choice::{Landing, Reply};
use crate::id::Epoch;
use crate::machine::Input;
use crate::step::{Call, StepOutcome};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Beat {
    Appended(Epoch, Vec<String>),
    /// The store refuses an append.
    Refused(Epoch),
    Called(Call),
    Reached(Call, Reply),
    Answered(Call, StepOutcome),
    /// A call arrives that nobody waits for.
    Arrived(Call),
    Unheard(Call, StepOutcome),
    Passed(Duration),
    Died(Epoch),
    TookOver(Epoch),
    Stumbled(Epoch, Vec<String>, Landing),
    /// Whether a batch that lands late is taken.
    Landed(Vec<String>, bool),
    Asked(Input),
}

/// Keeps what is told, or does not listen.
#[derive(Debug, Default)]
pub(super) struct Tale {
    beats: Option<Vec<Beat>>,
}

impl Tale {
    /// Nobody listens.
    pub(super) const fn untold() -> Self {
        Self { beats: None }
    }

    pub(super) const fn told() -> Self {
        Self {
            beats: Some(Vec::new()),
        }
    }

    pub(super) fn tell(&mut self, beat: impl FnOnce() -> Beat) {
        if let Some(beats) = &mut self.beats {
            beats.push(beat());
        }
    }

    pub(super) fn into_beats(self) -> Vec<Beat> {
        self.beats.unwrap_or_default()
    }
}

fn outcome(outcome: &StepOutcome) -> String {
    match outcome {
        StepOutcome::Done(output) => format!("done {output}"),
        StepOutcome::Rejected(reason) => format!("rejected, {reason}"),
        StepOutcome::Retryable { reason, .. } => format!("not now, {reason}"),
        StepOutcome::Unknown(reason) => format!("unknown, {reason}"),
    }
}

/// What is asked, and of which step.
fn what(call: &Call) -> String {
    format!("{} of {}, attempt {}", call.op, call.step, call.attempt)
}

fn asked(input: &Input) -> String {
    match input {
        Input::Signal { name, id, .. } => {
            let id = id.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("signal {name} ({id}) is sent")
        }
        Input::Heartbeat { step, .. } => format!("{step} says how far it has come"),
        Input::Cancel { .. } => "somebody cancels the saga".to_owned(),
        Input::Pause { .. } => "somebody pauses the saga".to_owned(),
        Input::Resume { .. } => "somebody resumes the saga".to_owned(),
        Input::Retry { .. } => "somebody retries what is parked".to_owned(),
        Input::Resolve {
            step,
            op,
            resolution,
            ..
        } => {
            format!("somebody says of the {op} of {step}: {resolution:?}")
        }
        Input::Revoke { .. } => "somebody revokes the saga".to_owned(),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended(owner, events) => {
                write!(f, "owner {owner} appends {}", events.join(", "))
            }
            Self::Refused(owner) => write!(
                f,
                "an append of owner {owner} is refused: the log has another version; it reads the log"
            ),
            Self::Called(call) => write!(f, "owner {} calls the {}", call.epoch, what(call)),
            Self::Reached(call, reply) => {
                let (op, step) = (call.op, &call.step);
                match reply {
                    Reply::Done => write!(f, "the {op} reaches {step}"),
                    Reply::Rejected => write!(f, "{step} refuses the {op}"),
                    Reply::Retryable => write!(f, "{step} is busy, and the {op} has no effect"),
                    Reply::LostAfter => {
                        write!(f, "the {op} reaches {step}, and the answer is lost")
                    }
                    Reply::LostBefore => {
                        write!(f, "the {op} of {step} is lost, or on its way still")
                    }
                    Reply::Silence => write!(
                        f,
                        "the time of the {op} of {step} is over; it is lost, or on its way still"
                    ),
                }
            }
            Self::Answered(call, said) => {
                write!(f, "{} answers: {}", call.step, outcome(said))
            }
            Self::Arrived(call) => {
                let epoch = call.epoch;
                write!(
                    f,
                    "late and unheard, the {} of owner {epoch} arrives",
                    what(call)
                )
            }
            Self::Unheard(call, said) => {
                write!(f, "{} answers nobody: {}", call.step, outcome(said))
            }
            Self::Passed(time) => write!(f, "{time:?} pass"),
            Self::Died(owner) => write!(f, "owner {owner} dies"),
            Self::TookOver(owner) => write!(f, "owner {owner} takes over and reads the log"),
            Self::Stumbled(owner, events, landing) => {
                let what = match landing {
                    Landing::Never => "it is not in the log",
                    Landing::Landed => "it is in the log",
                    Landing::Later => "it is on its way still",
                };
                let events = events.join(", ");
                write!(
                    f,
                    "the append of {events} by owner {owner} fails: {what}; it reads the log"
                )
            }
            Self::Landed(events, taken) => {
                let taken = if *taken { "takes" } else { "refuses" };
                write!(f, "late, the store {taken} {}", events.join(", "))
            }
            Self::Asked(input) => f.write_str(&asked(input)),
        }
    }
}

/// The sequence as a mermaid sequence diagram.
pub(super) fn mermaid(beats: &[Beat], ending: &str) -> String {
    let mut chart = Chart {
        owners: Vec::new(),
        steps: Vec::new(),
        lines: Vec::new(),
    };
    for beat in beats {
        chart.draw(beat);
    }
    chart.finish(ending)
}

struct Chart {
    owners: Vec<Epoch>,
    steps: Vec<String>,
    lines: Vec<String>,
}

impl Chart {
    fn owner(&mut self, epoch: Epoch) -> String {
        if !self.owners.contains(&epoch) {
            self.owners.push(epoch);
        }
        format!("O{epoch}")
    }

    fn step(&mut self, name: &str) -> String {
        let known = self.steps.iter().position(|step| step == name);
        let place = known.unwrap_or_else(|| {
            self.steps.push(name.to_owned());
            self.steps.len() - 1
        });
        format!("S{place}")
    }

    fn line(&mut self, arrow: &str, text: &str) {
        // A semicolon or hash would end the message.
        let text = text.replace([';', '#', '\n'], " ");
        self.lines.push(format!("    {arrow}: {text}"));
    }

    fn draw(&mut self, beat: &Beat) {
        match beat {
            Beat::Appended(owner, events) => {
                let arrow = format!("{}->>L", self.owner(*owner));
                self.line(&arrow, &events.join(", "));
            }
            Beat::Called(_) => {}
            Beat::Reached(call, reply) => {
                let (owner, step) = (self.owner(call.epoch), self.step(call.step.as_str()));
                let asked = what(call);
                let (arrow, back) = match reply {
                    Reply::Done => ("->>", None),
                    Reply::Rejected | Reply::Retryable => ("->>", Some("-->>")),
                    Reply::LostAfter => ("->>", Some("--x")),
                    Reply::LostBefore | Reply::Silence => ("-x", None),
                };
                self.line(&format!("{owner}{arrow}{step}"), &asked);
                if let Some(back) = back {
                    let said = match reply {
                        Reply::Rejected => "refused",
                        Reply::Retryable => "busy",
                        _ => "the answer is lost",
                    };
                    self.line(&format!("{step}{back}{owner}"), said);
                }
            }
            Beat::Answered(call, said) => {
                let (owner, step) = (self.owner(call.epoch), self.step(call.step.as_str()));
                self.line(&format!("{step}-->>{owner}"), &outcome(said));
            }
            Beat::Arrived(call) => {
                let (owner, step) = (self.owner(call.epoch), self.step(call.step.as_str()));
                let asked = format!("late, {}", what(call));
                self.line(&format!("{owner}-){step}"), &asked);
            }
            Beat::Unheard(call, said) => {
                let step = self.step(call.step.as_str());
                self.line(&format!("Note over {step}"), &outcome(said));
            }
            Beat::Refused(owner)
            | Beat::Died(owner)
            | Beat::TookOver(owner)
            | Beat::Stumbled(owner, ..) => {
                let owner = self.owner(*owner);
                self.line(&format!("Note over {owner}"), &beat.to_string());
            }
            Beat::Passed(_) | Beat::Landed(..) | Beat::Asked(_) => {
                self.line("Note over L", &beat.to_string());
            }
        }
    }

    fn finish(mut self, ending: &str) -> String {
        self.line("Note over L", ending);
        let owners = self.owners.iter();
        let owners = owners.map(|owner| format!("    participant O{owner} as owner {owner}"));
        let steps = self.steps.iter().enumerate();
        let steps = steps.map(|(place, step)| format!("    participant S{place} as {step}"));
        let mut lines = vec!["sequenceDiagram".to_owned()];
        lines.extend(owners);
        lines.push("    participant L as log".to_owned());
        lines.extend(steps);
        lines.append(&mut self.lines);
        lines.join("\n")
    }
}
