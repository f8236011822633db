//! Who may open a store.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestra_saga::{ErrorKind, SqliteStore};

#[tokio::test]
async fn a_store_is_taken_whatever_name_it_is_opened_by() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sagas.db");
    let store = SqliteStore::open(&path).await.expect("opened");
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let second = SqliteStore::open(&link).await.expect_err("taken");
    assert_eq!(second.kind(), ErrorKind::Locked);
    store.close().await.expect("closed");
}

/// A child that is being started holds a copy of every open file until it becomes its program.
#[test]
fn a_closed_store_is_free_although_processes_are_being_started() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sagas.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("built");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let status = Command::new("true").process_group(0).status();
                    assert!(status.expect("started").success());
                }
            });
        }
        let mut refused = 0;
        for _ in 0..50 {
            match runtime.block_on(SqliteStore::open(&path)) {
                Ok(store) => runtime.block_on(store.close()).expect("closed"),
                Err(_locked) => refused += 1,
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(refused, 0);
    });
}
