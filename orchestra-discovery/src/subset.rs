//! Subsets by labels: a call that asks for labels goes to the members that have them.
//!
//! A selector is a set of keys. It divides the members that have all its keys into subsets, one for each
//! combination of values. A call asks with label pairs: if its keys are exactly those of a selector, and the
//! subset of its values has members, they get it. Otherwise the selector's fallback decides, or where there is
//! no selector with those keys, the general one. These are the rules of Envoy's subset load balancer, for
//! labels with a single value.

mod config;

pub use config::{Fallback, SelectorFallback, SubsetConfig, SubsetSelector};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use orchestra_core::Labels;

/// Who may get a call.
///
/// ```
/// use orchestra_core::Labels;
/// use orchestra_discovery::subset::{Fallback, Match, SubsetConfig, SubsetPlan, SubsetSelector};
///
/// let config = SubsetConfig::new([SubsetSelector::new(["version"])], Fallback::AnyEndpoint)?;
/// let plan = SubsetPlan::new(&config, &[Labels::new().with("version", "1")?]);
/// assert_eq!(plan.find(&Labels::new().with("version", "2")?), Match::Any);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Match<'a> {
    /// The members with the labels that were asked for: their positions, ascending and not empty.
    Subset(&'a [u32]),
    /// The members of a default subset: their positions, ascending and not empty.
    Default(&'a [u32]),
    /// All members.
    Any,
    /// Nobody.
    Nobody,
}

/// The subsets of one membership; made anew when it changes.
///
/// Positions are those of the members it was made from. It holds at most
/// [`max_subsets`](SubsetConfig::max_subsets) subsets and each member at most once per selector, so labels
/// that somebody registers cannot make it grow without bound.
///
/// ```
/// use orchestra_core::Labels;
/// use orchestra_discovery::subset::{Fallback, Match, SubsetConfig, SubsetPlan, SubsetSelector};
///
/// let labels = |version: &str| Labels::new().with("version", version);
/// let members = [labels("1")?, labels("2")?, labels("1")?];
/// let config = SubsetConfig::new([SubsetSelector::new(["version"])], Fallback::NoFallback)?;
/// let plan = SubsetPlan::new(&config, &members);
///
/// assert_eq!(plan.find(&labels("1")?), Match::Subset(&[0, 2]));
/// assert_eq!(plan.find(&labels("3")?), Match::Nobody);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SubsetPlan {
    tables: Box<[Table]>,
    fallback: Resolved,
    panic_mode_any: bool,
    duplicates: u64,
    unindexed: u64,
}

/// The name of the subset of these keys and values; never zero.
fn named(keys: &[Arc<str>], values: &[Box<str>]) -> u64 {
    let mut text = String::new();
    let parts = keys
        .iter()
        .map(|key| &**key)
        .chain(values.iter().map(|value| &**value));
    for part in parts {
        text.push_str(part);
        // No label has it.
        text.push('\0');
    }
    twox_hash::XxHash64::oneshot(keys.len() as u64, text.as_bytes()).max(1)
}

#[derive(Clone)]
struct Table {
    keys: Arc<[Arc<str>]>,
    /// Ordered by their values, which are in the order of the keys.
    subsets: Box<[Subset]>,
    otherwise: Otherwise,
}

#[derive(Clone)]
struct Subset {
    values: Box<[Box<str>]>,
    members: Box<[u32]>,
}

#[derive(Clone)]
enum Otherwise {
    General,
    Own(Resolved),
    /// The table with fewer of the keys.
    Table(usize),
}

#[derive(Clone)]
enum Resolved {
    Nobody,
    Any,
    Default(Box<[u32]>),
}

