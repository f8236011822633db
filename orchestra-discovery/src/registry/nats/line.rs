//! The connection, the two streams, and what failures mean.

use std::fmt;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MARKER_REASON, NATS_MESSAGE_TTL,
};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{ConnectErrorKind, ConnectOptions, HeaderMap, ServerAddr};
use bytes::Bytes;
use orchestra_core::{Endpoint, SystemWallClock, WallClock};

use super::message::Subjects;
use super::{Config, Credentials};
use crate::error::{Error, ErrorKind, Result};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The largest message: a registration with the most text takes a tenth of it.
const MAX_MESSAGE: i32 = 64 * 1024;
/// How long the server's mark of a lapsed lease stays.
const MARKER_TTL: Duration = Duration::from_secs(60);

/// A message that is in a stream.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    /// It stands for one that is gone.
    pub(super) is_marker: bool,
}

impl Message {
    /// As a consumer delivers it, with the number of those behind it.
    pub(super) fn delivered(message: &async_nats::jetstream::Message) -> Result<(Self, u64)> {
        let info = message
            .info()
            .map_err(|error| failed("number a message", ErrorKind::Protocol, error))?;
        let read = Self {
            subject: message.subject.to_string(),
            sequence: info.stream_sequence,
            payload: message.payload.clone(),
            is_marker: message.headers.as_ref().is_some_and(is_marker),
        };
        Ok((read, info.pending))
    }
}

/// The server's own marks have a reason, those of users of the bucket an operation.
fn is_marker(headers: &HeaderMap) -> bool {
    headers.get(NATS_MARKER_REASON).is_some() || headers.get("KV-Operation").is_some()
}

/// The streams behind the two buckets.
#[derive(Clone)]
pub(super) struct Line {
    client: async_nats::Client,
    context: Context,
    pub(super) log: Stream,
    pub(super) leases: Stream,
}

