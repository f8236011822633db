use std::fmt;

/// How far an exploration goes.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Attempts of an operation that may go wrong.
    pub(super) attempts: u32,
    /// Owners that may die.
    pub(super) crashes: u8,
    /// Calls that may be on their way when nobody waits for them.
    pub(super) late: usize,
    /// Appends that may fail while their owner lives on.
    pub(super) store_failures: u8,
    /// Cancellations, pauses, retries, resolutions and revocations together.
    pub(super) interventions: u8,
    /// Heartbeats.
    pub(super) heartbeats: u8,
    /// Signals that nobody asked for.
    pub(super) surplus_signals: u8,
    /// Whether time may pass until an attempt is given up.
    pub(super) timeouts: bool,
    /// Everything together that may go wrong in one sequence; without one, more and more until the whole is
    /// explored.
    pub(super) faults: Option<u8>,
    /// States to look at.
    pub(super) states: usize,
    /// Random sequences when the states do not suffice.
    pub(super) samples: u32,
    pub(super) seed: u64,
    /// Whether states that differ by names alone are one.
    pub(super) symmetry: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            attempts: 4,
            crashes: 1,
            late: 1,
            store_failures: 0,
            interventions: 0,
            heartbeats: 0,
            surplus_signals: 1,
            timeouts: true,
            faults: None,
            states: 50_000,
            samples: 1_000,
            seed: 0,
            symmetry: true,
        }
    }
}

impl Bounds {
    /// What may happen in a sequence of at most so many faults.
    pub(super) fn budget(&self, faults: Option<u8>, signals: u8) -> Budget {
        Budget {
            faults: faults.unwrap_or(Budget::UNLIMITED),
            crashes: self.crashes,
            stumbles: self.store_failures,
            interventions: self.interventions,
            heartbeats: self.heartbeats,
            signals: signals.saturating_add(if signals > 0 { self.surplus_signals } else { 0 }),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attempts,
            crashes,
            late,
            store_failures,
            interventions,
            ..
        } = self;
        write!(
            f,
            "up to {attempts} attempts that go wrong, {crashes} crashes, {late} late calls, \
             {store_failures} failures of the store, {interventions} interventions"
        )?;
        if self.timeouts {
            f.write_str(", timeouts")?;
        }
        Ok(())
    }
}

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) faults: u8,
    pub(super) crashes: u8,
    pub(super) stumbles: u8,
    pub(super) interventions: u8,
    pub(super) heartbeats: u8,
    pub(super) signals: u8,
}

impl Budget {
    const UNLIMITED: u8 = u8::MAX;

    /// Whether all that may happen with `other` may happen with this.
    pub(super) fn covers(self, other: Self) -> bool {
        self.faults >= other.faults
            && self.crashes >= other.crashes
            && self.stumbles >= other.stumbles
            && self.interventions >= other.interventions
            && self.heartbeats >= other.heartbeats
            && self.signals >= other.signals
    }

    pub(super) fn may_fault(self) -> bool {
        self.faults > 0
    }

    pub(super) fn spend_fault(&mut self) {
        if self.faults != Self::UNLIMITED {
            self.faults = self.faults.saturating_sub(1);
        }
    }
}
