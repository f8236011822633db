//! Closures of a user against a service of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestra_core::IdempotencyKey;
use orchestra_saga::explore::{Law, Report, explore};
use orchestra_saga::{Call, Definition, Failure, Status};
use parking_lot::Mutex;

/// Who has how many pieces, and which requests were served.
#[derive(Debug, Default)]
struct Shop {
    held: Mutex<BTreeMap<u64, u32>>,
    paid: Mutex<u32>,
    served: Mutex<BTreeMap<IdempotencyKey, u64>>,
}

impl Shop {
    fn reset(&self) {
        self.held.lock().clear();
        *self.paid.lock() = 0;
        self.served.lock().clear();
    }

    fn check(&self, end: Status) -> Result<(), String> {
        let (held, paid) = (self.held.lock().len(), *self.paid.lock());
        match (end, held, paid) {
            (Status::Completed, 1, 1) | (Status::Compensated, 0, 0) => Ok(()),
            _ => Err(format!("{held} holds and {paid} payments are there")),
        }
    }

    fn hold(&self, pieces: u32) -> u64 {
        let mut held = self.held.lock();
        let hold = held.len() as u64 + 1;
        held.insert(hold, pieces);
        hold
    }
}

/// How a hold is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// By its number; nothing if that is not known.
    ByNumber,
    /// Whatever was held for the saga.
    All,
    Refused,
    Never,
}

fn checkout(shop: &Arc<Shop>, release: Release) -> Definition {
    let mut d = Definition::builder("checkout", "1");
    let (holds, frees, pays) = (Arc::clone(shop), Arc::clone(shop), Arc::clone(shop));
    let hold = d
        .step("reserve", (), move |_: Call, (): ()| {
            let hold = holds.hold(2);
            async move { Ok(hold) }
        })
        .compensate(move |_: Call, (): (), hold: Option<u64>| {
            let mut held = frees.held.lock();
            match (release, hold) {
                (Release::ByNumber, Some(hold)) => drop(held.remove(&hold)),
                (Release::All, _) => held.clear(),
                _ => {}
            }
            let answer = match release {
                Release::Refused => Err(Failure::rejected("holds are for ever")),
                _ => Ok(()),
            };
            async { answer }
        });
    d.step("pay", hold, move |_: Call, _: u64| {
        *pays.paid.lock() += 1;
        async { Ok(()) }
    })
    .pivot();
    d.build().expect("valid")
}

fn report(release: Release) -> Report {
    let shop = Arc::new(Shop::default());
    let definition = checkout(&shop, release);
    let explore = explore(&definition).service(|| shop.reset(), |end| shop.check(end));
    explore.attempts(4).faults(3).run()
}

#[test]
fn a_compensation_that_undoes_is_clean() {
    report(Release::All).assert_clean().assert_exhaustive();
}

#[test]
fn a_compensation_that_needs_the_answer_leaves_something_behind() {
    let finding = report(Release::ByNumber).finding.expect("found");
    assert_eq!(finding.law(), Law::Consistent);
    assert_eq!(
        finding.seen(),
        "the saga is compensated, and 1 holds and 0 payments are there"
    );
    assert!(finding.faults() <= 3, "{finding}");
}

#[test]
fn a_compensation_that_does_nothing_needs_one_fault() {
    let finding = report(Release::Never).finding.expect("found");
    assert_eq!(finding.law(), Law::Consistent);
    assert_eq!(finding.faults(), 1, "{finding}");
}

#[test]
fn a_compensation_that_refuses_never_ends() {
    let finding = report(Release::Refused).finding.expect("found");
    assert_eq!(finding.law(), Law::Ends);
    assert_eq!(finding.faults(), 1, "{finding}");
}

/// Without a barrier in front, a service that keeps no keys does twice what is asked twice.
#[test]
fn a_service_without_keys_needs_a_barrier() {
    let shop = Arc::new(Shop::default());
    let definition = checkout(&shop, Release::All);
    let explore = explore(&definition).service(|| shop.reset(), |end| shop.check(end));
    let finding = explore.unguarded().faults(2).run().finding.expect("found");
    assert_eq!(finding.law(), Law::Consistent);
    assert_eq!(finding.faults(), 1, "{finding}");
}

/// A service of its own that keeps keys and tombstones passes without one.
#[test]
fn a_service_with_keys_needs_none() {
    let shop = Arc::new(Shop::default());
    let mut d = Definition::builder("keys", "1");
    let (does, undoes) = (Arc::clone(&shop), Arc::clone(&shop));
    d.step("pay", (), move |call: Call, (): ()| {
        let undo = Call::key_of(
            call.saga,
            &call.step,
            0,
            orchestra_saga::Operation::Compensation,
        );
        let mut served = does.served.lock();
        let late = served.contains_key(&undo);
        if !late && served.insert(call.key.clone(), 1).is_none() {
            *does.paid.lock() += 1;
        }
        async move {
            if late {
                Err(Failure::rejected("too late"))
            } else {
                Ok(())
            }
        }
    })
    .compensate(move |call: Call, (): (), _: Option<()>| {
        let act = Call::key_of(call.saga, &call.step, 0, orchestra_saga::Operation::Action);
        let mut served = undoes.served.lock();
        if served.insert(call.key.clone(), 1).is_none() && served.contains_key(&act) {
            *undoes.paid.lock() -= 1;
        }
        async { Ok(()) }
    });
    let definition = d.build().expect("valid");
    let check = |end: Status| match (end, *shop.paid.lock()) {
        (Status::Completed, 1) | (Status::Compensated, 0) => Ok(()),
        (_, paid) => Err(format!("{paid} payments")),
    };
    let explore = explore(&definition)
        .service(|| shop.reset(), check)
        .unguarded();
    explore
        .faults(3)
        .interventions(1)
        .run()
        .assert_clean()
        .assert_exhaustive();
}

#[test]
fn a_closure_that_waits_or_panics_is_said_so() {
    let mut d = Definition::builder("waits", "1");
    d.step("waits", (), |_: Call, (): ()| async {
        tokio::task::yield_now().await;
        Ok(())
    })
    .read_only();
    let definition = d.build().expect("valid");
    let fine = |_: Status| Ok::<(), String>(());
    let finding = explore(&definition)
        .service(|| {}, fine)
        .run()
        .finding
        .expect("found");
    assert_eq!(finding.law(), Law::AnswersAtOnce);
}