pub(super) struct Client {
    servers: Vec<ServerAddr>,
    pub(super) config: Config,
    pub(super) subjects: Subjects,
    line: tokio::sync::Mutex<Option<Line>>,
    /// Counts how often the connection was made or lost.
    pub(super) changes: tokio::sync::watch::Sender<u64>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("servers", &self.servers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn address(endpoint: &Endpoint) -> Result<ServerAddr> {
    let invalid = || {
        let message = format!("nats cannot be reached at {endpoint}");
        Error::new(ErrorKind::Invalid, message)
    };
    match endpoint {
        Endpoint::Tcp(_) | Endpoint::Host { .. } => format!("nats://{endpoint}")
            .parse()
            .map_err(|error: std::io::Error| invalid().with_source(error)),
        _ => Err(invalid()),
    }
}

fn check(config: &Config) -> Result<()> {
    let invalid = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=64).contains(&config.bucket.len()) || !config.bucket.bytes().all(plain) {
        return invalid("the name of a bucket has 1 to 64 letters, digits, `-` and `_`");
    }
    if !(1..=64).contains(&config.max_changes_per_key) {
        return invalid("1 to 64 changes of each key may be remembered");
    }
    if config.remember.is_zero() {
        return invalid("removals must be remembered for some time");
    }
    Ok(())
}

impl Client {
    pub(super) fn new(servers: impl IntoIterator<Item = Endpoint>, config: Config) -> Result<Self> {
        check(&config)?;
        let servers: Vec<_> = servers
            .into_iter()
            .map(|endpoint| address(&endpoint))
            .collect::<Result<_>>()?;
        if servers.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "no server of nats is named"));
        }
        Ok(Self {
            servers,
            subjects: Subjects::new(&config.bucket),
            config,
            line: tokio::sync::Mutex::new(None),
            changes: tokio::sync::watch::Sender::new(0),
        })
    }

    pub(super) async fn timely<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.config.timeout;
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(elapsed) => {
                let message = format!("nats did not {what} in {limit:?}");
                Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed))
            }
        }
    }

    /// The streams, which are made when they are not there.
    pub(super) async fn line(&self) -> Result<Line> {
        let mut held = self.line.lock().await;
        let line = if let Some(line) = &*held {
            line.clone()
        } else {
            // The library's futures are large, here and below.
            let line = Box::pin(self.open()).await?;
            held.insert(line).clone()
        };
        if line.client.connection_state() == State::Connected {
            return Ok(line);
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the connection to nats is lost",
        ))
    }

    /// The sequence of the last message, and how many keys there are.
    pub(super) async fn state(&self, line: &Line) -> Result<(u64, u64)> {
        match Box::pin(line.log.get_info()).await {
            Ok(info) => Ok((info.state.last_sequence, info.state.subjects_count)),
            Err(error) => {
                let error = failed("tell its state", ErrorKind::Unavailable, error);
                if error.kind() != ErrorKind::Timeout {
                    self.look_again().await;
                }
                Err(error)
            }
        }
    }

    /// Looks for the streams anew, which may be gone and are made again then.
    async fn look_again(&self) {
        if let Some(line) = &mut *self.line.lock().await {
            // The connection stays: it repairs itself.
            let made = Box::pin(self.streams(&line.client)).await;
            if let Ok((context, log, leases)) = made {
                (line.context, line.log, line.leases) = (context, log, leases);
            }
        }
    }

    async fn open(&self) -> Result<Line> {
        let changes = self.changes.clone();
        // Every call is bounded by ours; the library's own limit comes later, and not as a timeout everywhere.
        let limit = self.config.timeout.saturating_mul(2);
        let options = ConnectOptions::new()
            .name("orchestra-discovery")
            .connection_timeout(self.config.timeout)
            .request_timeout(Some(limit))
            .reconnect_delay_callback(|attempts| {
                let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
                (Duration::from_millis(50) * attempts.min(40)).max(Duration::from_millis(1))
            })
            .event_callback(move |event| {
                tracing::debug!(%event, "nats");
                if matches!(
                    event,
                    async_nats::Event::Connected | async_nats::Event::Disconnected
                ) {
                    changes.send_modify(|count| *count = count.wrapping_add(1));
                }
                std::future::ready(())
            });
        let options = match self.config.credentials.clone() {
            None => options,
            Some(Credentials::Token(token)) => options.token(token),
            Some(Credentials::User(user, password)) => options.user_and_password(user, password),
            Some(Credentials::File(text)) => options.credentials(&text).map_err(|error| {
                Error::new(ErrorKind::Invalid, "the credentials for nats make no sense")
                    .with_source(error)
            })?,
        };
        let client = options.connect(&*self.servers).await.map_err(|error| {
            let kind = match error.kind() {
                ConnectErrorKind::ServerParse | ConnectErrorKind::Tls => ErrorKind::Invalid,
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    ErrorKind::Unauthorized
                }
                ConnectErrorKind::TimedOut => ErrorKind::Timeout,
                ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
                    ErrorKind::Unavailable
                }
            };
            failed("connect", kind, error)
        })?;
        let (context, log, leases) = self.streams(&client).await?;
        Ok(Line {
            client,
            context,
            log,
            leases,
        })
    }

    async fn streams(&self, client: &async_nats::Client) -> Result<(Context, Stream, Stream)> {
        let mut context = async_nats::jetstream::new(client.clone());
        context.set_timeout(self.config.timeout.saturating_mul(2));
        let mut log = self.bucket("");
        log.max_messages_per_subject = self.config.max_changes_per_key.into();
        let mut leases = self.bucket("-leases");
        leases.max_messages_per_subject = 1;
        leases.subject_delete_marker_ttl = Some(MARKER_TTL);
        let log = stream(&context, log).await?;
        let leases = stream(&context, leases).await?;
        Ok((context, log, leases))
    }

    /// A stream as the key-value buckets of NATS have it.
    fn bucket(&self, suffix: &str) -> stream::Config {
        let name = format!("{}{suffix}", self.config.bucket);
        stream::Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            discard: stream::DiscardPolicy::New,
            max_bytes: -1,
            max_messages: -1,
            max_consumers: -1,
            max_message_size: MAX_MESSAGE,
            num_replicas: 1,
            deny_delete: true,
            allow_rollup: true,
            allow_direct: true,
            allow_message_ttl: true,
            first_sequence: Some(SystemWallClock.wall().as_unix_millis() << 20),
            ..stream::Config::default()
        }
    }

    /// The last message under a subject, as the leader has it.
    pub(super) async fn last(&self, stream: &Stream, subject: &str) -> Result<Option<Message>> {
        let read = Box::pin(stream.get_last_raw_message_by_subject(subject)).await;
        let error = match read {
            Ok(message) => {
                return Ok(Some(Message {
                    subject: message.subject.to_string(),
                    sequence: message.sequence,
                    is_marker: is_marker(&message.headers),
                    payload: message.payload,
                }));
            }
            Err(error) => error,
        };
        match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(refusal) => {
                let gone = refusal.error_code() == ErrorCode::STREAM_NOT_FOUND;
                if gone {
                    self.look_again().await;
                }
                Err(failed("read", kind_of(&refusal), error))
            }
            LastRawMessageErrorKind::InvalidSubject => {
                Err(failed("read", ErrorKind::Invalid, error))
            }
            LastRawMessageErrorKind::Other => Err(failed("read", ErrorKind::Unavailable, error)),
        }
    }

    /// Writes a message, if the last one under its subject has the sequence `expected`.
    ///
    /// Nothing when another writer came before.
    pub(super) async fn write(
        &self,
        line: &Line,
        subject: String,
        payload: &impl serde::Serialize,
        expected: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>> {
        let payload = serde_json::to_vec(payload).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the record cannot be written as json")
                .with_source(error)
        })?;
        let mut headers = HeaderMap::new();
        if let Some(expected) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        if let Some(ttl) = ttl {
            headers.insert(NATS_MESSAGE_TTL, whole_seconds(ttl).to_string());
        }
        let published = line
            .context
            .publish_with_headers(subject, headers, payload.into());
        let result = match Box::pin(published).await {
            Ok(stored) => Box::pin(stored.into_future()).await,
            Err(error) => Err(error),
        };
        let error = match result {
            Ok(stored) => return Ok(Some(stored.sequence)),
            Err(error) => error,
        };
        let kind = match error.kind() {
            PublishErrorKind::WrongLastSequence => return Ok(None),
            PublishErrorKind::StreamNotFound => {
                self.look_again().await;
                ErrorKind::Unavailable
            }
            PublishErrorKind::TimedOut => ErrorKind::Timeout,
            PublishErrorKind::MaxPayloadExceeded => ErrorKind::Invalid,
            PublishErrorKind::WrongLastMessageId => ErrorKind::Protocol,
            PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::Other => ErrorKind::Unavailable,
        };
        Err(failed("write", kind, error))
    }
}

