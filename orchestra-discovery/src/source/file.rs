//! The members of services in a YAML or JSON file that is read again when it changes.
//!
//! The file is a list; what is absent has the default of a registration, an unknown field is an error:
//!
//! ```yaml
//! - service: payments
//!   endpoint: 10.0.0.7:8080     # also [fd00::7]:8080, unix:/run/payments.sock, payments.internal:8080
//!   id: payments-1              # address and port when absent; an instance at a Unix socket needs one
//!   weight: 3
//!   priority: 0
//!   status: ready               # starting, ready, draining
//!   locality: {region: eu, zone: a, subzone: rack-4}
//!   labels: {version: v2}
//!   probe: {path: /healthz, port: 8081}
//! ```
//!
//! While anybody watches or asks, the file is looked at once per interval, by its modification time, length
//! and inode, and by its content when those cannot be trusted yet. A file that was replaced by a rename is
//! taken at once. One that was written in place may be half written: it is taken when two looks in a row
//! found it the same. So write a new file beside it and rename that.
//!
//! A file that is missing, unreadable, too large or wrong in any entry is a failure and changes nothing: the
//! members of the last good file stay with who has them, a watch is told the failure once, with line and
//! column, and goes on when the file is well again. A service without members is one without entries, and
//! `[]` is a file without members; an empty file is wrong.

mod list;
mod look;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::list::Format;
use self::look::{Last, Looked};
use super::ledger::first_revision;
use super::poll::{Poll, PollWatch, Read, Reading};
use super::{Capabilities, Revision, Scope, Snapshot, Source, Watch};
use crate::error::{Error, ErrorKind, Result};

/// Which file a [`FileSource`] reads, and how often it looks.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::source::file::Config;
///
/// let mut config = Config::new("/etc/shop/instances.yaml");
/// config.interval = Duration::from_millis(250);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The file; its extension says what it holds: `yaml`, `yml` or `json`.
    pub path: PathBuf,
    /// The time from one look at the file to the next.
    pub interval: Duration,
    /// The longest file in bytes; a longer one is a failure.
    pub max_bytes: u64,
    /// The most changes that are remembered for watches that fell behind.
    pub max_changes: NonZeroUsize,
}

impl Config {
    /// This file, looked at every second, of at most 16 MiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            interval: Duration::from_secs(1),
            max_bytes: 16 << 20,
            max_changes: NonZeroUsize::MIN.saturating_add(16_383),
        }
    }
}

/// A file of instances as a source; a clone is another handle to the same.
///
/// ```
/// use orchestra_discovery::{FileSource, Scope, Source, source::file};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("instances.yaml");
/// std::fs::write(&path, "- {service: payments, endpoint: '10.0.0.7:8080', weight: 3}")?;
/// let source = FileSource::new(file::Config::new(path))?;
/// let members = source.snapshot(&Scope::All).await?;
/// assert_eq!(members.instances()[0].weight, 3);
/// assert_eq!(members.instances()[0].id.as_str(), "10.0.0.7:8080");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileSource(Arc<Poll<Reader>>);

impl FileSource {
    /// A source that reads the file when it is asked first; it is `Invalid` when the extension says neither
    /// YAML nor JSON.
    pub fn new(config: Config) -> Result<Self> {
        let Some(format) = Format::of(&config.path) else {
            let message = format!(
                "{} has none of the extensions yaml, yml and json",
                config.path.display()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        };
        let (interval, max_changes) = (config.interval, config.max_changes);
        let reader = Reader {
            format,
            config: Arc::new(config),
            last: Mutex::default(),
            revision: AtomicU64::new(first_revision().as_u64()),
        };
        Ok(Self(Arc::new(Poll::new(reader, interval, max_changes))))
    }
}

#[async_trait]
impl Source for FileSource {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let poll = Arc::clone(&self.0);
        Ok(Watch::new(PollWatch::new(poll, scope.clone(), after)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

struct Reader {
    config: Arc<Config>,
    format: Format,
    last: Mutex<Last>,
    revision: AtomicU64,
}

impl Read for Reader {
    async fn read(&self) -> Result<Reading> {
        let (config, format) = (Arc::clone(&self.config), self.format);
        let mut last = self.last.lock().clone();
        // A large file takes a while to read and to parse, a network file system longer.
        let looked = tokio::task::spawn_blocking(move || {
            let looked = look::look(&config, format, &mut last);
            (looked, last)
        });
        let (looked, last) = looked.await.map_err(|error| {
            let message = format!("reading {} was given up", self.config.path.display());
            Error::new(ErrorKind::Closed, message).with_source(error)
        })?;
        *self.last.lock() = last;
        let members = match looked? {
            Looked::Same => None,
            Looked::New(members) => Some(members),
        };
        Ok(Reading {
            members,
            fresh: self.config.interval,
        })
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.revision.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
