//! Every small graph, up to a renaming of its steps, with every answer and a crash at every append.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestra_core::Backoff;
use orchestra_saga::explore::explore;
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

/// What of every graph of that size is explored.
struct Sweep {
    size: usize,
    ends: &'static [End],
    retries: u32,
    /// Faults in a sequence, if not any number.
    faults: Option<u8>,
}

impl Sweep {
    /// How many graphs there are.
    fn run(&self) -> u64 {
        let mut graphs = 0;
        for graph in Graph::all(self.size) {
            for &end in self.ends {
                let definition = graph.definition(end, self.retries, Duration::ZERO);
                let mut exploration = explore(&definition).attempts(self.retries + 1);
                exploration = exploration.timeouts(false).states(1_000_000);
                if let Some(faults) = self.faults {
                    exploration = exploration.faults(faults);
                }
                let report = exploration.run();
                if let Some(finding) = &report.finding {
                    panic!("{graph:?} {end:?}: {finding}");
                }
                assert!(report.exhaustive, "{graph:?} {end:?}: {report}");
                graphs += 1;
            }
        }
        graphs
    }
}

/// Everything: two attempts that go wrong, a crash, a late call, in every order.
#[test]
fn one_step_under_everything() {
    let sweep = Sweep {
        size: 1,
        ends: &ENDS,
        retries: 1,
        faults: None,
    };
    assert_eq!(sweep.run(), 2 * 4);
}

#[test]
fn two_steps_under_everything() {
    let sweep = Sweep {
        size: 2,
        ends: &ENDS,
        retries: 0,
        faults: None,
    };
    assert_eq!(sweep.run(), 7 * 4);
}

#[test]
fn three_steps_under_three_faults() {
    let ends = &[End::Nothing, End::Both];
    let sweep = Sweep {
        size: 3,
        ends,
        retries: 1,
        faults: Some(3),
    };
    assert_eq!(sweep.run(), 40 * 2);
}

/// Every answer with a crash at every append, every two answers.
#[test]
fn four_steps_under_two_faults() {
    let sweep = Sweep {
        size: 4,
        ends: &[End::Nothing],
        retries: 0,
        faults: Some(2),
    };
    assert_eq!(sweep.run(), 420);
}

#[test]
#[ignore = "takes minutes in a release build"]
fn two_steps_and_retries_under_everything() {
    let sweep = Sweep {
        size: 2,
        ends: &ENDS,
        retries: 1,
        faults: None,
    };
    assert_eq!(sweep.run(), 7 * 4);
}

#[test]
#[ignore = "takes minutes in a release build"]
fn three_steps_under_four_faults() {
    let sweep = Sweep {
        size: 3,
        ends: &ENDS,
        retries: 1,
        faults: Some(4),
    };
    assert_eq!(sweep.run(), 40 * 4);
}

/// Four steps before a pivot and a tail.
#[test]
#[ignore = "takes minutes in a release build"]
fn four_steps_under_three_faults() {
    let sweep = Sweep {
        size: 4,
        ends: &ENDS,
        retries: 1,
        faults: Some(3),
    };
    assert_eq!(sweep.run(), 420 * 4);
}

#[test]
#[ignore = "takes minutes in a release build"]
fn five_steps_under_two_faults() {
    let sweep = Sweep {
        size: 5,
        ends: &[End::Nothing, End::Both],
        retries: 0,
        faults: Some(2),
    };
    assert_eq!(sweep.run(), 8_628 * 2);
}

/// What makes fewer states of many hides nothing: the numbers of ends and the laws are those of the whole.
#[test]
fn symmetric_steps_change_nothing_but_the_number_of_states() {
    let graph = Graph {
        compensatable: vec![true, true],
        parents: vec![0, 0],
    };
    let definition = graph.definition(End::Nothing, 0, Duration::ZERO);
    let explore = || explore(&definition).attempts(1).timeouts(false);
    let (few, many) = (explore().run(), explore().without_symmetry().run());
    few.assert_clean().assert_exhaustive();
    many.assert_clean().assert_exhaustive();
    assert!(
        few.states < many.states && many.states < 2 * few.states,
        "{few} {many}"
    );
}

#[test]
fn time_passes_in_every_way() {
    for graph in Graph::all(2) {
        let definition = graph.definition(End::Both, 1, Duration::from_millis(10));
        let report = explore(&definition).attempts(2).faults(2).run();
        report.assert_clean().assert_exhaustive();
    }
}
