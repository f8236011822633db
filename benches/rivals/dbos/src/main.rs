//! dbos' workflows of three steps that do nothing, on the PostgreSQL of `ORCH_TEST_PG`.

#[path = "../../../src/disk.rs"]
#[allow(dead_code, reason = "a rival needs a part of it")]
mod disk;
#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use std::path::Path;
use std::time::Duration;

use dbos::{Config, DBOS, step};
use disk::{file_system_of, sustained, two_workers_and_sockets};
use measure::Session;
use sqlx::{Connection, Executor, PgConnection, Row};

/// What its best is put beside: each store of ours.
const FIGURES: [&str; 3] = [
    "saga_3_steps_journal_1000_at_once",
    "saga_3_steps_sqlite_1000_at_once",
    "saga_3_steps_postgres_1000_at_once",
];
/// Its default first.
const POOLS: [u32; 3] = [10, 32, 64];
const AT_ONCE: [u64; 3] = [16, 64, 256];

async fn act(value: u32) -> dbos::Result<u32> {
    Ok(value)
}

async fn workflow(value: u32) -> dbos::Result<u32> {
    let one = step("one", || act(value)).await?;
    let two = step("two", || act(one)).await?;
    step("three", || act(two)).await
}

fn main() {
    let session = Session::of("dbos");
    let Ok(url) = std::env::var("ORCH_TEST_PG") else {
        eprintln!("no PostgreSQL: ORCH_TEST_PG names none, so dbos is left out");
        return;
    };
    let (warm, window, pools) = if session.is_quick() {
        (50, 200, &POOLS[..1])
    } else {
        (1_000, 3_000, &POOLS[..])
    };
    let window = (Duration::from_millis(warm), Duration::from_millis(window));
    for &pool in pools {
        let runtime = two_workers_and_sockets();
        let dbos = DBOS::new(Config {
            max_connections: pool,
            app_version: Some("1".to_owned()),
            ..Config::new("bench", runtime.block_on(fresh_database(&url)))
        });
        let registered = dbos
            .register_workflow("noop", workflow)
            .expect("a new name");
        runtime.block_on(dbos.launch()).expect("it starts");
        for at_once in AT_ONCE {
            let registered = registered.clone();
            let work = move || {
                let registered = registered.clone();
                async move { assert_eq!(registered.run(7).await.expect("it ends"), 7) }
            };
            let rate = sustained(&runtime, at_once, window, work);
            eprintln!("dbos: {at_once} at once, {pool} connections: {rate:.0} workflows/s");
            for figure in FIGURES {
                session.value(figure, rate, "sagas/s");
            }
        }
        runtime.block_on(dbos.shutdown());
    }
}

/// The address of an empty database on this server, which must be one that keeps what it acknowledges.
async fn fresh_database(url: &str) -> String {
    const NAME: &str = "bench_dbos";
    let mut server = PgConnection::connect(url)
        .await
        .expect("the PostgreSQL of ORCH_TEST_PG answers");
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value = show(&mut server, setting).await;
        assert_eq!(
            value, "on",
            "the PostgreSQL of ORCH_TEST_PG has {setting}={value}"
        );
    }
    let directory = show(&mut server, "data_directory").await;
    if Path::new(&directory).exists() {
        file_system_of(directory.as_ref()).expect("its data are on a disk");
    }
    for command in [
        "DROP DATABASE IF EXISTS bench_dbos WITH (FORCE)",
        "CREATE DATABASE bench_dbos",
        "CHECKPOINT",
    ] {
        let done = server.execute(command).await;
        done.expect("the user of ORCH_TEST_PG may make databases");
    }
    let (server, _) = url.rsplit_once('/').expect("the address names a database");
    format!("{server}/{NAME}")
}

async fn show(server: &mut PgConnection, setting: &str) -> String {
    let query = sqlx::query("SELECT current_setting($1)").bind(setting);
    let row = query.fetch_one(server).await;
    row.expect("a setting of PostgreSQL 15").get(0)
}
