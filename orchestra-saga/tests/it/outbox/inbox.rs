use orchestra_core::Timestamp;
use orchestra_saga::ErrorKind;
use orchestra_saga::outbox::sqlite::{Inbox, Outbox};
use orchestra_saga::outbox::{Backlog, Batch, Message, MessageId};
use rusqlite::Connection;

fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("valid")
}

fn consumer() -> Connection {
    let db = Connection::open_in_memory().expect("opened");
    Inbox::install(&db).expect("installed");
    Inbox::install(&db).expect("installed twice");
    db
}

fn accept(db: &mut Connection, consumer: &str, text: &str, commits: bool) -> bool {
    let tx = db.transaction().expect("begun");
    let accepted = Inbox::accept(&tx, consumer, &id(text)).expect("asked");
    if commits {
        tx.commit().expect("committed");
    }
    accepted
}

#[test]
fn a_message_is_new_until_its_transaction_is_committed() {
    let mut db = consumer();
    assert!(accept(&mut db, "mailer", "m-1", false));
    assert!(accept(&mut db, "mailer", "m-1", true));
    assert!(!accept(&mut db, "mailer", "m-1", true));
    assert!(accept(&mut db, "ledger", "m-1", true), "another consumer");
    assert!(accept(&mut db, "mailer", "m-2", true));
}

#[test]
fn what_is_pruned_is_new_again() {
    let mut db = consumer();
    for text in ["m-1", "m-2", "m-3"] {
        accept(&mut db, "mailer", text, true);
    }
    let sql = "UPDATE orchestra_inbox SET seen = 1000 WHERE id <> 'm-3'";
    db.execute(sql, []).expect("updated");
    let at = |seconds: u64| Timestamp::from_unix_nanos(seconds * 1_000_000_000);
    assert_eq!(Inbox::prune(&db, at(1), 10).expect("pruned"), 0);
    assert_eq!(Inbox::prune(&db, at(2), 1).expect("pruned"), 1);
    assert_eq!(Inbox::prune(&db, at(2), 10).expect("pruned"), 1);
    assert!(accept(&mut db, "mailer", "m-1", true));
    assert!(!accept(&mut db, "mailer", "m-3", true));
}

#[test]
fn outside_a_transaction_both_are_refused() {
    let db = consumer();
    Outbox::install(&db).expect("installed");
    let refused = Inbox::accept(&db, "mailer", &id("m-1")).expect_err("no transaction");
    assert_eq!(refused.kind(), ErrorKind::NoTransaction);
    let refused = Outbox::add(&db, &[]).expect_err("no transaction");
    assert_eq!(refused.kind(), ErrorKind::NoTransaction);
}

#[tokio::test]
async fn a_message_of_a_transaction_that_was_rolled_back_is_not_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service.db");
    let mut db = Connection::open(&path).expect("opened");
    let outbox = Outbox::open(&path).await.expect("opened");
    for (text, commits) in [("no", false), ("yes", true)] {
        let tx = db.transaction().expect("begun");
        let message = Message::new("topic", "key", text).expect("valid");
        Outbox::add(&tx, &[message]).expect("written");
        if commits {
            tx.commit().expect("committed");
        }
    }
    let lanes = outbox.claim(&Batch::new("reader")).await.expect("claimed");
    assert_eq!(lanes.len(), 1);
    let payloads: Vec<_> = lanes[0].messages.iter().map(Message::payload).collect();
    assert_eq!(payloads, [b"yes".as_slice()]);
}
