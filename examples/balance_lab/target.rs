//! What the default has to reach.

use crate::case;
use crate::policy;
use crate::summary::Summary;

/// Latencies with a slow tenth, in milliseconds.
const SLOW_P99: f64 = 60.0;
const SLOW_P999: f64 = 100.0;
/// The part of the calls that a server gets of whom no call succeeds.
const FAILING_SHARE: f64 = 0.001;
/// Seconds from the repair of a server until it has its share again.
const BACK_AFTER: f64 = 10.0;

/// How many targets were looked at, and what was missed, a sentence each.
#[derive(Debug, Default)]
pub struct Verdict {
    pub checked: usize,
    pub missed: Vec<String>,
}

impl Verdict {
    /// Of the default in all cases; others may be as bad as they are.
    pub fn of(summaries: &[Summary]) -> Self {
        let mut verdict = Self::default();
        let of_default = |summary: &&Summary| summary.policy.name == policy::DEFAULT.name;
        for summary in summaries.iter().filter(of_default) {
            verdict.judge(summary);
        }
        verdict
    }

    fn judge(&mut self, summary: &Summary) {
        let name = summary.case.name;
        if name == case::SLOW_TENTH.name {
            self.at_most(name, "p99", summary.p99, SLOW_P99, "ms");
            self.at_most(name, "p99.9", summary.p999, SLOW_P999, "ms");
        }
        // Not of the one that fails a part: what it is sent is mostly answered.
        if [case::FAILS_FAST.name, case::DEAD.name].contains(&name) {
            let (share, most) = (summary.faulty_share * 100.0, FAILING_SHARE * 100.0);
            self.at_most(name, "share of the failing server", share, most, "%");
        }
        if summary.case.is_repaired {
            self.at_most(name, "back after", summary.back_after, BACK_AFTER, "s");
        }
    }

    fn at_most(&mut self, case: &str, what: &str, found: f64, most: f64, unit: &str) {
        self.checked += 1;
        if found > most {
            let missed = format!("{case}: {what} {found:.3} {unit}, at most {most} {unit} wanted");
            self.missed.push(missed);
        }
    }
}
