//! The pure part about one instance: what its verdicts amount to.

use std::num::NonZeroU32;

use super::{Health, Verdict};

/// How many verdicts in a row it takes to change one's mind.
///
/// ```
/// use std::num::NonZeroU32;
/// use orchestra_discovery::health::Thresholds;
///
/// let hasty = Thresholds::new(NonZeroU32::MIN, NonZeroU32::MIN);
/// assert_ne!(hasty, Thresholds::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// Verdicts in a row until an instance is thought better of.
    pub rise: NonZeroU32,
    /// Verdicts in a row until an instance is thought worse of.
    pub fall: NonZeroU32,
}

impl Default for Thresholds {
    /// Two passes, three failures.
    fn default() -> Self {
        Self::new(
            NonZeroU32::MIN.saturating_add(1),
            NonZeroU32::MIN.saturating_add(2),
        )
    }
}

impl Thresholds {
    /// These many verdicts to rise, these many to fall.
    pub const fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall }
    }
}

/// The verdicts on one instance so far.
///
/// The first verdict decides at once, so a new instance waits for one probe only. After that two questions
/// are kept apart, and each is answered anew once [`Thresholds`] many verdicts in a row contradict it: whether
/// the instance serves at all, and whether it serves without reservation. So of a run of verdicts the mildest
/// counts: three of `Degraded, Fail, Fail` make a healthy instance degraded, and a third failure in a row
/// unhealthy. A verdict in the other direction starts the count anew.
///
/// ```
/// use orchestra_discovery::{Health, Verdict, health::{Tally, Thresholds}};
///
/// let (mut tally, thresholds) = (Tally::default(), Thresholds::default());
/// assert_eq!(tally.observe(thresholds, &Verdict::Pass), Some(Health::Healthy));
/// let fail = Verdict::Fail("503".into());
/// assert_eq!(tally.observe(thresholds, &fail), None);
/// assert_eq!(tally.observe(thresholds, &fail), None);
/// assert_eq!(tally.observe(thresholds, &fail), Some(Health::Unhealthy));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    checked: bool,
    serves: Answer,
    unreserved: Answer,
}

/// Yes or no, and how many verdicts in a row have contradicted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Answer {
    yes: bool,
    contrary: u32,
}

impl Answer {
    fn observe(&mut self, thresholds: Thresholds, yes: bool, at_once: bool) {
        if self.yes == yes {
            self.contrary = 0;
            return;
        }
        let threshold = if yes {
            thresholds.rise
        } else {
            thresholds.fall
        };
        self.contrary += 1;
        if at_once || self.contrary >= threshold.get() {
            *self = Self { yes, contrary: 0 };
        }
    }
}

impl Tally {
    /// What is thought of the instance now.
    pub fn health(&self) -> Health {
        match (self.checked, self.serves.yes, self.unreserved.yes) {
            (false, ..) => Health::Unchecked,
            (true, false, _) => Health::Unhealthy,
            (true, true, false) => Health::Degraded,
            (true, true, true) => Health::Healthy,
        }
    }

    /// Whether the last verdict contradicts what is thought of the instance, so that the next is wanted soon.
    pub fn is_doubtful(&self) -> bool {
        self.serves.contrary > 0 || self.unreserved.contrary > 0
    }

    /// Takes a verdict; returns the new health if it changed.
    pub fn observe(&mut self, thresholds: Thresholds, verdict: &Verdict) -> Option<Health> {
        let before = self.health();
        let (serves, unreserved) = match verdict {
            Verdict::Pass => (true, true),
            Verdict::Degraded(_) => (true, false),
            Verdict::Fail(_) | Verdict::Critical(_) | Verdict::Forbidden(_) => (false, false),
        };
        let definite = matches!(verdict, Verdict::Critical(_) | Verdict::Forbidden(_));
        let at_once = definite || !self.checked;
        self.checked = true;
        self.serves.observe(thresholds, serves, at_once);
        self.unreserved.observe(thresholds, unreserved, at_once);
        let after = self.health();
        (after != before).then_some(after)
    }
}
