//! A process that is killed with SIGKILL, again and again, in the middle of its sagas, and a ledger that stays
//! whole: every transfer is booked once or taken back, and no cent is lost or made.
//!
//! `cargo run --release -p orchestra-saga --features sqlite --example saga_recovery`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orchestra_core::{Backoff, IdempotencyKey};
use orchestra_saga::barrier::sqlite::{Abort, Barrier};
use orchestra_saga::{
    BarrierCall, Call, Definition, Executor, Failure, Filter, Retry, SqliteStore, Start, Status,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const ACCOUNTS: i64 = 10;
const EACH: i64 = 1_000;
const TRANSFERS: u32 = 400;
const KILLS: u32 = 12;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Transfer {
    from: i64,
    to: i64,
    cents: i64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("work"), Some(directory)) => work(Path::new(&directory)),
        _ => supervise(),
    }
}

/// Kills the worker at random moments, lets the last one end, and looks at the books.
#[expect(clippy::disallowed_methods, reason = "real processes take real time")]
fn supervise() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("saga-recovery-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    open_books(&directory)?;
    let mut rng = fastrand::Rng::new();
    let mut killed = 0;
    while killed < KILLS {
        let mut worker = Command::new(std::env::current_exe()?)
            .arg("work")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()?;
        let life = rng.u64(20..250);
        std::thread::sleep(Duration::from_millis(life));
        if worker.try_wait()?.is_some() {
            break;
        }
        worker.kill()?;
        worker.wait()?;
        killed += 1;
        let Ends {
            completed,
            compensated,
            open,
        } = ends(&directory)?;
        let ended = completed + compensated;
        println!(
            "killed after {life:3} ms: {ended:3} of {TRANSFERS} transfers had ended, {open:3} had begun"
        );
    }
    let begun = Instant::now();
    let last = Command::new(std::env::current_exe()?)
        .arg("work")
        .arg(&directory)
        .status()?;
    if !last.success() {
        return Err("the last worker failed".into());
    }
    println!("the last one ended all sagas in {:.1?}", begun.elapsed());
    let checked = check(&directory);
    std::fs::remove_dir_all(&directory)?;
    checked
}

fn ledger(directory: &Path) -> PathBuf {
    directory.join("ledger.db")
}

fn open_books(directory: &Path) -> Result<()> {
    let books = Connection::open(ledger(directory))?;
    books.pragma_update(None, "journal_mode", "WAL")?;
    Barrier::install(&books)?;
    books.execute_batch("CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL)")?;
    for id in 0..ACCOUNTS {
        books.execute("INSERT INTO account VALUES (?1, ?2)", [id, EACH])?;
    }
    Ok(())
}

/// The worker: starts what is not started yet, continues what was left, and ends when all have ended.
fn work(directory: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = SqliteStore::open(directory.join("sagas.db")).await?;
        let executor = Executor::builder(store)
            .definition(transfer(directory)?)
            .build()
            .await?;
        let mut sagas = Vec::new();
        for number in 0..i64::from(TRANSFERS) {
            let order = Transfer {
                from: number % ACCOUNTS,
                // Some go to an account that is not there.
                to: if number % 9 == 0 {
                    ACCOUNTS
                } else {
                    (number * 7 + 3) % ACCOUNTS
                },
                cents: number % 50 + 1,
            };
            // However often it is repeated, it is one saga.
            let key = IdempotencyKey::new(format!("transfer-{number}"))?;
            sagas.push(
                executor
                    .start(Start::of("transfer").input(&order)?.key(key))
                    .await?,
            );
        }
        for saga in sagas {
            executor.wait(saga).await?;
        }
        executor.shutdown().await;
        Ok(())
    })
}

/// Withdraws first: nobody can spend what may still be taken back.
fn transfer(directory: &Path) -> Result<Definition> {
    let patient = Retry::new(50, Backoff::fixed(Duration::from_millis(20)));
    let mut d = Definition::builder("transfer", "1");
    let order = d.input::<Transfer>();
    let (withdraw, back, deposit) = (ledger(directory), ledger(directory), ledger(directory));
    let withdrawn = d
        .step("withdraw", order, move |call: Call, order: Transfer| {
            book(withdraw.clone(), call, order.from, -order.cents)
        })
        .retry(patient)
        .compensation_retry(patient)
        .compensate(move |call: Call, order: Transfer, _: Option<i64>| {
            let booked = book(back.clone(), call, order.from, order.cents);
            async move { booked.await.map(drop) }
        });
    d.step("deposit", order, move |call: Call, order: Transfer| {
        book(deposit.clone(), call, order.to, order.cents)
    })
    .after(withdrawn)
    .retry(patient)
    .pivot();
    Ok(d.build()?)
}

/// The participant: one transaction with the effect and the barrier's record of it.
async fn book(path: PathBuf, call: Call, account: i64, cents: i64) -> Result<i64, Failure> {
    let booking = move || -> Result<i64, Failure> {
        let unopened = |error: rusqlite::Error| Failure::retryable(error.to_string());
        let mut books = Connection::open(path).map_err(unopened)?;
        books
            .busy_timeout(Duration::from_secs(5))
            .map_err(unopened)?;
        let answer = Barrier::transact(&mut books, &BarrierCall::from(&call), |tx| {
            let change = "UPDATE account SET cents = cents + ?2 WHERE id = ?1 RETURNING cents";
            let left = tx.query_row(change, params![account, cents], |row| row.get(0));
            match left.optional()? {
                Some(left) if left < 0 => Err(Abort::rejected("the account has not so much")),
                Some(left) => Ok(left),
                None => Err(Abort::rejected("there is no such account")),
            }
        })?;
        answer.into_result()
    };
    let booked = tokio::task::spawn_blocking(booking).await;
    let lost = |error: tokio::task::JoinError| Failure::unknown(error.to_string());
    booked.map_err(lost)?
}

fn check(directory: &Path) -> Result<()> {
    let books = Connection::open(ledger(directory))?;
    let sql = "SELECT sum(cents), min(cents) FROM account";
    let (total, least): (i64, i64) =
        books.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Ends {
        completed,
        compensated,
        open,
    } = ends(directory)?;
    println!("{completed} transfers booked, {compensated} taken back, {open} open, {total} cents");
    let all = completed + compensated == TRANSFERS as usize;
    if (total, open) != (ACCOUNTS * EACH, 0) || least < 0 || !all {
        return Err("the books are wrong".into());
    }
    println!("every cent is there");
    Ok(())
}

/// How many sagas stand where.
struct Ends {
    completed: usize,
    compensated: usize,
    open: usize,
}

fn ends(directory: &Path) -> Result<Ends> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = SqliteStore::open(directory.join("sagas.db")).await?;
        let all = Filter::default().limit(usize::MAX);
        let all = orchestra_saga::SagaStore::list(&store, &all).await?;
        store.close().await?;
        let count = |status| all.iter().filter(|saga| saga.status == status).count();
        let (completed, compensated) = (count(Status::Completed), count(Status::Compensated));
        let open = all.len() - completed - compensated;
        Ok(Ends {
            completed,
            compensated,
            open,
        })
    })
}
