//! What the runs of one policy in one case come to, and the table of it.

use crate::case::{Case, Pace};
use crate::figures::Figures;
use crate::policy::Policy;

/// The worst of each figure over all seeds.
#[derive(Debug)]
pub struct Summary {
    pub case: Case,
    pub policy: Policy,
    /// Latencies in milliseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub error_share: f64,
    pub faulty_share: f64,
    /// Seconds from the repair; infinite if it was not back in time.
    pub back_after: f64,
}

impl Summary {
    pub fn new(case: Case, policy: Policy) -> Self {
        Self {
            case,
            policy,
            p50: 0.0,
            p99: 0.0,
            p999: 0.0,
            error_share: 0.0,
            faulty_share: 0.0,
            back_after: 0.0,
        }
    }

    /// Takes in one run.
    pub fn add(&mut self, figures: &Figures, pace: &Pace) {
        let raise = |to: &mut f64, found: f64| *to = to.max(found);
        raise(&mut self.p50, figures.quantile(0.5));
        raise(&mut self.p99, figures.quantile(0.99));
        raise(&mut self.p999, figures.quantile(0.999));
        raise(&mut self.error_share, figures.error_share());
        raise(&mut self.faulty_share, figures.faulty_share(pace));
        if self.case.is_repaired {
            let back = figures.back_after(&self.case, pace);
            raise(&mut self.back_after, back.unwrap_or(f64::INFINITY));
        }
    }

    /// A line under [`heading`].
    pub fn line(&self) -> String {
        let Self { p50, p99, p999, .. } = self;
        let errors = percent(self.error_share);
        let faulty = if self.case.has_faulty() {
            percent(self.faulty_share)
        } else {
            "-".to_owned()
        };
        let back = match self.back_after {
            _ if !self.case.is_repaired => "-".to_owned(),
            after if after.is_finite() => format!("{after:.1} s"),
            _ => "never".to_owned(),
        };
        let name = self.policy.name;
        format!("  {name:28} {p50:8.1} {p99:8.1} {p999:8.1} {errors:>10} {faulty:>10} {back:>8}")
    }
}

/// What precedes the lines of a case.
pub fn heading(case: &Case) -> String {
    format!(
        "\n{}: {}\n  {:28} {:>8} {:>8} {:>8} {:>10} {:>10} {:>8}",
        case.name,
        case.about,
        "policy",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "errors",
        "to faulty",
        "back"
    )
}

fn percent(share: f64) -> String {
    format!("{:.4} %", share * 100.0)
}
