use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Jitter, Listener, Monotonic, Outcome};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config, Permit, State};
use orchestra_mesh::{Event, Ratio};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::upstream::Checked;

const NOW: Monotonic = Monotonic::ZERO;

fn call(breaker: &Breaker, outcome: Outcome, now: Monotonic) -> bool {
    let permit = breaker.try_acquire(now);
    let admitted = permit.is_ok();
    if let Ok(permit) = permit {
        breaker.release(permit, outcome, now);
    }
    admitted
}

#[test]
fn a_long_good_past_does_not_keep_the_circuit_closed() -> Checked {
    let config = Config::default().consecutive_failures(0).window(100);
    let breaker = Breaker::new(config)?;
    for _ in 0..10_000 {
        assert!(call(&breaker, Outcome::Success, NOW));
    }
    let failures = (0..).take_while(|_| call(&breaker, Outcome::Failure, NOW));
    assert_eq!(failures.count(), 50);
    Ok(())
}

#[test]
fn of_a_herd_only_the_probes_are_admitted() -> Checked {
    let breaker = Breaker::new(Config::default().consecutive_failures(1).probes(3))?;
    call(&breaker, Outcome::Failure, NOW);
    let later = NOW + Duration::from_secs(1);
    let admitted = std::thread::scope(|scope| {
        let ask = || {
            (0..25)
                .filter(|_| breaker.try_acquire(later).is_ok())
                .count()
        };
        let threads = [scope.spawn(ask), scope.spawn(ask)];
        threads.map(|thread| thread.join().unwrap_or(usize::MAX))
    });
    assert_eq!(admitted.iter().sum::<usize>(), 3);
    Ok(())
}

#[test]
fn each_failed_recovery_waits_longer_and_a_good_one_forgets() -> Checked {
    let wait = Backoff::exponential(Duration::from_secs(1), 2.0)
        .cap(Duration::from_secs(4))
        .jitter(Jitter::None);
    let config = Config::default()
        .consecutive_failures(1)
        .probes(1)
        .open_wait(wait);
    let breaker = Breaker::new(config)?;
    let mut now = NOW;
    for seconds in [1, 2, 4, 4] {
        assert!(call(&breaker, Outcome::Failure, now));
        let rejected = breaker.try_acquire(now).expect_err("it is open");
        assert_eq!(rejected.retry_after, Some(Duration::from_secs(seconds)));
        now = now + Duration::from_secs(seconds);
    }
    assert!(call(&breaker, Outcome::Success, now));
    assert!(call(&breaker, Outcome::Failure, now));
    let rejected = breaker.try_acquire(now).expect_err("it is open");
    assert_eq!(rejected.retry_after, Some(Duration::from_secs(1)));
    Ok(())
}

#[test]
fn probes_that_never_come_back_are_replaced_in_time() -> Checked {
    let limit = Duration::from_secs(30);
    let config = Config::default()
        .consecutive_failures(1)
        .probes(2)
        .longest_half_open(limit);
    let breaker = Breaker::new(config)?;
    call(&breaker, Outcome::Failure, NOW);
    let half_open = NOW + Duration::from_secs(1);
    let lost: Vec<Permit> = (0..2)
        .filter_map(|_| breaker.try_acquire(half_open).ok())
        .collect();
    assert_eq!(lost.len(), 2);
    let last = half_open + limit.saturating_sub(Duration::from_nanos(1));
    assert!(breaker.try_acquire(last).is_err());
    assert!(breaker.try_acquire(half_open + limit).is_ok());
    for permit in lost {
        breaker.release(permit, Outcome::Failure, half_open + limit);
    }
    assert_eq!(breaker.state(half_open + limit), State::HalfOpen);
    Ok(())
}

#[test]
fn each_change_of_state_is_reported_once() -> Checked {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let seen = Arc::clone(&seen);
        move |event: &Event| {
            if let Event::BreakerChanged { breaker, from, to } = event {
                seen.lock().push((breaker.to_string(), *from, *to));
            }
        }
    };
    let listener: Arc<dyn Listener<Event>> = Arc::new(listener);
    let config = Config::default().consecutive_failures(1).probes(1);
    let breaker = Breaker::new(config)?.observed("cart-1", listener);
    call(&breaker, Outcome::Failure, NOW);
    assert!(!call(&breaker, Outcome::Success, NOW));
    call(&breaker, Outcome::Success, NOW + Duration::from_secs(1));
    let expected = [
        (State::Closed, State::Open),
        (State::Open, State::HalfOpen),
        (State::HalfOpen, State::Closed),
    ];
    let expected = expected.map(|(from, to)| ("cart-1".to_owned(), from, to));
    assert_eq!(*seen.lock(), expected);
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let bad = [
        Config::default().window(0),
        Config::default().window(65_537),
        Config::default().min_calls(0),
        Config::default().min_calls(101),
        Config::default().failure_ratio(Ratio::NOTHING),
        Config::default().probes(0),
        Config::default().longest_half_open(Duration::ZERO),
    ];
    for config in bad {
        assert!(Breaker::new(config).is_err(), "{config:?}");
    }
}

