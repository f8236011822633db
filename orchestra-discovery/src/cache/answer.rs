use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::InstanceId;

use super::freshness::Freshness;
use crate::merge::Provenance;
use crate::source::Snapshot;

/// The members of a service, and how good that is.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::cache::{Freshness, SourceOptions};
/// use orchestra_discovery::{Cache, MemoryRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::builder()
///     .source("registry", Arc::new(MemoryRegistry::default()), SourceOptions::default())
///     .build()?;
/// let answer = cache.lookup(&"orders".parse()?).await?;
/// assert!(answer.snapshot.instances().is_empty() && answer.freshness == Freshness::Fresh);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The members, at the revision of the last change.
    pub snapshot: Arc<Snapshot>,
    /// That of the worst source whose members are among them.
    pub freshness: Freshness,
    /// The greatest age among these sources; zero while all of them are watched.
    pub age: Duration,
    /// Every source, in the order of precedence, those that were not asked included.
    pub sources: Vec<SourceReport>,
}

/// What one source contributes.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::cache::SourceOptions;
/// use orchestra_discovery::{Cache, MemoryRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::builder()
///     .source("registry", Arc::new(MemoryRegistry::default()), SourceOptions::default())
///     .build()?;
/// let answer = cache.lookup(&"orders".parse()?).await?;
/// let report = &answer.sources[0];
/// assert_eq!((report.failures, &report.error), (0, &None));
/// assert_eq!(report.to_string(), "registry: 0 instances, fresh");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// Its name.
    pub name: Arc<str>,
    /// How far it can be trusted; `None` if it has never answered, or was not asked.
    pub freshness: Option<Freshness>,
    /// How old its data is.
    pub age: Duration,
    /// How many instances are served because of it.
    pub instances: usize,
    /// How often it failed in a row.
    pub failures: u32,
    /// How it failed last.
    pub error: Option<String>,
}

impl fmt::Display for SourceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instances", self.name, self.instances)?;
        match self.freshness {
            Some(Freshness::Fresh) => f.write_str(", fresh")?,
            Some(freshness) => write!(f, ", {freshness:?}, {:?} old", self.age)?,
            None => f.write_str(", no answer yet")?,
        }
        match &self.error {
            Some(error) => write!(f, ", failed {} times in a row: {error}", self.failures),
            None => Ok(()),
        }
    }
}

/// Where the members of a service are from.
pub(crate) struct Origins {
    pub(crate) sources: Vec<SourceReport>,
    pub(crate) provenance: HashMap<InstanceId, Provenance>,
}
