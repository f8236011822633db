//! A report of load, and its text forms.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The longest text that is parsed, in bytes.
pub const MAX_REPORT: usize = 8 * 1024;
/// The most named metrics of a report.
pub const MAX_NAMED_METRICS: usize = 64;

/// What a server says of its load: `xds.data.orca.v3.OrcaLoadReport`, as far as weights depend on it.
///
/// ```
/// use orchestra_discovery::reported::LoadReport;
///
/// let report = LoadReport::parse("TEXT cpu_utilization=0.3, named_metrics.queue=17")?;
/// assert_eq!(report.cpu_utilization, 0.3);
/// assert_eq!(report.named_metrics["queue"], 17.0);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// How used the server is by its own measure, 1 for fully; more is possible. 0 where it is not reported.
    pub application_utilization: f64,
    /// How used its CPU is; more than 1 is possible.
    pub cpu_utilization: f64,
    /// How used its memory is.
    pub mem_utilization: f64,
    /// Calls it answers per second.
    pub rps_fractional: f64,
    /// Errors among them per second.
    pub eps: f64,
    /// Further metrics by name.
    pub named_metrics: BTreeMap<String, f64>,
}

impl LoadReport {
    /// Parses the value of an `endpoint-load-metrics` header or trailer.
    ///
    /// `TEXT name=value, name=value` (or with colons, as Envoy writes it), and with the feature `http` also
    /// `JSON {...}`. The error is [`Unsupported`](ErrorKind::Unsupported) for another format, and
    /// [`Protocol`](ErrorKind::Protocol) for what is too long, unknown, given twice, or no finite number.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_REPORT {
            return Err(protocol(format!("it has more than {MAX_REPORT} bytes")));
        }
        match text.split_once(' ') {
            Some(("TEXT", fields)) => Self::parse_fields(fields),
            #[cfg(feature = "http")]
            Some(("JSON", object)) => json::parse(object),
            other => {
                let format = other.map_or(text, |(format, _)| format);
                let format: String = format.chars().take(16).collect();
                let message = format!("load report: unsupported format {format:?}");
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    fn parse_fields(fields: &str) -> Result<Self> {
        let mut report = Self::default();
        let mut seen = Seen::default();
        for field in fields.split(',').map(str::trim) {
            let (name, value) = field
                .split_once(['=', ':'])
                .ok_or_else(|| protocol(format!("{:?} has no value", shown(field))))?;
            let (name, value) = (name.trim(), value.trim());
            let value = value
                .parse()
                .map_err(|error| protocol(format!("{name:?} is no number")).with_source(error))?;
            match name.strip_prefix("named_metrics.") {
                Some(metric) => report.put_named(metric, value)?,
                None => report.put(&mut seen, name, value)?,
            }
        }
        Ok(report)
    }

    fn put(&mut self, seen: &mut Seen, name: &str, value: f64) -> Result<()> {
        let (bit, field) = match name {
            "application_utilization" => (0, &mut self.application_utilization),
            "cpu_utilization" => (1, &mut self.cpu_utilization),
            "mem_utilization" => (2, &mut self.mem_utilization),
            "rps_fractional" => (3, &mut self.rps_fractional),
            "eps" => (4, &mut self.eps),
            _ => return Err(protocol(format!("unknown metric {:?}", shown(name)))),
        };
        if !seen.first(bit) {
            return Err(protocol(format!("{name:?} is given twice")));
        }
        *field = finite(name, value)?;
        Ok(())
    }

    fn put_named(&mut self, name: &str, value: f64) -> Result<()> {
        if name.is_empty() {
            return Err(protocol("a named metric has no name"));
        }
        if self.named_metrics.len() == MAX_NAMED_METRICS {
            let message = format!("it has more than {MAX_NAMED_METRICS} named metrics");
            return Err(protocol(message));
        }
        let value = finite(name, value)?;
        match self.named_metrics.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(protocol(format!("{:?} is given twice", shown(name)))),
        }
    }
}

/// Which of the fields have been given.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn first(&mut self, bit: u8) -> bool {
        let before = self.0;
        self.0 |= 1 << bit;
        before != self.0
    }
}

fn finite(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(protocol(format!("{:?} is not finite", shown(name))))
    }
}

fn shown(text: &str) -> &str {
    text.get(..64).unwrap_or(text)
}

fn protocol(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("load report: {what}"))
}

#[cfg(feature = "http")]
mod json {
    use serde_json::{Map, Value};

    use super::{LoadReport, Seen, protocol, shown};
    use crate::error::Result;

    /// The JSON mapping of protobuf: names in snake or camel case.
    pub(super) fn parse(text: &str) -> Result<LoadReport> {
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| protocol("it is no JSON object").with_source(error))?;
        let (mut report, mut seen) = (LoadReport::default(), Seen::default());
        for (name, value) in &object {
            match name.as_str() {
                "named_metrics" | "namedMetrics" => put_named(&mut report, value)?,
                // Parts of the message that say nothing about the weight.
                "rps" | "utilization" | "request_cost" | "requestCost" => {}
                name => report.put(&mut seen, snake(name), number(name, value)?)?,
            }
        }
        Ok(report)
    }

    fn put_named(report: &mut LoadReport, metrics: &Value) -> Result<()> {
        let metrics = metrics
            .as_object()
            .ok_or_else(|| protocol("the named metrics are no object"))?;
        for (name, value) in metrics {
            report.put_named(name, number(name, value)?)?;
        }
        Ok(())
    }

    fn number(name: &str, value: &Value) -> Result<f64> {
        value
            .as_f64()
            .ok_or_else(|| protocol(format!("{:?} is no number", shown(name))))
    }

    fn snake(name: &str) -> &str {
        match name {
            "applicationUtilization" => "application_utilization",
            "cpuUtilization" => "cpu_utilization",
            "memUtilization" => "mem_utilization",
            "rpsFractional" => "rps_fractional",
            name => name,
        }
    }
}
