//! The smooth weighted round robin of nginx.
//!
//! At each pick every member's current value grows by its weight, the one with the greatest value is taken (the
//! first of equals), and the sum of the weights is taken off its value (`ngx_http_upstream_round_robin.c`). Weights
//! 5, 1, 1 give `a a b a c a a`: shares are exact after each cycle, and the heavy one's turns are spread over it.
//! Those that are closed for a call neither grow nor are taken, as in nginx.
//!
//! nginx begins anew when its configuration changes. Here those that stay keep their place in the cycle: values are
//! moved so that their sum is zero again, and scaled to the new sum of the weights.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Balancer, Candidates, PoolMembers, Prepared, kept};
use crate::resolver::PickContext;

/// Each as often as its weight says, in the order of nginx.
///
/// A pick is a pass over all members under a lock: about a nanosecond or two for each. Beyond a hundred members,
/// [`Weighted`](super::Weighted) gives the same shares in constant time.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Resolver, SmoothRoundRobin, resolver::Config};
///
/// let config = Config::default().balancer(Arc::new(SmoothRoundRobin));
/// let resolver = Resolver::new("payments".parse()?, config);
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SmoothRoundRobin;

#[derive(Debug)]
struct State {
    members: Box<[u64]>,
    total: u64,
    current: Mutex<Box<[i64]>>,
}

impl Balancer for SmoothRoundRobin {
    fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
        let state = candidates.prepared::<State>()?;
        let mut current = state.current.lock();
        let (mut total, mut best) = (0_i64, None);
        for (index, value) in current.iter_mut().enumerate() {
            if !candidates.is_open(index) {
                continue;
            }
            let weight = i64::from(candidates.weight(index));
            *value = value.saturating_add(weight);
            total = total.saturating_add(weight);
            if best.is_none_or(|(_, greatest)| *value > greatest) {
                best = Some((index, *value));
            }
        }
        let (index, greatest) = best?;
        *current.get_mut(index)? = greatest.saturating_sub(total);
        Some(index)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        let before = before.and_then(|before| before.downcast::<State>().ok());
        let weights = (0..members.len()).map(|index| u64::from(members.weight(index)));
        let total = weights.sum();
        let members = members.identities();
        let current = match before {
            Some(before) => before.carried(&members, total),
            None => vec![0; members.len()].into(),
        };
        Some(Arc::new(State {
            members,
            total,
            current: Mutex::new(current),
        }))
    }
}

impl State {
    /// The values of these members, of whom some are new.
    fn carried(&self, members: &[u64], total: u64) -> Box<[i64]> {
        let indices = kept::indices(&self.members, members);
        let current = self.current.lock();
        let value = |index: Option<usize>| current.get(index?).copied();
        let values: Vec<_> = indices.into_iter().map(value).collect();
        let (total, before) = (i128::from(total), i128::from(self.total.max(1)));
        let kept = values.iter().flatten();
        let sum: i128 = kept.clone().copied().map(i128::from).sum();
        let mean = sum / (kept.count() as i128).max(1);
        let scaled = |value: i64| {
            let value = (i128::from(value) - mean) * total / before;
            i64::try_from(value.clamp(-total, total)).unwrap_or_default()
        };
        let scaled = |value: Option<i64>| value.map_or(0, scaled);
        values.into_iter().map(scaled).collect()
    }
}
