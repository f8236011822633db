/// A deliberate fault in the world of an exploration, to prove that the explorer sees it.
///
/// The machine under exploration stays the production one; what is around it does one thing wrong.
///
/// ```
/// use orchestra_saga::explore::{Law, Mutant, explore};
/// use orchestra_saga::{Call, Definition};
///
/// let mut d = Definition::builder("pay", "1");
/// d.step("pay", (), |_: Call, (): ()| async { Ok(()) })
///     .compensate(|_: Call, (): (), _: Option<()>| async { Ok(()) });
/// let definition = d.build()?;
///
/// let report = explore(&definition).faults(2).mutant(Mutant::ForgetsKeys).run();
/// assert_eq!(report.finding.map(|finding| finding.law()), Some(Law::Once));
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// The store appends a batch whatever version it expects. Needs
    /// [`store_failures`](super::Exploration::store_failures): only a batch that lands late has a version
    /// that is not expected.
    IgnoresTheVersion,
    /// The store forgets the last batch that it acknowledged when its owner dies: it did not sync.
    LosesTheLastBatch,
    /// The store lets an owner append although another one has taken over.
    IgnoresTheEpoch,
    /// Participants let an action pass after its compensation.
    LosesTombstones,
    /// Participants do not keep keys, and do again what is asked again.
    ForgetsKeys,
    /// A compensation has the key of its action.
    SharesTheKey,
    /// Every attempt has a key of its own.
    NewKeyForEachAttempt,
    /// A step that is repeated after a save-point has the keys of the time before.
    ForgetsTheIteration,
    /// What is to be undone last is undone first.
    UndoesForward,
    /// An answer that nobody heard is taken for a refusal.
    UnknownIsRejected,
    /// Calls are made before the append that intends them.
    CallsBeforeTheAppend,
    /// Calls in flight are forgotten when another owner takes over.
    ForgetsWhatWasInFlight,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 12] = [
        Self::IgnoresTheVersion,
        Self::LosesTheLastBatch,
        Self::IgnoresTheEpoch,
        Self::LosesTombstones,
        Self::ForgetsKeys,
        Self::SharesTheKey,
        Self::NewKeyForEachAttempt,
        Self::ForgetsTheIteration,
        Self::UndoesForward,
        Self::UnknownIsRejected,
        Self::CallsBeforeTheAppend,
        Self::ForgetsWhatWasInFlight,
    ];
}
