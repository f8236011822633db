use std::fmt;

use super::law::Law;
use super::tale::{Beat, mermaid};

/// What an exploration saw.
///
/// ```
/// use orchestra_saga::explore::explore;
/// use orchestra_saga::{Call, Definition};
///
/// let mut d = Definition::builder("look", "1");
/// d.step("look", (), |_: Call, (): ()| async { Ok(()) }).read_only();
/// let report = explore(&d.build()?).crashes(0).attempts(1).run();
/// assert!(report.exhaustive && report.finding.is_none());
/// assert!(report.to_string().contains("all within up to 1 attempts that go wrong"));
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Different states of the saga and its world.
    pub states: u64,
    /// Moves from one state to the next.
    pub moves: u64,
    /// Sequences that were walked, each up to an end or to a state that was known.
    pub traces: u64,
    /// Whether every sequence within the bounds was explored. Otherwise the states did not suffice.
    pub exhaustive: bool,
    /// Up to how many faults every sequence was explored; without a number, any.
    pub faults: Option<u8>,
    /// Random sequences that were walked because the states did not suffice.
    pub samples: u64,
    /// The bounds.
    pub bounds: String,
    /// The first sequence that breaks a law, made as short as possible.
    pub finding: Option<Finding>,
}

impl Report {
    /// Fails the running test if a law is broken, and shows how.
    ///
    /// # Panics
    ///
    /// Then.
    #[expect(clippy::panic, reason = "this is how a test fails")]
    #[track_caller]
    pub fn assert_clean(&self) -> &Self {
        if let Some(finding) = &self.finding {
            panic!("{finding}\n{}", finding.mermaid());
        }
        self
    }

    /// Fails the running test unless every sequence within the bounds was explored.
    ///
    /// # Panics
    ///
    /// Then.
    #[track_caller]
    pub fn assert_exhaustive(&self) -> &Self {
        assert!(self.exhaustive, "not everything was explored: {self}");
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            moves,
            traces,
            samples,
            bounds,
            ..
        } = self;
        write!(f, "{states} states, {moves} moves, {traces} sequences; ")?;
        match (self.exhaustive, self.faults) {
            _ if self.finding.is_some() => f.write_str("stopped at the first that breaks a law"),
            (true, None) => write!(f, "all within {bounds}"),
            (true, Some(faults)) => write!(f, "all of up to {faults} faults within {bounds}"),
            (false, Some(faults)) => write!(
                f,
                "not all: those of up to {faults} faults, and {samples} random ones, within {bounds}"
            ),
            (false, None) => write!(f, "not all: {samples} random ones within {bounds}"),
        }
    }
}

/// A sequence that breaks a law.
///
/// ```
/// use orchestra_saga::explore::explore;
/// use orchestra_saga::{Call, Definition, Failure};
///
/// let mut d = Definition::builder("pay", "1");
/// let paid = d
///     .step("pay", (), |_: Call, (): ()| async { Ok(()) })
///     .compensate(|_: Call, (): (), _: Option<()>| async { Err(Failure::rejected("no refunds")) });
/// d.step("send", paid, |_: Call, (): ()| async { Ok(()) }).pivot();
///
/// let all_is_well = |_| Ok::<(), String>(());
/// let report = explore(&d.build()?).service(|| {}, all_is_well).faults(2).run();
/// let finding = report.finding.expect("a compensation that refuses for ever");
/// assert_eq!(finding.law().to_string(), "a saga ends when all participants answer");
/// assert_eq!(finding.sequence().first().map(String::as_str), Some("owner 1 appends saga_started, step_scheduled pay"));
/// assert!(finding.mermaid().starts_with("sequenceDiagram"));
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub(super) law: Law,
    pub(super) seen: String,
    pub(super) beats: Vec<Beat>,
    pub(super) faults: usize,
}

impl Finding {
    /// The law.
    pub const fn law(&self) -> Law {
        self.law
    }

    /// What was seen.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// What happened, one thing a line.
    pub fn sequence(&self) -> Vec<String> {
        self.beats.iter().map(ToString::to_string).collect()
    }

    /// How many things go wrong in it.
    pub const fn faults(&self) -> usize {
        self.faults
    }

    /// What happened as a mermaid sequence diagram.
    pub fn mermaid(&self) -> String {
        mermaid(&self.beats, &self.seen)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.law)?;
        for (number, beat) in (1..).zip(&self.beats) {
            writeln!(f, "{number:>4}  {beat}")?;
        }
        write!(f, "      {}", self.seen)
    }
}
