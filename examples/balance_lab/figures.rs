//! What is counted in a run.

use std::time::Duration;

use crate::case::{Case, Pace};

/// Calls are counted by windows of this length.
const WINDOW: Duration = Duration::from_millis(500);
/// A share counts as regained if it is kept for so many windows on average.
const KEPT: usize = 4;
/// The part of its fair share with which a repaired server counts as back.
const BACK: f64 = 0.9;

#[derive(Debug, Default)]
pub struct Figures {
    /// How long each measured call took, in microseconds; sorted at the end.
    took: Vec<u32>,
    failed: u64,
    windows: Vec<Window>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    calls: u64,
    to_faulty: u64,
}

impl Figures {
    /// A call was sent.
    pub fn sent(&mut self, now: Duration, to_faulty: bool) {
        let number = (now.as_millis() / WINDOW.as_millis()) as usize;
        if self.windows.len() <= number {
            self.windows.resize(number + 1, Window::default());
        }
        self.windows[number].calls += 1;
        self.windows[number].to_faulty += u64::from(to_faulty);
    }

    /// A call that counts took so long.
    pub fn measured(&mut self, took: Duration, succeeded: bool) {
        self.took
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        self.failed += u64::from(!succeeded);
    }

    pub fn finish(&mut self) {
        self.took.sort_unstable();
    }

    /// The time in milliseconds within which this part of the calls ended; infinite if there were none.
    pub fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.took.len() as f64).ceil() as usize;
        let found = self.took.get(rank.max(1) - 1);
        found.map_or(f64::INFINITY, |&micros| f64::from(micros) / 1e3)
    }

    pub fn error_share(&self) -> f64 {
        self.failed as f64 / self.took.len().max(1) as f64
    }

    /// The part of the measured calls that went to those with whom something is wrong.
    pub fn faulty_share(&self, pace: &Pace) -> f64 {
        let begin = window_of(pace.breaks + pace.settles);
        share(&self.windows[begin..window_of(pace.repaired())])
    }

    /// The seconds from the repair until the repaired server has its share again; `None` if not in time.
    pub fn back_after(&self, case: &Case, pace: &Pace) -> Option<f64> {
        let since = &self.windows[window_of(pace.repaired())..];
        let least = BACK * case.fair_share();
        let found = since.windows(KEPT).position(|kept| share(kept) >= least)?;
        Some(found as f64 * WINDOW.as_secs_f64())
    }
}

fn window_of(moment: Duration) -> usize {
    (moment.as_millis() / WINDOW.as_millis()) as usize
}

fn share(windows: &[Window]) -> f64 {
    let calls: u64 = windows.iter().map(|window| window.calls).sum();
    let to_faulty: u64 = windows.iter().map(|window| window.to_faulty).sum();
    to_faulty as f64 / calls.max(1) as f64
}