/// A breaker that keeps whole lists instead of counters and rings.
struct Model {
    window: usize,
    min_calls: usize,
    ratio: (usize, usize),
    row: usize,
    probes: usize,
    past: VecDeque<Outcome>,
    state: State,
    since: u64,
    epoch: usize,
    openings: u32,
    under_way: usize,
    good: usize,
}

const WAIT: u64 = 100;
const LONGEST: u64 = 1000;

impl Model {
    fn wait(&self) -> u64 {
        (WAIT << (self.openings - 1)).min(4 * WAIT)
    }

    fn enter(&mut self, state: State, now: u64) {
        (self.state, self.since) = (state, now);
        (self.under_way, self.good) = (0, 0);
        self.epoch += 1;
        match state {
            State::Open => self.openings += 1,
            State::Closed => {
                self.openings = 0;
                self.past.clear();
            }
            _ => {}
        }
    }

    fn acquire(&mut self, now: u64) -> Option<usize> {
        let waited = self.state == State::Open && now >= self.since + self.wait();
        let stuck =
            self.state == State::HalfOpen && self.under_way > 0 && now >= self.since + LONGEST;
        if waited || stuck {
            self.enter(State::HalfOpen, now);
        }
        let admitted = match self.state {
            State::Closed => true,
            State::HalfOpen => self.under_way + self.good < self.probes,
            _ => false,
        };
        self.under_way += usize::from(admitted);
        admitted.then_some(self.epoch)
    }

    fn release(&mut self, epoch: usize, outcome: Outcome, now: u64) {
        if epoch != self.epoch {
            return;
        }
        if self.state == State::HalfOpen {
            self.under_way -= 1;
            match outcome {
                Outcome::Success => self.good += 1,
                Outcome::Neutral => {}
                _ => return self.enter(State::Open, now),
            }
            if self.good == self.probes {
                self.enter(State::Closed, now);
            }
            return;
        }
        if outcome == Outcome::Neutral {
            return;
        }
        self.past.push_back(outcome);
        let recent: Vec<_> = self.past.iter().rev().take(self.window).collect();
        let bad = recent.iter().filter(|o| ***o != Outcome::Success).count();
        let ratio =
            recent.len() >= self.min_calls && bad * self.ratio.1 >= self.ratio.0 * recent.len();
        let in_a_row = self
            .past
            .iter()
            .rev()
            .filter(|outcome| **outcome != Outcome::Overloaded)
            .take_while(|outcome| **outcome == Outcome::Failure)
            .count();
        if ratio || (self.row > 0 && in_a_row >= self.row) {
            self.enter(State::Open, now);
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Overloaded),
        1 => Just(Outcome::Neutral),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Acquire,
    Release(usize, Outcome),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Acquire),
        5 => (0_usize..8, outcome()).prop_map(|(which, outcome)| Step::Release(which, outcome)),
        1 => (0_u64..600).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_breaker_does_what_the_model_does(
        window in 1_u32..12,
        min_calls in 1_u32..12,
        part in 1_u32..=10,
        row in 0_u32..5,
        probes in 1_u32..4,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let min_calls = min_calls.min(window);
        let nanos = Duration::from_nanos;
        let wait = Backoff::exponential(nanos(WAIT), 2.0).cap(nanos(4 * WAIT)).jitter(Jitter::None);
        let config = Config::default()
            .window(window)
            .min_calls(min_calls)
            .failure_ratio(Ratio::of(part, 10)?)
            .consecutive_failures(row)
            .probes(probes)
            .open_wait(wait)
            .longest_half_open(nanos(LONGEST));
        let breaker = Breaker::new(config)?;
        let mut model = Model {
            window: window as usize,
            min_calls: min_calls as usize,
            ratio: (part as usize, 10),
            row: row as usize,
            probes: probes as usize,
            past: VecDeque::new(),
            state: State::Closed,
            since: 0,
            epoch: 0,
            openings: 0,
            under_way: 0,
            good: 0,
        };
        let mut held: Vec<(Permit, usize)> = Vec::new();
        let mut time = 0;
        for step in steps {
            let now = Monotonic::from_nanos(time);
            match step {
                Step::Wait(nanos) => time += nanos,
                Step::Acquire => {
                    let permit = breaker.try_acquire(now).ok();
                    let expected = model.acquire(time);
                    prop_assert_eq!(permit.is_some(), expected.is_some());
                    held.extend(permit.zip(expected));
                }
                Step::Release(which, outcome) if !held.is_empty() => {
                    let (permit, epoch) = held.swap_remove(which % held.len());
                    breaker.release(permit, outcome, now);
                    model.release(epoch, outcome, time);
                }
                Step::Release(..) => {}
            }
            let waited = model.state == State::Open && time >= model.since + model.wait();
            let state = if waited { State::HalfOpen } else { model.state };
            prop_assert_eq!(breaker.state(Monotonic::from_nanos(time)), state);
        }
    }
}