impl SubsetPlan {
    /// The subsets of these members; linear in them, times selectors.
    pub fn new<'a>(config: &SubsetConfig, members: impl IntoIterator<Item = &'a Labels>) -> Self {
        let members: Vec<&Labels> = members.into_iter().collect();
        let mut room = config.max_subsets;
        let (mut duplicates, mut unindexed) = (0, 0);
        let tables = config.selectors.iter().map(|selector| {
            let mut groups = Groups::new(selector, &mut room);
            groups.fill(&members);
            duplicates += groups.duplicates;
            unindexed += groups.unindexed;
            Table {
                keys: Arc::clone(&selector.keys),
                subsets: groups.into_subsets(),
                otherwise: otherwise(config, selector, &members),
            }
        });
        Self {
            tables: tables.collect(),
            fallback: resolve(&config.fallback, &members),
            panic_mode_any: config.panic_mode_any,
            duplicates,
            unindexed,
        }
    }

    /// Who may get a call that asks for these labels.
    ///
    /// No allocation; logarithmic in the subsets, linear in the selectors.
    pub fn find(&self, asked: &Labels) -> Match<'_> {
        let mut table = self.tables.iter().find(|table| table.is_asked(asked));
        while let Some(here) = table {
            if let Some(members) = here.find(asked) {
                return Match::Subset(members);
            }
            table = match &here.otherwise {
                Otherwise::General => None,
                Otherwise::Own(resolved) => return resolved.as_match(),
                // It has fewer keys, so this ends.
                Otherwise::Table(fewer) => self.tables.get(*fewer),
            };
        }
        self.general()
    }

    /// Who may get a call that asks for the first of several sets of labels that anybody matches, fallbacks
    /// included; for none at all, whoever [`find`](Self::find) gives for no labels.
    pub fn find_first<'a>(&self, asked: impl IntoIterator<Item = &'a Labels>) -> Match<'_> {
        let mut any = false;
        let found = asked.into_iter().find_map(|labels| {
            any = true;
            Some(self.find(labels)).filter(|found| *found != Match::Nobody)
        });
        match found {
            Some(found) => found,
            None if any => Match::Nobody,
            None => self.general(),
        }
    }

    /// How many subsets there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.subsets.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.subsets.is_empty())
    }

    /// How many members were left out of a subset that has its single host already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many times a member found no room for a subset of its own labels, since there were
    /// [`max_subsets`](SubsetConfig::max_subsets) already. Calls that ask for those labels take the fallback.
    pub fn unindexed(&self) -> u64 {
        self.unindexed
    }

    /// The positions of every subset and default subset that has members, each by a name that stays its own
    /// whatever other subsets there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, &[u32])> {
        let subsets = self.tables.iter().flat_map(|table| {
            let named = |subset: &'_ Subset| named(&table.keys, &subset.values);
            let subsets = table.subsets.iter();
            subsets.map(move |subset| (named(subset), &*subset.members))
        });
        let own = self
            .tables
            .iter()
            .filter_map(|table| match &table.otherwise {
                Otherwise::Own(resolved) => Some((named(&table.keys, &[]), resolved)),
                Otherwise::General | Otherwise::Table(_) => None,
            });
        let general = (named(&[], &[]), &self.fallback);
        let defaults = own
            .chain([general])
            .filter_map(|(name, resolved)| match resolved {
                Resolved::Default(members) if !members.is_empty() => Some((name, &**members)),
                _ => None,
            });
        subsets.chain(defaults)
    }

    fn general(&self) -> Match<'_> {
        match self.fallback.as_match() {
            Match::Nobody if self.panic_mode_any => match self.fallback {
                Resolved::Nobody => Match::Nobody,
                _ => Match::Any,
            },
            found => found,
        }
    }
}

impl fmt::Debug for SubsetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubsetPlan")
            .field("subsets", &self.len())
            .field("duplicates", &self.duplicates)
            .field("unindexed", &self.unindexed)
            .finish_non_exhaustive()
    }
}

