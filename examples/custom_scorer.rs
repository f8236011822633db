//! A scorer of your own: replicas go where power is cheap at the moment, as far as there is room.

use std::sync::Arc;
use std::time::Duration;

use orchestra::Orchestra;
use orchestra::core::{Labels, NodeId, Score, ServiceName};
use orchestra::scheduler::filter::Fit;
use orchestra::scheduler::runtime::memory::MemoryRuntime;
use orchestra::scheduler::score::PerNode;
use orchestra::scheduler::workload::Readiness;
use orchestra::scheduler::{Command, Node, NodeView, Resources, Scheduler, Template, Workload};

/// The label `power-price` in cents per kilowatt-hour: 0 is best, 50 and more is worst.
fn cheap_power(_: &Workload, node: &NodeView<'_>) -> Score {
    let price = node
        .labels()
        .value("power-price")
        .and_then(|price| price.parse::<f64>().ok());
    price.map_or(Score::ZERO, |price| Score::clamped(1.0 - price / 50.0))
}

fn node(name: &str, price: &str) -> anyhow::Result<Node> {
    let labels = Labels::new().with("power-price", price)?;
    Ok(Node::new(NodeId::new(name)?, Resources::new().cpu(1_000)).labels(labels))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scheduler = Scheduler::bare()
        .filter(Fit)
        .scorer(1.0, PerNode::new("cheap-power", cheap_power));
    let orchestra = Orchestra::builder()
        .runtime(Arc::new(MemoryRuntime::new()))
        .node(node("coal", "42")?)
        .node(node("hydro", "7")?)
        .node(node("unknown", "cheap")?)
        .reconciler(|reconciler| reconciler.scheduler(scheduler))
        .build()
        .await?;

    // Half a core each: two fit where power is cheapest, the third goes to the next best.
    let batch = ServiceName::new("batch")?;
    let template = Template::new(Command::new("crunch"))
        .resources(Resources::new().cpu(500))
        .readiness(Readiness::Started);
    let handle = orchestra
        .scheduler()
        .expect("there is a runtime, so there is a scheduler");
    handle.set_workload(Workload::new(batch.clone(), template).replicas(3));
    let status = handle.until(|status| status.ready(&batch) == 3).await?;

    let mut nodes: Vec<String> = status
        .instances()
        .filter_map(|(_, seat)| seat.node.as_ref().map(ToString::to_string))
        .collect();
    nodes.sort();
    println!("{nodes:?}");
    assert_eq!(nodes, ["coal", "hydro", "hydro"]);

    orchestra.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
