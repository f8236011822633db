//! The participant: accounts behind a barrier, in a process of their own.
//!
//! A line of JSON is a request, and its answer is a line of JSON. Beside the books it keeps a record of all
//! calls, by which the campaign judges the barrier itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use orchestra_saga::barrier::sqlite::{Abort, Barrier, Barriered};
use orchestra_saga::{BarrierCall, Operation};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::child;
use crate::fuse::{Armed, Fuse};

/// The customers' accounts, and what is on each at first.
pub(crate) const CUSTOMERS: u8 = 8;
pub(crate) const ENDOWMENT: i64 = 1_000_000;
/// Accounts through which money only passes.
pub(crate) const TRANSIT: &str = "transit";
pub(crate) const FEES_DUE: &str = "fees due";
pub(crate) const HELD: &str = "held";
pub(crate) const FEES: &str = "fees";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS booking (
    saga TEXT NOT NULL, step TEXT NOT NULL, iteration INTEGER NOT NULL, op TEXT NOT NULL,
    debit TEXT NOT NULL, credit TEXT NOT NULL, amount INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS call (
    number INTEGER PRIMARY KEY, saga TEXT NOT NULL, step TEXT NOT NULL, iteration INTEGER NOT NULL,
    op TEXT NOT NULL, key TEXT NOT NULL, amount INTEGER NOT NULL, epoch INTEGER NOT NULL,
    highest INTEGER NOT NULL, verdict TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS call_saga ON call (saga);";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Die of this.
    Arm(Armed),
    Book(Order),
}

/// A movement of money; the other way round if it is a compensation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) amount: i64,
    pub(crate) whim: Option<Trouble>,
}

/// What the ledger is to do to the caller, who wants to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    Refuse,
    Busy,
    /// The order is on its way for so long that nobody waits for it any more.
    Late,
}

/// How long a late order is on its way.
pub(crate) const LATE: Duration = Duration::from_millis(150);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Armed,
    Done(i64),
    Null,
    Rejected(String),
    TooLate,
    Busy(String),
}

struct Ledger {
    db: Mutex<Connection>,
    fuse: Fuse,
}

pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("ledger.sock")
}

pub(crate) fn books(directory: &Path) -> Connection {
    let db = Connection::open(directory.join("ledger.db")).expect("opened");
    db.busy_timeout(Duration::from_secs(10)).expect("set");
    db.pragma_update(None, "journal_mode", "WAL").expect("set");
    db.pragma_update(None, "synchronous", "NORMAL")
        .expect("set");
    db
}

pub(crate) async fn run() {
    let directory: PathBuf = child::orders();
    let mut db = books(&directory);
    install(&mut db);
    let socket = socket(&directory);
    let _none = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("bound");
    println!("ledger is ready");
    let ledger = Arc::new(Ledger {
        db: Mutex::new(db),
        fuse: Fuse::default(),
    });
    let mut clients = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accepted");
        clients.spawn(serve(Arc::clone(&ledger), stream));
        while clients.try_join_next().is_some() {}
    }
}

fn install(db: &mut Connection) {
    Barrier::install(db).expect("installed");
    let tx = Barrier::begin(db).expect("begun");
    tx.execute_batch(SCHEMA).expect("created");
    let open = "INSERT OR IGNORE INTO account VALUES (?1, ?2)";
    for number in 0..CUSTOMERS {
        tx.execute(open, params![format!("customer {number}"), ENDOWMENT])
            .expect("opened");
    }
    for name in [TRANSIT, FEES_DUE, HELD, FEES] {
        tx.execute(open, params![name, 0]).expect("opened");
    }
    tx.commit().expect("committed");
}

