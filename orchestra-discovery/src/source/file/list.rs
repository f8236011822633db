//! The list that a file holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use orchestra_core::{Endpoint, InstanceId, Labels, Locality, ServiceName};
use serde::Deserialize;

use crate::instance::{Incarnation, Instance, ProbeTarget, Status};
use crate::source::derived::derived_id;

/// Hostile input may be megabytes long: a message must not carry it all.
const MAX_MESSAGE: usize = 512;

/// How the list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

impl Format {
    /// What the extension says.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_ascii_lowercase();
        match extension.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    service: ServiceName,
    id: Option<InstanceId>,
    endpoint: Endpoint,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    locality: Locality,
    #[serde(default)]
    labels: Labels,
    probe: Option<Probe>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    path: Option<Arc<str>>,
    port: Option<u16>,
}

fn one() -> u32 {
    1
}

impl Entry {
    fn instance(self) -> Result<Instance, String> {
        let id = match self.id {
            Some(id) => id,
            None => derived_id(&self.endpoint)
                .ok_or_else(|| format!("the instance at {} needs an id", self.endpoint))?,
        };
        let incarnation = Incarnation::default();
        let mut instance = Instance::new(self.service, id, incarnation, self.endpoint);
        instance.weight = self.weight;
        instance.priority = self.priority;
        instance.status = self.status;
        instance.locality = self.locality;
        instance.labels = self.labels;
        let target = self.probe.map(|probe| ProbeTarget {
            path: probe.path,
            port: probe.port,
        });
        // A probe that says nothing is none, as it is for a registration.
        instance.probe = target
            .filter(|target| *target != ProbeTarget::default())
            .map(Arc::new);
        Ok(instance)
    }
}

/// The instances, each id of a service once; else what is wrong, after line and column where known.
pub(super) fn parse(format: Format, content: &[u8]) -> Result<Vec<Instance>, String> {
    let entries = match format {
        Format::Yaml => yaml(content)?,
        Format::Json => json(content)?,
    };
    let mut instances = Vec::with_capacity(entries.len());
    let mut ids = BTreeSet::new();
    for (number, entry) in (1..).zip(entries) {
        let instance = entry
            .instance()
            .map_err(|wrong| format!(" entry {number}: {wrong}"))?;
        let key = (instance.service.clone(), instance.id.clone());
        if !ids.insert(key) {
            let (id, service) = (&instance.id, &instance.service);
            return Err(format!(
                " entry {number}: a second instance {id} of service {service}"
            ));
        }
        instances.push(instance);
    }
    Ok(instances)
}

fn at(line: impl Into<u64>, column: impl Into<u64>, message: &str) -> String {
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    format!("{}:{}: {message}", line.into(), column.into())
}

fn json(content: &[u8]) -> Result<Vec<Entry>, String> {
    serde_json::from_slice(content).map_err(|error| {
        let (line, column) = (error.line() as u64, error.column() as u64);
        // It says the place itself, behind.
        let message = error.to_string();
        let place = format!(" at line {line} column {column}");
        at(
            line,
            column,
            message.strip_suffix(&place).unwrap_or(&message),
        )
    })
}

fn yaml(content: &[u8]) -> Result<Vec<Entry>, String> {
    let text = std::str::from_utf8(content)
        .map_err(|error| format!(" byte {} is not UTF-8", error.valid_up_to()))?;
    let entries: Option<Vec<Entry>> =
        serde_saphyr::from_str_with_options(text, limits()).map_err(|error| place(&error))?;
    entries.ok_or_else(|| {
        at(
            1_u64,
            1_u64,
            "an empty file; `[]` is a list without members",
        )
    })
}

/// A file within its length may have as many nodes as it likes; what multiplies is bounded.
fn limits() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: 4_000_000,
            max_events: 8_000_000,
            max_total_scalar_bytes: 64 << 20,
            max_aliases: 10_000,
            max_documents: 1,
        },
    }
}

fn place(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    match error.location() {
        Some(location) => at(location.line(), location.column(), &message),
        None => format!(" {}", message.chars().take(MAX_MESSAGE).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
