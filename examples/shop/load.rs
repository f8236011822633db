//! The customers: real HTTP orders through the gateway.
//!
//! Each order carries an idempotency key that is the same at every repetition, so a customer who gets no
//! answer asks again and buys once. An answer that names the order is an acknowledgement: its id goes to
//! a file that is synced before the order counts as acknowledged.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::catalogue;

pub type Http = Client<HttpConnector, Full<Bytes>>;

pub fn http() -> Http {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(5))
        .build_http()
}

/// What to drive.
#[derive(Debug, Clone)]
pub struct Plan {
    pub gateway: SocketAddr,
    pub seed: u64,
    /// Orders are numbered from here, so that two runs on one directory do not share keys.
    pub first: u64,
    pub orders: u64,
    pub customers: usize,
    /// Orders per second, all customers together; `None` is as fast as they can.
    pub rate: Option<f64>,
    pub acknowledged: PathBuf,
    /// A customer gives an order up after this long without an answer.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Driven {
    pub acknowledged: u64,
    pub completed: u64,
    pub declined: u64,
    pub unavailable: u64,
    pub pending: u64,
    /// No answer within the customers' patience.
    pub given_up: u64,
    pub repeated: u64,
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
}

/// Order number `n` of a seed: always the same.
pub fn order(seed: u64, n: u64) -> Value {
    let mut rng = fastrand::Rng::with_seed(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (item, _) = catalogue::ITEMS[rng.usize(..catalogue::ITEMS.len())];
    json!({
        "user": catalogue::user(rng.u32(1..=catalogue::USERS)),
        "item": item,
        "quantity": rng.u32(1..=3),
    })
}

/// Runs the plan; `progress` counts the orders that are through.
pub async fn drive(plan: Plan, progress: Arc<AtomicU64>) -> anyhow::Result<Driven> {
    let begin = Instant::now();
    let (acks, synced) = acknowledgements(&plan.acknowledged)?;
    let waiting: VecDeque<u64> = (plan.first..plan.first + plan.orders).collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let driven = Arc::new(Mutex::new(Driven::default()));
    let client = http();
    let mut customers = JoinSet::new();
    for _ in 0..plan.customers {
        let (plan, waiting, driven) = (plan.clone(), Arc::clone(&waiting), Arc::clone(&driven));
        let (client, acks, progress) = (client.clone(), acks.clone(), Arc::clone(&progress));
        customers.spawn(async move {
            loop {
                let Some(number) = waiting.lock().await.pop_front() else {
                    break;
                };
                if let Some(rate) = plan.rate {
                    let due = Duration::from_secs_f64((number - plan.first) as f64 / rate);
                    tokio::time::sleep_until(begin + due).await;
                }
                let bought = buy(&client, &plan, number, &acks).await;
                driven.lock().await.count(&bought);
                progress.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    customers.join_all().await;
    drop(acks);
    synced.await?;
    let mut driven = driven.lock().await.clone();
    driven.elapsed = begin.elapsed();
    Ok(driven)
}

struct Bought {
    status: Option<StatusCode>,
    acknowledged: bool,
    repeated: u64,
    took: Duration,
}

impl Driven {
    fn count(&mut self, bought: &Bought) {
        self.repeated += bought.repeated;
        self.latencies.push(bought.took);
        self.acknowledged += u64::from(bought.acknowledged);
        match bought.status {
            Some(StatusCode::CREATED | StatusCode::OK) => self.completed += 1,
            Some(StatusCode::ACCEPTED) => self.pending += 1,
            Some(StatusCode::SERVICE_UNAVAILABLE) => self.unavailable += 1,
            Some(_) => self.declined += 1,
            None => self.given_up += 1,
        }
    }
}

type Acks = mpsc::Sender<(String, oneshot::Sender<()>)>;

/// Asks until there is an answer that names the order.
async fn buy(client: &Http, plan: &Plan, number: u64, acks: &Acks) -> Bought {
    let begin = Instant::now();
    let key = format!("shop-{:x}-{number}", plan.seed);
    let body = order(plan.seed, number);
    let mut repeated = 0;
    loop {
        if let Ok((status, body)) = post(client, plan.gateway, &key, &body).await
            && let Some(id) = body["order"].as_str()
        {
            let took = begin.elapsed();
            let (reply, synced) = oneshot::channel();
            let acknowledged =
                acks.send((id.to_owned(), reply)).await.is_ok() && synced.await.is_ok();
            return Bought {
                status: Some(status),
                acknowledged,
                repeated,
                took,
            };
        }
        if begin.elapsed() > plan.patience {
            return Bought {
                status: None,
                acknowledged: false,
                repeated,
                took: begin.elapsed(),
            };
        }
        repeated += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One `POST /orders`.
pub async fn post(
    client: &Http,
    gateway: SocketAddr,
    key: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, Value)> {
    let request = Request::post(format!("http://{gateway}/orders"))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Full::from(body.to_string()))?;
    let answer = tokio::time::timeout(Duration::from_secs(20), client.request(request)).await??;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&body)?))
}

/// A file of acknowledged ids: a line is written and synced before its sender hears of it.
fn acknowledgements(path: &Path) -> anyhow::Result<(Acks, tokio::task::JoinHandle<()>)> {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)?;
    let (acks, mut lines) = mpsc::channel::<(String, oneshot::Sender<()>)>(1024);
    let writer = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        while lines.blocking_recv_many(&mut batch, 256) > 0 {
            let text: String = batch.iter().map(|(id, _)| format!("{id}\n")).collect();
            if file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_data())
                .is_err()
            {
                return;
            }
            for (_, reply) in batch.drain(..) {
                let _gone = reply.send(());
            }
        }
    });
    Ok((acks, writer))
}