async fn serve(ledger: Arc<Ledger>, stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // Who dies in the middle of a line has sent nothing.
    while let Ok(1..) = stream.read_line(&mut line).await {
        let Ok(request) = serde_json::from_str(&line) else {
            return;
        };
        if let Request::Book(Order {
            whim: Some(Trouble::Late),
            ..
        }) = &request
        {
            tokio::time::sleep(LATE).await;
        }
        let answer = ledger.answer(request);
        let mut text = serde_json::to_string(&answer).expect("JSON");
        text.push('\n');
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        if answer != Answer::Armed {
            ledger.fuse.at("after", "the answer");
        }
        line.clear();
    }
}

impl Ledger {
    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Arm(armed) => {
                self.fuse.arm(armed);
                Answer::Armed
            }
            Request::Book(order) if order.whim == Some(Trouble::Busy) => {
                Answer::Busy("as it was told".to_owned())
            }
            Request::Book(order) => self.book(&order),
        }
    }

    fn book(&self, order: &Order) -> Answer {
        self.fuse.at("before", "the transaction");
        let call = BarrierCall::from_headers(&headers(&order.headers)).expect("a call");
        let mut db = self.db.lock();
        let tx = match Barrier::begin(&mut db) {
            Ok(tx) => tx,
            Err(error) => return Answer::Busy(error.to_string()),
        };
        let answer = Barrier::run(&tx, &call, |tx| {
            if order.whim == Some(Trouble::Refuse) {
                return Err(Abort::rejected("declined"));
            }
            move_money(tx, &call, order)?;
            Ok(order.amount)
        });
        let answer = answer.expect("a verdict");
        record(&tx, &call, order, &answer);
        self.fuse.at("before", "the commit");
        tx.commit().expect("committed");
        self.fuse.at("after", "the commit");
        match answer {
            Barriered::Applied(amount) | Barriered::Replayed(amount) => Answer::Done(amount),
            Barriered::NullCompensation => Answer::Null,
            Barriered::Rejected(reason) => Answer::Rejected(reason),
            _ => Answer::TooLate,
        }
    }
}

fn headers(headers: &BTreeMap<String, String>) -> HeaderMap {
    let header = |(name, value): (&String, &String)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    };
    headers.iter().map(header).collect()
}

fn move_money(tx: &Connection, call: &BarrierCall, order: &Order) -> rusqlite::Result<()> {
    let (debit, credit) = match call.op {
        Operation::Compensation => (&order.to, &order.from),
        _ => (&order.from, &order.to),
    };
    let sql = "UPDATE account SET balance = balance + ?2 WHERE name = ?1";
    for (name, change) in [(debit, -order.amount), (credit, order.amount)] {
        let rows = tx.execute(sql, params![name, change])?;
        assert_eq!(rows, 1, "account {name} exists");
    }
    let sql = "INSERT INTO booking VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (saga, step) = (call.saga.to_string(), call.step.as_str());
    let op = call.op.as_str();
    tx.execute(
        sql,
        params![saga, step, call.iteration, op, debit, credit, order.amount],
    )?;
    Ok(())
}

/// Keeps the call and its verdict, and the highest epoch that this saga called with before.
fn record(tx: &Connection, call: &BarrierCall, order: &Order, answer: &Barriered<i64>) {
    let verdict = match answer {
        Barriered::Applied(_) => "applied",
        Barriered::Replayed(_) => "replayed",
        Barriered::Rejected(_) => "rejected",
        Barriered::NullCompensation => "null",
        Barriered::Tombstoned => "tombstoned",
        Barriered::Stale(_) => "stale",
        _ => "another",
    };
    let sql = "INSERT INTO call (saga, step, iteration, op, key, amount, epoch, highest, verdict)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ifnull(max(epoch), 0), ?8 FROM call WHERE saga = ?1";
    let values = params![
        call.saga.to_string(),
        call.step.as_str(),
        call.iteration,
        call.op.as_str(),
        call.key.to_string(),
        order.amount,
        i64::try_from(call.epoch.0).expect("small"),
        verdict,
    ];
    tx.execute(sql, values).expect("recorded");
}
