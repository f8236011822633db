//! Everything that a definition may have, under everything that may happen.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use orchestra_core::{Backoff, ServiceName};
use orchestra_saga::definition::{Builder, StepBuilder};
use orchestra_saga::explore::{Law, Report, explore};
use orchestra_saga::{
    Call, Definition, Failure, Handle, Participant, Payload, Retry, StepCall, Unwind,
};

async fn fine(_: Call, (): ()) -> Result<(), Failure> {
    Ok(())
}

async fn undo(_: Call, (): (), _: Option<()>) -> Result<(), Failure> {
    Ok(())
}

fn once() -> Retry {
    Retry::new(1, Backoff::fixed(Duration::from_millis(10)))
}

fn step<'d>(d: &'d mut Builder, name: &str) -> StepBuilder<'d, (), ()> {
    d.step(name, (), fine)
        .retry(once())
        .compensation_retry(Retry::NONE)
}

/// Two attempts that go wrong, a crash and a late call; not even they may break a law.
fn clean(definition: &Definition) -> Report {
    let report = explore(definition)
        .attempts(2)
        .timeouts(false)
        .states(400_000)
        .run();
    report.assert_clean().assert_exhaustive();
    report
}

#[test]
fn a_saga_goes_back_to_its_save_point_and_forward_again() {
    let mut d = Definition::builder("save_point", "1");
    let first = step(&mut d, "first").compensate(undo);
    let point = step(&mut d, "point")
        .after(first)
        .save_point(1)
        .compensate(undo);
    let next = step(&mut d, "next").after(point).compensate(undo);
    step(&mut d, "last")
        .after(next)
        .retry(Retry::NONE)
        .read_only();
    let definition = d.timeout(None).build().expect("valid");
    let report = explore(&definition)
        .attempts(2)
        .timeouts(false)
        .faults(3)
        .states(400_000)
        .run();
    report.assert_clean().assert_exhaustive();
}

#[test]
fn a_branch_beside_a_save_point_goes_on() {
    let mut d = Definition::builder("beside", "1");
    let point = step(&mut d, "point").save_point(1).compensate(undo);
    step(&mut d, "next").after(point).compensate(undo);
    step(&mut d, "beside").compensate(undo);
    let definition = d.timeout(None).build().expect("valid");
    let report = explore(&definition)
        .attempts(2)
        .timeouts(false)
        .faults(3)
        .states(400_000)
        .run();
    report.assert_clean().assert_exhaustive();
}

#[test]
fn what_is_in_doubt_is_asked_for() {
    let mut d = Definition::builder("probed", "1");
    let probe = |_: Call, (): ()| async { Ok(Some(())) };
    let first = step(&mut d, "first").probe(probe).compensate(undo);
    step(&mut d, "second")
        .after(first)
        .probe(probe)
        .compensate(undo);
    clean(&d.timeout(None).build().expect("valid"));
}

#[test]
fn signals_come_early_in_time_twice_or_never() {
    for limit in [None, Some(Duration::from_secs(60))] {
        let mut d = Definition::builder("signals", "1");
        let first = step(&mut d, "first").compensate(undo);
        let one: Handle<()> = d.signal("one", first, "go", limit);
        let two: Handle<()> = d.signal("two", one, "go", limit);
        step(&mut d, "last").after(two).compensate(undo);
        let definition = d.build().expect("valid");
        let report = explore(&definition)
            .attempts(2)
            .timeouts(false)
            .surplus_signals(2)
            .run();
        report.assert_clean().assert_exhaustive();
    }
}

#[test]
fn a_timer_fires_once_whoever_waits() {
    let hour = Duration::from_secs(3600);
    for timeout in [None, Some(2 * hour)] {
        let mut d = Definition::builder("timer", "1");
        let first = step(&mut d, "first").compensate(undo);
        let later = d.sleep("later", first, hour);
        step(&mut d, "last").after(later).compensate(undo);
        clean(&d.timeout(timeout).build().expect("valid"));
    }
    // Its time is over while it sleeps, unless what can fail is done by then.
    let mut d = Definition::builder("timer", "1");
    let first = step(&mut d, "first").compensate(undo);
    let later = d.sleep("later", first, hour);
    let beside = step(&mut d, "beside").after(first).compensate(undo);
    let last = step(&mut d, "last").after(later).after(beside);
    last.retriable();
    clean(&d.timeout(hour / 60).build().expect("valid"));
}

