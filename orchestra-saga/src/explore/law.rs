use std::fmt;

/// What must hold of every saga, whatever its participants answer and whoever dies.
///
/// ```
/// use orchestra_saga::explore::Law;
///
/// assert_eq!(Law::AllOrNothing.to_string(), "all effects are there, or none");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Law {
    /// An operation takes effect at most once.
    Once,
    /// No action takes effect after its compensation.
    NoActionAfterCompensation,
    /// A step is undone after all that depends on it.
    ReverseOrder,
    /// A pivot is never undone, nor what comes after it.
    NoReturn,
    /// Of each step one call is in flight at a time, and none is made after its deadline.
    OneCall,
    /// Only the owner of the saga makes calls.
    OneOwner,
    /// The fold of the log is the state, also through a snapshot.
    FoldIsState,
    /// What was acknowledged is in the log.
    NothingLost,
    /// Every operation has a key of its own.
    OwnKeys,
    /// What is said to be known of an outcome is true.
    Truth,
    /// A saga that has not ended has a call in flight, waits for a signal, or will wake by itself.
    NeverStandsStill,
    /// When all participants answer, the saga ends.
    Ends,
    /// A completed saga has every effect once, a compensated one none.
    AllOrNothing,
    /// A declarative request can be made from what the saga knows.
    RequestsCanBeMade,
    /// A closure that is explored answers at once and does not panic.
    AnswersAtOnce,
    /// What the caller of the explorer asks of its own service at the end.
    Consistent,
}

impl Law {
    /// Every law.
    pub const ALL: [Self; 16] = [
        Self::Once,
        Self::NoActionAfterCompensation,
        Self::ReverseOrder,
        Self::NoReturn,
        Self::OneCall,
        Self::OneOwner,
        Self::FoldIsState,
        Self::NothingLost,
        Self::OwnKeys,
        Self::Truth,
        Self::NeverStandsStill,
        Self::Ends,
        Self::AllOrNothing,
        Self::RequestsCanBeMade,
        Self::AnswersAtOnce,
        Self::Consistent,
    ];

    /// The law in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "an operation takes effect at most once",
            Self::NoActionAfterCompensation => "no action takes effect after its compensation",
            Self::ReverseOrder => "a step is undone after all that depends on it",
            Self::NoReturn => "the point of no return is not passed backwards",
            Self::OneCall => "of each step one call is in flight at a time",
            Self::OneOwner => "only the owner of a saga makes calls",
            Self::FoldIsState => "the fold of the log is the state",
            Self::NothingLost => "what was acknowledged is in the log",
            Self::OwnKeys => "every operation has a key of its own",
            Self::Truth => "what is said to be known is true",
            Self::NeverStandsStill => "a saga never stands still",
            Self::Ends => "a saga ends when all participants answer",
            Self::AllOrNothing => "all effects are there, or none",
            Self::RequestsCanBeMade => "a request can be made from what the saga knows",
            Self::AnswersAtOnce => "an explored closure answers at once",
            Self::Consistent => "the service is consistent when the saga has ended",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A law that does not hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) law: Law,
    pub(super) seen: String,
}

impl Law {
    /// That it is broken.
    pub(super) fn broken(self, seen: impl Into<String>) -> Violation {
        let seen = seen.into();
        Violation { law: self, seen }
    }

    /// Breaks it unless that holds.
    pub(super) fn unless(
        self,
        holds: bool,
        seen: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        if holds {
            Ok(())
        } else {
            Err(self.broken(seen()))
        }
    }
}
