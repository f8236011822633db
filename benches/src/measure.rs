//! How a figure is taken, by us and by each rival.
//!
//! A batch of operations is repeated. The fastest batch counts, because what else runs on the machine
//! can only make one slower. Not so where two threads meet: a machine that runs one after the other
//! makes them faster, so there the median counts.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// One run of a measuring program, which speaks for one subject.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    subject: &'static str,
    quick: bool,
    batches: u32,
    batch: Duration,
}

impl Session {
    /// The session that the command line asks for: `--quick` is a short one.
    pub fn of(subject: &'static str) -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        Self {
            subject,
            quick,
            batches: if quick { 3 } else { 20 },
            batch: Duration::from_millis(if quick { 5 } else { 20 }),
        }
    }

    /// The same session for another subject: what our own figure is put beside.
    pub fn for_subject(self, subject: &'static str) -> Self {
        Self { subject, ..self }
    }

    /// Prints how long one operation takes. `batch` does so many of them and says how long they took.
    pub fn time(&self, figure: &str, batch: impl FnMut(u64) -> Duration) {
        self.time_of_all(&[figure], batch);
    }

    /// The same under several names, each of which it is put beside.
    pub fn time_of_all(&self, figures: &[impl AsRef<str>], batch: impl FnMut(u64) -> Duration) {
        let seconds = sorted(self.batches, self.batch, batch)[0];
        for figure in figures {
            self.print(figure.as_ref(), seconds);
        }
    }

    /// Prints the time of an operation when two threads are at it, all operations counted together.
    pub fn time_of_two<F: FnMut()>(&self, figure: &str, operation: impl Fn() -> F + Sync) {
        let seconds = sorted(self.batches, self.batch, in_pair(operation));
        self.print(figure, seconds[seconds.len() / 2]);
    }

    /// Prints the time of an operation in the median batch, to put beside that of two threads.
    pub fn time_of_one(&self, figure: &str, operation: impl FnMut()) {
        let seconds = sorted(self.batches, self.batch, alone(operation));
        self.print(figure, seconds[seconds.len() / 2]);
    }

    /// Prints the median and the 99th percentile of single operations, each of which takes some time to
    /// come about. `sample` does one and says how long it took.
    pub fn percentiles(&self, figure: &str, sample: impl FnMut() -> Duration) {
        let samples = std::iter::repeat_with(sample).take(self.batches as usize * 100);
        let mut samples: Vec<_> = samples.collect();
        samples.sort();
        for percent in [50, 99] {
            let micros = samples[samples.len() * percent / 100].as_secs_f64() * 1e6;
            self.value(&format!("{figure}_p{percent}"), micros, "us");
        }
    }

    /// Prints what was found, in any unit. The least is the best, unless the unit is a rate (`.../s`).
    pub fn value(&self, figure: &str, value: f64, unit: &str) {
        println!("{figure} {} {value:.3} {unit}", self.subject);
    }

    fn print(&self, figure: &str, seconds: f64) {
        println!("{figure} {} {:.2} ns", self.subject, seconds * 1e9);
    }

    /// Prints how many operations are done in a second, for those that take many microseconds.
    pub fn rate(&self, figure: &str, unit: &str, batch: impl FnMut(u64) -> Duration) {
        self.rate_of_parts(&[figure], unit, 1, batch);
    }

    /// The same where an operation consists of so many parts, which are counted instead, and under several
    /// names, each of which it is put beside.
    pub fn rate_of_parts(
        &self,
        figures: &[impl AsRef<str>],
        unit: &str,
        parts: u32,
        batch: impl FnMut(u64) -> Duration,
    ) {
        let seconds = sorted(self.batches.div_ceil(3), self.batch * 10, batch)[0];
        let rate = f64::from(parts) / seconds;
        for figure in figures {
            println!("{} {} {rate:.0} {unit}", figure.as_ref(), self.subject);
        }
    }

    /// Whether the figures are taken only to see that they can be.
    pub fn is_quick(&self) -> bool {
        self.quick
    }
}

/// Seconds per operation in so many batches that take about `aim` each, the fastest first.
fn sorted(batches: u32, aim: Duration, mut batch: impl FnMut(u64) -> Duration) -> Vec<f64> {
    let mut count = 1;
    let mut took = batch(count);
    while took < aim / 4 {
        count *= 2;
        took = batch(count);
    }
    let count = (count as f64 * aim.as_secs_f64() / took.as_secs_f64()).ceil() as u64;
    let seconds = |_| batch(count).as_secs_f64() / count as f64;
    let mut seconds: Vec<f64> = (0..batches).map(seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Batches of operations that have a part which is not measured; each says how long the other took.
pub fn timed(mut operation: impl FnMut() -> Duration) -> impl FnMut(u64) -> Duration {
    move |count| (0..count).map(|_| operation()).sum()
}

/// Batches by one thread.
pub fn alone(mut operation: impl FnMut()) -> impl FnMut(u64) -> Duration {
    move |count| {
        let begun = Instant::now();
        repeat(count, &mut operation);
        begun.elapsed()
    }
}

/// Batches shared by two threads, from the start of the first to the end of the last.
fn in_pair<F: FnMut()>(operation: impl Fn() -> F + Sync) -> impl FnMut(u64) -> Duration {
    move |count| {
        let start = Barrier::new(2);
        let thread = || {
            let mut operation = operation();
            start.wait();
            let begun = Instant::now();
            repeat(count / 2, &mut operation);
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