/// Whether these keys, which are in order, are all that the labels have.
fn are_keys_of(keys: &[Arc<str>], asked: &Labels) -> bool {
    let keys = keys.iter().map(AsRef::as_ref);
    keys.len() == asked.len() && keys.eq(asked.iter().map(|(key, _)| key))
}

impl Table {
    fn is_asked(&self, asked: &Labels) -> bool {
        are_keys_of(&self.keys, asked)
    }

    fn find(&self, asked: &Labels) -> Option<&[u32]> {
        let order = |subset: &Subset| {
            let wanted = self.keys.iter();
            let wanted = wanted.map(|key| asked.value(key).unwrap_or_default());
            subset.values.iter().map(AsRef::as_ref).cmp(wanted)
        };
        let at = self.subsets.binary_search_by(order).ok()?;
        Some(&self.subsets.get(at)?.members)
    }
}

impl Resolved {
    fn as_match(&self) -> Match<'_> {
        match self {
            Self::Any => Match::Any,
            Self::Default(members) if !members.is_empty() => Match::Default(members),
            Self::Nobody | Self::Default(_) => Match::Nobody,
        }
    }
}

/// Members by the values of a selector's keys.
struct Groups<'s, 'm> {
    selector: &'s SubsetSelector,
    room: &'s mut usize,
    by_values: BTreeMap<Vec<&'m str>, Vec<u32>>,
    duplicates: u64,
    unindexed: u64,
}

impl<'s, 'm> Groups<'s, 'm> {
    fn new(selector: &'s SubsetSelector, room: &'s mut usize) -> Self {
        Self {
            selector,
            room,
            by_values: BTreeMap::new(),
            duplicates: 0,
            unindexed: 0,
        }
    }

    fn fill(&mut self, members: &[&'m Labels]) {
        for (position, labels) in (0..u32::MAX).zip(members) {
            let keys = self.selector.keys.iter();
            let values: Option<Vec<&str>> = keys.map(|key| labels.value(key)).collect();
            if let Some(values) = values {
                self.put(values, position);
            }
        }
    }

    fn put(&mut self, values: Vec<&'m str>, position: u32) {
        match self.by_values.get_mut(&values) {
            Some(_) if self.selector.single_host => self.duplicates += 1,
            Some(group) => group.push(position),
            None if *self.room == 0 => self.unindexed += 1,
            None => {
                *self.room -= 1;
                self.by_values.insert(values, vec![position]);
            }
        }
    }

    fn into_subsets(self) -> Box<[Subset]> {
        let subset = |(values, members): (Vec<&str>, Vec<u32>)| Subset {
            values: values.into_iter().map(Box::from).collect(),
            members: members.into_boxed_slice(),
        };
        self.by_values.into_iter().map(subset).collect()
    }
}

fn otherwise(config: &SubsetConfig, selector: &SubsetSelector, members: &[&Labels]) -> Otherwise {
    match &selector.fallback {
        SelectorFallback::General => Otherwise::General,
        SelectorFallback::Own(fallback) => Otherwise::Own(resolve(fallback, members)),
        SelectorFallback::KeysSubset(keys) => {
            let selectors = config.selectors.iter();
            let fewer = selectors
                .map(|other| &*other.keys)
                .position(|other| *other == **keys);
            fewer.map_or(Otherwise::General, Otherwise::Table)
        }
    }
}

fn resolve(fallback: &Fallback, members: &[&Labels]) -> Resolved {
    match fallback {
        Fallback::NoFallback => Resolved::Nobody,
        Fallback::AnyEndpoint => Resolved::Any,
        Fallback::DefaultSubset(wanted) => {
            let has = |labels: &Labels| {
                let mut wanted = wanted.iter();
                wanted.all(|(key, value)| labels.value(key) == Some(value))
            };
            let members = (0..u32::MAX).zip(members);
            let chosen = members.filter(|(_, labels)| has(labels));
            Resolved::Default(chosen.map(|(position, _)| position).collect())
        }
    }
}

#[cfg(test)]
mod tests;
