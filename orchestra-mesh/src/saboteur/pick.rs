use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use orchestra_core::{InstanceId, Monotonic, Outcome};
use parking_lot::Mutex;

use super::breaker::faults;
use crate::pick::{Completion, NoEndpoint, NoEndpointReason, Pick, PickRequest, PickToken, Picked};

faults! { PickFault:
    /// Every seventh choice is an instance that nobody knows.
    Invents breaks what_is_chosen_is_known,
    /// What was tried is chosen again as long as something else is left.
    ForgetsTried breaks what_was_tried_is_not_chosen,
    /// That all were tried is reported as none being ready.
    HidesThatAllWereTried breaks when_all_were_tried_it_says_so,
    /// That none is known is reported as none being ready.
    HidesThatNoneIsKnown breaks without_instances_it_says_so,
    /// One instance is chosen only if there is no other.
    Shuns breaks every_instance_has_its_turn,
    /// An instance whose call was given up is never chosen again.
    HoldsGrudges breaks a_neutral_completion_leaves_every_instance_choosable,
    /// A completion too many makes it choose nothing any more.
    TakesOffence breaks completing_twice_or_a_foreign_token_does_no_harm,
}

/// A pick with a fault.
#[derive(Debug)]
pub struct BrokenPick {
    inner: Arc<dyn Pick>,
    fault: PickFault,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    picks: u64,
    shunned: Option<InstanceId>,
    grudges: BTreeSet<InstanceId>,
    open: HashMap<[u64; 3], (InstanceId, u32)>,
    is_offended: bool,
}

impl BrokenPick {
    /// Breaks a pick.
    pub fn new(inner: Arc<dyn Pick>, fault: PickFault) -> Self {
        Self {
            inner,
            fault,
            memory: Mutex::default(),
        }
    }

    /// A choice without `id`, if there is one.
    fn without(
        &self,
        request: &PickRequest<'_>,
        id: impl IntoIterator<Item = InstanceId>,
    ) -> Result<Picked, NoEndpoint> {
        let tried: Vec<_> = request.tried.iter().cloned().chain(id).collect();
        self.inner.pick(&request.tried(&tried))
    }

    fn twist(
        &self,
        request: &PickRequest<'_>,
        picked: Picked,
        memory: &mut Memory,
    ) -> Result<Picked, NoEndpoint> {
        let give_back = |token| {
            self.inner
                .complete(token, Outcome::Neutral.into(), request.now);
        };
        match self.fault {
            PickFault::Invents if memory.picks.is_multiple_of(7) => {
                let id = InstanceId::new("nobody").unwrap_or_else(|_| picked.id.clone());
                Ok(Picked { id, ..picked })
            }
            PickFault::ForgetsTried => {
                give_back(picked.token);
                self.inner.pick(&request.tried(&[]))
            }
            PickFault::Shuns => {
                let shunned = memory
                    .shunned
                    .get_or_insert_with(|| picked.id.clone())
                    .clone();
                if picked.id != shunned {
                    return Ok(picked);
                }
                match self.without(request, [shunned]) {
                    Ok(other) => {
                        give_back(picked.token);
                        Ok(other)
                    }
                    Err(_) => Ok(picked),
                }
            }
            PickFault::HoldsGrudges if memory.grudges.contains(&picked.id) => {
                give_back(picked.token);
                // While something else is left, nobody notices.
                let all = NoEndpoint::new(NoEndpointReason::AllRefused, None);
                self.without(request, memory.grudges.iter().cloned())
                    .map_err(|_none| all)
            }
            _ => Ok(picked),
        }
    }
}

impl Pick for BrokenPick {
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let mut memory = self.memory.lock();
        memory.picks += 1;
        if memory.is_offended {
            return Err(NoEndpoint::new(NoEndpointReason::NoneReady, None));
        }
        let picked = self.inner.pick(request).map_err(|none| {
            let hidden = match (self.fault, none.reason) {
                (PickFault::HidesThatAllWereTried, NoEndpointReason::AllTried)
                | (PickFault::HidesThatNoneIsKnown, NoEndpointReason::NoneKnown) => {
                    NoEndpointReason::NoneReady
                }
                (_, reason) => reason,
            };
            NoEndpoint::new(hidden, none.retry_after)
        })?;
        let picked = self.twist(request, picked, &mut memory)?;
        let fresh = || (picked.id.clone(), 0);
        memory
            .open
            .entry(picked.token.into_parts())
            .or_insert_with(fresh)
            .1 += 1;
        Ok(picked)
    }

    fn complete(&self, token: PickToken, completion: Completion<'_>, now: Monotonic) {
        let mut memory = self.memory.lock();
        let is_neutral = completion.outcome == Outcome::Neutral;
        let known = memory
            .open
            .get_mut(&token.into_parts())
            .filter(|(_, open)| *open > 0);
        match known.map(|(id, open)| {
            *open -= 1;
            id.clone()
        }) {
            Some(id) if is_neutral && self.fault == PickFault::HoldsGrudges => {
                memory.grudges.insert(id);
            }
            None if self.fault == PickFault::TakesOffence => memory.is_offended = true,
            _ => {}
        }
        self.inner.complete(token, completion, now);
    }
}
