//! How a figure is taken, by us and by each rival.
//!
//! A batch of operations is repeated, and the fastest batch counts: what else runs on the machine can
//! only make one slower.

#[cfg(feature = "tasks")]
pub mod tasks;

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// One run of a measuring program, which speaks for one subject.
#[derive(Debug)]
pub struct Session {
    subject: &'static str,
    batches: u32,
    batch: Duration,
}

impl Session {
    /// The session that the command line asks for: `--quick` is a short one.
    pub fn of(subject: &'static str) -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        Self {
            subject,
            batches: if quick { 3 } else { 20 },
            batch: Duration::from_millis(if quick { 5 } else { 20 }),
        }
    }

    /// Prints how long one operation takes. `batch` does so many of them and says how long they took.
    pub fn time(&self, figure: &str, batch: impl FnMut(u64) -> Duration) {
        let nanos = fastest(self.batches, self.batch, batch) * 1e9;
        println!("{figure} {} {nanos:.2} ns", self.subject);
    }

    /// Prints how many operations are done in a second, for those that take many microseconds.
    pub fn rate(&self, figure: &str, unit: &str, batch: impl FnMut(u64) -> Duration) {
        let seconds = fastest(self.batches.div_ceil(3), self.batch * 10, batch);
        println!("{figure} {} {:.0} {unit}", self.subject, seconds.recip());
    }
}

/// Seconds per operation in the fastest of so many batches that take about `aim` each.
fn fastest(batches: u32, aim: Duration, mut batch: impl FnMut(u64) -> Duration) -> f64 {
    let mut count = 64;
    let mut took = batch(count);
    while took < aim / 4 {
        count *= 2;
        took = batch(count);
    }
    let count = (count as f64 * aim.as_secs_f64() / took.as_secs_f64()).ceil() as u64;
    let seconds = |_| batch(count).as_secs_f64() / count as f64;
    (0..batches).map(seconds).fold(f64::INFINITY, f64::min)
}

/// Batches by one thread.
pub fn alone(mut operation: impl FnMut()) -> impl FnMut(u64) -> Duration {
    move |count| {
        let begun = Instant::now();
        repeat(count, &mut operation);
        begun.elapsed()
    }
}

/// Batches by two threads at once, which do `count` each: how long an operation takes while another
/// thread is doing the same, from the start of the first to the end of the last.
pub fn in_pair<F: FnMut()>(operation: impl Fn() -> F + Sync) -> impl FnMut(u64) -> Duration {
    move |count| {
        let start = Barrier::new(2);
        let thread = || {
            let mut operation = operation();
            start.wait();
            let begun = Instant::now();
            repeat(count, &mut operation);
            (begun, Instant::now())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(thread);
            let mine = thread();
            let other = other.join().expect("the other thread measures too");
            mine.1.max(other.1) - mine.0.min(other.0)
        })
    }
}

fn repeat(count: u64, operation: &mut impl FnMut()) {
    for _ in 0..count {
        operation();
    }
}
