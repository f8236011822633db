//! Whether nothing was lost, doubled or left hanging.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use orchestra_core::Timestamp;
use orchestra_saga::{
    Entry, Epoch, Event, Filter, Partition, Position, SagaId, SagaStore, Status, Summary, Version,
};
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::ledger::{self, CUSTOMERS, ENDOWMENT, FEES};
use crate::sagas::{FEE, Order, TRANSFER, movements};
use crate::store::{Kind, Opened};
use crate::tally::Tally;
use crate::worker;

type Acknowledged = BTreeMap<(u64, u64), SagaId>;

/// How often a step of an iteration was done, and undone.
type Bookings = HashMap<(String, i64), (i64, i64)>;

/// The faults that are found.
pub(crate) async fn judge(
    kind: Kind,
    directory: &Path,
    acknowledged: &Acknowledged,
    tally: &Mutex<Tally>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let opened = match Opened::open(kind, directory).await {
        Ok(opened) => opened,
        Err(error) => return vec![format!("the store cannot be opened: {error}")],
    };
    let store = opened.store();
    let sagas = list(&*store).await;
    judge_starts(&*store, &sagas, acknowledged, &mut faults).await;
    judge_timers(&*store, &mut faults).await;
    judge_stream(&*store, &sagas, &mut faults).await;
    let books = ledger::books(directory);
    let mut bookings = bookings(&books);
    let mut paid: BTreeMap<String, i64> = BTreeMap::new();
    for summary in &sagas {
        let own = bookings.remove(&summary.saga.to_string());
        let own = own.unwrap_or_default();
        let Some(order) = judge_log(&*store, summary, &mut faults).await else {
            continue;
        };
        judge_bookings(summary, &order, &own, &mut faults);
        if summary.status == Status::Completed {
            let fee = if summary.definition.as_ref() == TRANSFER {
                FEE
            } else {
                0
            };
            *paid.entry(order.payer()).or_default() -= order.amount + fee;
            *paid.entry(order.payee()).or_default() += order.amount;
            *paid.entry(FEES.to_owned()).or_default() += fee;
        }
    }
    for saga in bookings.keys() {
        faults.push(format!("saga {saga} is lost, and its bookings are not"));
    }
    judge_money(&books, &paid, &mut faults);
    judge_barrier(&books, &mut faults);
    opened.close().await;
    let count = |status| sagas.iter().filter(|saga| saga.status == status).count() as u64;
    let mut tally = tally.lock();
    tally.completed += count(Status::Completed);
    tally.compensated += count(Status::Compensated);
    for (verdict, calls) in rows(&books, "SELECT verdict, count(*) FROM call GROUP BY 1") {
        *tally.calls.entry(verdict).or_default() += u64::try_from(calls).expect("a count");
    }
    faults
}

async fn list(store: &dyn SagaStore) -> Vec<Summary> {
    let mut sagas: Vec<Summary> = Vec::new();
    loop {
        let after = sagas.last().map(|last| last.saga);
        let filter = Filter::default().after(after).limit(1_000);
        let page = store.list(&filter).await.expect("listed");
        if page.is_empty() {
            return sagas;
        }
        sagas.extend(page);
    }
}

/// Nothing that was acknowledged is lost, and a key has one saga.
async fn judge_starts(
    store: &dyn SagaStore,
    sagas: &[Summary],
    acknowledged: &Acknowledged,
    faults: &mut Vec<String>,
) {
    let known: HashSet<_> = sagas.iter().map(|summary| summary.saga).collect();
    for (&(slot, number), saga) in acknowledged {
        if !known.contains(saga) {
            faults.push(format!("start {slot}-{number} of saga {saga} is lost"));
        }
        let key = worker::key(slot, number);
        let found = store.find_start(&key).await.expect("read");
        if found != Some(*saga) {
            faults.push(format!(
                "start {slot}-{number} is {saga}, but found {found:?}"
            ));
        }
    }
    // One start of each worker may be unknown to the campaign: the last, whose worker died before it said so.
    if sagas.len() < acknowledged.len() {
        faults.push(format!(
            "{} sagas of {} starts",
            sagas.len(),
            acknowledged.len()
        ));
    }
}

