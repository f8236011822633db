//! The kill campaign: real processes that die at every point that has a name, and at moments that have none.
//!
//! Three kinds of process, all of them this test binary, which starts itself again:
//! - The *campaign* (the tests without `ignore`) draws from a seed who dies when, restarts them, and judges.
//! - *Workers* run an executor on a journal, an SQLite file, or several of them a fleet on PostgreSQL. A worker
//!   kills itself with SIGKILL, or stops itself with SIGSTOP, at the point that it was told ([`points`]); the
//!   campaign kills it at a random moment otherwise.
//! - The *ledger* is the participant: accounts behind the barrier in an SQLite file of its own, served over a
//!   socket. It dies as well.
//!
//! Rounds come in batches. After each batch a worker finishes what is left, and then ([`verdict`]) every
//! acknowledged start is known, every saga has ended, each transfer is booked exactly once or taken back
//! whole, money is conserved, and no call got past the barrier that should not have.
//!
//! `SAGA_ROUNDS` says how many rounds for each store (12 by default); from 1,000 on, a point at which nobody
//! died is a failure. `SAGA_SEED` is the seed, and is printed with every failure. `ORCH_TEST_PG` is the address
//! of the PostgreSQL; without it that campaign says that it is skipped.

// Tests fail by panicking, also in the processes that they start.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "this is how a test fails"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is how processes are heard, and the report is read"
)]

mod child;
mod client;
mod fuse;
mod fused;
mod ledger;
mod points;
mod rounds;
mod sagas;
mod store;
mod tally;
mod verdict;
mod worker;

use store::Kind;

#[tokio::test]
async fn the_journal_survives_its_processes() {
    rounds::campaign(Kind::Journal).await;
}

#[tokio::test]
async fn sqlite_survives_its_processes() {
    rounds::campaign(Kind::Sqlite).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_survives_its_processes() {
    if store::postgres_url().is_none() {
        use std::io::Write;
        // Not through the macro, whose output is shown of failures alone.
        let said = "SKIPPED: the kill campaign on PostgreSQL, since ORCH_TEST_PG names none\n";
        std::io::stderr()
            .write_all(said.as_bytes())
            .expect("said so");
        return;
    }
    rounds::campaign(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a worker process, which the campaign runs by name"]
async fn the_worker() {
    worker::run().await;
}

#[tokio::test]
#[ignore = "the body of the ledger process, which the campaign runs by name"]
async fn the_ledger() {
    ledger::run().await;
}
