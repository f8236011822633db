//! The walk through all sequences: depth first, and back at states that were known.

use std::collections::HashMap;

use super::bounds::Budget;
use super::choice::Choice;
use super::encode::{Print, print};
use super::law::Violation;
use super::service::Service;
use super::setup::Setup;
use super::tale::Tale;
use super::world::{World, check_snapshot};

/// The longest sequence; a saga that takes longer does not end.
const DEEPEST: usize = 2_000;

/// Of so many states one is passed through a snapshot.
const SNAPSHOTS: u64 = 8;

/// How the walk stands.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) states: u64,
    pub(super) moves: u64,
    pub(super) traces: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.moves += other.moves;
        self.traces += other.traces;
    }
}

/// A sequence that breaks a law.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) path: Vec<Choice>,
    pub(super) violation: Violation,
}

/// How a walk ended.
#[derive(Debug)]
pub(super) enum Walk {
    Whole,
    /// The states did not suffice.
    Partial,
    Broken(Broken),
}

struct Frame {
    world: World,
    choices: Vec<Choice>,
    next: usize,
}

pub(super) struct Search<'s, 'u> {
    setup: &'s Setup,
    service: &'s mut Service<'u>,
    budget: Budget,
    known: HashMap<Print, Budget>,
    /// Whether the service is in the state of the last frame.
    is_in_step: bool,
    pub(super) count: &'s mut Count,
}

impl<'s, 'u> Search<'s, 'u> {
    pub(super) fn new(
        setup: &'s Setup,
        service: &'s mut Service<'u>,
        budget: Budget,
        count: &'s mut Count,
    ) -> Self {
        Self {
            setup,
            service,
            budget,
            known: HashMap::new(),
            is_in_step: true,
            count,
        }
    }

    pub(super) fn walk(mut self) -> Walk {
        let broken = |path, violation| Walk::Broken(Broken { path, violation });
        self.service.reset();
        let world = match World::begin(self.setup, self.budget, &mut Tale::untold()) {
            Ok(world) => world,
            Err(violation) => return broken(Vec::new(), violation),
        };
        let mut stack = Vec::new();
        if let Err(violation) = self.enter(&mut stack, world) {
            return broken(Vec::new(), violation);
        }
        while let Some(frame) = stack.last_mut() {
            let Some(&choice) = frame.choices.get(frame.next) else {
                drop(stack.pop());
                self.is_in_step = false;
                continue;
            };
            frame.next += 1;
            let mut world = frame.world.clone();
            let path = |stack: &[Frame]| -> Vec<Choice> {
                let made = stack
                    .iter()
                    .filter_map(|frame| frame.choices.get(frame.next - 1));
                made.copied().collect()
            };
            if self.service.is_real() && !self.is_in_step {
                let path = path(&stack);
                self.fall_in(&path);
            }
            self.count.moves += 1;
            self.is_in_step = false;
            let made = world.choose(self.setup, self.service, choice, &mut Tale::untold());
            if let Err(violation) = made {
                return broken(path(&stack), violation);
            }
            if stack.len() > DEEPEST {
                let seen = format!("it has not ended after {DEEPEST} moves");
                return broken(path(&stack), super::law::Law::Ends.broken(seen));
            }
            if let Err(violation) = self.enter(&mut stack, world) {
                return broken(path(&stack), violation);
            }
            if self.known.len() > self.setup.bounds.states {
                return Walk::Partial;
            }
        }
        Walk::Whole
    }

    /// Goes on from a world, unless all of it is known.
    fn enter(&mut self, stack: &mut Vec<Frame>, world: World) -> Result<(), Violation> {
        let print = print(self.setup, &world, self.service.history());
        match self.known.get_mut(&print) {
            Some(known) if known.covers(world.left) => {
                self.count.traces += 1;
                return Ok(());
            }
            Some(known) => {
                if world.left.covers(*known) {
                    *known = world.left;
                }
            }
            None => {
                self.count.states += 1;
                self.known.insert(print, world.left);
                // Each costs as much as some moves.
                if self.count.states % SNAPSHOTS == 1 {
                    check_snapshot(self.setup, &world.machine)?;
                }
            }
        }
        let choices = world.choices(self.setup);
        if choices.is_empty() || world.is_ended() {
            self.count.traces += 1;
        }
        self.is_in_step = true;
        stack.push(Frame {
            world,
            choices,
            next: 0,
        });
        Ok(())
    }

    /// Brings the service into the state before the last of these choices.
    fn fall_in(&mut self, path: &[Choice]) {
        let made = path.split_last().map_or(path, |(_, before)| before);
        self.service.reset();
        let mut tale = Tale::untold();
        let Ok(mut world) = World::begin(self.setup, self.budget, &mut tale) else {
            return;
        };
        for &choice in made {
            // What went well before goes well again.
            if world
                .choose(self.setup, self.service, choice, &mut tale)
                .is_err()
            {
                return;
            }
        }
    }
}

/// What a sequence came to.
pub(super) struct Played {
    pub(super) path: Vec<Choice>,
    pub(super) broken: Option<Violation>,
}

/// Plays these choices, leaving out what is not offered, and then goes on until the saga ends as if nothing more
/// went wrong.
pub(super) fn play(
    setup: &Setup,
    service: &mut Service<'_>,
    budget: Budget,
    wanted: &[Choice],
    tale: &mut Tale,
) -> Played {
    service.reset();
    let mut path = Vec::new();
    let mut world = match World::begin(setup, budget, tale) {
        Ok(world) => world,
        Err(violation) => {
            let broken = Some(violation);
            return Played { path, broken };
        }
    };
    let mut wanted = wanted.iter();
    loop {
        let offered = world.choices(setup);
        let given = wanted.find(|choice| offered.contains(choice)).copied();
        let honest = offered.first().copied();
        let honest = honest.filter(|choice| !world.is_ended() && !choice.is_fault());
        let Some(choice) = given.or(honest).filter(|_| path.len() < DEEPEST) else {
            return Played { path, broken: None };
        };
        path.push(choice);
        if let Err(violation) = world.choose(setup, service, choice, tale) {
            let broken = Some(violation);
            return Played { path, broken };
        }
    }
}

/// Walks a random sequence.
pub(super) fn stroll(
    setup: &Setup,
    service: &mut Service<'_>,
    budget: Budget,
    rng: &mut fastrand::Rng,
) -> Option<Broken> {
    service.reset();
    let mut tale = Tale::untold();
    let mut path = Vec::new();
    let mut world = match World::begin(setup, budget, &mut tale) {
        Ok(world) => world,
        Err(violation) => return Some(Broken { path, violation }),
    };
    loop {
        let offered = world.choices(setup);
        // Otherwise most sequences would be of faults alone.
        let honest = offered.first().copied().filter(|_| rng.u8(..4) > 0);
        let choice = honest.or_else(|| rng.choice(offered.iter().copied()));
        let choice = choice.filter(|_| path.len() < DEEPEST)?;
        path.push(choice);
        if let Err(violation) = world.choose(setup, service, choice, &mut tale) {
            return Some(Broken { path, violation });
        }
    }
}
