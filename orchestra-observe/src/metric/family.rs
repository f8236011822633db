use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orchestra_core::Listener;
use parking_lot::RwLock;

use super::{FamilySnapshot, MetricKind, SeriesSnapshot, Spec, Value};
use crate::label::{MAX_VALUE, OVERFLOW, cut, unit_of};
use crate::{Event, Masker};

/// What a [`Family`] may consist of: [`Counter`](super::Counter), [`Gauge`](super::Gauge) or
/// [`Histogram`](super::Histogram). Sealed.
#[expect(
    private_bounds,
    reason = "sealed: a series that the exposition cannot write is no series"
)]
pub trait Metric: Series {}

impl<M: Series> Metric for M {}

pub(super) trait Series: Clone + fmt::Debug + Send + Sync + 'static {
    const KIND: MetricKind;

    fn create(spec: &Spec) -> Self;

    fn read(&self) -> Value;

    fn refused(&self) -> u64 {
        0
    }
}

/// Metrics of one name that differ in the values of their `N` labels.
///
/// A family has a limit on its series ([`Builder::series_limit`](super::Builder::series_limit)). Label
/// sets beyond it share one overflow series, whose labels all are [`OVERFLOW`]: such a measurement is
/// neither lost nor counted twice. Label values are masked, and cut to [`MAX_VALUE`] bytes, before they
/// are kept.
///
/// ```
/// use orchestra_observe::Registry;
///
/// let registry = Registry::new();
/// let requests = registry.counters(
///     "http_requests_total",
///     "Requests by route and status.",
///     ["route", "status"],
/// )?;
/// requests.with(["/orders", "201"]).inc();
/// assert_eq!(requests.with(["/orders", "201"]).value(), 1);
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug)]
pub struct Family<M, const N: usize>(Arc<Shared<M, N>>);

impl<M, const N: usize> Clone for Family<M, N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Metric, const N: usize> Family<M, N> {
    /// The metric of these label values, in the order of the names; made when it does not exist.
    pub fn with(&self, values: [&str; N]) -> M {
        if let Some(found) = self.0.state.read().find(&values) {
            return found;
        }
        self.0.create(&values)
    }

    /// Takes the series of these label values out of the exposition, and says whether it was there.
    ///
    /// For labels that name what no longer exists, as an instance. What was recorded is gone; a handle
    /// that somebody kept still counts, unseen. The overflow series cannot be removed.
    pub fn remove(&self, values: [&str; N]) -> bool {
        let key = self.0.key(&values);
        self.0.state.write().series.remove(&key).is_some()
    }

    pub(super) fn new(shared: Arc<Shared<M, N>>) -> Self {
        Self(shared)
    }
}

pub(super) struct Shared<M, const N: usize> {
    spec: Spec,
    limit: usize,
    masker: Arc<Masker>,
    listener: Arc<dyn Listener<Event>>,
    state: RwLock<State<M, N>>,
    /// How often a label set was answered by the overflow series.
    overflowed: AtomicU64,
    told: AtomicBool,
}

impl<M: fmt::Debug, const N: usize> fmt::Debug for Shared<M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("spec", &self.spec)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State<M, const N: usize> {
    series: HashMap<Key<N>, M>,
    overflow: Option<M>,
}

impl<M: Clone, const N: usize> State<M, N> {
    fn find(&self, values: &[&str; N]) -> Option<M> {
        self.series.get(values as &dyn Values).cloned()
    }
}

impl<M: Series, const N: usize> Shared<M, N> {
    pub(super) fn new(
        spec: Spec,
        limit: usize,
        masker: Arc<Masker>,
        listener: Arc<dyn Listener<Event>>,
    ) -> Self {
        let state = State {
            series: HashMap::new(),
            overflow: None,
        };
        Self {
            spec,
            limit,
            masker,
            listener,
            state: RwLock::new(state),
            overflowed: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    fn key(&self, values: &[&str; N]) -> Key<N> {
        Key(std::array::from_fn(|index| {
            let value = values.get(index).copied().unwrap_or_default();
            let name = self.spec.label_names.get(index);
            let name = name.map(AsRef::as_ref).unwrap_or_default();
            let masked = self.masker.field(name, value);
            Arc::from(cut(masked.as_str(), MAX_VALUE))
        }))
    }

    fn create(&self, values: &[&str; N]) -> M {
        let key = self.key(values);
        let is_overflow = N > 0 && key.0.iter().all(|value| &**value == OVERFLOW);
        let mut state = self.state.write();
        if let Some(found) = state.series.get(&key) {
            return found.clone();
        }
        if !is_overflow && state.series.len() < self.limit.max(1) {
            let made = M::create(&self.spec);
            state.series.insert(key, made.clone());
            return made;
        }
        let overflow = state.overflow.get_or_insert_with(|| M::create(&self.spec));
        let overflow = overflow.clone();
        drop(state);
        if !is_overflow {
            self.note_overflow();
        }
        overflow
    }

    fn note_overflow(&self) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        if !self.told.swap(true, Ordering::Relaxed) {
            self.listener.on_event(&Event::SeriesOverflowed {
                metric: Arc::clone(&self.spec.name),
                limit: self.limit,
            });
        }
    }
}

/// What the registry reads of a family, whatever it consists of.
pub(super) trait Collect: std::any::Any + fmt::Debug + Send + Sync {
    fn spec(&self) -> &Spec;

    fn snapshot(&self) -> FamilySnapshot;

    fn overflowed(&self) -> u64;

    fn rejected(&self) -> u64;
}

impl<M: Series, const N: usize> Collect for Shared<M, N> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn snapshot(&self) -> FamilySnapshot {
        let state = self.state.read();
        let overflow = state.overflow.as_ref().map(|metric| SeriesSnapshot {
            labels: vec![Arc::from(OVERFLOW); N],
            value: metric.read(),
        });
        let own = state.series.iter().map(|(key, metric)| SeriesSnapshot {
            labels: key.0.to_vec(),
            value: metric.read(),
        });
        let mut series: Vec<_> = own.chain(overflow).collect();
        drop(state);
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        FamilySnapshot {
            name: Arc::clone(&self.spec.name),
            help: Arc::clone(&self.spec.help),
            unit: unit_of(&self.spec.name),
            kind: self.spec.kind,
            label_names: Arc::clone(&self.spec.label_names),
            series,
        }
    }

    fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    fn rejected(&self) -> u64 {
        let state = self.state.read();
        let all = state.series.values().chain(&state.overflow);
        all.map(Series::refused).sum()
    }
}

/// Owned label values that can be looked up by borrowed ones, so that a lookup allocates nothing.
#[derive(Debug, PartialEq, Eq)]
struct Key<const N: usize>([Arc<str>; N]);

trait Values {
    fn value(&self, index: usize) -> Option<&str>;
}

impl<const N: usize> Values for Key<N> {
    fn value(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(AsRef::as_ref)
    }
}

impl<const N: usize> Values for [&str; N] {
    fn value(&self, index: usize) -> Option<&str> {
        self.get(index).copied()
    }
}

impl dyn Values + '_ {
    fn each(&self) -> impl Iterator<Item = &str> {
        (0..).map_while(|index| self.value(index))
    }
}

impl Hash for dyn Values + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.each().for_each(|value| value.hash(state));
    }
}

impl PartialEq for dyn Values + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.each().eq(other.each())
    }
}

impl Eq for dyn Values + '_ {}

impl<const N: usize> Hash for Key<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Values).hash(state);
    }
}

impl<'a, const N: usize> Borrow<dyn Values + 'a> for Key<N> {
    fn borrow(&self) -> &(dyn Values + 'a) {
        self
    }
}
