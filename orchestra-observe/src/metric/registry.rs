use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use orchestra_core::{Listener, Silent};
use parking_lot::RwLock;

use super::family::{Collect, Metric, Shared};
use super::{
    Buckets, Counter, Family, FamilySnapshot, Gauge, Histogram, MetricKind, SeriesSnapshot,
    Snapshot, Spec, Value,
};
use crate::label::{OWN_PREFIX, check_labels, check_metric};
use crate::{Error, ErrorKind, Event, Masker};

/// The metrics of a program. A clone is the same registry.
///
/// Names are those of the exposition: `[a-zA-Z_:][a-zA-Z0-9_:]*`. A counter may be named with or without
/// its `_total`; no other name may end with `_total`, `_bucket`, `_count`, `_sum` or `_created`. Registering
/// the same thing twice gives the same metric; the same name as something else is a
/// [`Conflict`](ErrorKind::Conflict).
///
/// ```
/// use orchestra_observe::{Format, Registry};
///
/// let registry = Registry::new();
/// registry.counter("orders_total", "Orders that were accepted.")?.add(3);
/// let page = Format::Text.render(&registry.snapshot());
/// let lines: Vec<_> = page.lines().collect();
/// assert_eq!(lines, [
///     "# HELP orders_total Orders that were accepted.",
///     "# TYPE orders_total counter",
///     "orders_total 3",
/// ]);
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    limit: usize,
    masker: Arc<Masker>,
    listener: Arc<dyn Listener<Event>>,
    families: RwLock<BTreeMap<Arc<str>, Arc<dyn Collect>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("limit", &self.limit)
            .field("families", &self.families.read().keys())
            .finish_non_exhaustive()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Options of a [`Registry`].
pub struct Builder {
    limit: usize,
    masker: Arc<Masker>,
    listener: Arc<dyn Listener<Event>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// How many series of its own a family may have; 2000, as in the SDK specification of OpenTelemetry.
    #[must_use]
    pub fn series_limit(mut self, limit: NonZeroUsize) -> Self {
        self.limit = limit.get();
        self
    }

    /// Masks label values with this masker.
    #[must_use]
    pub fn masker(mut self, masker: Arc<Masker>) -> Self {
        self.masker = masker;
        self
    }

    /// Hears of families that overflow.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.listener = listener;
        self
    }

    /// The registry.
    pub fn build(self) -> Registry {
        Registry(Arc::new(Inner {
            limit: self.limit,
            masker: self.masker,
            listener: self.listener,
            families: RwLock::default(),
        }))
    }
}

impl Registry {
    /// A registry with the default options.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Sets options.
    pub fn builder() -> Builder {
        Builder {
            limit: 2000,
            masker: Arc::default(),
            listener: Arc::new(Silent),
        }
    }

    /// Registers a counter without labels.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, Error> {
        Ok(self.counters(name, help, [])?.with([]))
    }

    /// Registers a gauge without labels.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        Ok(self.gauges(name, help, [])?.with([]))
    }

    /// Registers a histogram without labels.
    pub fn histogram(&self, name: &str, help: &str, buckets: &Buckets) -> Result<Histogram, Error> {
        Ok(self.histograms(name, help, [], buckets)?.with([]))
    }

    /// Registers counters with these labels.
    pub fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Family<Counter, N>, Error> {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.register(name, help, labels, Arc::default())
    }

    /// Registers gauges with these labels.
    pub fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Family<Gauge, N>, Error> {
        self.register(name, help, labels, Arc::default())
    }

    /// Registers histograms with these labels.
    pub fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        buckets: &Buckets,
    ) -> Result<Family<Histogram, N>, Error> {
        self.register(name, help, labels, buckets.shared())
    }

    fn register<M: Metric, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        bounds: Arc<[f64]>,
    ) -> Result<Family<M, N>, Error> {
        check_metric(name)?;
        check_labels(&labels)?;
        let spec = Spec {
            name: Arc::from(name),
            help: Arc::from(help),
            kind: M::KIND,
            label_names: labels.iter().map(|label| Arc::from(*label)).collect(),
            bounds,
        };
        let mut families = self.0.families.write();
        if let Some(old) = families.get(name) {
            return same(old, &spec);
        }
        let masker = Arc::clone(&self.0.masker);
        let listener = Arc::clone(&self.0.listener);
        let made = Arc::new(Shared::new(spec, self.0.limit, masker, listener));
        families.insert(Arc::from(name), Arc::clone(&made) as Arc<dyn Collect>);
        Ok(Family::new(made))
    }

    /// The values of all metrics, and what the registry counted about itself, if there is anything.
    pub fn snapshot(&self) -> Snapshot {
        // Reading the series happens outside the lock: a registration must not wait for a scrape.
        let families: Vec<_> = self.0.families.read().values().cloned().collect();
        let mut all: Vec<_> = families.iter().map(|family| family.snapshot()).collect();
        all.extend(own(
            "overflowed",
            "Lookups of a label set that the overflow series answered.",
            &families,
            Collect::overflowed,
        ));
        all.extend(own(
            "rejected_observations",
            "Observations that were negative, infinite or not a number.",
            &families,
            Collect::rejected,
        ));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Snapshot { families: all }
    }
}

fn same<M: Metric, const N: usize>(
    old: &Arc<dyn Collect>,
    spec: &Spec,
) -> Result<Family<M, N>, Error> {
    let conflict = |reason: String| Error::new(ErrorKind::Conflict, &spec.name, reason);
    let before = old.spec();
    if before.kind != spec.kind {
        let (was, is) = (before.kind.as_str(), spec.kind.as_str());
        return Err(conflict(format!("a {was} before, a {is} now")));
    }
    if before.label_names != spec.label_names {
        let (was, is) = (&before.label_names, &spec.label_names);
        return Err(conflict(format!("labels {was:?} before, {is:?} now")));
    }
    if before.bounds != spec.bounds {
        return Err(conflict("other buckets than before".to_owned()));
    }
    if before.help != spec.help {
        return Err(conflict("another help text than before".to_owned()));
    }
    let any: Arc<dyn Any + Send + Sync> = Arc::<dyn Collect>::clone(old);
    match any.downcast::<Shared<M, N>>() {
        Ok(shared) => Ok(Family::new(shared)),
        Err(_) => Err(conflict("another type than before".to_owned())),
    }
}

/// A family about the families themselves; `None` while there is nothing to tell.
fn own(
    name: &str,
    help: &str,
    families: &[Arc<dyn Collect>],
    read: fn(&dyn Collect) -> u64,
) -> Option<FamilySnapshot> {
    let counted = families.iter().filter_map(|family| {
        let count = read(&**family);
        (count > 0).then(|| SeriesSnapshot {
            labels: vec![Arc::clone(&family.spec().name)],
            value: Value::Counter(count),
        })
    });
    let series: Vec<_> = counted.collect();
    (!series.is_empty()).then(|| FamilySnapshot {
        name: Arc::from(format!("{OWN_PREFIX}{name}")),
        help: Arc::from(help),
        unit: None,
        kind: MetricKind::Counter,
        label_names: Arc::from([Arc::from("metric")]),
        series,
    })
}
