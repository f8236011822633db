//! A participant over HTTP: a wallet in SQLite behind a barrier.
//!
//! It serves on a port of the loopback, and the coordinator's calls are made here as well: an action, its
//! repetition, a compensation, the action that comes too late, a refusal, a stale coordinator, a key that comes
//! again with another body, and a request that is no call at all. At the end a saga in this process asks the same
//! barrier from a step in code.
//!
//! `cargo run -p orchestra-saga --features sqlite,tower --example participant`, or with ` -- 127.0.0.1:8080` at its
//! end, to serve there and be asked by hand.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::Response;
use axum::{Router, routing};
use orchestra_core::Timestamp;
use orchestra_saga::barrier::layer::{CallLayer, respond, undecided};
use orchestra_saga::barrier::sqlite::{Abort, Barrier};
use orchestra_saga::{
    BarrierCall, Call, Definition, Executor, Failure, MemoryStore, Operation, SagaId, Start, Status,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Db = Arc<Mutex<Connection>>;

const PRICE: i64 = 30;

fn open() -> Result<Connection, Failed> {
    // A real participant opens a file here.
    let db = Connection::open_in_memory()?;
    db.busy_timeout(Duration::from_secs(1))?;
    Barrier::install(&db)?;
    db.execute_batch("CREATE TABLE wallet (balance INTEGER); INSERT INTO wallet VALUES (100)")?;
    Ok(db)
}

/// The work of a call: it returns the new balance, which is recorded and returned again to whoever
/// repeats the call.
fn charge(db: &Connection, call: &BarrierCall) -> Result<i64, Abort> {
    let change = match call.op {
        Operation::Action => -PRICE,
        _ => PRICE,
    };
    let sql = "UPDATE wallet SET balance = balance + ?1 RETURNING balance";
    let balance = db.query_row(sql, [change], |row| row.get(0))?;
    if balance < 0 {
        return Err(Abort::rejected("not enough money"));
    }
    Ok(balance)
}

/// The transaction is over when the answer is made.
fn serve(db: &mut Connection, call: &BarrierCall) -> http::Response<String> {
    respond(&Barrier::transact(db, call, |db| charge(db, call)))
}

async fn wallet(State(db): State<Db>, Extension(call): Extension<BarrierCall>) -> Response {
    let served = tokio::task::spawn_blocking(move || serve(&mut db.lock(), &call)).await;
    served
        .unwrap_or_else(|lost| undecided(&lost))
        .map(Into::into)
}

/// What a coordinator sends; `Call::headers` makes the headers of a real one.
async fn ask(at: SocketAddr, saga: u8, op: &str, epoch: u64, body: &str) -> Result<String, Failed> {
    let saga = SagaId::from_parts(Timestamp::UNIX_EPOCH, u128::from(saga));
    send(
        at,
        &format!(
            "x-saga-id: {saga}\r\nx-step-name: charge\r\nx-saga-op: {op}\r\n\
             x-saga-epoch: {epoch}\r\nidempotency-key: {saga}-{op}\r\n"
        ),
        body,
    )
    .await
}

/// The status and the body of the answer.
async fn send(at: SocketAddr, headers: &str, body: &str) -> Result<String, Failed> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!(
        "POST /wallet HTTP/1.1\r\nhost: wallet\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?;
    Ok(format!("{status} {body}"))
}

/// The same from a step in code: the answer of the barrier is that of the step.
async fn charge_in_process(db: Db, call: Call) -> Result<i64, Failure> {
    let call = BarrierCall::from(&call);
    let charged = move || Barrier::transact(&mut db.lock(), &call, |db| charge(db, &call));
    let charged = tokio::task::spawn_blocking(charged).await;
    charged
        .map_err(|lost| Failure::unknown(lost.to_string()))??
        .into_result()
}

/// A saga that pays, fails, and is paid back.
async fn in_process(db: Db) -> Result<(), Failed> {
    let before = balance(&db)?;
    let mut d = Definition::builder("order", "1");
    let (pay, refund) = (Arc::clone(&db), Arc::clone(&db));
    let paid = d
        .step("charge", (), move |call: Call, (): ()| {
            charge_in_process(Arc::clone(&pay), call)
        })
        .compensate(move |call: Call, (): (), _: Option<i64>| {
            let refunded = charge_in_process(Arc::clone(&refund), call);
            async { refunded.await.map(drop) }
        });
    d.step("ship", paid, |_: Call, _: i64| async {
        Err::<(), _>(Failure::rejected("sold out"))
    })
    .read_only();
    let builder = Executor::builder(MemoryStore::default()).definition(d.build()?);
    let executor = builder.build().await?;
    let view = executor.run(Start::of("order")).await?;
    executor.shutdown().await;
    let after = balance(&db)?;
    println!(
        "a saga in this process         {:?}, {before} before and {after} after",
        view.status
    );
    if (view.status, after) != (Status::Compensated, before) {
        return Err("it was not paid back".into());
    }
    Ok(())
}

fn balance(db: &Db) -> Result<i64, Failed> {
    let sql = "SELECT balance FROM wallet";
    Ok(db.lock().query_row(sql, [], |row| row.get(0))?)
}

/// Serves until it is interrupted.
async fn by_hand(at: &str, routes: Router) -> Result<(), Failed> {
    let listener = TcpListener::bind(at).await?;
    let at = listener.local_addr()?;
    let saga = SagaId::from_parts(Timestamp::UNIX_EPOCH, 1);
    println!(
        "a wallet with 100 cents; each action takes {PRICE}. Ask it, twice, then with another body:\n"
    );
    println!(
        "curl -i http://{at}/wallet -d '{{}}' -H 'x-saga-id: {saga}' -H 'x-step-name: charge' \\\n     \
         -H 'x-saga-op: action' -H 'x-saga-epoch: 1' -H 'idempotency-key: charge-1'"
    );
    Ok(axum::serve(listener, routes).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let db = Arc::new(Mutex::new(open()?));
    let routes = Router::new()
        .route("/wallet", routing::post(wallet))
        .layer(CallLayer::new())
        .with_state(Arc::clone(&db));
    if let Some(at) = std::env::args().nth(1) {
        return by_hand(&at, routes).await;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = listener.local_addr()?;
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await });

    for (saga, op, epoch, expected, what) in [
        (1, "action", 1, "200 70", "the action takes 30"),
        (
            1,
            "action",
            1,
            "200 70",
            "asked again: answered from the record",
        ),
        (
            1,
            "compensation",
            2,
            "200 100",
            "a new coordinator takes it back",
        ),
        (
            1,
            "action",
            2,
            "409",
            "the action comes after its compensation",
        ),
        (
            1,
            "compensation",
            1,
            "409",
            "the old coordinator is fenced off",
        ),
        (2, "compensation", 1, "200 null", "nothing to undo"),
        (2, "action", 1, "409", "and the late action is refused"),
        (3, "action", 1, "200 70", "others pay"),
        (4, "action", 1, "200 40", "others pay"),
        (5, "action", 1, "200 10", "others pay"),
        (
            6,
            "action",
            1,
            "422 not enough money",
            "refused, and rolled back",
        ),
    ] {
        let answer = ask(at, saga, op, epoch, "{}").await?;
        println!("saga {saga} {op:<12} epoch {epoch}  {answer:<50} {what}");
        if !answer.starts_with(expected) {
            return Err(format!("{answer}, where {expected} was expected").into());
        }
    }
    let answer = ask(at, 5, "action", 1, "{\"cents\":1}").await?;
    println!("saga 5 action, another body    {answer}");
    if !answer.starts_with("422") {
        return Err(format!("{answer} to another body").into());
    }
    let answer = send(at, "x-saga-id: none\r\n", "").await?;
    println!("no call at all                 {answer}");
    if !answer.starts_with("400") {
        return Err(format!("{answer} to a request that is no call").into());
    }
    server.shutdown().await;
    let more = "UPDATE wallet SET balance = balance + ?1";
    db.lock().execute(more, [PRICE])?;
    in_process(db).await
}