#[test]
fn tries_are_confirmed_or_cancelled() {
    let mut d = Definition::builder("transfer", "1");
    let confirm = |_: Call, (): ()| async { Ok(()) };
    step(&mut d, "withdraw").confirm(confirm, undo);
    step(&mut d, "deposit").confirm(confirm, undo);
    let definition = d.timeout(None).build().expect("valid");
    let report = explore(&definition)
        .attempts(1)
        .timeouts(false)
        .faults(3)
        .states(400_000)
        .run();
    report.assert_clean().assert_exhaustive();
}

#[derive(Debug)]
struct Resource;

#[async_trait]
impl Participant for Resource {
    async fn prepare(&self, _: &Call) -> Result<Payload, Failure> {
        Ok(Payload::default())
    }

    async fn commit(&self, _: &Call) -> Result<(), Failure> {
        Ok(())
    }

    async fn rollback(&self, _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn two_phases_commit_everywhere_or_nowhere() {
    let mut d = Definition::builder("two_phases", "1");
    d.two_phase::<(), _>("left", (), Resource).end();
    d.two_phase::<(), _>("right", (), Resource).end();
    let definition = d.timeout(None).build().expect("valid");
    let report = explore(&definition)
        .attempts(1)
        .timeouts(false)
        .faults(2)
        .states(400_000)
        .run();
    report.assert_clean().assert_exhaustive();
}

/// Two branches that join.
fn diamond(unwind: Unwind) -> Definition {
    let mut d = Definition::builder("diamond", "1");
    let left = step(&mut d, "left").commutative().compensate(undo);
    let right = step(&mut d, "right").commutative().compensate(undo);
    step(&mut d, "join")
        .after(left)
        .after(right)
        .commutative()
        .compensate(undo);
    d.timeout(None).unwind(unwind).build().expect("valid")
}

#[test]
fn compensations_keep_the_order_that_was_asked_for() {
    for unwind in [
        Unwind::Parallel,
        Unwind::Sequential,
        Unwind::Unordered,
        Unwind::Never,
    ] {
        let definition = diamond(unwind);
        let explore = explore(&definition).attempts(1).timeouts(false).faults(3);
        explore
            .states(400_000)
            .run()
            .assert_clean()
            .assert_exhaustive();
    }
}

#[test]
fn somebody_intervenes_at_every_moment() {
    let mut d = Definition::builder("asked", "1");
    let first = step(&mut d, "first").compensate(undo);
    step(&mut d, "second").after(first).compensate(undo);
    let definition = d.timeout(None).build().expect("valid");
    let explore = explore(&definition)
        .attempts(1)
        .timeouts(false)
        .interventions(2);
    explore
        .states(400_000)
        .run()
        .assert_clean()
        .assert_exhaustive();
}

#[test]
fn a_pivot_is_cancelled_only_before_it_may_be_done() {
    let mut d = Definition::builder("pivot", "1");
    let first = step(&mut d, "first").compensate(undo);
    let paid = step(&mut d, "pay").after(first).pivot();
    step(&mut d, "tell").after(paid).retriable();
    let definition = d
        .timeout(Some(Duration::from_secs(90)))
        .build()
        .expect("valid");
    let explore = explore(&definition).attempts(2).interventions(1).faults(3);
    explore
        .states(400_000)
        .run()
        .assert_clean()
        .assert_exhaustive();
}

#[test]
fn heartbeats_and_failing_appends_change_nothing() {
    let mut d = Definition::builder("long", "1");
    let first = step(&mut d, "first")
        .heartbeat(Duration::from_secs(5))
        .compensate(undo);
    step(&mut d, "second").after(first).compensate(undo);
    let definition = d.timeout(None).build().expect("valid");
    let explore = explore(&definition)
        .attempts(1)
        .timeouts(false)
        .heartbeats(1);
    let report = explore.store_failures(1).faults(3).states(400_000).run();
    report.assert_clean().assert_exhaustive();
}

/// A request that needs the output, which an undoing may not know.
#[test]
fn a_compensation_that_needs_what_it_may_not_know_is_found() {
    let service = || ServiceName::new("stock").expect("a name");
    let request = |path: &str| StepCall::new(service(), Method::POST, path);
    let definition = |undo: &str| {
        let mut d = Definition::builder("requests", "1");
        let order = d.input::<serde_json::Value>();
        let hold = d
            .call::<serde_json::Value, _>("reserve", order, request("/holds/${input.item}"))
            .compensate_with(request(undo));
        d.step("charge", hold, |_: Call, _: serde_json::Value| async {
            Ok(())
        })
        .pivot();
        d.build().expect("valid")
    };
    let explore = |undo: &str| {
        let (input, hold) = (serde_json::json!({"item": 7}), serde_json::json!({"id": 1}));
        explore(&definition(undo))
            .input(&input)
            .output("reserve", &hold)
            .faults(2)
            .run()
    };
    explore("/holds/${input.item}/release").assert_clean();
    let finding = explore("/holds/${output.id}/release")
        .finding
        .expect("found");
    assert_eq!(finding.law(), Law::RequestsCanBeMade);
    assert!(
        finding.seen().contains("`output.id` is missing"),
        "{finding}"
    );
    assert_eq!(finding.faults(), 2, "{finding}");
}

/// Where the states do not suffice, the report says what was seen of the whole.
#[test]
fn what_is_too_much_is_said_so() {
    let mut d = Definition::builder("wide", "1");
    for name in ["one", "two", "three", "four"] {
        step(&mut d, name).compensate(undo);
    }
    let definition = d.build().expect("valid");
    let report = explore(&definition).states(600).samples(50, 3).run();
    report.assert_clean();
    assert!(
        !report.exhaustive && report.faults == Some(1) && report.samples == 50,
        "{report}"
    );
    let said = "not all: those of up to 1 faults, and 50 random ones";
    assert!(report.to_string().contains(said), "{report}");
}

/// A saga that never goes back does not heed its deadline, nor is it woken by it again and again.
#[test]
fn a_saga_that_never_goes_back_waits_past_its_deadline() {
    let mut d = Definition::builder("forward", "1");
    let signal: Handle<()> = d.signal("wait", (), "go", None);
    step(&mut d, "last").after(signal).compensate(undo);
    let limit = Some(Duration::from_secs(120));
    clean(
        &d.timeout(limit)
            .unwind(Unwind::Never)
            .build()
            .expect("valid"),
    );
}

#[test]
fn a_saga_that_never_goes_back_is_not_revoked() {
    let mut d = Definition::builder("forward", "1");
    let first = step(&mut d, "first").compensate(undo);
    step(&mut d, "second").after(first).compensate(undo);
    let definition = d
        .timeout(None)
        .unwind(Unwind::Never)
        .build()
        .expect("valid");
    let explore = explore(&definition)
        .attempts(1)
        .timeouts(false)
        .interventions(1);
    explore.run().assert_clean().assert_exhaustive();
}

/// Save-points, probes, signals, timers, a pivot and somebody who intervenes, in one.
fn everything(unwind: Unwind, pivot: bool, limit: Option<Duration>) -> Definition {
    let mut d = Definition::builder("everything", "1");
    let probe = |_: Call, (): ()| async { Ok(Some(())) };
    let point = step(&mut d, "point")
        .save_point(1)
        .commutative()
        .compensate(undo);
    let probed = step(&mut d, "probed")
        .after(point)
        .probe(probe)
        .commutative()
        .compensate(undo);
    let go: Handle<()> = d.signal("go", point, "go", limit);
    let later = d.sleep("later", go, Duration::from_secs(5));
    let last = step(&mut d, "last").after(probed).after(later);
    let last = last.heartbeat(Duration::from_secs(5));
    if pivot {
        let done = last.pivot();
        step(&mut d, "tail").after(done).retriable();
    } else {
        last.commutative().compensate(undo);
    }
    d.timeout(Some(Duration::from_secs(120)))
        .unwind(unwind)
        .build()
        .expect("valid")
}

#[test]
#[ignore = "takes some minutes in a release build"]
fn everything_under_more_faults() {
    for unwind in [
        Unwind::Parallel,
        Unwind::Sequential,
        Unwind::Unordered,
        Unwind::Never,
    ] {
        for (pivot, limit) in [
            (false, None),
            (true, None),
            (true, Some(Duration::from_secs(60))),
        ] {
            if unwind == Unwind::Never && limit.is_some() {
                // Refused when it is built.
                continue;
            }
            let definition = everything(unwind, pivot, limit);
            let explore = explore(&definition).attempts(2).faults(3).states(3_000_000);
            let explore = explore
                .interventions(2)
                .store_failures(1)
                .late_calls(2)
                .crashes(2);
            let report = explore.run();
            report.assert_clean().assert_exhaustive();
        }
    }
}

#[test]
fn everything_under_two_faults() {
    let definition = everything(Unwind::Parallel, true, Some(Duration::from_secs(60)));
    let explore = explore(&definition).attempts(2).faults(2).interventions(2);
    explore
        .heartbeats(1)
        .run()
        .assert_clean()
        .assert_exhaustive();
}
