//! What the balancers by consistent hash have in common: a table for each pool, and where a call goes when the
//! table's answer is closed.
//!
//! A node's key is its label `hash_key`, as Envoy's metadata of that name, or else the text of its endpoint; its
//! weight is the one it is registered with. Slow start and reported load are left out, as in Envoy: they would move
//! keys to and fro.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::total::Total;
use super::{Candidates, PoolMembers, Prepared};
use crate::error::Result;
use crate::hash::{Bounded, Node, Walk};
use crate::resolver::PickContext;

/// The label that stands in for the endpoint.
const HASH_KEY: &str = "hash_key";
/// So many retries go where the table sends them before its order is followed.
const ATTEMPTS: u32 = 8;

pub(super) trait Table: fmt::Debug + Send + Sync + Sized + 'static {
    type Config: Copy;

    fn table(config: Self::Config, nodes: &[Node<'_>]) -> Result<Self>;
    fn updated(&self, nodes: &[Node<'_>]) -> Result<Self>;
    fn first(&self, hash: u64) -> Option<usize>;
    fn around(&self, hash: u64) -> Walk<'_>;

    /// The node for a retry, if that is not the next of the walk.
    fn attempt(&self, _hash: u64, _attempt: u32) -> Option<usize> {
        None
    }
}

/// What each of these balancers does alike: it bounds loads, and chooses by its table.
macro_rules! balancer {
    ($balancer:ident, $table:ty) => {
        impl $balancer {
            /// Moves calls off nodes that have more than `factor` percent of their share in flight (at least 100),
            /// like Envoy's `hash_balance_factor`: see [`Bounded`](crate::hash::Bounded).
            ///
            /// Of more than 64 members, the calls in flight on all are counted 16 members a pick, so the bound is of
            /// a moment ago. A pick that has to look for room costs a few microseconds.
            pub fn bounded(self, factor: u32) -> $crate::error::Result<Self> {
                Ok(Self(self.0.bounded(factor)?))
            }
        }

        impl $crate::balance::Balancer for $balancer {
            #[inline]
            fn choose(
                &self,
                candidates: &$crate::balance::Candidates<'_>,
                context: &$crate::resolver::PickContext<'_>,
            ) -> Option<usize> {
                $crate::balance::hashed::choose::<$table>(candidates, context)
            }

            fn prepare(
                &self,
                members: &$crate::balance::PoolMembers<'_>,
                before: Option<$crate::balance::Prepared>,
            ) -> Option<$crate::balance::Prepared> {
                self.0.prepare::<$table>(members, before)
            }
        }
    };
}

/// The methods of a table that has a configuration, and whatever it does beyond them.
macro_rules! table {
    ($table:ty, $config:ty $(, $more:item)?) => {
        impl $crate::balance::hashed::Table for $table {
            type Config = $config;

            fn table(
                config: $config,
                nodes: &[$crate::hash::Node<'_>],
            ) -> $crate::error::Result<Self> {
                Self::build(config, nodes)
            }

            fn updated(&self, nodes: &[$crate::hash::Node<'_>]) -> $crate::error::Result<Self> {
                self.update(nodes)
            }

            #[inline]
            fn first(&self, hash: u64) -> Option<usize> {
                self.lookup(hash)
            }

            fn around(&self, hash: u64) -> $crate::hash::Walk<'_> {
                self.walk(hash)
            }

            $($more)?
        }
    };
}

pub(super) use {balancer, table};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hashed<C> {
    config: C,
    /// In percent.
    bound: Option<u32>,
}

impl<C: Copy> Hashed<C> {
    /// An error where no table can be built with it.
    pub(super) fn new<T: Table<Config = C>>(config: C) -> Result<Self> {
        T::table(config, &[])?;
        Ok(Self {
            config,
            bound: None,
        })
    }

    pub(super) fn bounded(mut self, factor: u32) -> Result<Self> {
        Bounded::build(factor, &[])?;
        self.bound = Some(factor);
        Ok(self)
    }

    pub(super) fn prepare<T: Table<Config = C>>(
        self,
        members: &PoolMembers<'_>,
        before: Option<Prepared>,
    ) -> Option<Prepared> {
        let nodes = Nodes::of(members);
        let before = before.and_then(|before| before.downcast::<State<T>>().ok());
        if let Some(before) = &before
            && before.nodes == nodes
        {
            return Some(Arc::clone(before) as Prepared);
        }
        let state = State::after(self, before.as_deref(), nodes);
        // More nodes than a table can have are drawn from without one.
        Some(Arc::new(state.ok()?))
    }
}

/// Where the hash of the call belongs, or its draw if it has none.
#[inline]
pub(super) fn choose<T: Table>(
    candidates: &Candidates<'_>,
    context: &PickContext<'_>,
) -> Option<usize> {
    let hash = context.hash.unwrap_or(context.draw);
    let Some(state) = candidates.prepared::<State<T>>() else {
        return candidates.draw_open(hash);
    };
    let first = state.first_open(candidates, hash)?;
    match &state.bound {
        None => Some(first),
        Some(bound) => bound.choose(candidates, hash, first),
    }
}

#[derive(Debug)]
struct State<T> {
    nodes: Nodes,
    table: T,
    bound: Option<Bound>,
}

impl<T: Table> State<T> {
    fn after(hashed: Hashed<T::Config>, before: Option<&Self>, nodes: Nodes) -> Result<Self> {
        let list = nodes.list();
        let table = match before {
            Some(before) => before.table.updated(&list)?,
            None => T::table(hashed.config, &list)?,
        };
        let in_flight = before.and_then(|before| Some(before.bound.as_ref()?.total.get()));
        let bound = match hashed.bound {
            None => None,
            Some(factor) => Some(Bound {
                rule: Bounded::build(factor, &list)?,
                total: Total::new(list.len(), in_flight.unwrap_or_default()),
            }),
        };
        Ok(Self {
            nodes,
            table,
            bound,
        })
    }

    #[inline]
    fn first_open(&self, candidates: &Candidates<'_>, hash: u64) -> Option<usize> {
        let first = self.table.first(hash)?;
        if candidates.is_open(first) {
            return Some(first);
        }
        self.next_open(candidates, hash, first)
    }

    #[cold]
    fn next_open(&self, candidates: &Candidates<'_>, hash: u64, first: usize) -> Option<usize> {
        let open = |node: &usize| candidates.is_open(*node);
        let attempts = (1..=ATTEMPTS).filter_map(|attempt| self.table.attempt(hash, attempt));
        // Where nearly all are closed, a walk over the points would be longer than one over the nodes.
        let steps = candidates.len().saturating_mul(4);
        let walked = || self.table.around(hash).find_open(steps, |node| open(&node));
        let found = attempts.into_iter().find(open);
        found
            .or_else(walked)
            .or_else(|| candidates.open_from(first))
    }
}

#[derive(Debug)]
struct Bound {
    rule: Bounded,
    total: Total,
}

impl Bound {
    fn choose(&self, candidates: &Candidates<'_>, hash: u64, first: usize) -> Option<usize> {
        let total = self.total.refreshed(|index| candidates.in_flight(index));
        self.rule.choose(hash, first, total, |node| {
            let open = candidates.is_open(node);
            open.then(|| candidates.in_flight(node))
        })
    }
}

/// The nodes of a table as they were when it was made.
#[derive(Debug, PartialEq, Eq)]
struct Nodes {
    text: String,
    ends: Vec<usize>,
    weights: Vec<u32>,
}

impl Nodes {
    fn of(members: &PoolMembers<'_>) -> Self {
        let length = members.len();
        let mut nodes = Self {
            text: String::with_capacity(length * 24),
            ends: Vec::with_capacity(length),
            weights: Vec::with_capacity(length),
        };
        for instance in (0..length).filter_map(|index| members.instance(index)) {
            match instance.labels.value(HASH_KEY) {
                Some(key) => nodes.text.push_str(key),
                None => {
                    let _text_does_not_fail = write!(nodes.text, "{}", instance.endpoint);
                }
            }
            nodes.ends.push(nodes.text.len());
            nodes.weights.push(instance.weight);
        }
        nodes
    }

    fn list(&self) -> Vec<Node<'_>> {
        let mut start = 0;
        let node = |(&end, &weight): (&usize, &u32)| {
            let key = self.text.get(start..end).unwrap_or_default();
            start = end;
            Node::new(key, weight)
        };
        self.ends.iter().zip(&self.weights).map(node).collect()
    }
}
