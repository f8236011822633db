//! Calls that arrive by chance, are sent by resolvers, and wait in servers, in virtual time.
//!
//! The load is open: calls arrive whether earlier ones are answered or not, so a policy that fills a queue is
//! not spared by its callers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use orchestra::core::{Monotonic, Outcome};
use orchestra::discovery::outlier::Report;
use orchestra::discovery::{
    Completion, Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot, Token,
};

use crate::case::{Case, Pace, SERVERS};
use crate::figures::Figures;
use crate::policy::Policy;
use crate::server::{Ending, PATIENCE, SERVICE, Server, WORKERS, exponential};

/// The part of the nominal capacity that is asked for.
const LOAD: f64 = 0.7;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub case: Case,
    pub policy: Policy,
    pub pace: Pace,
    pub seed: u64,
    pub clients: u16,
}

/// A call under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    ends: Duration,
    number: u64,
    client: usize,
    token: [u64; 3],
    outcome: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Well,
    Failed,
    TimedOut,
}

/// Runs it to its end.
pub fn run(setup: &Setup) -> anyhow::Result<Figures> {
    let Setup { case, pace, .. } = *setup;
    let mut rng = Rng::with_seed(setup.seed);
    let clients = (0..setup.clients).map(|_| client(setup, &mut rng));
    let clients: Vec<_> = clients.collect::<anyhow::Result<_>>()?;
    let mut servers = vec![Server::default(); SERVERS];
    let mut under_way = BinaryHeap::new();
    let mut figures = Figures::default();
    let between = SERVICE.div_f64(LOAD * (SERVERS * WORKERS) as f64);
    let (mut now, end) = (Duration::ZERO, pace.end(&case));
    for number in 0.. {
        now += exponential(between, &mut rng);
        if now >= end {
            break;
        }
        settle_until(now, &mut under_way, &clients);
        let client = rng.usize(..clients.len());
        let context = PickContext::new(moment(now), rng.u64(..));
        let choice = clients[client].choose(&context)?;
        let server = server_of(&choice.instance).context("a server of ours")?;
        let condition = case.condition(server, now, &pace);
        let (took, outcome) = match servers[server].take(condition, now, &mut rng) {
            Ending::Answered(Outcome::Success, took) => (took, Ended::Well),
            Ending::Answered(_, took) => (took, Ended::Failed),
            Ending::TimedOut => (PATIENCE, Ended::TimedOut),
        };
        figures.sent(now, case.is_faulty(server));
        if pace.is_measured(now) {
            figures.measured(took, outcome == Ended::Well);
        }
        under_way.push(Reverse(Call {
            ends: now + took,
            number,
            client,
            token: choice.token.to_words(),
            outcome,
        }));
    }
    figures.finish();
    Ok(figures)
}

fn settle_until(now: Duration, under_way: &mut BinaryHeap<Reverse<Call>>, clients: &[Resolver]) {
    while let Some(Reverse(call)) = under_way.peek()
        && call.ends <= now
    {
        let completion = match call.outcome {
            Ended::Well => Completion::from(Outcome::Success),
            Ended::Failed => Completion::from(Outcome::Failure),
            Ended::TimedOut => Completion::from(Outcome::Failure).report(Report::TimedOut),
        };
        let token = Token::from_words(call.token);
        clients[call.client].settle(token, completion, moment(call.ends));
        under_way.pop();
    }
}

fn client(setup: &Setup, rng: &mut Rng) -> anyhow::Result<Resolver> {
    let resolver = Resolver::new("lab".parse()?, setup.policy.config(rng.u64(..)));
    let instances = (0..SERVERS).map(|number| {
        let endpoint = format!("127.0.0.1:{}", FIRST_PORT + number).parse()?;
        let id = format!("server-{number:02}").parse()?;
        let instance = Instance::new("lab".parse()?, id, Incarnation::new(1), endpoint);
        Ok(Arc::new(instance))
    });
    let instances = instances.collect::<anyhow::Result<_>>()?;
    resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), instances));
    Ok(resolver)
}

/// Nobody listens there.
const FIRST_PORT: usize = 1_000;

fn server_of(instance: &Instance) -> Option<usize> {
    let (_, number) = instance.id.as_str().split_once('-')?;
    number.parse().ok()
}

fn moment(since_start: Duration) -> Monotonic {
    Monotonic::ZERO + since_start
}
