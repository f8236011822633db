//! Which subsets there are, and what happens to calls that match none.

use std::sync::Arc;

use orchestra_core::Labels;

use crate::error::{Error, ErrorKind, Result};

/// How many selectors there may be.
const MAX_SELECTORS: usize = 64;
const MAX_SUBSETS: usize = 10_000;

/// Who gets a call that matches no subset.
///
/// ```
/// use orchestra_core::Labels;
/// use orchestra_discovery::subset::Fallback;
///
/// let stable = Fallback::DefaultSubset(Labels::new().with("track", "stable")?);
/// assert_ne!(stable, Fallback::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Nobody: it fails.
    #[default]
    NoFallback,
    /// Any member.
    AnyEndpoint,
    /// The members that have these labels.
    DefaultSubset(Labels),
}

/// Who gets a call that has a selector's keys and matches none of its subsets.
///
/// ```
/// use orchestra_discovery::subset::{SelectorFallback, SubsetSelector};
///
/// let wider = SelectorFallback::keys_subset(["stage"]);
/// let selector = SubsetSelector::new(["version", "stage"]).fallback(wider);
/// assert_ne!(selector, SubsetSelector::new(["version", "stage"]));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectorFallback {
    /// Whoever the general [`Fallback`] says.
    #[default]
    General,
    /// Whoever this says.
    Own(Fallback),
    /// Whoever gets a call with only these of its keys: a part of the selector's, and not all of them.
    KeysSubset(Arc<[Arc<str>]>),
}

impl SelectorFallback {
    /// A second try with only these keys.
    pub fn keys_subset<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self::KeysSubset(ordered(keys))
    }
}

/// A set of keys that divides the members into subsets.
///
/// ```
/// use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
///
/// let one_each = SubsetSelector::new(["id"]).single_host_per_subset();
/// assert!(SubsetConfig::new([one_each], Fallback::NoFallback).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    pub(super) keys: Arc<[Arc<str>]>,
    pub(super) fallback: SelectorFallback,
    pub(super) single_host: bool,
}

impl SubsetSelector {
    /// A subset for each combination of the values of these keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            keys: ordered(keys),
            fallback: SelectorFallback::General,
            single_host: false,
        }
    }

    /// With this fallback in place of the general one.
    #[must_use]
    pub fn fallback(mut self, fallback: SelectorFallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Keeps only the first member of each subset; for a single key whose values name one instance each.
    #[must_use]
    pub fn single_host_per_subset(mut self) -> Self {
        self.single_host = true;
        self
    }

    fn check(&self) -> Result<()> {
        let invalid = |what: &str| {
            let message = format!("subset selector {:?}: {what}", self.keys);
            Err(Error::new(ErrorKind::Invalid, message))
        };
        if self.keys.is_empty() {
            return invalid("it has no keys");
        }
        if self.single_host && self.keys.len() != 1 {
            return invalid("a single host per subset needs exactly one key");
        }
        if let SelectorFallback::KeysSubset(fewer) = &self.fallback {
            let part = fewer.iter().all(|key| self.keys.contains(key));
            if fewer.is_empty() || !part || fewer.len() == self.keys.len() {
                return invalid("the keys of its fallback are not some of its own");
            }
        }
        Ok(())
    }
}

/// The selectors, and what happens to calls that match none.
///
/// ```
/// use orchestra_core::Labels;
/// use orchestra_discovery::subset::{Fallback, SelectorFallback, SubsetConfig, SubsetSelector};
///
/// let production = Labels::new().with("stage", "prod")?;
/// let config = SubsetConfig::new(
///     [
///         SubsetSelector::new(["version", "stage"])
///             .fallback(SelectorFallback::keys_subset(["stage"])),
///         SubsetSelector::new(["stage"]).fallback(SelectorFallback::Own(Fallback::NoFallback)),
///     ],
///     Fallback::DefaultSubset(production),
/// )?
/// .panic_mode_any();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetConfig {
    pub(super) selectors: Box<[SubsetSelector]>,
    pub(super) fallback: Fallback,
    pub(super) panic_mode_any: bool,
    pub(super) max_subsets: usize,
}

impl SubsetConfig {
    /// These selectors, with a general fallback.
    ///
    /// It is [`Invalid`](ErrorKind::Invalid) if there are more than 64, two have the same keys, one has none
    /// or a fallback to keys that are not some but not all of its own, or more than one key and a single host
    /// per subset.
    pub fn new(
        selectors: impl IntoIterator<Item = SubsetSelector>,
        fallback: Fallback,
    ) -> Result<Self> {
        let invalid = |what| Err(Error::new(ErrorKind::Invalid, what));
        let mut known: Vec<SubsetSelector> = Vec::new();
        for selector in selectors {
            selector.check()?;
            if known.iter().any(|other| other.keys == selector.keys) {
                return invalid(format!(
                    "two subset selectors have keys {:?}",
                    selector.keys
                ));
            }
            if known.len() == MAX_SELECTORS {
                return invalid(format!("more than {MAX_SELECTORS} subset selectors"));
            }
            known.push(selector);
        }
        Ok(Self {
            selectors: known.into(),
            fallback,
            panic_mode_any: false,
            max_subsets: MAX_SUBSETS,
        })
    }

    /// Where the general fallback is a default subset without members, any member gets the call.
    #[must_use]
    pub fn panic_mode_any(mut self) -> Self {
        self.panic_mode_any = true;
        self
    }

    /// Whether one of its selectors has exactly the keys of these labels.
    ///
    /// ```
    /// use orchestra_core::Labels;
    /// use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
    ///
    /// let config = SubsetConfig::new([SubsetSelector::new(["version"])], Fallback::NoFallback)?;
    /// let asked = Labels::new().with("version", "2")?;
    /// assert!(config.divides_by(&asked));
    /// assert!(!config.divides_by(&asked.with("stage", "prod")?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn divides_by(&self, asked: &Labels) -> bool {
        let mut selectors = self.selectors.iter();
        selectors.any(|selector| super::are_keys_of(&selector.keys, asked))
    }

    /// With room for so many subsets, 10,000 unless told otherwise. The selectors are served in their order
    /// and the members in theirs; those that find no room are counted.
    #[must_use]
    pub fn max_subsets(mut self, subsets: usize) -> Self {
        self.max_subsets = subsets;
        self
    }
}

fn ordered<'a>(keys: impl IntoIterator<Item = &'a str>) -> Arc<[Arc<str>]> {
    let mut keys: Vec<Arc<str>> = keys.into_iter().map(Arc::from).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into()
}
