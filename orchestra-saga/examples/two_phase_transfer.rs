//! Money from one bank to another by two-phase commit: at no moment has it left the one and not reached the
//! other for anybody who looks.
//!
//! With the feature `postgres` and `DATABASE_URL`, the banks are two schemas of that PostgreSQL, which must have
//! `max_prepared_transactions` above 3. Without, they are in memory, and show how to write a participant.
//!
//! `cargo run --release -p orchestra-saga --example two_phase_transfer`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_saga::{
    Call, Decision, Definition, Executor, Failure, MemoryStore, Participant, Payload, SagaId,
    Start, Status,
};
use parking_lot::Mutex;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Both prepare at once. When both have, that is the decision, and both commit.
fn transfer(
    from: impl Participant + 'static,
    to: impl Participant + 'static,
) -> Result<Definition> {
    let mut d = Definition::builder("transfer", "1");
    let cents = d.input::<i64>();
    d.two_phase::<i64, _>("withdraw", cents, from).end();
    d.two_phase::<i64, _>("deposit", cents, to).end();
    Ok(d.build()?)
}

/// What a call changes in the account.
fn change(call: &Call) -> Result<i64, Failure> {
    let cents: i64 = call
        .input
        .read()
        .map_err(|error| Failure::rejected(error.to_string()))?;
    let takes = call.step.as_str() == "withdraw";
    Ok(if takes { -cents } else { cents })
}

/// A bank with one account.
#[derive(Debug)]
struct Bank {
    name: &'static str,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    cents: i64,
    /// Everything that was ever prepared here. A real bank writes this to its disk before it answers.
    parts: HashMap<SagaId, Part>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// It can be committed, whatever else is prepared beside it: that is the promise.
    Prepared {
        change: i64,
    },
    Committed {
        change: i64,
    },
    RolledBack,
}

impl Books {
    /// What is left if everything that takes away is committed, and nothing that brings.
    fn available(&self) -> i64 {
        let held = self.parts.values().map(|part| match part {
            Part::Prepared { change } => (*change).min(0),
            Part::Committed { .. } | Part::RolledBack => 0,
        });
        self.cents + held.sum::<i64>()
    }
}

impl Bank {
    fn new(name: &'static str, cents: i64) -> Arc<Self> {
        let parts = HashMap::new();
        let books = Mutex::new(Books { cents, parts });
        Arc::new(Self { name, books })
    }

    fn cents(&self) -> i64 {
        self.books.lock().cents
    }
}

#[async_trait]
impl Participant for Bank {
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
        let mut books = self.books.lock();
        // Every phase may be asked for again: it is answered from what was written, and not done twice.
        let change = match books.parts.get(&call.saga).copied() {
            Some(Part::Prepared { change } | Part::Committed { change }) => change,
            Some(Part::RolledBack) => return Err(Failure::rejected("it was rolled back before")),
            None => {
                let change = change(call)?;
                if books.available() + change < 0 {
                    return Err(Failure::rejected(format!("{} has not so much", self.name)));
                }
                books.parts.insert(call.saga, Part::Prepared { change });
                println!("  {} has prepared {change:+}", self.name);
                change
            }
        };
        Payload::of(&change).map_err(|error| Failure::unknown(error.to_string()))
    }

    async fn commit(&self, call: &Call) -> Result<(), Failure> {
        let mut books = self.books.lock();
        match books.parts.get(&call.saga).copied() {
            Some(Part::Prepared { change }) => {
                books.parts.insert(call.saga, Part::Committed { change });
                books.cents += change;
                println!("  {} has committed", self.name);
                Ok(())
            }
            Some(Part::Committed { .. }) => Ok(()),
            // A promise was broken; nobody but a person can make that good.
            Some(Part::RolledBack) | None => Err(Failure::retryable("it is not prepared")),
        }
    }

    async fn rollback(&self, call: &Call) -> Result<(), Failure> {
        let mut books = self.books.lock();
        if let Some(Part::Committed { .. }) = books.parts.get(&call.saga) {
            return Err(Failure::rejected("it is committed"));
        }
        // Also if it was never prepared: a call that is late must find this.
        books.parts.insert(call.saga, Part::RolledBack);
        println!("  {} has rolled back", self.name);
        Ok(())
    }
}

/// A bank whose line goes dead with the first commit on it.
#[derive(Debug)]
struct BadLine(Arc<Bank>, Mutex<bool>);

#[async_trait]
impl Participant for BadLine {
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
        self.0.prepare(call).await
    }

    async fn commit(&self, call: &Call) -> Result<(), Failure> {
        if !std::mem::replace(&mut *self.1.lock(), true) {
            println!("  {} cannot be reached", self.0.name);
            return Err(Failure::unknown("no answer"));
        }
        self.0.commit(call).await
    }

    async fn rollback(&self, call: &Call) -> Result<(), Failure> {
        self.0.rollback(call).await
    }
}

