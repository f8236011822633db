//! The outbox and the inbox in a real PostgreSQL, and messages to a real NATS.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, consumer::DeliverPolicy, stream};
use async_trait::async_trait;
use futures_util::StreamExt;
use orchestra_core::Timestamp;
use orchestra_saga::outbox::conformance::{Published, Reader, Writer, Written};
use orchestra_saga::outbox::postgres::{Inbox, Outbox};
use orchestra_saga::outbox::{Backlog, Batch, Message, MessageId, Publisher, Relay, memory, nats};
use orchestra_saga::{ErrorKind, Result, outbox_backlog_suite, publisher_suite};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::schema::Schema;
use crate::variable;

/// A service that writes messages.
#[derive(Debug)]
struct Service(tokio::sync::Mutex<Client>);

impl Service {
    async fn new(schema: &mut Schema) -> Self {
        let db = schema.connect().await;
        Outbox::install(&db).await.unwrap();
        Self(tokio::sync::Mutex::new(db))
    }
}

#[async_trait]
impl Writer for Service {
    async fn write(&self, messages: &[Message]) -> Result<()> {
        let mut db = self.0.lock().await;
        let tx = db.transaction().await.unwrap();
        Outbox::add(&tx, messages).await?;
        tx.commit().await.unwrap();
        Ok(())
    }
}

mod postgres_backlog {
    use super::{Outbox, Schema, Service, Written, outbox_backlog_suite};

    outbox_backlog_suite!(|| async {
        let mut schema = Schema::fresh().await;
        let service = Service::new(&mut schema).await;
        let outbox = Outbox::connect(schema.config.clone());
        (Written::new(outbox, service), schema)
    });
}

fn message(key: &str, number: u32) -> Message {
    let id = MessageId::new(format!("{key}-{number:05}")).unwrap();
    Message::new("topic", key, "x").unwrap().with_id(id)
}

fn batch(term: Duration) -> Batch {
    let mut batch = Batch::new("live");
    (batch.term, batch.lanes, batch.messages) = (term, 3, 4);
    batch
}

/// Notices when two messages of a key are on the way at once.
#[derive(Debug, Clone, Default)]
struct Broker {
    /// Keys of which two messages were on the way at once.
    collided: Arc<Mutex<Vec<String>>>,
    flying: Arc<Mutex<HashSet<String>>>,
    taken: Arc<Mutex<Vec<Message>>>,
}

impl Broker {
    fn count(&self) -> usize {
        self.taken.lock().len()
    }

    fn first(&self) -> BTreeMap<String, Vec<String>> {
        assert_eq!(*self.collided.lock(), [""; 0]);
        let mut seen = HashSet::new();
        let mut first: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in &*self.taken.lock() {
            if seen.insert(message.id().clone()) {
                let ids = first.entry(message.key().to_owned()).or_default();
                ids.push(message.id().to_string());
            }
        }
        first
    }
}

struct Flight<'a>(&'a Broker, &'a str);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.flying.lock().remove(self.1);
    }
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, message: &Message) -> Result<()> {
        let alone = self.flying.lock().insert(message.key().to_owned());
        if !alone {
            self.collided.lock().push(message.key().to_owned());
        }
        let _flight = Flight(self, message.key());
        tokio::time::sleep(Duration::from_micros(500)).await;
        self.taken.lock().push(message.clone());
        Ok(())
    }

    fn deduplicates(&self) -> bool {
        false
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let limit = Duration::from_secs(60);
    assert!(
        tokio::time::timeout(limit, waiting).await.is_ok(),
        "never: {what}"
    );
}

fn relay(schema: &Schema, broker: &Broker, term: Duration) -> Relay {
    Relay::builder(Outbox::connect(schema.config.clone()), broker.clone())
        .batch(batch(term))
        .poll(Duration::from_millis(5))
        .start()
}

const KEYS: u32 = 6;
const EACH: u32 = 40;

