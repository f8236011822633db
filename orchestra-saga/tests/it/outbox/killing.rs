//! `kill -9` of a real relay process on a real file, again and again.
//!
//! The child is this test binary, run for `the_relay_that_is_killed` alone. It sends from an SQLite file
//! to a file of lines. The parent writes messages in the meantime and kills it at random moments.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_saga::outbox::sqlite::{Inbox, Outbox};
use orchestra_saga::outbox::{Backlog, Batch, Message, MessageId, Publisher, Relay};
use orchestra_saga::{Error, ErrorKind, Result};
use orchestra_testkit::Process;
use rusqlite::Connection;

const DIRECTORY: &str = "ORCHESTRA_OUTBOX_KILL_DIRECTORY";
const ROUNDS: u32 = 12;
const KEYS: u32 = 5;
/// Messages of each key that are written in a round.
const EACH: u32 = 12;

/// A broker that is a file: a line for each message, whole or not at all.
#[derive(Debug)]
struct Lines(PathBuf);

#[async_trait]
impl Publisher for Lines {
    async fn publish(&self, message: &Message) -> Result<()> {
        // So that a kill finds it at work.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let line = format!("{} {}\n", message.key(), message.id());
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|source| Error::new(ErrorKind::Unavailable, "no file").caused_by(source))
    }

    fn deduplicates(&self) -> bool {
        false
    }
}

async fn relay(directory: &Path) -> (Relay, Outbox) {
    let outbox = Outbox::open(directory.join("service.db"))
        .await
        .expect("opened");
    let mut batch = Batch::new("relay");
    // A relay that was killed keeps its keys for that long.
    (batch.term, batch.messages) = (Duration::from_millis(200), 7);
    let lines = Lines(directory.join("lines"));
    let relay = Relay::builder(outbox.clone(), lines)
        .batch(batch)
        .poll(Duration::from_millis(2))
        .start();
    (relay, outbox)
}

#[tokio::test]
#[ignore = "the body of the child process of the kill test, which runs it by name"]
async fn the_relay_that_is_killed() {
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("a directory"));
    let (_relay, _outbox) = relay(&directory).await;
    std::future::pending::<()>().await;
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args([
            "--exact",
            "outbox::killing::the_relay_that_is_killed",
            "--ignored",
        ])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn child(directory: &Path) -> Child {
    command(directory).spawn().expect("a child")
}

/// The service's own connection.
fn service(directory: &Path) -> Connection {
    let db = Connection::open(directory.join("service.db")).expect("opened");
    db.busy_timeout(Duration::from_secs(10)).expect("set");
    db.pragma_update(None, "journal_mode", "WAL").expect("set");
    db.pragma_update(None, "synchronous", "OFF").expect("set");
    Outbox::install(&db).expect("installed");
    db
}

/// Waits until nothing is left to send.
async fn drained(db: &Connection) {
    let empty = || -> bool {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM orchestra_outbox_message)";
        db.query_row(sql, [], |row| row.get(0)).expect("asked")
    };
    let drained = tokio::time::timeout(Duration::from_secs(30), async {
        while !empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    drained.await.expect("all is sent");
}

fn write(db: &mut Connection, round: u32) {
    for number in round * EACH..(round + 1) * EACH {
        let tx = db.transaction().expect("begun");
        let messages: Vec<_> = (0..KEYS)
            .map(|key| {
                let id = MessageId::new(format!("k{key}-{number:04}")).expect("valid");
                let message = Message::new("topic", format!("k{key}"), "x");
                message.expect("valid").with_id(id)
            })
            .collect();
        Outbox::add(&tx, &messages).expect("written");
        tx.commit().expect("committed");
    }
}

/// The lines, which are whole: a file that is opened to append takes a short line at once.
fn lines(directory: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(directory.join("lines")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let (key, id) = line.split_once(' ').expect("a line");
            (key.to_owned(), id.to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_relay_loses_and_reorders_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let mut db = service(path);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut cut = 0;
    for round in 0..ROUNDS {
        let mut relay = child(path);
        let before = lines(path).len();
        write(&mut db, round);
        // From the first line on, anywhere.
        let begun = tokio::time::timeout(Duration::from_secs(20), async {
            while lines(path).len() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(
            begun.await.is_ok(),
            "the relay of round {round} sends nothing"
        );
        tokio::time::sleep(Duration::from_micros(rng.u64(0..6_000))).await;
        relay.kill().expect("killed");
        relay.wait().expect("reaped");
        let left: u32 = db
            .query_row("SELECT count(*) FROM orchestra_outbox_message", [], |row| {
                row.get(0)
            })
            .expect("counted");
        cut += u32::from(left > 0);
    }
    assert!(cut >= ROUNDS / 2, "only {cut} kills hit a relay at work");
    let (relay, outbox) = relay(path).await;
    drained(&db).await;
    relay.shutdown().await;
    assert_eq!(outbox.parked(10).await.expect("listed"), []);
    check(path, ROUNDS * EACH);
}

/// Every message came, those of a key in their order; whoever drops repetitions has each once.
fn check(path: &Path, each: u32) {
    let lines = lines(path);
    let mut consumer = Connection::open_in_memory().expect("opened");
    Inbox::install(&consumer).expect("installed");
    let mut first: HashMap<String, Vec<String>> = HashMap::new();
    for (key, id) in &lines {
        let tx = consumer.transaction().expect("begun");
        if Inbox::accept(&tx, "test", &MessageId::new(id).expect("valid")).expect("asked") {
            first.entry(key.clone()).or_default().push(id.clone());
        }
        tx.commit().expect("committed");
    }
    for key in 0..KEYS {
        let wanted: Vec<_> = (0..each)
            .map(|number| format!("k{key}-{number:04}"))
            .collect();
        assert_eq!(first[&format!("k{key}")], wanted);
    }
}

/// Freezes it, but not inside a transaction: nobody could write to the file until it is woken.
async fn freeze(relay: &Process, directory: &Path) {
    let probe = Connection::open(directory.join("service.db")).expect("opened");
    probe.busy_timeout(Duration::from_millis(20)).expect("set");
    loop {
        relay.pause().expect("paused");
        // The signal takes a moment to reach every thread.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if probe.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return;
        }
        relay.resume().expect("resumed");
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_frozen_beyond_its_term_reorders_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let mut db = service(path);
    let frozen = Process::spawn(command(path)).expect("a child");
    for round in 0..ROUNDS {
        let before = lines(path).len();
        write(&mut db, round);
        let begun = tokio::time::timeout(Duration::from_secs(20), async {
            while lines(path).len() == before {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
        assert!(
            begun.await.is_ok(),
            "the relay sends nothing in round {round}"
        );
        freeze(&frozen, path).await;
        // Another takes over when the term is over, and then the first wakes up.
        let (other, _outbox) = relay(path).await;
        drained(&db).await;
        other.shutdown().await;
        frozen.resume().expect("resumed");
    }
    frozen.kill().expect("killed");
    check(path, ROUNDS * EACH);
}
