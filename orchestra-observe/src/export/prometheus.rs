//! The text that Prometheus scrapes.
//!
//! Two formats: the Prometheus text format 0.0.4 and OpenMetrics 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>). They differ here in the name of a counter's
//! family (with and without `_total`), in `# UNIT`, in the escaping of quotes in help texts, in the bounds
//! of buckets (`1` and `1.0`) and in the last line. Families come in the order of their names, series in
//! that of their label values.

use std::fmt::Write;

use crate::metric::{FamilySnapshot, MetricKind, SeriesSnapshot, Snapshot, Value};

/// A format of the exposition.
///
/// ```
/// use orchestra_observe::Format;
///
/// let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
/// assert_eq!(Format::negotiate(Some(accept)), Format::OpenMetrics);
/// assert_eq!(Format::negotiate(Some("*/*")), Format::Text);
/// assert_eq!(Format::negotiate(None), Format::Text);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that suits the header `Accept`: OpenMetrics when it is asked for by name, in version 1.0.0
    /// or none, and not with less weight than plain text; the text format for all else, even when it is not
    /// accepted, as scrapers expect.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let ranges = || {
            accept
                .unwrap_or_default()
                .split(',')
                .filter_map(Range::parse)
        };
        let best = |wanted: fn(&Range<'_>) -> bool| {
            let weights = ranges().filter(wanted).map(|range| range.weight);
            weights.fold(0, u16::max)
        };
        let open = best(|range| {
            range
                .media
                .eq_ignore_ascii_case("application/openmetrics-text")
                && matches!(range.version, None | Some("1.0.0"))
        });
        let text = best(|range| {
            range.media.eq_ignore_ascii_case("text/plain")
                && matches!(range.version, None | Some("0.0.4"))
        });
        if open > 0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The page.
    pub fn render(self, snapshot: &Snapshot) -> String {
        let mut page = Page {
            format: self,
            out: String::new(),
        };
        for family in &snapshot.families {
            page.family(family);
        }
        if self == Self::OpenMetrics {
            page.out.push_str("# EOF\n");
        }
        page.out
    }
}

/// One media range of `Accept` (RFC 9110, 12.5.1).
struct Range<'a> {
    media: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?;
        let mut range = Self {
            media,
            version: None,
            weight: 1000,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            } else if name.eq_ignore_ascii_case("q") {
                range.weight = weight(value)?;
            }
        }
        Some(range)
    }
}

fn weight(text: &str) -> Option<u16> {
    let value: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in 0..=1000"
    )]
    (0.0..=1.0)
        .contains(&value)
        .then(|| (value * 1000.0).round() as u16)
}

struct Page {
    format: Format,
    out: String,
}

impl Page {
    fn family(&mut self, family: &FamilySnapshot) {
        let open = self.format == Format::OpenMetrics;
        let suffix = match family.kind {
            MetricKind::Counter if !open => "_total",
            _ => "",
        };
        let name = &family.name;
        self.put(format_args!("# HELP {name}{suffix} "));
        self.help(&family.help);
        let kind = family.kind.as_str();
        self.put(format_args!("\n# TYPE {name}{suffix} {kind}\n"));
        if let Some(unit) = family.unit.filter(|_| open) {
            self.put(format_args!("# UNIT {name} {unit}\n"));
        }
        for series in &family.series {
            self.series(family, series);
        }
    }

    fn series(&mut self, family: &FamilySnapshot, series: &SeriesSnapshot) {
        match &series.value {
            Value::Counter(count) => {
                self.name(family, "_total", series, None);
                self.put(format_args!("{count}\n"));
            }
            Value::Gauge(value) => {
                self.name(family, "", series, None);
                self.number(*value);
            }
            Value::Histogram {
                buckets,
                sum,
                count,
            } => {
                for bucket in buckets {
                    self.name(family, "_bucket", series, Some(bucket.le));
                    self.put(format_args!("{}\n", bucket.count));
                }
                self.name(family, "_sum", series, None);
                self.number(*sum);
                self.name(family, "_count", series, None);
                self.put(format_args!("{count}\n"));
            }
        }
    }

    /// The name of a sample with its labels, up to its value.
    fn name(
        &mut self,
        family: &FamilySnapshot,
        suffix: &str,
        series: &SeriesSnapshot,
        le: Option<f64>,
    ) {
        self.put(format_args!("{}{suffix}", family.name));
        let mut open = '{';
        for (name, value) in family.label_names.iter().zip(&series.labels) {
            self.put(format_args!("{open}{name}=\""));
            self.escaped(value, true);
            self.out.push('"');
            open = ',';
        }
        if let Some(le) = le {
            let le = self.bound(le);
            self.put(format_args!("{open}le=\"{le}\""));
        }
        let bare = open == '{' && le.is_none();
        self.out.push_str(if bare { " " } else { "} " });
    }

    fn help(&mut self, help: &str) {
        self.escaped(help, self.format == Format::OpenMetrics);
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '"' if quotes => self.out.push_str("\\\""),
                _ => self.out.push(c),
            }
        }
    }

    fn bound(&self, le: f64) -> String {
        let text = number(le);
        let whole = le.is_finite() && !text.contains(['.', 'e']);
        match self.format {
            Format::OpenMetrics if whole => text + ".0",
            _ => text,
        }
    }

    fn number(&mut self, value: f64) {
        let value = number(value);
        self.put(format_args!("{value}\n"));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.out.write_fmt(text);
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}
