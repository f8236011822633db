//! Kills the shop in mid-load, again and again, and counts everything afterwards.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestra_testkit::Seed;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::audit::Books;
use crate::load::{Plan, drive};
use crate::running::{Shop, eventually};

/// Kills the platform, or the platform and every service at once.
async fn kill(mut shop: Shop, everything: bool) {
    let services = shop.services();
    shop.process.kill().unwrap();
    if everything {
        for pid in services {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
    shop.process.wait().await.unwrap();
}

fn plan(shop: &Shop, data: &Path, seed: u64, first: u64, orders: u64) -> Plan {
    Plan {
        gateway: shop.gateway,
        seed,
        first,
        orders,
        customers: 16,
        rate: None,
        acknowledged: data.join("acknowledged"),
        patience: Duration::from_millis(300),
    }
}

async fn states(shop: &Shop, state: &str) -> BTreeSet<String> {
    let answer = shop
        .get(&format!("/orders?state={state}&limit=100000"))
        .await;
    let orders = answer.body["orders"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", answer.body))
        .clone();
    orders
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign_of_kills_loses_and_doubles_nothing() {
    let rounds: u64 = std::env::var("SHOP_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let seed = Seed::from_env_or_random("ORCHESTRA_SEED");
    let mut rng = seed.rng();
    let data = TempDir::new().unwrap();
    for round in 0..rounds {
        let shop = Shop::open(data.path(), &[]).await;
        let plan = plan(&shop, data.path(), seed.value(), round * 100_000, 100_000);
        let mut load = tokio::task::JoinSet::new();
        load.spawn(drive(plan, Arc::default()));
        tokio::time::sleep(Duration::from_millis(rng.u64(5..1500))).await;
        kill(shop, rng.bool()).await;
        load.shutdown().await;
    }

    let shop = Shop::open(data.path(), &[]).await;
    eventually("every saga ends", Duration::from_secs(60), async || {
        states(&shop, "running").await.is_empty()
    })
    .await;
    let (completed, compensated) = (
        states(&shop, "completed").await,
        states(&shop, "compensated").await,
    );
    let parked = states(&shop, "parked").await;
    shop.close().await;

    let acknowledged = std::fs::read_to_string(data.path().join("acknowledged")).unwrap();
    let acknowledged: BTreeSet<String> = acknowledged.lines().map(str::to_owned).collect();
    let ended: BTreeSet<String> = completed
        .iter()
        .chain(&compensated)
        .chain(&parked)
        .cloned()
        .collect();
    let lost: Vec<_> = acknowledged.difference(&ended).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(!completed.is_empty(), "nothing was sold");
    let books = Books::read(data.path()).unwrap();
    assert!(books.goods_conserved(), "{:?}", books.pieces);
    assert!(books.money_conserved(), "{:?}", books.cents);
    let contradictions = books.contradictions(&completed, &compensated);
    assert!(contradictions.is_empty(), "{contradictions:?}");
    println!(
        "{rounds} kills: {} acknowledged, {} completed, {} compensated, {} parked",
        acknowledged.len(),
        completed.len(),
        compensated.len(),
        parked.len(),
    );
}
