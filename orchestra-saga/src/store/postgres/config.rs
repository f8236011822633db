use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::failure::failed;
use crate::error::{Error, ErrorKind, Result};

/// The longest name of a schema: what PostgreSQL keeps of a name.
const MAX_SCHEMA: usize = 63;

/// Where a [`PostgresStore`](super::PostgresStore) is, and how it uses it.
///
/// ```
/// use orchestra_saga::store::postgres::Config;
///
/// let config = Config::parse("postgres://app@127.0.0.1/shop")?.schema("shop_sagas")?;
/// assert!(Config::parse("postgres://app@127.0.0.1/shop")?.schema("Shop Sagas").is_err());
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(super) server: tokio_postgres::Config,
    pub(super) schema: String,
    pub(super) writers: NonZeroUsize,
    pub(super) readers: NonZeroUsize,
    pub(super) timeout: Duration,
}

/// Without the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.server.get_hosts())
            .field("dbname", &self.server.get_dbname())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// From a URL or a string of `key=value` pairs, as libpq has them.
    pub fn parse(text: &str) -> Result<Self> {
        let server = text.parse();
        let server = server.map_err(|source| failed("reading its address", source))?;
        Ok(Self::of(server))
    }

    /// From a configuration of the driver. Of several hosts the first is taken that accepts writes.
    pub fn of(server: tokio_postgres::Config) -> Self {
        Self {
            server,
            schema: "orchestra_saga".to_owned(),
            writers: NonZeroUsize::MIN.saturating_add(1),
            readers: NonZeroUsize::MIN,
            timeout: Duration::from_secs(10),
        }
    }

    /// The schema of the tables, `orchestra_saga` by default; stores of other schemas are other stores.
    /// At most 63 of `a-z 0-9 _`, not a digit first.
    pub fn schema(mut self, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !begins || name.len() > MAX_SCHEMA || !name.bytes().all(allowed) {
            let message = format!("{name:?} is not a name for the schema of a saga store");
            return Err(Error::new(ErrorKind::Store, message));
        }
        self.schema = name;
        Ok(self)
    }

    /// The connections that append, two by default: while one waits for the disk, the other collects.
    #[must_use]
    pub fn writers(mut self, connections: NonZeroUsize) -> Self {
        self.writers = connections;
        self
    }

    /// The connections that read logs, one by default. Two more serve everything else.
    #[must_use]
    pub fn readers(mut self, connections: NonZeroUsize) -> Self {
        self.readers = connections;
        self
    }

    /// How long an operation may take, reconnecting included; ten seconds by default.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit.max(Duration::from_millis(1));
        self
    }
}