fn whole(writers: u32) -> BTreeMap<String, usize> {
    let count = usize::try_from(writers * EACH).unwrap();
    (0..KEYS).map(|key| (format!("k{key}"), count)).collect()
}

/// Several writers of the same keys, each holding its transactions open for a while.
async fn writers(schema: &mut Schema, count: u32) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    let order =
        "CREATE TABLE written (place BIGINT GENERATED ALWAYS AS IDENTITY, key TEXT, id TEXT)";
    schema.connect().await.batch_execute(order).await.unwrap();
    for writer in 0..count {
        let mut db = schema.connect().await;
        writers.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(u64::from(writer));
            for number in 0..EACH {
                for key in 0..KEYS {
                    let key = format!("k{key}");
                    let message = message(&key, writer * 1_000 + number);
                    let tx = db.transaction().await.unwrap();
                    Outbox::add(&tx, std::slice::from_ref(&message))
                        .await
                        .unwrap();
                    // Drawn under the lock of the key, so it is the order of the commits.
                    let sql = "INSERT INTO written (key, id) VALUES ($1, $2)";
                    tx.execute(sql, &[&key, &message.id().as_str()])
                        .await
                        .unwrap();
                    tokio::time::sleep(Duration::from_micros(rng.u64(0..2_000))).await;
                    tx.commit().await.unwrap();
                }
            }
        });
    }
    writers
}

async fn in_order_of_commit(schema: &mut Schema) -> BTreeMap<String, Vec<String>> {
    let db = schema.connect().await;
    let rows = db
        .query("SELECT key, id FROM written ORDER BY place", &[])
        .await
        .unwrap();
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        wanted.entry(row.get(0)).or_default().push(row.get(1));
    }
    wanted
}

