use orchestra_core::Timestamp;

use super::*;
use crate::id::{SagaId, StepName};
use crate::step::Call;

fn call(op: Operation, epoch: u64) -> BarrierCall {
    let saga = SagaId::from_parts(Timestamp::UNIX_EPOCH, 1);
    let step = StepName::new("charge").expect("valid");
    BarrierCall {
        key: Call::key_of(saga, &step, 0, op),
        saga,
        step,
        iteration: 0,
        op,
        epoch: Epoch(epoch),
        body: None,
    }
}

fn kept(op: &str, record: &Record, body: Option<[u8; 32]>) -> Kept {
    Kept {
        op: op.to_owned(),
        record: record.clone(),
        body,
    }
}

/// Rows as a participant keeps them, and the effect that it has had.
#[derive(Debug, Clone, Default)]
struct Rows {
    epoch: u64,
    kept: Vec<Kept>,
    actions: u32,
    compensations: u32,
}

impl Rows {
    /// One call, done as the adapters do it.
    fn serve(&mut self, call: &BarrierCall, refuses: bool) -> Verdict {
        self.epoch = self.epoch.max(call.epoch.0);
        let seen = Seen {
            epoch: Epoch(self.epoch),
            kept: self.kept.clone(),
        };
        let verdict = decide(call, &seen);
        let record = match verdict {
            Verdict::Answer(_) => None,
            Verdict::Bury => Some(Record::Tombstone),
            Verdict::Work if refuses => refusal(call.op, "no"),
            Verdict::Work => {
                match call.op {
                    Operation::Action => self.actions += 1,
                    Operation::Compensation => self.compensations += 1,
                    Operation::Probe => panic!("a probe does no work"),
                }
                Some(Record::Done("1".to_owned()))
            }
        };
        if let Some(record) = record {
            assert!(
                self.kept.iter().all(|kept| kept.op != call.op.as_str()),
                "{call:?} is recorded twice"
            );
            self.kept.push(kept(call.op.as_str(), &record, call.body));
        }
        verdict
    }
}

fn explore(rows: &Rows, depth: u32, histories: &mut u64) {
    *histories += 1;
    assert!(
        rows.actions <= 1 && rows.compensations <= rows.actions,
        "{rows:?}"
    );
    if depth == 0 {
        return;
    }
    for op in [Operation::Action, Operation::Compensation, Operation::Probe] {
        for epoch in [1, 2] {
            for refuses in [false, true] {
                let mut next = rows.clone();
                let verdict = next.serve(&call(op, epoch), refuses);
                if epoch < rows.epoch {
                    assert_eq!(verdict, Verdict::Answer(Answer::Stale(Epoch(rows.epoch))));
                }
                let mut ops = rows.kept.iter().map(|kept| kept.op.as_str());
                let undone = ops.any(|op| op == "compensation" || op == "probe");
                if undone && op == Operation::Action {
                    assert_ne!(verdict, Verdict::Work, "an action after its end");
                }
                explore(&next, depth - 1, histories);
            }
        }
    }
}

#[test]
fn no_history_of_calls_does_the_work_twice_or_after_it_was_undone() {
    let mut histories = 0;
    explore(&Rows::default(), 5, &mut histories);
    assert_eq!(histories, (12_u64.pow(6) - 1) / 11);
}

