//! Connections, and what their failures mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Endpoint;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ErrorKind as Failure, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerErrorKind,
};

use super::Config;
use super::reply::Answer;
use super::script::{Keys, Script, Scripts};
use crate::error::{Error, ErrorKind, Result};

/// A connection, and the run of the server at its other end.
#[derive(Clone)]
pub(super) struct Line {
    connection: MultiplexedConnection,
    run: Arc<str>,
}

pub(super) struct Client {
    server: redis::Client,
    endpoint: Endpoint,
    pub(super) config: Config,
    keys: Keys,
    pub(super) scripts: Scripts,
    /// What all calls but those of watches share.
    line: tokio::sync::Mutex<Option<Line>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn address(endpoint: &Endpoint) -> Result<ConnectionAddr> {
    match endpoint {
        Endpoint::Tcp(address) => Ok(ConnectionAddr::Tcp(
            address.ip().to_string(),
            address.port(),
        )),
        Endpoint::Host { name, port } => Ok(ConnectionAddr::Tcp(name.to_string(), *port)),
        Endpoint::Unix(path) => Ok(ConnectionAddr::Unix(path.to_path_buf())),
        other => {
            let message = format!("redis cannot be reached at {other}");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

fn check(config: &Config) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    if (1..=128).contains(&config.prefix.len()) && config.prefix.bytes().all(plain) {
        return Ok(());
    }
    let message = "a prefix has 1 to 128 visible ascii characters and no braces";
    Err(Error::new(ErrorKind::Invalid, message))
}

impl Client {
    pub(super) fn new(endpoint: Endpoint, config: Config) -> Result<Self> {
        check(&config)?;
        let mut settings = RedisConnectionInfo::default().set_db(config.database.into());
        if let Some(credentials) = &config.credentials {
            settings = settings.set_password(&credentials.password);
            if let Some(user) = &credentials.user {
                settings = settings.set_username(user);
            }
        }
        let server = address(&endpoint)?
            .into_connection_info()
            .and_then(|info| redis::Client::open(info.set_redis_settings(settings)));
        let server = server.map_err(|error| {
            let message = format!("redis cannot be reached at {endpoint}");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })?;
        Ok(Self {
            server,
            endpoint,
            keys: Keys::new(&config),
            config,
            scripts: Scripts::new(),
            line: tokio::sync::Mutex::new(None),
        })
    }

    /// Runs an operation on the shared connection.
    pub(super) async fn call(&self, script: &Script, arguments: &[&str]) -> Result<Answer> {
        let result = self
            .timely(
                self.config.timeout,
                script.name(),
                self.attempt(script, arguments),
            )
            .await;
        // An answer that did not come may never come on this connection.
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Timeout)
            && let Ok(mut line) = self.line.try_lock()
        {
            *line = None;
        }
        result
    }

    async fn attempt(&self, script: &Script, arguments: &[&str]) -> Result<Answer> {
        let (line, fresh) = self.shared().await?;
        match self.run(&line, script, arguments).await {
            Err(error) if is_over(&error) => {
                self.forget(&line).await;
                if fresh || !error.is_unrecoverable_error() {
                    return Err(self.failure(script.name(), error));
                }
                let (line, _) = self.shared().await?;
                self.run(&line, script, arguments).await
            }
            result => result,
        }
        .map_err(|error| self.failure(script.name(), error))
    }

    /// The shared connection, and whether it was opened just now.
    async fn shared(&self) -> Result<(Line, bool)> {
        let mut shared = self.line.lock().await;
        if let Some(line) = &*shared {
            return Ok((line.clone(), false));
        }
        let line = self.open().await?;
        *shared = Some(line.clone());
        Ok((line, true))
    }

    async fn forget(&self, line: &Line) {
        let mut shared = self.line.lock().await;
        if shared
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(&held.run, &line.run))
        {
            *shared = None;
        }
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Line> {
        let limit = self.config.timeout;
        // The library's future is large.
        let connect = Box::pin(async {
            let settings = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None);
            let mut connection = self
                .server
                .get_multiplexed_async_connection_with_config(&settings)
                .await?;
            let mut about = redis::cmd("INFO");
            about.arg("server");
            let about: String = about.query_async(&mut connection).await?;
            Ok((connection, about))
        });
        let (connection, about) = self
            .timely(limit, "connect", async {
                connect
                    .await
                    .map_err(|error| self.failure("connect", error))
            })
            .await?;
        let run = about.lines().find_map(|line| line.strip_prefix("run_id:"));
        let Some(run) = run.map(str::trim).filter(|run| !run.is_empty()) else {
            let message = format!("redis at {} does not tell its run id", self.endpoint);
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let run = Arc::from(run);
        Ok(Line { connection, run })
    }

    /// Runs an operation on a connection of one's own.
    pub(super) async fn call_on(
        &self,
        line: &Line,
        script: &Script,
        arguments: &[&str],
    ) -> Result<Answer> {
        let run = async {
            let result = self.run(line, script, arguments).await;
            result.map_err(|error| self.failure(script.name(), error))
        };
        self.timely(self.config.timeout, script.name(), run).await
    }

    async fn run(
        &self,
        line: &Line,
        script: &Script,
        arguments: &[&str],
    ) -> Result<Answer, RedisError> {
        let mut connection = line.connection.clone();
        let mut invocation = script.invocation();
        invocation
            .key(self.keys.all())
            .arg(&*line.run)
            .arg(self.config.max_changes.get())
            .arg(arguments);
        // The library's future is large.
        Box::pin(invocation.invoke_async(&mut connection)).await
    }

    /// Waits until the log goes on after `after`, for so long.
    pub(super) async fn wait(&self, line: &Line, after: u64, limit: Duration) -> Result<()> {
        let mut connection = line.connection.clone();
        // Zero would be for ever.
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(millis);
        command
            .arg("STREAMS")
            .arg(self.keys.log())
            .arg(format!("{after}-0"));
        let read = async {
            let result: Result<redis::Value, _> = command.query_async(&mut connection).await;
            result
                .map(drop)
                .map_err(|error| self.failure("wait", error))
        };
        let limit = self.config.timeout.saturating_add(limit);
        self.timely(limit, "wait", read).await
    }

    async fn timely<T>(
        &self,
        limit: Duration,
        what: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(elapsed) => {
                let message = format!(
                    "no answer to {what} from redis at {} in {limit:?}",
                    self.endpoint
                );
                Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed))
            }
        }
    }

    fn failure(&self, what: &str, error: RedisError) -> Error {
        let message = format!("{what} failed at redis at {}", self.endpoint);
        Error::new(kind_of(&error), message).with_source(error)
    }
}

/// Whether the connection is of no more use: it is broken, or the server is not the one to ask any longer.
fn is_over(error: &RedisError) -> bool {
    let elsewhere = matches!(
        error.kind(),
        Failure::Server(
            ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::BusyLoading
        )
    );
    elsewhere || error.is_unrecoverable_error() || error.is_io_error()
}

fn kind_of(error: &RedisError) -> ErrorKind {
    match error.kind() {
        _ if error.is_timeout() => ErrorKind::Timeout,
        Failure::Io
        | Failure::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly,
        ) => ErrorKind::Unavailable,
        Failure::AuthenticationFailed | Failure::Server(ServerErrorKind::NoPerm) => {
            ErrorKind::Unauthorized
        }
        Failure::InvalidClientConfig => ErrorKind::Invalid,
        Failure::Server(
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
        ) => ErrorKind::Unsupported,
        _ => match error.code() {
            Some("NOAUTH" | "WRONGPASS") => ErrorKind::Unauthorized,
            Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS" | "UNKILLABLE") => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Protocol,
        },
    }
}