/// The server knows whole seconds only.
fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

async fn stream(context: &Context, config: stream::Config) -> Result<Stream> {
    let error = match context.get_stream(&config.name).await {
        Ok(stream) => return suited(stream),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(refusal)
            if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
        GetStreamErrorKind::JetStream(refusal) => {
            return Err(failed("find a stream", kind_of(&refusal), error));
        }
        _ => return Err(failed("find a stream", ErrorKind::Unavailable, error)),
    }
    let name = config.name.clone();
    match context.create_stream(config).await {
        Ok(stream) => suited(stream),
        Err(error) => match error.kind() {
            // Somebody else made it just now, with another first number.
            CreateStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                let found = context
                    .get_stream(&name)
                    .await
                    .map_err(|error| failed("find a stream", ErrorKind::Unavailable, error))?;
                suited(found)
            }
            CreateStreamErrorKind::JetStream(refusal) => {
                Err(failed("make a stream", kind_of(&refusal), error))
            }
            CreateStreamErrorKind::TimedOut => {
                Err(failed("make a stream", ErrorKind::Timeout, error))
            }
            _ => Err(failed("make a stream", ErrorKind::Unavailable, error)),
        },
    }
}

/// A server that is too old ignores what it does not know.
fn suited(stream: Stream) -> Result<Stream> {
    let config = &stream.cached_info().config;
    if config.allow_message_ttl {
        return Ok(stream);
    }
    let message = format!("stream {} of nats lets no message have a ttl", config.name);
    Err(Error::new(ErrorKind::Unsupported, message))
}

fn kind_of(refusal: &async_nats::jetstream::Error) -> ErrorKind {
    match refusal.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            ErrorKind::Unsupported
        }
        ErrorCode::STREAM_NOT_FOUND => ErrorKind::Unavailable,
        _ if refusal.code() >= 500 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

/// An error of this kind; of a timeout if that is at the bottom of it.
pub(super) fn failed(what: &str, kind: ErrorKind, error: impl Into<Cause>) -> Error {
    let error = error.into();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    let mut late = false;
    while let Some(error) = cause {
        late |= error.is::<tokio::time::error::Elapsed>();
        cause = error.source();
    }
    let kind = match kind {
        ErrorKind::Unavailable if late => ErrorKind::Timeout,
        kind => kind,
    };
    Error::new(kind, format!("nats did not {what}")).with_source(error)
}
