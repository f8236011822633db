//! What is wrong with the servers, and when.

use std::time::Duration;

use crate::server::Condition;

/// Servers of the service.
pub const SERVERS: usize = 100;
/// The first of those with whom something is wrong: any number does.
const FIRST_FAULTY: usize = 37;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    faulty: usize,
    condition: Condition,
    /// Whether it is repaired, and what happens then is looked at.
    pub is_repaired: bool,
}

pub const HOMOGENEOUS: Case = Case {
    name: "homogeneous",
    about: "nothing is wrong",
    faulty: 0,
    condition: Condition::Well,
    is_repaired: false,
};
pub const SLOW_TENTH: Case = Case {
    name: "slow tenth",
    about: "10 of 100 servers take 5 times as long",
    faulty: 10,
    condition: Condition::Slow(5.0),
    is_repaired: false,
};
pub const FAILS_FAST: Case = Case {
    name: "fails fast",
    about: "one server answers an error in 1 ms, and is repaired",
    faulty: 1,
    condition: Condition::Failing {
        share: 1.0,
        answers_in: Duration::from_millis(1),
    },
    is_repaired: true,
};
pub const DEAD: Case = Case {
    name: "dead",
    about: "one server answers nothing, and is repaired",
    faulty: 1,
    condition: Condition::Dead,
    is_repaired: true,
};
pub const PARTIAL: Case = Case {
    name: "partial",
    about: "one server fails 30 % of its calls in 1 ms, and is repaired",
    faulty: 1,
    condition: Condition::Failing {
        share: 0.3,
        answers_in: Duration::from_millis(1),
    },
    is_repaired: true,
};

pub const ALL: [Case; 5] = [HOMOGENEOUS, SLOW_TENTH, FAILS_FAST, DEAD, PARTIAL];

impl Case {
    /// Whether there are servers whose share of the calls tells something.
    pub fn has_faulty(&self) -> bool {
        self.faulty > 0
    }

    pub fn is_faulty(&self, server: usize) -> bool {
        (FIRST_FAULTY..FIRST_FAULTY + self.faulty).contains(&server)
    }

    /// The part of all calls that those servers would get if all were well.
    pub fn fair_share(&self) -> f64 {
        self.faulty as f64 / SERVERS as f64
    }

    /// How a server is at a moment.
    pub fn condition(&self, server: usize, now: Duration, pace: &Pace) -> Condition {
        let is_over = self.is_repaired && now >= pace.repaired();
        if self.is_faulty(server) && now >= pace.breaks && !is_over {
            self.condition
        } else {
            Condition::Well
        }
    }
}

/// When what happens in a run.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What goes wrong goes wrong then.
    pub breaks: Duration,
    /// After this time in it, it is steady.
    pub settles: Duration,
    /// How long is measured.
    pub measured: Duration,
    /// How long a repaired server has.
    pub recovers: Duration,
}

impl Pace {
    pub const FULL: Self = Self {
        breaks: Duration::from_secs(5),
        settles: Duration::from_secs(10),
        measured: Duration::from_secs(30),
        recovers: Duration::from_secs(20),
    };
    pub const QUICK: Self = Self {
        breaks: Duration::from_secs(2),
        measured: Duration::from_secs(10),
        recovers: Duration::from_secs(15),
        ..Self::FULL
    };

    /// Whether a call that begins now counts.
    pub fn is_measured(&self, now: Duration) -> bool {
        (self.breaks + self.settles..self.repaired()).contains(&now)
    }

    pub fn repaired(&self) -> Duration {
        self.breaks + self.settles + self.measured
    }

    pub fn end(&self, case: &Case) -> Duration {
        if case.is_repaired {
            self.repaired() + self.recovers
        } else {
            self.repaired()
        }
    }
}
