//! The balancers that are compared, each in a resolver that is otherwise as it is by default.

use std::sync::Arc;

use orchestra::discovery::resolver::Config;
use orchestra::discovery::{
    Balancer, Candidates, PickContext, RoundRobin, Weighted, outlier,
};

/// How a resolver is made: different clients start at different places.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub name: &'static str,
    config: fn(start: u64) -> Config,
}

pub const DEFAULT: Policy = Policy {
    name: "default (p2c)",
    config: |_| Config::default(),
};

pub const ALL: [Policy; 6] = [
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
    Policy {
        name: "random",
        config: |_| Config::default().balancer(Arc::new(Random)),
    },
];

impl Policy {
    /// The configuration of one client's resolver.
    pub fn config(&self, seed: u64) -> Config {
        (self.config)(seed).seed(seed)
    }
}

/// By chance alone, as a balancer of one's own.
#[derive(Debug)]
struct Random;

impl Balancer for Random {
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let drawn = candidates.sample(context.draw)?;
        if candidates.is_open(drawn) {
            Some(drawn)
        } else {
            candidates.sample_open(context.draw)
        }
    }
}
