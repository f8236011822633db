use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::step::Draft;
use super::{Body, Definition, Kind, Source, Spec, Unwind, count};
use crate::id::StepName;

type Checked<T> = Result<T, String>;

pub(super) fn name(what: &str, text: &str) -> Checked<()> {
    let valid = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if valid {
        Ok(())
    } else {
        Err(format!(
            "its {what} has not 1 to 128 visible ASCII characters"
        ))
    }
}

pub(super) fn steps(drafts: Vec<Draft>, mark: u64) -> Checked<Vec<Spec>> {
    if drafts.is_empty() || drafts.len() > Definition::MAX_STEPS {
        return Err(format!(
            "it has {} steps, not 1 to {}",
            drafts.len(),
            Definition::MAX_STEPS
        ));
    }
    let mut names = BTreeSet::new();
    let mut steps = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.into_iter().enumerate() {
        let spec = spec(draft, index, mark)?;
        if !names.insert(spec.name.clone()) {
            return Err(format!("two steps are named {}", spec.name));
        }
        steps.push(spec);
    }
    link(&mut steps);
    order(&steps)?;
    Ok(steps)
}

fn spec(draft: Draft, index: usize, mark: u64) -> Checked<Spec> {
    let name =
        StepName::new(&draft.name).map_err(|reason| format!("step {:?}: {reason}", draft.name))?;
    let mut parents = BTreeSet::new();
    for (source, of) in &draft.origins {
        match *source {
            _ if *of != mark => {
                return Err(format!("step {name} has an input of another definition"));
            }
            Source::Step(parent) if parent as usize >= index => {
                return Err(format!("step {name} has an input that comes later"));
            }
            Source::Step(parent) => {
                parents.insert(parent);
            }
            Source::Input => {}
        }
    }
    if draft.kind == Kind::Compensatable && draft.compensation.is_none() {
        return Err(format!(
            "step {name} is compensatable, and nothing undoes it"
        ));
    }
    if draft.probe.is_some() && draft.kind != Kind::Compensatable {
        return Err(format!(
            "step {name} is probed but not compensatable: nothing depends on the answer"
        ));
    }
    let spec = Spec {
        name,
        kind: draft.kind,
        shape: draft.shape,
        parents: parents.into_iter().collect(),
        children: Vec::new(),
        action: draft.action,
        compensation: draft.compensation,
        probe: draft.probe,
        effort: draft.effort,
        non_retryable: draft.non_retryable,
        undo: draft.undo,
        heartbeat: draft.heartbeat,
        save_point: draft.save_point,
        is_commutative: draft.is_commutative,
        confirms: draft.confirms,
    };
    for (op, body) in spec.bodies() {
        match body {
            Body::Request(request) => request.check(op),
            Body::Signal(signal, _) => self::name("signal", signal),
            _ => Ok(()),
        }
        .map_err(|reason| format!("step {}: {reason}", spec.name))?;
    }
    Ok(spec)
}

/// Whether the order of going back suits the steps.
pub(super) fn unwind(unwind: Unwind, steps: &[Spec]) -> Checked<()> {
    let mut ordered = steps
        .iter()
        .filter(|step| step.kind == Kind::Compensatable && !step.is_commutative);
    match ordered.next() {
        Some(step) if unwind == Unwind::Unordered => Err(format!(
            "step {} is not commutative, so compensations need an order",
            step.name
        )),
        _ => Ok(()),
    }
}

fn link(steps: &mut [Spec]) {
    for index in 0..steps.len() {
        let (earlier, rest) = steps.split_at_mut(index);
        let parents = rest.first().map(|step| &*step.parents).unwrap_or_default();
        for &parent in parents {
            if let Some(parent) = earlier.get_mut(parent as usize) {
                parent.children.push(count(index));
            }
        }
    }
}

/// The numbers of the steps, in the order of their names.
pub(super) fn numbers(steps: &[Spec]) -> Box<[u32]> {
    let mut named: Vec<_> = steps.iter().map(|step| &step.name).zip(0..).collect();
    named.sort_unstable();
    named.into_iter().map(|(_, number)| number).collect()
}

pub(super) fn pivot(steps: &[Spec]) -> Option<u32> {
    let numbered = steps.iter().zip(0..);
    let found = numbered
        .into_iter()
        .find(|(step, _)| step.kind == Kind::Pivot);
    found.map(|(_, number)| number)
}

