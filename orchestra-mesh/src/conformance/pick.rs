//! The laws of [`Pick`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use orchestra_core::{InstanceId, Monotonic, Outcome};

use super::{Law, Violation, check_named, ensure};
use crate::hash::mix;
use crate::pick::{NoEndpoint, NoEndpointReason, Pick, PickRequest, PickToken, Picked};

/// A way to make a fresh [`Pick`] over ready instances of given ids.
pub struct Subject(Box<Fresh>);

type Fresh = dyn Fn(&[InstanceId]) -> Arc<dyn Pick>;

impl Subject {
    /// `fresh` is given the ids of the instances that shall be known; each has an endpoint of its own.
    pub fn new(fresh: impl Fn(&[InstanceId]) -> Arc<dyn Pick> + 'static) -> Self {
        Self(Box::new(fresh))
    }

    fn over(&self, count: usize) -> Result<(Arc<dyn Pick>, Vec<InstanceId>), String> {
        let ids = (0..count).map(|number| InstanceId::new(format!("instance-{number}")));
        let ids: Vec<_> = ids
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        Ok(((self.0)(&ids), ids))
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

const INSTANCES: usize = 5;
const PICKS: u64 = 400;

fn request<'a>(number: u64) -> PickRequest<'a> {
    PickRequest::new(Monotonic::from_nanos(number + 1), mix(number))
}

/// Picks and completes with success.
fn turn(pick: &Arc<dyn Pick>, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
    let picked = pick.pick(request)?;
    pick.complete(picked.token, Outcome::Success.into(), request.now);
    Ok(picked)
}

fn shown(none: NoEndpoint) -> String {
    format!("nothing was chosen: {none:?}")
}

/// Every law, by the names that [`pick_suite!`](crate::pick_suite) stamps.
pub fn laws() -> [Law<Subject>; 7] {
    macro_rules! list {
        ($($name:ident),+ $(,)?) => {
            [$(Law { name: stringify!($name), check: $name }),+]
        };
    }
    list![
        what_is_chosen_is_known,
        what_was_tried_is_not_chosen,
        when_all_were_tried_it_says_so,
        without_instances_it_says_so,
        every_instance_has_its_turn,
        a_neutral_completion_leaves_every_instance_choosable,
        completing_twice_or_a_foreign_token_does_no_harm,
    ]
}

/// Checks the law of this name.
pub fn check(name: &'static str, subject: &Subject) -> Result<(), Violation> {
    check_named(&laws(), name, subject)
}

fn what_is_chosen_is_known(subject: &Subject) -> Result<(), String> {
    let (pick, ids) = subject.over(INSTANCES)?;
    for number in 0..PICKS {
        let picked = turn(&pick, &request(number)).map_err(shown)?;
        ensure(ids.contains(&picked.id), || {
            format!("{} is not known", picked.id)
        })?;
    }
    Ok(())
}

fn what_was_tried_is_not_chosen(subject: &Subject) -> Result<(), String> {
    let (pick, ids) = subject.over(INSTANCES)?;
    for number in 0..PICKS {
        let bits = number % ((1 << INSTANCES) - 1);
        let tried = ids
            .iter()
            .enumerate()
            .filter(|(index, _)| bits >> index & 1 == 1);
        let tried: Vec<_> = tried.map(|(_, id)| id.clone()).collect();
        let picked = turn(&pick, &request(number).tried(&tried)).map_err(shown)?;
        ensure(!tried.contains(&picked.id), || {
            format!("{} was tried before", picked.id)
        })?;
    }
    Ok(())
}

fn when_all_were_tried_it_says_so(subject: &Subject) -> Result<(), String> {
    let (pick, ids) = subject.over(INSTANCES)?;
    let reason = turn(&pick, &request(1).tried(&ids))
        .err()
        .map(|none| none.reason);
    ensure(reason == Some(NoEndpointReason::AllTried), || {
        format!("it says {reason:?}")
    })
}

fn without_instances_it_says_so(subject: &Subject) -> Result<(), String> {
    let (pick, _) = subject.over(0)?;
    let reason = turn(&pick, &request(1)).err().map(|none| none.reason);
    ensure(reason == Some(NoEndpointReason::NoneKnown), || {
        format!("it says {reason:?}")
    })
}

fn every_instance_has_its_turn(subject: &Subject) -> Result<(), String> {
    let (pick, ids) = subject.over(INSTANCES)?;
    let mut missing = BTreeSet::from_iter(ids);
    for number in 0..PICKS {
        missing.remove(&turn(&pick, &request(number)).map_err(shown)?.id);
    }
    ensure(missing.is_empty(), || {
        format!("{missing:?} were never chosen")
    })
}

fn a_neutral_completion_leaves_every_instance_choosable(subject: &Subject) -> Result<(), String> {
    let (pick, ids) = subject.over(INSTANCES)?;
    for number in 0..PICKS {
        let request = request(number);
        let picked = pick.pick(&request).map_err(shown)?;
        pick.complete(picked.token, Outcome::Neutral.into(), request.now);
    }
    for (number, wanted) in ids.iter().enumerate() {
        let others: Vec<_> = ids.iter().filter(|id| *id != wanted).cloned().collect();
        turn(&pick, &request(PICKS + number as u64).tried(&others)).map_err(shown)?;
    }
    Ok(())
}

fn completing_twice_or_a_foreign_token_does_no_harm(subject: &Subject) -> Result<(), String> {
    let (pick, _) = subject.over(INSTANCES)?;
    for number in 0..PICKS {
        let request = request(number);
        let picked = turn(&pick, &request).map_err(shown)?;
        pick.complete(picked.token, Outcome::Success.into(), request.now);
        let foreign = PickToken::from_parts([u64::MAX - number, mix(number), number]);
        pick.complete(foreign, Outcome::Failure.into(), request.now);
    }
    Ok(())
}

/// Stamps one test per law of [`Pick`] into a module of this name.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Endpoint;
/// use orchestra_mesh::conformance::pick::Subject;
/// use orchestra_mesh::pick::{RoundRobin, Target};
///
/// fn subject() -> Subject {
///     Subject::new(|ids| {
///         let endpoint = |port| Endpoint::Tcp(([127, 0, 0, 1], port).into());
///         let targets = ids.iter().zip(1..).map(|(id, port)| Target::new(id.clone(), endpoint(port)));
///         Arc::new(RoundRobin::new(targets))
///     })
/// }
///
/// orchestra_mesh::pick_suite!(round_robin, subject());
/// # for law in orchestra_mesh::conformance::pick::laws() { law.check(&subject())?; }
/// # Ok::<(), orchestra_mesh::conformance::Violation>(())
/// ```
#[macro_export]
macro_rules! pick_suite {
    ($module:ident, $subject:expr) => {
        #[cfg(test)]
        mod $module {
            use super::*;
            $crate::pick_suite! { @stamp $subject;
                what_is_chosen_is_known,
                what_was_tried_is_not_chosen,
                when_all_were_tried_it_says_so,
                without_instances_it_says_so,
                every_instance_has_its_turn,
                a_neutral_completion_leaves_every_instance_choosable,
                completing_twice_or_a_foreign_token_does_no_harm,
            }
        }
    };
    (@stamp $subject:expr; $($law:ident),+ $(,)?) => {
        $(
            #[test]
            fn $law() -> Result<(), $crate::conformance::Violation> {
                $crate::conformance::pick::check(stringify!($law), &$subject)
            }
        )+

        #[test]
        fn every_law_is_stamped() {
            let stamped = [$(stringify!($law)),+];
            assert_eq!($crate::conformance::pick::laws().map(|law| law.name()), stamped);
        }
    };
}
