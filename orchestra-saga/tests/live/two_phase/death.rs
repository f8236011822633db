//! Connections and servers that die between and within the phases.

use orchestra_saga::{ErrorKind, Failure};

use super::proxy::{Cut, Proxy};
use super::*;
use crate::store::server::Server;

/// A bank behind a wire that can be cut.
async fn distant() -> (Bank, Proxy, Branch) {
    let bank = Bank::fresh().await;
    let proxy = Proxy::to(&bank.schema.config).await;
    let database = open(proxy.config.clone(), &bank.namespace).await;
    let branch = branch(&database);
    (bank, proxy, branch)
}

#[tokio::test]
async fn a_wire_cut_in_prepare_leaves_it_done_once_or_not_at_all() {
    for cut in [Cut::Request, Cut::Answer] {
        let (bank, proxy, branch) = distant().await;
        let call = call(1, 30).await;
        proxy.cut("PREPARE TRANSACTION", cut);
        let lost = branch.prepare(&call).await;
        assert!(matches!(lost, Err(Failure::Unknown(_))), "{lost:?}");
        assert!(proxy.was_sprung());
        let prepared = usize::from(cut == Cut::Answer);
        assert_eq!(bank.in_doubt().await, prepared);
        let output: i64 = branch.prepare(&call).await.unwrap().read().unwrap();
        // The number of a booking that was rolled back is not given again.
        assert_eq!(output, if cut == Cut::Answer { 1 } else { 2 });
        branch.commit(&second(&call)).await.unwrap();
        assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![30], 0));
    }
}

#[tokio::test]
async fn a_wire_cut_in_the_work_leaves_nothing() {
    let (bank, proxy, branch) = distant().await;
    let call = call(1, 30).await;
    proxy.cut("INSERT INTO booking", Cut::Answer);
    let lost = branch.prepare(&call).await;
    assert!(matches!(lost, Err(Failure::Retryable { .. })), "{lost:?}");
    assert_eq!(bank.in_doubt().await, 0);
    branch.prepare(&call).await.unwrap();
    branch.rollback(&undo(&call)).await.unwrap();
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
}

#[tokio::test]
async fn a_wire_cut_in_commit_is_asked_again() {
    for cut in [Cut::Request, Cut::Answer] {
        let (bank, proxy, branch) = distant().await;
        let call = call(1, 30).await;
        branch.prepare(&call).await.unwrap();
        proxy.cut("COMMIT PREPARED", cut);
        let lost = branch.commit(&second(&call)).await;
        assert!(matches!(lost, Err(Failure::Unknown(_))), "{lost:?}");
        assert_eq!(bank.in_doubt().await, usize::from(cut == Cut::Request));
        branch.commit(&second(&call)).await.unwrap();
        assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![30], 0));
    }
}

#[tokio::test]
async fn a_wire_cut_in_rollback_is_asked_again() {
    for cut in [Cut::Request, Cut::Answer] {
        let (bank, proxy, branch) = distant().await;
        let call = call(1, 30).await;
        branch.prepare(&call).await.unwrap();
        proxy.cut("ROLLBACK PREPARED", cut);
        let lost = branch.rollback(&undo(&call)).await;
        assert!(matches!(lost, Err(Failure::Unknown(_))), "{lost:?}");
        branch.rollback(&undo(&call)).await.unwrap();
        assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
    }
}

fn address(server: &Server) -> Config {
    server.address().parse().unwrap()
}

async fn own(options: &[&str]) -> (Server, Database) {
    let server = Server::start(options).await;
    let database = open(address(&server), "bank").await;
    create(&server.raw().await).await;
    (server, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_outlives_the_server() {
    let (mut server, database) = own(&["max_prepared_transactions=8"]).await;
    let branch = branch(&database);
    let (mut calls, mut outputs) = (Vec::new(), Vec::new());
    for number in 1..=6 {
        let call = call(number, i64::from(number)).await;
        outputs.push(branch.prepare(&call).await.unwrap());
        calls.push(call);
    }
    server.kill().await;
    let away = branch.commit(&second(&calls[0])).await;
    assert!(away.is_err(), "there is no server: {away:?}");
    server.restart().await;
    // The connections learn of it by failing.
    until("the server is back", || async {
        database.in_doubt().await.is_ok()
    })
    .await;
    for (call, output) in calls.iter().zip(&outputs) {
        assert_eq!(branch.prepare(call).await.as_ref(), Ok(output), "not kept");
    }
    for call in &calls[..3] {
        branch.commit(&second(call)).await.unwrap();
    }
    server.kill().await;
    server.restart().await;
    until("the server is back", || async {
        database.in_doubt().await.is_ok()
    })
    .await;
    for call in &calls[..3] {
        branch.commit(&second(call)).await.unwrap();
    }
    for call in &calls[3..] {
        branch.rollback(&undo(call)).await.unwrap();
    }
    assert_eq!(booked(&server.raw().await).await, [1, 2, 3]);
    assert_eq!(database.in_doubt().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_prepares_no_transactions_says_what_to_set() {
    let server = Server::start(&["fsync=off"]).await;
    let refused = Database::builder("bank").connect(address(&server)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CannotPrepare);
    assert!(
        refused
            .to_string()
            .contains("set max_prepared_transactions"),
        "{refused}"
    );
    assert!(!refused.is_retryable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_prepared_its_most_is_tried_again() {
    let (_server, database) = own(&["fsync=off", "max_prepared_transactions=1"]).await;
    let branch = branch(&database);
    let (first, next) = (call(1, 1).await, call(2, 2).await);
    branch.prepare(&first).await.unwrap();
    let full = branch.prepare(&next).await;
    let says = |failure: &Failure| matches!(failure, Failure::Retryable { reason, .. } if reason.contains("maximum number of prepared transactions"));
    assert!(full.as_ref().is_err_and(says), "{full:?}");
    branch.commit(&second(&first)).await.unwrap();
    branch.prepare(&next).await.unwrap();
    branch.commit(&second(&next)).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_cannot_be_an_identifier_is_refused() {
    let config = Schema::fresh().await.config;
    for name in ["", "it's", "a/b", &"x".repeat(65)] {
        let refused = Database::builder(name).connect(config.clone()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