/// Nobody waits for anything any more.
async fn judge_timers(store: &dyn SagaStore, faults: &mut Vec<String>) {
    let for_ever = Timestamp::from_unix_nanos(i64::MAX.unsigned_abs());
    for partition in (0..6).map(Partition) {
        let timers = store.timers(partition, for_ever, 10).await.expect("read");
        if !timers.is_empty() {
            faults.push(format!("timers are left: {timers:?}"));
        }
    }
}

/// Nobody wrote into a partition after the next owner had, and the stream has every event once.
async fn judge_stream(store: &dyn SagaStore, sagas: &[Summary], faults: &mut Vec<String>) {
    let mut partitions = HashMap::new();
    let mut left = HashMap::new();
    for summary in sagas {
        partitions.insert(summary.saga, summary.partition);
        left.insert(summary.saga, 1..=summary.version.0);
    }
    let mut epochs: HashMap<Partition, Epoch> = HashMap::new();
    let mut after = Position::START;
    loop {
        let page = store.read(after, 2_000).await.expect("read");
        let Some(last) = page.last() else { break };
        after = last.position;
        for Entry { saga, recorded, .. } in &page {
            let next = left.get_mut(saga).and_then(Iterator::next);
            if next != Some(recorded.version.0) {
                let version = recorded.version;
                faults.push(format!(
                    "the stream has event {version} of saga {saga} at a wrong place"
                ));
            }
            let Some(&partition) = partitions.get(saga) else {
                continue;
            };
            let before = epochs.insert(partition, recorded.epoch).unwrap_or_default();
            if before > recorded.epoch {
                let epoch = recorded.epoch;
                faults.push(format!(
                    "epoch {epoch} wrote into saga {saga} after epoch {before}"
                ));
            }
        }
    }
    for (saga, mut left) in left {
        if let Some(next) = left.next() {
            faults.push(format!("event {next} of saga {saga} is not in the stream"));
        }
    }
}

/// What the saga was about, if its log makes sense.
async fn judge_log(
    store: &dyn SagaStore,
    summary: &Summary,
    faults: &mut Vec<String>,
) -> Option<Order> {
    let saga = summary.saga;
    let log = store.load(saga, Version(0)).await.expect("read");
    let mut fault = |what: &str| faults.push(format!("saga {saga} ({}): {what}", summary.status));
    let versions = log.iter().map(|recorded| recorded.version.0);
    if !versions.eq(1..=summary.version.0) {
        fault("its versions are not one after another");
    }
    if !log.is_sorted_by_key(|recorded| recorded.epoch) {
        fault("a stale owner wrote into its log");
    }
    match (summary.status, log.last().map(|last| &last.event)) {
        (Status::Completed, Some(Event::SagaCompleted))
        | (Status::Compensated, Some(Event::SagaCompensated)) => {}
        _ => fault("it has not ended"),
    }
    let order = match log.first().map(|first| &first.event) {
        Some(Event::SagaStarted(started)) => started.input.read::<Order>().ok(),
        _ => None,
    };
    let Some(order) = order else {
        fault("it has no beginning");
        return None;
    };
    if order != Order::of(order.number) {
        fault("its input is another than was given");
    }
    if summary.status == Status::Completed && order.must_fail() {
        fault("it must not be completed");
    }
    Some(order)
}

/// Every movement once, or none.
fn judge_bookings(summary: &Summary, order: &Order, own: &Bookings, faults: &mut Vec<String>) {
    let mut fault = |what: String| {
        let (saga, whim) = (summary.saga, order.whim);
        faults.push(format!(
            "saga {saga} ({}, {whim:?}): {what}",
            summary.status
        ));
    };
    let steps = movements(order);
    for ((step, iteration), (done, undone)) in own {
        if !steps.iter().any(|(name, _)| name == step) {
            fault(format!("{step} is none of its steps"));
        }
        if *done > 1 || undone > done {
            fault(format!(
                "{step}/{iteration} is done {done} times and undone {undone} times"
            ));
        }
    }
    let expected = i64::from(summary.status == Status::Completed);
    for (step, _) in steps {
        let own = own.iter().filter(|((name, _), _)| name == step);
        let left: i64 = own.map(|(_, (done, undone))| done - undone).sum();
        if left != expected {
            fault(format!("{step} has {left} effects and not {expected}"));
        }
    }
}

