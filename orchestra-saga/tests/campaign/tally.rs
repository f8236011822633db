//! How often who died where.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::points::Point;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By point: how often somebody died there, and how often nobody came by in time.
    points: BTreeMap<Point, (u32, u32)>,
    moments: BTreeMap<&'static str, u32>,
    pub(crate) batches: u32,
    pub(crate) completed: u64,
    pub(crate) compensated: u64,
    /// How often an executor was told that another has its partition.
    pub(crate) fenced: u64,
    pub(crate) calls: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn new(points: &[Point]) -> Self {
        let points = points.iter().map(|point| (*point, (0, 0)));
        Self {
            points: points.collect(),
            ..Self::default()
        }
    }

    pub(crate) fn reached(&mut self, point: Point) {
        self.points.entry(point).or_default().0 += 1;
    }

    pub(crate) fn missed(&mut self, point: Point) {
        self.points.entry(point).or_default().1 += 1;
    }

    pub(crate) fn moment(&mut self, what: &'static str) {
        *self.moments.entry(what).or_default() += 1;
    }

    /// Where nobody died.
    pub(crate) fn untouched(&self) -> Vec<String> {
        let points = self.points.iter();
        let untouched = points.filter(|(_, (kills, _))| *kills == 0);
        untouched.map(|(point, _)| point.to_string()).collect()
    }

    pub(crate) fn report(&self, title: &str, took: Duration) -> String {
        let mut text = format!("{title}\n");
        for (point, (kills, missed)) in &self.points {
            let note = match missed {
                0 => String::new(),
                missed => format!("  (not reached {missed} times)"),
            };
            writeln!(text, "  {kills:>6}  {point}{note}").expect("written");
        }
        for (moment, kills) in &self.moments {
            writeln!(text, "  {kills:>6}  {moment}").expect("written");
        }
        let named: u32 = self.points.values().map(|(kills, _)| kills).sum();
        let moments: u32 = self.moments.values().sum();
        writeln!(
            text,
            "  {} points, {named} deaths at them and {moments} at random moments, {} batches, {:.1} s",
            self.points.len(),
            self.batches,
            took.as_secs_f64()
        )
        .expect("written");
        writeln!(
            text,
            "  {} sagas completed and {} compensated; executors fenced off: {}; calls by verdict: {:?}",
            self.completed, self.compensated, self.fenced, self.calls
        )
        .expect("written");
        text
    }
}
