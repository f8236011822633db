use std::collections::HashMap;
use std::sync::Arc;

use super::bounds::Bounds;
use super::mutant::Mutant;
use crate::definition::{Body, Definition, Kind, Spec, Unwind};
use crate::executor::Start;
use crate::id::{SagaId, StepName};
use crate::payload::Payload;

/// What stays the same in all sequences of an exploration.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) definition: Arc<Definition>,
    pub(super) saga: SagaId,
    pub(super) start: Start,
    pub(super) bounds: Bounds,
    pub(super) mutant: Option<Mutant>,
    /// Whether participants have a barrier.
    pub(super) is_guarded: bool,
    /// What the participants of the model return.
    pub(super) outputs: HashMap<StepName, Payload>,
    /// The signals that are waited for, each with what it says.
    pub(super) signals: Vec<(Arc<str>, Payload)>,
    /// For each step all that depend on it.
    pub(super) descendants: Vec<Vec<u32>>,
    /// Renumberings of the steps that leave the graph as it is; the first changes nothing.
    pub(super) symmetries: Vec<Vec<usize>>,
}

/// The largest graph whose symmetries are looked for.
const MAX_SYMMETRIC: usize = 6;

impl Setup {
    /// The numbers of the steps.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        let numbered = (0..).zip(&self.definition.steps);
        numbered.map(|(number, _)| number)
    }

    pub(super) fn spec(&self, step: u32) -> &Spec {
        self.definition.spec(step)
    }

    pub(super) fn number(&self, step: &StepName) -> Option<u32> {
        self.definition.index_of(step)
    }

    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether effects of the step are counted.
    pub(super) fn has_ledger(&self, step: u32) -> bool {
        let spec = self.spec(step);
        spec.kind != Kind::ReadOnly && is_call(&spec.action)
    }

    /// Whether a refusal is its end. Only then may its participant answer what it refused once with the same
    /// refusal.
    pub(super) fn may_be_given_up(&self, step: u32) -> bool {
        let must = self.spec(step).kind == Kind::Retriable;
        !must && self.definition.unwind != Unwind::Never
    }

    pub(super) fn descendants(&self, step: u32) -> &[u32] {
        self.descendants
            .get(step as usize)
            .map_or(&[], Vec::as_slice)
    }

    /// How many signals the definition takes.
    pub(super) fn signals_awaited(&self) -> u8 {
        let steps = self.definition.steps.iter();
        let waits = steps.filter(|spec| matches!(spec.action, Body::Signal(..)));
        u8::try_from(waits.count()).unwrap_or(u8::MAX)
    }

    pub(super) fn output(&self, step: &StepName) -> Payload {
        self.outputs.get(step).cloned().unwrap_or_default()
    }
}

fn is_call(body: &Body) -> bool {
    matches!(body, Body::Code(_) | Body::Request(_) | Body::Children(_))
}

/// The signals that a definition waits for, each once.
pub(super) fn signals(definition: &Definition) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    for spec in &definition.steps {
        if let Body::Signal(name, _) = &spec.action
            && !names.contains(name)
        {
            names.push(Arc::clone(name));
        }
    }
    names
}

pub(super) fn descendants(definition: &Definition) -> Vec<Vec<u32>> {
    let numbers = (0..).zip(&definition.steps);
    numbers
        .map(|(number, _)| number)
        .map(|step| {
            let mut found: Vec<_> = definition.descendants(step).into_iter().collect();
            found.sort_unstable();
            found
        })
        .collect()
}

/// The automorphisms of the graph: steps of the same kind, efforts and edges may stand for each other.
///
/// Where the order of definition matters there are none but the identity.
pub(super) fn symmetries(definition: &Definition, wanted: bool) -> Vec<Vec<usize>> {
    let steps = &definition.steps;
    let identity: Vec<usize> = (0..steps.len()).collect();
    let ordered = definition.unwind == Unwind::Sequential
        || steps
            .iter()
            .any(|spec| spec.save_point > 0 || !is_call(&spec.action) || reads_steps(spec));
    if !wanted || ordered || steps.len() > MAX_SYMMETRIC {
        return vec![identity];
    }
    let mut found = vec![identity.clone()];
    permutations(&mut identity.clone(), 0, &mut |order| {
        if *order != identity && preserves(steps, order) {
            found.push(order.to_vec());
        }
    });
    found
}

fn reads_steps(spec: &Spec) -> bool {
    let mut sources = spec.shape.sources().into_iter();
    sources.any(|source| matches!(source, crate::definition::Source::Step(_)))
}

fn permutations(order: &mut [usize], from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for at in from..order.len() {
        order.swap(from, at);
        permutations(order, from + 1, visit);
        order.swap(from, at);
    }
}

fn preserves(steps: &[Spec], order: &[usize]) -> bool {
    steps.iter().zip(order).all(|(spec, &to)| {
        let Some(other) = steps.get(to) else {
            return false;
        };
        let parents = spec.parents.iter();
        let mut parents: Vec<_> = parents
            .filter_map(|&parent| order.get(parent as usize))
            .collect();
        parents.sort_unstable();
        let others = other.parents.iter().map(|&parent| parent as usize);
        parents.into_iter().copied().eq(others)
            && spec.kind == other.kind
            && spec.shape == other.shape
            && spec.effort == other.effort
            && spec.undo == other.undo
            && spec.probe.is_some() == other.probe.is_some()
            && spec.heartbeat == other.heartbeat
            && is_code(spec) == is_code(other)
            && is_code(spec)
    })
}

/// Requests differ by what they say; closures of the model do not.
fn is_code(spec: &Spec) -> bool {
    matches!(spec.action, Body::Code(_))
}
