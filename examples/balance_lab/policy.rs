//! The balancers of the crate that are compared, each in a resolver that is otherwise as it is by default.

use std::sync::Arc;

use orchestra::discovery::resolver::Config;
use orchestra::discovery::{RoundRobin, Weighted, outlier};

/// How a resolver is made: different clients start at different places.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub name: &'static str,
    config: fn(start: u64) -> Config,
}

/// The one that has to meet the targets.
pub const DEFAULT: Policy = Policy {
    name: "default (p2c)",
    config: |_| Config::default(),
};

pub const ALL: [Policy; 5] = [
    DEFAULT,
    Policy {
        name: "p2c, nobody ejected",
        config: |_| Config::default().outliers(outlier::Config::Off),
    },
    Policy {
        name: "round robin",
        config: |start| Config::default().balancer(Arc::new(RoundRobin::starting_at(start))),
    },
    Policy {
        name: "round robin, nobody ejected",
        config: |start| {
            Config::default()
                .balancer(Arc::new(RoundRobin::starting_at(start)))
                .outliers(outlier::Config::Off)
        },
    },
    Policy {
        name: "weighted",
        config: |start| Config::default().balancer(Arc::new(Weighted::starting_at(start))),
    },
];

impl Policy {
    /// The configuration of one client's resolver.
    pub fn config(&self, seed: u64) -> Config {
        (self.config)(seed).seed(seed)
    }
}
