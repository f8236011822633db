//! The rules that a definition is checked by.

use std::time::Duration;

use orchestra_core::ServiceName;
use orchestra_saga::definition::{Builder, Unwind};
use orchestra_saga::{Call, Definition, ErrorKind, Failure, Handle, StepCall};
use serde_json::Value;

async fn fine(_: Call, (): ()) -> Result<u32, Failure> {
    Ok(1)
}

async fn undo(_: Call, (): (), _: Option<u32>) -> Result<(), Failure> {
    Ok(())
}

fn refusal(builder: Builder) -> String {
    let error = builder.build().expect_err("a rule is broken");
    assert_eq!(error.kind(), ErrorKind::InvalidDefinition);
    error.to_string()
}

fn begin() -> Builder {
    Definition::builder("d", "1")
}

#[test]
fn a_definition_has_a_step() {
    assert!(refusal(begin()).contains("0 steps"));
}

#[test]
fn a_step_of_which_no_kind_is_said_is_not_lost_in_silence() {
    let mut d = begin();
    d.step("sure", (), fine).compensate(undo);
    let _forgotten = d.step("charge", (), fine);
    d.step("last", (), fine).read_only();
    let said = refusal(d);
    assert!(said.contains("step charge has no kind"), "{said}");
}

#[test]
fn names_are_unique_and_valid() {
    let mut d = begin();
    d.step("a", (), fine).read_only();
    d.step("a", (), fine).read_only();
    assert!(refusal(d).contains("two steps are named a"));
    let mut d = begin();
    d.step("a b", (), fine).read_only();
    assert!(refusal(d).contains("\"a b\""));
    let mut d = Definition::builder("", "1");
    d.step("a", (), fine).read_only();
    assert!(refusal(d).contains("its id"));
}

#[test]
fn nothing_that_may_fail_comes_after_or_beside_the_pivot() {
    let mut d = begin();
    let pivot = d.step("pay", (), fine).pivot();
    d.step("late", (), fine).after(pivot).compensate(undo);
    assert!(refusal(d).contains("step late"));
    let mut d = begin();
    d.step("beside", (), fine).compensate(undo);
    d.step("pay", (), fine).pivot();
    assert!(refusal(d).contains("step beside"));
    let mut d = begin();
    let hold = d.step("hold", (), fine).compensate(undo);
    d.step("tell", (), fine).retriable();
    d.step("pay", (), fine).after(hold).pivot();
    assert!(refusal(d).contains("step tell is Retriable"));
}

#[test]
fn there_is_at_most_one_pivot() {
    let mut d = begin();
    let first = d.step("first", (), fine).pivot();
    d.step("second", (), fine).after(first).pivot();
    assert!(refusal(d).contains("more than one pivot"));
}

#[test]
fn a_handle_of_another_definition_is_refused() {
    let mut other = Definition::builder("other", "1");
    let foreign: Handle<u32> = other.step("a", (), fine).read_only();
    let mut d = begin();
    d.step("b", (), fine).after(foreign).read_only();
    assert!(refusal(d).contains("another definition"));
}

#[test]
fn a_request_needs_a_request_that_undoes_it_and_valid_templates() {
    let service = ServiceName::new("stock").expect("valid");
    let request = |path| StepCall::new(service.clone(), http::Method::POST, path);
    let mut d = begin();
    let _: Handle<Value> = d.call("hold", (), request("/holds")).compensatable();
    assert!(refusal(d).contains("is compensatable, and nothing undoes it"));
    for (path, said) in [
        ("holds", "begin with"),
        ("/holds/${input.id", "unmatched brace"),
        ("/holds/${order.id}", "which is not there"),
        ("/holds/${output.id}", "which is not there"),
        ("/holds/$5", "neither"),
    ] {
        let mut d = begin();
        let _: Handle<Value> = d.call("hold", (), request(path)).read_only();
        assert!(refusal(d).contains(said), "{path}");
    }
}

#[test]
fn the_hash_covers_the_graph_and_not_the_patience() {
    let hash = |name: &str, seconds: u64| {
        let mut d = begin();
        let limit = Duration::from_secs(seconds);
        d.step(name, (), fine).timeout(limit).read_only();
        d.build().expect("valid").hash().to_owned()
    };
    assert_eq!(hash("a", 1), hash("a", 2));
    assert_ne!(hash("a", 1), hash("b", 1));
}

#[test]
fn an_input_of_another_type_is_refused() {
    let mut d = begin();
    let order = d.input::<Vec<u32>>();
    d.step("sum", order, |_: Call, order: Vec<u32>| async move {
        Ok(order.len())
    })
    .read_only();
    let d = d.build().expect("valid");
    assert!(d.check_input(&serde_json::json!([1, 2]).into()).is_ok());
    let error = d
        .check_input(&serde_json::json!("two").into())
        .expect_err("a text");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn public_types_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Definition>();
    check::<orchestra_saga::Error>();
    check::<orchestra_saga::Executor>();
    check::<orchestra_saga::Machine>();
    check::<orchestra_saga::MemoryStore>();
    check::<orchestra_saga::SagaView>();
    check::<orchestra_saga::StepRequest>();
    #[cfg(feature = "sqlite")]
    check::<orchestra_saga::SqliteStore>();
}

const MINUTE: Duration = Duration::from_secs(60);

/// Sleeps for two and three minutes in one branch and for four in the other.
fn drowsy() -> Builder {
    let mut d = begin();
    let first = d.sleep("first", (), 2 * MINUTE);
    let between = d.step("between", (), fine).after(first).compensate(undo);
    let second = d.sleep("second", between, 3 * MINUTE);
    let other = d.sleep("other", (), 4 * MINUTE);
    d.step("pay", (), fine).after(second).after(other).pivot();
    d
}

#[test]
fn a_saga_that_must_go_back_since_it_sleeps_too_long_is_not_built() {
    for limit in [MINUTE, 5 * MINUTE] {
        let said = refusal(drowsy().timeout(limit));
        let (pause, step) = if limit == MINUTE {
            ("first", "between")
        } else {
            ("second", "pay")
        };
        assert!(said.contains(&format!("with step {pause} ")), "{said}");
        assert!(said.contains(&format!("before step {step}, ")), "{said}");
    }
    // Five minutes is what it may take unless somebody says otherwise.
    assert!(refusal(drowsy()).contains("more than 300s, or none"));
    let enough = 5 * MINUTE + Duration::from_millis(1);
    drowsy().timeout(enough).build().expect("in time");
    drowsy().timeout(None).build().expect("no limit");
    let never = drowsy().timeout(MINUTE).unwind(Unwind::Never);
    never.build().expect("it never goes back");
}

#[test]
fn what_cannot_fail_may_be_slept_for() {
    let mut d = begin();
    let paid = d.step("pay", (), fine).pivot();
    let later = d.sleep("a_week", paid, 10_080 * MINUTE);
    d.step("remind", (), fine).after(later).retriable();
    d.sleep("at_last", later, MINUTE);
    d.build().expect("the point of no return is past");
}

#[test]
fn a_saga_that_never_goes_back_waits_for_a_signal_without_a_limit() {
    let waiting = |limit: Option<Duration>| {
        let mut d = begin();
        let go: Handle<()> = d.signal("wait", (), "go", limit);
        d.step("pay", (), fine).after(go).pivot();
        d
    };
    let said = refusal(waiting(Some(MINUTE)).unwind(Unwind::Never));
    assert!(said.contains("step wait "), "{said}");
    waiting(None)
        .unwind(Unwind::Never)
        .build()
        .expect("it waits");
    waiting(Some(MINUTE)).build().expect("it goes back");
}
