use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};

use super::line::{Client, Line, Message, failed};
use super::message::Record;
use super::store::skipped;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Incarnation;
use crate::source::{Change, RemovalReason, Revision, Scope, WatchEvent, WatchStream};

/// The most messages that are delivered at once.
const PAGE: usize = 256;

/// The two consumers of a watch.
struct Feed {
    line: Line,
    log: Ordered,
    leases: Ordered,
    connection: tokio::sync::watch::Receiver<u64>,
}

/// What was read: up to and with `upto`.
struct Page {
    upto: u64,
    changes: Vec<Change>,
}

/// What a step leaves: the consumers while they are sound, and the page, if the log goes on.
type Step = (Option<Box<Feed>>, Result<Option<Page>>);

pub(super) struct NatsWatch {
    client: Arc<Client>,
    scope: Scope,
    after: Revision,
    lost: bool,
    feed: Option<Box<Feed>>,
    /// A step that a caller stopped waiting for: it may have read something.
    pending: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
}

impl NatsWatch {
    pub(super) fn new(client: Arc<Client>, scope: Scope, after: Revision) -> Self {
        Self {
            client,
            scope,
            after,
            lost: false,
            feed: None,
            pending: None,
        }
    }

    async fn step(&mut self) -> Result<Option<Page>> {
        let pending = self.pending.get_or_insert_with(|| {
            let client = Arc::clone(&self.client);
            let (scope, after, feed) = (self.scope.clone(), self.after.as_u64(), self.feed.take());
            Box::pin(async move { step(&client, &scope, after, feed).await })
        });
        let (feed, page) = pending.await;
        self.pending = None;
        self.feed = feed;
        page
    }
}

async fn step(client: &Client, scope: &Scope, after: u64, feed: Option<Box<Feed>>) -> Step {
    let mut feed = match feed {
        Some(feed) => feed,
        None => match client
            .timely("watch", Box::pin(open(client, scope, after)))
            .await
        {
            Ok(Some(feed)) => feed,
            Ok(None) => return (None, Ok(None)),
            Err(error) => return (None, Err(error)),
        },
    };
    match read(client, scope, after, &mut feed).await {
        Ok(page) => (Some(feed), Ok(page)),
        Err(error) => (None, Err(error)),
    }
}

/// Begins after `after`; nothing when what follows is not all there.
async fn open(client: &Client, scope: &Scope, after: u64) -> Result<Option<Box<Feed>>> {
    let mut connection = client.changes.subscribe();
    connection.mark_unchanged();
    let line = client.line().await?;
    let (latest, _) = client.state(&line).await?;
    let Some(missing) = latest.checked_sub(after) else {
        return Ok(None);
    };
    let config = OrderedConfig {
        filter_subject: client.subjects.leases(scope),
        deliver_policy: DeliverPolicy::New,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let (leases, _) = consume(&line.leases, config).await?;
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: after.saturating_add(1),
        },
        ..OrderedConfig::default()
    };
    let (log, pending) = consume(&line.log, config).await?;
    // The numbers have no gaps but those of what was forgotten.
    if pending < missing {
        return Ok(None);
    }
    client.sweep(&line, scope).await?;
    Ok(Some(Box::new(Feed {
        line,
        log,
        leases,
        connection,
    })))
}

/// A consumer, and how many messages waited for it.
async fn consume(stream: &Stream, config: OrderedConfig) -> Result<(Ordered, u64)> {
    let unavailable = |error: async_nats::Error| failed("watch", ErrorKind::Unavailable, error);
    // The library's futures are large.
    let consumer = Box::pin(stream.create_consumer(config)).await;
    let consumer = consumer.map_err(|error| unavailable(error.into()))?;
    let pending = consumer.cached_info().num_pending;
    let messages = Box::pin(consumer.messages()).await;
    Ok((
        messages.map_err(|error| unavailable(error.into()))?,
        pending,
    ))
}

/// Waits for messages; a page without changes when there was something else to do.
async fn read(client: &Client, scope: &Scope, after: u64, feed: &mut Feed) -> Result<Option<Page>> {
    let nothing = Page {
        upto: after,
        changes: Vec::new(),
    };
    tokio::select! {
        _ = feed.connection.changed() => {
            let message = "the connection to nats was lost";
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        message = feed.log.next() => collect(client, scope, after, feed, message),
        message = feed.leases.next() => {
            let (message, _) = Message::delivered(&delivered(message)?)?;
            if message.is_marker && let Some(key) = client.subjects.parse_lease(&message.subject) {
                client.timely("remove", client.lapse(&feed.line, &key)).await?;
            }
            Ok(Some(nothing))
        }
        () = tokio::time::sleep(client.config.hold) => {
            let look = async {
                client.sweep(&feed.line, scope).await?;
                client.state(&feed.line).await
            };
            let (latest, _) = client.timely("look", look).await?;
            Ok((latest >= after).then_some(nothing))
        }
    }
}

type Delivered = Option<
    Result<async_nats::jetstream::Message, async_nats::jetstream::consumer::pull::OrderedError>,
>;

fn delivered(message: Delivered) -> Result<async_nats::jetstream::Message> {
    match message {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(failed("go on with a watch", ErrorKind::Unavailable, error)),
        None => Err(Error::new(ErrorKind::Unavailable, "nats ended a watch")),
    }
}

/// The first message, and those that are there already.
fn collect(
    client: &Client,
    scope: &Scope,
    after: u64,
    feed: &mut Feed,
    first: Delivered,
) -> Result<Option<Page>> {
    let mut page = Page {
        upto: after,
        changes: Vec::new(),
    };
    let mut next = Some(first);
    for _ in 0..PAGE {
        let Some(message) = next.take() else { break };
        let (message, _) = match delivered(message) {
            Ok(message) => Message::delivered(&message)?,
            // What was read before it counts; it will come again.
            Err(_) if page.upto > after => break,
            Err(error) => return Err(error),
        };
        if message.sequence > page.upto {
            if message.sequence - page.upto != 1 {
                return Ok(None);
            }
            page.upto = message.sequence;
            page.changes.extend(changes(client, scope, &message));
        }
        next = feed.log.next().now_or_never();
    }
    Ok(Some(page))
}

fn changes(client: &Client, scope: &Scope, message: &Message) -> Vec<Change> {
    // What is none of an instance is an override, which is told with the instance.
    let Some(key) = client.subjects.parse_instance(&message.subject) else {
        return Vec::new();
    };
    if !scope.covers(&key.service) {
        return Vec::new();
    }
    match Record::parse(&key, &message.payload) {
        Ok(record) => record.changes(&key, message.sequence),
        Err(reason) => {
            skipped(&message.subject, &reason);
            // Whatever was there before is there no longer.
            let upto = Incarnation::new(message.sequence);
            Record::gone(upto, RemovalReason::Deregistered).changes(&key, message.sequence)
        }
    }
}

#[async_trait]
impl WatchStream for NatsWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        while !self.lost {
            let Some(page) = self.step().await? else {
                self.lost = true;
                self.feed = None;
                break;
            };
            self.after = Revision::new(page.upto);
            if !page.changes.is_empty() {
                return Ok(WatchEvent::Changes {
                    revision: self.after,
                    changes: page.changes,
                });
            }
        }
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        self.after
    }
}
