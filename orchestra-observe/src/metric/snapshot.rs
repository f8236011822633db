use std::sync::Arc;

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MetricKind {
    /// A count that only rises.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How many observations were at most `le`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Bucket {
    /// The upper bound, inclusive; infinite for the last (JSON writes that as `null`).
    pub le: f64,
    /// Observations in this bucket and all before it.
    pub count: u64,
}

/// The value of one series at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram.
    Histogram {
        /// Cumulative, rising, the last one unbounded.
        buckets: Vec<Bucket>,
        /// The sum of all observations.
        sum: f64,
        /// How many there were; equals the last bucket.
        count: u64,
    },
}

/// One series at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeriesSnapshot {
    /// The values of the family's labels, in the order of their names.
    pub labels: Vec<Arc<str>>,
    /// What it shows.
    pub value: Value,
}

/// One family at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FamilySnapshot {
    /// The name, without the `_total` of a counter.
    pub name: Arc<str>,
    /// What it means.
    pub help: Arc<str>,
    /// The unit that its name ends with.
    pub unit: Option<&'static str>,
    /// What it measures.
    pub kind: MetricKind,
    /// The names of its labels.
    pub label_names: Arc<[Arc<str>]>,
    /// Its series, ordered by label values.
    pub series: Vec<SeriesSnapshot>,
}

/// All families of a registry, ordered by name.
///
/// Each value is exact; values of different series are read one after the other.
///
/// ```
/// use orchestra_observe::{Registry, Value};
///
/// let registry = Registry::new();
/// let calls = registry.counters("calls_total", "Calls by service.", ["service"])?;
/// calls.with(["payments"]).add(4);
/// let snapshot = registry.snapshot();
/// assert_eq!(
///     snapshot.value("calls_total", &[("service", "payments")]),
///     Some(&Value::Counter(4)),
/// );
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The families.
    pub families: Vec<FamilySnapshot>,
}

impl Snapshot {
    /// The family of this name, with or without `_total`.
    pub fn family(&self, name: &str) -> Option<&FamilySnapshot> {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.families.iter().find(|family| &*family.name == name)
    }

    /// The value of the series that has exactly these labels, in any order.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Value> {
        let family = self.family(name)?;
        if family.label_names.len() != labels.len() {
            return None;
        }
        let wanted = |(name, value): (&Arc<str>, &Arc<str>)| {
            labels.iter().any(|(n, v)| **n == **name && **v == **value)
        };
        let series = family.series.iter().find(|series| {
            let pairs = family.label_names.iter().zip(&series.labels);
            pairs.into_iter().all(wanted)
        });
        series.map(|series| &series.value)
    }
}
