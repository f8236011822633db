use std::collections::BTreeSet;
use std::sync::Arc;

use super::step::Draft;
use super::{Body, Definition, Kind, Source, Spec};
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
            Source::Step(parent) if parent >= index => {
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
            "step {name} is a request without a request that undoes it"
        ));
    }
    for body in [Some(&draft.action), draft.compensation.as_ref()]
        .into_iter()
        .flatten()
    {
        if let Body::Request(request) = body {
            request
                .check()
                .map_err(|reason| format!("step {name}: {reason}"))?;
        }
    }
    Ok(Spec {
        name,
        kind: draft.kind,
        shape: draft.shape,
        parents: parents.into_iter().collect(),
        children: Vec::new(),
        action: draft.action,
        compensation: draft.compensation,
        effort: draft.effort,
        undo: draft.undo,
    })
}

fn link(steps: &mut [Spec]) {
    for index in 0..steps.len() {
        for parent in steps
            .get(index)
            .map(|step| step.parents.clone())
            .unwrap_or_default()
        {
            if let Some(parent) = steps.get_mut(parent) {
                parent.children.push(index);
            }
        }
    }
}

/// Whatever may fail must be settled before anything that cannot be taken back begins.
fn order(steps: &[Spec]) -> Checked<()> {
    let pivots = steps.iter().filter(|step| step.kind == Kind::Pivot).count();
    if pivots > 1 {
        return Err("it has more than one pivot".to_owned());
    }
    for (index, step) in steps.iter().enumerate() {
        if !matches!(step.kind, Kind::Pivot | Kind::Retriable) {
            continue;
        }
        let ancestors = ancestors(steps, index);
        let missing = steps.iter().enumerate().find(|(other, spec)| {
            *other != index && spec.kind != Kind::Retriable && !ancestors.contains(other)
        });
        if let Some((_, other)) = missing {
            let (name, kind, other) = (&step.name, step.kind, &other.name);
            return Err(format!(
                "step {name} is {kind:?}, so step {other}, which can still fail, must come before it"
            ));
        }
    }
    Ok(())
}

fn ancestors(steps: &[Spec], index: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![index];
    while let Some(next) = open.pop() {
        for &parent in steps
            .get(next)
            .map(|step| &*step.parents)
            .unwrap_or_default()
        {
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
        for body in [Some(&step.action), step.compensation.as_ref()] {
            match body {
                Some(Body::Request(request)) => put(&request.digest()),
                Some(Body::Code(_)) => put("code"),
                None => put("none"),
            }
        }
    }
    Arc::from(hasher.finalize().to_hex().as_str())
}
