//! Who may open a store.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestra_saga::{ErrorKind, JournalStore, SqliteStore};

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

#[tokio::test]
async fn who_is_locked_out_is_told_by_whom_and_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("sagas");
    let sqlite = directory.path().join("sagas.db");
    std::fs::create_dir(&journal).expect("created");
    let stores = [
        (&journal, journal.join("journal.lock")),
        (&sqlite, directory.path().join("sagas.db.lock")),
    ];
    let mut gone = Command::new("true").spawn().expect("started");
    let mut other = Command::new("sleep").arg("60").spawn().expect("started");
    gone.wait().expect("ended");
    let (gone_id, other_id) = (gone.id(), other.id());
    let said = [
        (
            std::process::id().to_string(),
            "this process already: open it once and share clones of it, or close the first"
                .to_owned(),
        ),
        (
            other_id.to_string(),
            format!("process {other_id}: end that process, give this one another path, "),
        ),
        (
            gone_id.to_string(),
            format!("process {gone_id} of another container, or a child "),
        ),
        (String::new(), "another process: end it, ".to_owned()),
        (
            "no number".to_owned(),
            "another process: end it, ".to_owned(),
        ),
    ];
    for (store, lock) in stores {
        let file = std::fs::File::create(&lock).expect("created");
        file.lock().expect("locked");
        for (owner, expected) in &said {
            std::fs::write(&lock, owner).expect("written");
            let error = if *store == journal {
                JournalStore::open(store).await.expect_err("taken")
            } else {
                SqliteStore::open(store).await.expect_err("taken")
            };
            assert_eq!(error.kind(), ErrorKind::Locked);
            let expected = format!("saga store {} is in use by {expected}", store.display());
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
    other.kill().expect("killed");
    other.wait().expect("ended");
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