/// Whatever may fail must be settled before anything that cannot be taken back begins.
fn order(steps: &[Spec]) -> Checked<()> {
    let pivots = steps.iter().filter(|step| step.kind == Kind::Pivot).count();
    if pivots > 1 {
        return Err("it has more than one pivot".to_owned());
    }
    for (number, step) in (0..).zip(steps) {
        if !matches!(step.kind, Kind::Pivot | Kind::Retriable) {
            continue;
        }
        // A retriable step that follows another one follows all that the other one does.
        let of_parents = |&parent: &u32| steps.get(parent as usize).map(|spec| spec.kind);
        if step
            .parents
            .iter()
            .filter_map(of_parents)
            .any(|kind| kind == Kind::Retriable)
        {
            continue;
        }
        let before = ancestors(steps, number);
        let settled = |&(other, spec): &(u32, &Spec)| {
            other == number || !spec.is_fallible() || before.contains(&other)
        };
        let missing = (0..).zip(steps).find(|other| !settled(other));
        if let Some((_, other)) = missing {
            let (name, kind, other) = (&step.name, step.kind, &other.name);
            return Err(format!(
                "step {name} is {kind:?}, so step {other}, which can still fail, must come before it"
            ));
        }
    }
    Ok(())
}

/// No saga is made that stands still: one that never goes back, and waits for a signal that may come too late.
pub(super) fn ends(definition: &Definition) -> Checked<()> {
    let limited = |spec: &&Spec| matches!(spec.action, Body::Signal(_, Some(_)));
    match definition.steps.iter().find(limited) {
        Some(spec) if definition.unwind == Unwind::Never => Err(format!(
            "step {} waits for its signal for so long and no longer, but the saga never goes back: \
             it must wait without a limit",
            spec.name
        )),
        _ => Ok(()),
    }
}

/// No saga is made that must go back: one whose pauses before a step that can fail last as long as it may take.
/// A timeout of zero means just that, and is asked for.
pub(super) fn sleeps(definition: &Definition) -> Checked<()> {
    let Some(limit) = definition.timeout.filter(|limit| !limit.is_zero()) else {
        return Ok(());
    };
    if definition.unwind == Unwind::Never {
        return Ok(());
    }
    // The longest chain of pauses up to each step, and the pause at which it was too long.
    let mut chains: Vec<(Duration, Option<&StepName>)> = Vec::with_capacity(definition.steps.len());
    for step in &definition.steps {
        let before = step
            .parents
            .iter()
            .filter_map(|&parent| chains.get(parent as usize));
        let (slept, too_long) = before.max().copied().unwrap_or_default();
        if let Some(pause) = too_long.filter(|_| step.is_fallible()) {
            return Err(format!(
                "with step {pause} it has slept for its timeout of {limit:?} before step {}, which can fail, \
                 so it always goes back: it needs a timeout of more than {slept:?}, or none",
                step.name
            ));
        }
        chains.push(match step.action {
            Body::Timer(length) => {
                let slept = slept.saturating_add(length);
                let is_over = slept >= limit;
                (slept, too_long.or_else(|| is_over.then_some(&step.name)))
            }
            _ => (slept, too_long),
        });
    }
    Ok(())
}

fn ancestors(steps: &[Spec], of: u32) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut open = vec![of];
    while let Some(next) = open.pop() {
        let parents = steps.get(next as usize).map(|step| &*step.parents);
        for &parent in parents.unwrap_or_default() {
            if found.insert(parent) {
                open.push(parent);
            }
        }
    }
    found
}

/// The structure that running sagas depend on: names, kinds, edges and requests.
pub(super) fn hash(id: &str, version: &str, steps: &[Spec]) -> Arc<str> {
    let mut hasher = blake3::Hasher::new_derive_key("orchestra-saga definition v1");
    let mut put = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    put(id);
    put(version);
    for step in steps {
        put(step.name.as_str());
        put(&format!(
            "{:?} {:?} {:?}",
            step.kind, step.shape, step.parents
        ));
        for body in [
            Some(&step.action),
            step.compensation.as_ref(),
            step.probe.as_ref(),
        ] {
            match body {
                Some(Body::Request(request)) => put(&request.digest()),
                Some(Body::Code(_)) => put("code"),
                Some(Body::Timer(length)) => put(&format!("timer {}", length.as_nanos())),
                Some(Body::Signal(name, limit)) => put(&format!("signal {name} {limit:?}")),
                Some(Body::Children(_)) => put("children"),
                None => put("none"),
            }
        }
    }
    Arc::from(hasher.finalize().to_hex().as_str())
}
