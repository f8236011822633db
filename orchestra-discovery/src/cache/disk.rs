//! The last good answers in a file, for a start with every source down.
//!
//! The file is one line of header (format, version, checksum, length) and one line per service: its name, a
//! tab, and JSON. A line is parsed when its service is asked for. It is written to a neighbour, synced and
//! renamed, so a crash leaves the old file or the new one; what is torn, foreign, of another version or too
//! large is ignored as a whole, and said so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::ServiceName;
use parking_lot::Mutex;

use super::config::Config;
use crate::event::{Event, Events};
use crate::instance::Instance;

const MAGIC: &str = "orchestra-discovery-cache 1";

/// How the file is kept.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_discovery::cache::{SourceOptions, disk};
/// use orchestra_discovery::{Cache, MemoryRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = disk::Options::default();
/// options.debounce = Duration::from_secs(5);
/// let path = std::env::temp_dir().join("orchestra-cache-of-an-example");
/// let cache = Cache::builder()
///     .source("registry", Arc::new(MemoryRegistry::default()), SourceOptions::default())
///     .disk(path, options)
///     .build()?;
/// cache.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// It is written at most this often.
    pub debounce: Duration,
    /// A larger file is neither read nor written.
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debounce: Duration::from_secs(1),
            max_bytes: 64 << 20,
        }
    }
}

/// What one source said, as it is kept.
type Part = (Arc<str>, Vec<Arc<Instance>>);
/// The members of services by source.
pub(super) type Services = Vec<(ServiceName, Vec<Part>)>;
/// Lines that nobody has asked for yet.
pub(super) type Lines = HashMap<ServiceName, Arc<str>>;

#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    options: Options,
    lines: Mutex<Lines>,
}

impl Disk {
    /// Reads what is there, up to as many services as the cache may hold.
    pub(super) fn open(path: PathBuf, options: Options, config: &Config, events: &Events) -> Self {
        let most = config.max_services.get();
        let lines = match read(&path, options.max_bytes, most) {
            Ok(lines) => {
                let services = lines.len();
                events.emit(&Event::DiskLoaded { services });
                lines
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lines::new(),
            Err(error) => {
                let reason = format!("{}: {error}", path.display());
                tracing::warn!(%reason, "the cache file is ignored");
                events.emit(&Event::DiskIgnored { reason });
                Lines::new()
            }
        };
        Self {
            path,
            options,
            lines: Mutex::new(lines),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn debounce(&self) -> Duration {
        self.options.debounce
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// The lines that nobody has asked for: they are written again.
    pub(super) fn kept(&self) -> Lines {
        self.lines.lock().clone()
    }

    /// What the file says of a service, once.
    pub(super) fn take(&self, service: &ServiceName) -> Result<Vec<Part>, String> {
        let line = self.lines.lock().remove(service);
        line.map_or(Ok(Vec::new()), |line| {
            serde_json::from_str(&line).map_err(|error| format!("service {service}: {error}"))
        })
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read(path: &Path, max_bytes: u64, most: usize) -> io::Result<Lines> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(broken("not a regular file"));
    }
    let mut text = String::new();
    let limit = max_bytes.saturating_add(1);
    file.take(limit).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(broken("too large"));
    }
    let body = checked(&text).ok_or_else(|| broken("torn, foreign or of another version"))?;
    let lines = body.lines().filter_map(|line| {
        let (service, json) = line.split_once('\t')?;
        Some((service.parse().ok()?, Arc::from(json)))
    });
    Ok(lines.take(most).collect())
}

/// The body, if the header is ours and true.
fn checked(text: &str) -> Option<&str> {
    let (header, body) = text.split_once('\n')?;
    (header == self::header(body)).then_some(body)
}

fn header(body: &str) -> String {
    format!("{MAGIC} {:016x} {}", checksum(body.as_bytes()), body.len())
}

/// FNV-1a over words of eight bytes: against tearing, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    rest.iter()
        .fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

/// Replaces the file; on failure the old one stays.
pub(super) fn write(
    path: &Path,
    services: &Services,
    kept: Lines,
    max_bytes: u64,
) -> io::Result<()> {
    let mut body = String::new();
    let mut line = |service: &ServiceName, json: &str| writeln!(body, "{service}\t{json}");
    for (service, parts) in services {
        line(service, &serde_json::to_string(parts)?).map_err(io::Error::other)?;
    }
    for (service, json) in kept {
        line(&service, &json).map_err(io::Error::other)?;
    }
    let header = header(&body);
    if (header.len() + 1 + body.len()) as u64 > max_bytes {
        return Err(broken("too large to be written"));
    }
    let new = neighbour(path);
    let replaced = put(&new, &header, &body).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // The reason for the failure is what the caller needs, not that of the tidying.
        let _unlinked = fs::remove_file(&new);
    }
    replaced?;
    match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn neighbour(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn put(path: &Path, header: &str, body: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(header.as_bytes())?;
    file.write_all(b"\n")?;
    file.write_all(body.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