async fn executor(definition: Definition) -> Result<Executor> {
    let executor = Executor::builder(MemoryStore::default()).definition(definition);
    Ok(executor.build().await?)
}

async fn send(executor: &Executor, cents: i64) -> Result<(Status, Decision)> {
    println!("{cents} cents:");
    let view = executor.run(Start::of("transfer").input(&cents)?).await?;
    let decision = executor.decision(view.id).await?;
    println!("  {decision:?}: {}", view.status);
    Ok((view.status, decision))
}

async fn in_memory() -> Result<()> {
    let (north, south) = (Bank::new("north", 100), Bank::new("south", 100));
    let line = BadLine(Arc::clone(&south), Mutex::new(false));
    let executor = executor(transfer(Arc::clone(&north), line)?).await?;
    // It is decided before the line goes dead, so it is committed when the line is back.
    let good = send(&executor, 30).await?;
    // South has prepared what north refuses, and rolls it back.
    let bad = send(&executor, 5_000).await?;
    executor.shutdown().await;
    check(good, bad, [north.cents(), south.cents()])
}

fn check(good: (Status, Decision), bad: (Status, Decision), cents: [i64; 2]) -> Result<()> {
    println!("north has {} cents, south has {}", cents[0], cents[1]);
    let ends = (
        (Status::Completed, Decision::Commit),
        (Status::Compensated, Decision::Abort),
        [70, 130],
    );
    if (good, bad, cents) != ends {
        return Err(format!("not as it should be: {good:?}, {bad:?}").into());
    }
    Ok(())
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Duration;

    use orchestra_saga::two_phase::postgres::{Abort, Branch, Database, Resolver};
    use tokio_postgres::Config;

    use super::{Payload, Result, change, check, executor, send, transfer};
    use orchestra_saga::Failure;

    /// A schema of its own, and a namespace, since both are in one server.
    async fn bank(server: &Config, name: &str) -> Result<Database> {
        let mut config = server.clone();
        config.options(format!("-c search_path=two_phase_{name}"));
        let bank = Database::builder(name).connect(config).await?;
        Ok(bank)
    }

    fn account(bank: &Database) -> Branch {
        bank.branch(|tx, call| {
            let change = change(call);
            Box::pin(async move {
                let change = match change {
                    Ok(change) => change,
                    Err(Failure::Rejected(reason)) => return Err(Abort::rejected(reason)),
                    Err(other) => return Err(Abort::rejected(format!("{other:?}"))),
                };
                let sql = "UPDATE account SET cents = cents + $1 RETURNING cents";
                let left: i64 = tx.query_one(sql, &[&change]).await?.get(0);
                if left < 0 {
                    return Err(Abort::rejected("the account has not so much"));
                }
                println!("  prepared {change:+}");
                Ok(Payload::from(serde_json::json!(change)))
            })
        })
    }

    pub(crate) async fn run(url: &str) -> Result<()> {
        let server: Config = url.parse()?;
        let (mut client, connection) = server.connect(tokio_postgres::NoTls).await?;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        let names = ["north", "south"];
        for name in names {
            let sql = format!(
                "DROP SCHEMA IF EXISTS two_phase_{name} CASCADE; CREATE SCHEMA two_phase_{name};
                 CREATE TABLE two_phase_{name}.account (cents BIGINT NOT NULL);
                 INSERT INTO two_phase_{name}.account VALUES (100)"
            );
            client.batch_execute(&sql).await?;
        }
        let (north, south) = (
            bank(&server, names[0]).await?,
            bank(&server, names[1]).await?,
        );
        for bank in [&north, &south] {
            bank.install().await?;
        }
        let executor = executor(transfer(account(&north), account(&south))?).await?;
        // They commit what is decided should this process not come to it, here or in any other.
        let resolvers = [&north, &south].map(|bank| {
            let resolver = Resolver::builder(bank.clone(), executor.clone());
            resolver.every(Duration::from_secs(1)).start()
        });
        let good = send(&executor, 30).await?;
        let bad = send(&executor, 5_000).await?;
        for resolver in resolvers {
            resolver.shutdown().await;
        }
        executor.shutdown().await;
        let tx = client.transaction().await?;
        let mut cents = [0; 2];
        for (name, cents) in names.iter().zip(&mut cents) {
            let sql = format!("SELECT cents FROM two_phase_{name}.account");
            *cents = tx.query_one(&sql, &[]).await?.get(0);
        }
        tx.rollback().await?;
        check(good, bad, cents)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    #[cfg(feature = "postgres")]
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return postgres::run(&url).await;
    }
    in_memory().await
}