fn bookings(books: &Connection) -> HashMap<String, Bookings> {
    let sql = "SELECT saga, step, iteration, sum(op = 'action'), sum(op = 'compensation')
               FROM booking GROUP BY 1, 2, 3";
    let mut sql = books.prepare(sql).expect("prepared");
    let rows = sql.query_map([], |row| {
        let step = (row.get(1)?, row.get(2)?);
        Ok((row.get::<_, String>(0)?, step, (row.get(3)?, row.get(4)?)))
    });
    let mut found: HashMap<_, Bookings> = HashMap::new();
    for row in rows.expect("queried") {
        let (saga, step, counts) = row.expect("a row");
        found.entry(saga).or_default().insert(step, counts);
    }
    found
}

/// No money is made or lost, each account has what the completed sagas say, and nothing is in transit.
fn judge_money(books: &Connection, paid: &BTreeMap<String, i64>, faults: &mut Vec<String>) {
    let balances: BTreeMap<_, _> = rows(books, "SELECT name, balance FROM account").collect();
    let total: i64 = balances.values().sum();
    if total != i64::from(CUSTOMERS) * ENDOWMENT {
        faults.push(format!("there is {total} in all"));
    }
    for (name, balance) in &balances {
        let customer = name.starts_with("customer");
        let first = if customer { ENDOWMENT } else { 0 };
        let expected = first + paid.get(name).copied().unwrap_or_default();
        if *balance != expected {
            faults.push(format!("{name} has {balance} and not {expected}"));
        }
    }
}

/// What the barrier let through, by the ledger's own record.
fn judge_barrier(books: &Connection, faults: &mut Vec<String>) {
    let laws = [
        (
            "a call of a stale coordinator was let through",
            "SELECT saga || ' ' || step, number FROM call
             WHERE (epoch < highest) <> (verdict = 'stale') LIMIT 5",
        ),
        (
            "an operation took effect twice",
            "SELECT saga || ' ' || step || ' ' || op, count(*) FROM call WHERE verdict = 'applied'
             GROUP BY saga, step, iteration, op HAVING count(*) > 1 LIMIT 5",
        ),
        (
            "the key of an operation changed",
            "SELECT saga || ' ' || step || ' ' || op, count(DISTINCT key) FROM call
             GROUP BY saga, step, iteration, op HAVING count(DISTINCT key) > 1 LIMIT 5",
        ),
        (
            "two operations have one key",
            "SELECT key, count(*) FROM (SELECT DISTINCT key, saga, step, iteration,
                 CASE op WHEN 'probe' THEN 'action' ELSE op END FROM call)
             GROUP BY key HAVING count(*) > 1 LIMIT 5",
        ),
        (
            "a repetition asked for another amount",
            "SELECT saga || ' ' || step, count(DISTINCT amount) FROM call
             GROUP BY saga, step HAVING count(DISTINCT amount) > 1 LIMIT 5",
        ),
        (
            "an action took effect after it was undone",
            "SELECT late.saga || ' ' || late.step, late.number FROM call late JOIN call undo
             ON undo.saga = late.saga AND undo.step = late.step AND undo.iteration = late.iteration
             AND undo.op = 'compensation' AND undo.verdict IN ('applied', 'null')
             AND undo.number < late.number
             WHERE late.op = 'action' AND late.verdict = 'applied' LIMIT 5",
        ),
    ];
    for (law, sql) in laws {
        for (what, number) in rows(books, sql) {
            faults.push(format!("{law}: {what} ({number})"));
        }
    }
}

fn rows(books: &Connection, sql: &str) -> impl Iterator<Item = (String, i64)> {
    let mut sql = books.prepare(sql).expect("prepared");
    let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<_> = rows
        .expect("queried")
        .map(|row| row.expect("a row"))
        .collect();
    rows.into_iter()
}
