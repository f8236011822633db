//! A server: workers who take calls from one queue in the order of their arrival.

use std::time::Duration;

use fastrand::Rng;
use orchestra::core::Outcome;

pub const WORKERS: usize = 4;
/// The mean of the exponential service time.
pub const SERVICE: Duration = Duration::from_millis(10);
/// A caller waits no longer than this.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How a server is.
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    Well,
    /// Takes so many times as long.
    Slow(f64),
    /// Answers this share of its calls with an error after so long, without any work.
    Failing {
        share: f64,
        answers_in: Duration,
    },
    /// Answers nothing.
    Dead,
}

/// How a call ends, and how long after it began.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Answered(Outcome, Duration),
    TimedOut,
}

/// Until when each worker is busy: enough to know when the next call begins, since nobody overtakes.
#[derive(Debug, Default, Clone)]
pub struct Server {
    busy_until: [Duration; WORKERS],
}

impl Server {
    /// Takes a call at `now`.
    pub fn take(&mut self, condition: Condition, now: Duration, rng: &mut Rng) -> Ending {
        let times = match condition {
            Condition::Dead => return Ending::TimedOut,
            Condition::Failing { share, answers_in } if rng.f64() < share => {
                return Ending::Answered(Outcome::Failure, answers_in);
            }
            Condition::Slow(times) => times,
            Condition::Well | Condition::Failing { .. } => 1.0,
        };
        let service = exponential(SERVICE.mul_f64(times), rng);
        let next = self.busy_until.iter_mut().min();
        let Some(worker) = next else {
            return Ending::TimedOut;
        };
        let begins = now.max(*worker);
        if begins >= now + PATIENCE {
            // The caller has gone by then, and no worker begins what nobody waits for.
            return Ending::TimedOut;
        }
        *worker = begins + service;
        let took = *worker - now;
        if took > PATIENCE {
            Ending::TimedOut
        } else {
            Ending::Answered(Outcome::Success, took)
        }
    }
}

/// A draw from the exponential distribution of this mean.
pub fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}