async fn rows(schema: &mut Schema, table: &str) -> i64 {
    let db = schema.connect().await;
    let sql = format!("SELECT count(*) FROM orchestra_outbox_{table}");
    db.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_beside_writers_send_each_message_once_in_the_order_of_commits() {
    let mut schema = Schema::fresh().await;
    Service::new(&mut schema).await;
    let broker = Broker::default();
    let relays: Vec<_> = (0..3)
        .map(|_| relay(&schema, &broker, Duration::from_secs(30)))
        .collect();
    writers(&mut schema, 4).await.join_all().await;
    let all = usize::try_from(4 * KEYS * EACH).unwrap();
    until("all", || broker.count() >= all).await;
    // A key whose writer held it at the last moment is forgotten in the next round.
    for _ in 0..200 {
        if rows(&mut schema, "lane").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for relay in relays {
        relay.shutdown().await;
    }
    assert_eq!(broker.count(), all, "something was sent twice");
    assert_eq!(broker.first(), in_order_of_commit(&mut schema).await);
    let counts: BTreeMap<_, _> = broker
        .first()
        .into_iter()
        .map(|(key, ids)| (key, ids.len()))
        .collect();
    assert_eq!(counts, whole(4));
    assert_eq!(rows(&mut schema, "message").await, 0);
    assert_eq!(
        rows(&mut schema, "lane").await,
        0,
        "keys are forgotten with their messages"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_die_beside_writers_lose_and_reorder_nothing() {
    let mut schema = Schema::fresh().await;
    Service::new(&mut schema).await;
    let broker = Broker::default();
    let term = Duration::from_millis(400);
    let mut writing = writers(&mut schema, 3).await;
    let mut deaths = 0;
    while !writing.is_empty() {
        let dying = relay(&schema, &broker, term);
        tokio::time::sleep(Duration::from_millis(60)).await;
        drop(dying);
        deaths += 1;
        while writing.try_join_next().is_some() {}
    }
    let last = relay(&schema, &broker, term);
    let all = usize::try_from(3 * KEYS * EACH).unwrap();
    until("all", || broker.first().values().flatten().count() >= all).await;
    last.shutdown().await;
    assert!(deaths > 3, "{deaths} relays died");
    assert_eq!(broker.first(), in_order_of_commit(&mut schema).await);
}

#[tokio::test]
async fn an_open_transaction_keeps_no_relay_from_what_was_committed_before() {
    let mut schema = Schema::fresh().await;
    let service = Service::new(&mut schema).await;
    service
        .write(&[message("k", 1), message("k", 2)])
        .await
        .unwrap();
    let mut other = schema.connect().await;
    let tx = other.transaction().await.unwrap();
    Outbox::add(&tx, &[message("k", 3)]).await.unwrap();
    let broker = Broker::default();
    let relay = relay(&schema, &broker, Duration::from_secs(30));
    until("the first two", || broker.count() == 2).await;
    // The key has a writer, so its row stays, and what is committed now is found.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tx.commit().await.unwrap();
    until("the third", || broker.count() == 3).await;
    relay.shutdown().await;
    assert_eq!(broker.first()["k"], ["k-00001", "k-00002", "k-00003"]);
}

#[tokio::test]
async fn a_relay_outlives_its_connection() {
    let mut schema = Schema::fresh().await;
    let service = Service::new(&mut schema).await;
    let broker = Broker::default();
    schema.config.application_name("outbox_relay");
    let relay = relay(&schema, &broker, Duration::from_secs(30));
    for number in 0..3 {
        service.write(&[message("k", number)]).await.unwrap();
        let count = usize::try_from(number).unwrap() + 1;
        until("sent", || broker.count() == count).await;
        let db = schema.connect().await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'outbox_relay' AND pid <> pg_backend_pid()
                   AND query LIKE '%orchestra_outbox%'";
        db.batch_execute(sql).await.unwrap();
    }
    relay.shutdown().await;
}

async fn accept(db: &mut Client, text: &str, holds: Duration, commits: bool) -> bool {
    let tx = db.transaction().await.unwrap();
    let id = MessageId::new(text).unwrap();
    let is_new = Inbox::accept(&tx, "mailer", &id).await.unwrap();
    tokio::time::sleep(holds).await;
    if commits {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    is_new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_deliveries_at_once_one_is_new() {
    let mut schema = Schema::fresh().await;
    let db = schema.connect().await;
    Inbox::install(&db).await.unwrap();
    let mut deliveries = JoinSet::new();
    for number in 0..8_u64 {
        let mut db = schema.connect().await;
        deliveries.spawn(async move {
            // Those that roll back had no effect.
            accept(
                &mut db,
                "m-1",
                Duration::from_millis(number),
                number % 2 == 0,
            )
            .await
                && number % 2 == 0
        });
    }
    let new = deliveries.join_all().await;
    assert_eq!(new.iter().filter(|new| **new).count(), 1);
    let mut db = db;
    assert!(accept(&mut db, "m-2", Duration::ZERO, true).await);
    let never = Timestamp::UNIX_EPOCH;
    let ever = Timestamp::from_unix_nanos(4_000_000_000 * 1_000_000_000);
    assert_eq!(Inbox::prune(&db, never, 10).await.unwrap(), 0);
    assert_eq!(Inbox::prune(&db, ever, 1).await.unwrap(), 1);
    assert_eq!(Inbox::prune(&db, ever, 10).await.unwrap(), 1);
    assert!(accept(&mut db, "m-1", Duration::ZERO, true).await);
}

/// A stream of one's own, and what is in it.
#[derive(Debug, Clone)]
struct Stream {
    context: jetstream::Context,
    name: String,
}

impl Stream {
    async fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outbox-{}-{number}", std::process::id());
        let client = async_nats::connect(variable("ORCH_TEST_NATS"))
            .await
            .unwrap();
        let context = jetstream::new(client);
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            storage: stream::StorageType::Memory,
            ..stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
        Self { context, name }
    }

    fn topic(&self) -> String {
        format!("{}.orders", self.name)
    }
}

#[async_trait]
impl Reader for Stream {
    async fn read(&self, count: usize) -> Result<Vec<Message>> {
        let stream = self.context.get_stream(&self.name).await.unwrap();
        let config = jetstream::consumer::pull::OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut read = Vec::new();
        while read.len() < count {
            let next = tokio::time::timeout(Duration::from_millis(500), messages.next()).await;
            let Ok(Some(next)) = next else {
                break;
            };
            let next = next.unwrap();
            let headers = next.headers.clone().unwrap_or_default();
            read.push(nats::Publisher::read(
                &next.subject,
                &headers,
                next.payload.clone(),
            )?);
        }
        Ok(read)
    }
}

mod nats_publisher {
    use super::{Published, Stream, nats, publisher_suite};

    publisher_suite!(|| async {
        let stream = Stream::fresh().await;
        let publisher = nats::Publisher::new(stream.context.clone());
        (Published::new(stream.topic(), publisher, stream), ())
    });
}

#[tokio::test]
async fn nats_says_whose_fault_it_is() {
    let stream = Stream::fresh().await;
    let publisher = nats::Publisher::new(stream.context.clone());
    let kind = |message: Message| {
        let publisher = publisher.clone();
        async move { publisher.publish(&message).await.unwrap_err().kind() }
    };
    let nowhere = Message::new("no.such.stream", "k", "x").unwrap();
    assert_eq!(kind(nowhere).await, ErrorKind::Undelivered);
    let large = Message::new(stream.topic(), "k", vec![0; 2 << 20]).unwrap();
    assert_eq!(kind(large).await, ErrorKind::InvalidMessage);
    let sly = Message::new(stream.topic(), "k", "x").unwrap();
    let sly = sly.header("Nats-Expected-Last-Sequence", "9").unwrap();
    assert_eq!(kind(sly).await, ErrorKind::InvalidMessage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_from_postgres_to_nats_once_and_in_order() {
    let mut schema = Schema::fresh().await;
    let service = Service::new(&mut schema).await;
    let stream = Stream::fresh().await;
    let mut written = Vec::new();
    for number in 0..200 {
        let key = format!("k{}", number % 7);
        let id = MessageId::new(format!("m-{number:03}")).unwrap();
        written.push(Message::new(stream.topic(), key, "x").unwrap().with_id(id));
    }
    service.write(&written).await.unwrap();
    for _ in 0..20 {
        let publisher = nats::Publisher::new(stream.context.clone());
        let relay = Relay::builder(Outbox::connect(schema.config.clone()), publisher)
            .batch(batch(Duration::from_millis(100)))
            .poll(Duration::from_millis(5))
            .start();
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(relay);
    }
    let publisher = nats::Publisher::new(stream.context.clone());
    let relay = Relay::builder(Outbox::connect(schema.config.clone()), publisher).start();
    while rows(&mut schema, "message").await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    relay.shutdown().await;
    let read = stream.read(300).await.unwrap();
    let by_key = |messages: &[Message]| {
        let mut sorted = messages.to_vec();
        sorted.sort_by(|a, b| a.key().cmp(b.key()));
        sorted
    };
    assert_eq!(by_key(&read), by_key(&written));
}

/// A backlog that needs no database, beside one that does: the same relay.
#[tokio::test]
async fn messages_go_from_memory_to_nats() {
    let stream = Stream::fresh().await;
    let outbox = memory::Outbox::default();
    let wanted = Message::new(stream.topic(), "k", "x").unwrap();
    outbox.add(std::slice::from_ref(&wanted)).unwrap();
    let relay =
        Relay::builder(outbox.clone(), nats::Publisher::new(stream.context.clone())).start();
    until("sent", || outbox.is_empty()).await;
    relay.shutdown().await;
    assert_eq!(stream.read(2).await.unwrap(), [wanted]);
    assert!(outbox.parked(1).await.unwrap().is_empty());
}