#[test]
fn each_state_has_its_verdict() {
    use Operation::{Action, Compensation, Probe};
    let no_effect = Verdict::Answer(Answer::Rejected(NO_EFFECT.to_owned()));
    let done = Record::Done("7".to_owned());
    let refused = Record::Rejected("no".to_owned());
    let replayed = Verdict::Answer(Answer::Replayed("7".to_owned()));
    let nothing = Verdict::Answer(Answer::NullCompensation);
    let tombstoned = Verdict::Answer(Answer::Tombstoned);
    let table = [
        (Action, None, None, Verdict::Work),
        (Action, Some(&done), None, replayed.clone()),
        (
            Action,
            Some(&refused),
            None,
            Verdict::Answer(Answer::Rejected("no".to_owned())),
        ),
        (Action, Some(&done), Some(&done), tombstoned.clone()),
        (Action, None, Some(&Record::Tombstone), tombstoned.clone()),
        (
            Action,
            Some(&refused),
            Some(&Record::Tombstone),
            tombstoned.clone(),
        ),
        (Probe, None, None, Verdict::Bury),
        (Probe, Some(&refused), None, Verdict::Bury),
        (Probe, Some(&done), None, replayed.clone()),
        (Probe, Some(&done), Some(&done), tombstoned.clone()),
        (Probe, None, Some(&Record::Tombstone), tombstoned),
        (Compensation, None, None, Verdict::Bury),
        (Compensation, Some(&refused), None, Verdict::Bury),
        (Compensation, Some(&done), None, Verdict::Work),
        (Compensation, Some(&done), Some(&done), replayed),
        (Compensation, None, Some(&Record::Tombstone), nothing),
    ];
    let probed = Seen {
        epoch: Epoch(3),
        kept: vec![kept("probe", &Record::Tombstone, None)],
    };
    assert_eq!(decide(&call(Probe, 3), &probed), no_effect);
    for (op, action, compensation, verdict) in table {
        let mut records = Vec::new();
        records.extend(action.map(|record| kept("action", record, None)));
        records.extend(compensation.map(|record| kept("compensation", record, None)));
        // A newer release may have written operations that this one does not know.
        records.push(kept("confirmation", &Record::Tombstone, None));
        let seen = Seen {
            epoch: Epoch(3),
            kept: records,
        };
        assert_eq!(
            decide(&call(op, 3), &seen),
            verdict,
            "{op} {action:?} {compensation:?}"
        );
        assert_eq!(
            decide(&call(op, 2), &seen),
            Verdict::Answer(Answer::Stale(Epoch(3)))
        );
    }
}

#[test]
fn a_record_that_makes_no_sense_is_an_error() {
    let call = call(Operation::Action, 1);
    let error = Record::read(&call, "gone", String::new()).expect_err("no such state");
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
    let answer = Answer::Replayed("{".to_owned()).read::<u32>(&call);
    assert_eq!(
        answer.expect_err("no JSON").kind(),
        crate::ErrorKind::Corrupt
    );
}

#[test]
fn another_body_is_not_a_repetition_of_what_was_done_or_refused() {
    use Operation::{Action, Compensation, Probe};
    let (one, other) = (Some([1; 32]), Some([2; 32]));
    let done = Record::Done("7".to_owned());
    let refused = Record::Rejected("no".to_owned());
    let reused = Verdict::Answer(Answer::KeyReused);
    let asked = |op, body, rows: &[(Operation, &Record)]| {
        let mut call = call(op, 3);
        call.body = body;
        let rows = rows.iter();
        let seen = Seen {
            epoch: Epoch(3),
            kept: rows
                .map(|(op, record)| kept(op.as_str(), record, one))
                .collect(),
        };
        decide(&call, &seen)
    };
    for (op, rows) in [
        (Action, &[(Action, &done)][..]),
        (Action, &[(Action, &refused)]),
        (Compensation, &[(Action, &done), (Compensation, &done)]),
    ] {
        assert_eq!(asked(op, other, rows), reused);
        for same in [one, None] {
            assert_ne!(
                asked(op, same, rows),
                reused,
                "the same body, or none known"
            );
        }
    }
    let undone = [(Action, &done), (Compensation, &done)];
    assert_eq!(
        asked(Action, other, &undone),
        Verdict::Answer(Answer::Tombstoned)
    );
    let nothing = [(Compensation, &Record::Tombstone)];
    assert_eq!(
        asked(Compensation, other, &nothing),
        Verdict::Answer(Answer::NullCompensation)
    );
    let compensates = asked(Compensation, other, &[(Action, &done)]);
    assert_eq!(compensates, Verdict::Work, "its body is its own");
    let replayed = Verdict::Answer(Answer::Replayed("7".to_owned()));
    assert_eq!(asked(Probe, other, &[(Action, &done)]), replayed);
}
