//! Every small graph, up to a renaming of its steps, with every answer and a crash at every append.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestra_core::Backoff;
use orchestra_saga::explore::{Exploration, explore};
use orchestra_saga::{Call, Definition, Failure, Handle, Retry};

/// What comes after the steps that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Nothing,
    Pivot,
    Retriable,
    Both,
}

const ENDS: [End; 4] = [End::Nothing, End::Pivot, End::Retriable, End::Both];

/// Steps that can be undone or read only, and the edges among them: bit `i` of `parents[j]` for `i` before `j`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Graph {
    compensatable: Vec<bool>,
    parents: Vec<u32>,
}

impl Graph {
    /// Every graph of so many steps, one for all that differ by names alone.
    fn all(size: usize) -> Vec<Self> {
        let pairs: Vec<_> = (0..size)
            .flat_map(|to| (0..to).map(move |from| (from, to)))
            .collect();
        let mut found = BTreeSet::new();
        let mut graphs = Vec::new();
        for edges in 0u32..1 << pairs.len() {
            let mut parents = vec![0; size];
            for (bit, (from, to)) in pairs.iter().enumerate() {
                parents[*to] |= (edges >> bit & 1) << from;
            }
            for kinds in 0u32..1 << size {
                let compensatable = (0..size).map(|step| kinds >> step & 1 == 1).collect();
                let graph = Self {
                    compensatable,
                    parents: parents.clone(),
                };
                if found.insert(graph.canonical()) {
                    graphs.push(graph);
                }
            }
        }
        graphs
    }

    fn canonical(&self) -> Self {
        let size = self.parents.len();
        let mut best = None;
        let mut order: Vec<usize> = (0..size).collect();
        permute(&mut order, 0, &mut |order| {
            let mut renamed = Self {
                compensatable: vec![false; size],
                parents: vec![0; size],
            };
            for (from, &to) in order.iter().enumerate() {
                renamed.compensatable[to] = self.compensatable[from];
                for (parent, &place) in order.iter().enumerate() {
                    renamed.parents[to] |= (self.parents[from] >> parent & 1) << place;
                }
            }
            if best.as_ref().is_none_or(|best| renamed < *best) {
                best = Some(renamed);
            }
        });
        best.expect("at least one order")
    }

    fn definition(&self, end: End, retries: u32, delay: Duration) -> Definition {
        let mut d = Definition::builder("graph", "1");
        let retry = Retry::new(retries, Backoff::fixed(delay));
        let mut steps: Vec<Handle<()>> = Vec::new();
        for (number, &parents) in self.parents.iter().enumerate() {
            let mut step = d
                .step(&format!("s{number}"), (), fine)
                .retry(retry)
                .compensation_retry(Retry::NONE);
            for parent in (0..number).filter(|parent| parents >> parent & 1 == 1) {
                step = step.after(steps[parent]);
            }
            steps.push(if self.compensatable[number] {
                step.compensate(undo)
            } else {
                step.read_only()
            });
        }
        if matches!(end, End::Pivot | End::Both) {
            let step = d.step("pivot", (), fine).retry(retry);
            steps.push(
                steps
                    .iter()
                    .fold(step, |step, parent| step.after(*parent))
                    .pivot(),
            );
        }
        if matches!(end, End::Retriable | End::Both) {
            let step = d.step("tail", (), fine).retry(retry);
            let _tail = steps
                .iter()
                .fold(step, |step, parent| step.after(*parent))
                .retriable();
        }
        d.timeout(None)
            .parking(Backoff::fixed(Duration::from_secs(30)))
            .build()
            .expect("the rules hold")
    }
}

async fn fine(_: Call, (): ()) -> Result<(), Failure> {
    Ok(())
}

async fn undo(_: Call, (): (), _: Option<()>) -> Result<(), Failure> {
    Ok(())
}

fn permute(order: &mut [usize], from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for at in from..order.len() {
        order.swap(from, at);
        permute(order, from + 1, visit);
        order.swap(from, at);
    }
}

/// Explores every graph of that size; how many there were, and how many states.
fn sweep(
    size: usize,
    retries: u32,
    bound: impl Fn(Exploration<'_>) -> Exploration<'_>,
) -> (usize, u64) {
    let (mut graphs, mut states) = (0, 0);
    let begun = std::time::Instant::now();
    let mut moves = 0;
    for graph in Graph::all(size) {
        for end in ENDS {
            let definition = graph.definition(end, retries, Duration::ZERO);
            let report = bound(explore(&definition)).run();
            if let Some(finding) = &report.finding {
                panic!("{graph:?} {end:?}: {finding}");
            }
            assert!(report.exhaustive, "{graph:?} {end:?}: {report}");
            graphs += 1;
            states += report.states;
            moves += report.moves;
        }
    }
    eprintln!(
        "size {size}: {graphs} graphs {states} states {moves} moves {:?}",
        begun.elapsed()
    );
    (graphs, states)
}

#[test]
fn small_graphs() {
    sweep(3, 1, |e| {
        e.attempts(2).timeouts(false).faults(2).states(2_000_000)
    });
    sweep(3, 1, |e| {
        e.attempts(2).timeouts(false).faults(3).states(2_000_000)
    });
    sweep(3, 0, |e| {
        e.attempts(2).timeouts(false).faults(2).states(2_000_000)
    });
    sweep(3, 0, |e| {
        e.attempts(2).timeouts(false).faults(3).states(2_000_000)
    });
}
