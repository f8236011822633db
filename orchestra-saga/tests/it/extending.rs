//! Probes, heartbeats, save-points, children, confirmations and two phases, through an executor.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Backoff;
use orchestra_saga::{
    Applied, Call, Cause, Decision, Definition, Event, Executor, Failure, Filter, MemoryStore,
    Operation, Operator, Participant, Payload, Resolution, Retry, Start, Status, StepName,
};
use parking_lot::Mutex;
use serde_json::json;

/// What was called, in order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().push(text.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }

    /// An action that notes its name.
    fn act<I: Send + 'static>(
        &self,
    ) -> impl Fn(Call, I) -> std::future::Ready<Result<String, Failure>> + Send + Sync + 'static
    {
        let log = self.clone();
        move |call, _| {
            log.note(call.step.as_str());
            std::future::ready(Ok(call.step.to_string()))
        }
    }

    /// Its compensation.
    fn undo<I: Send + 'static>(
        &self,
    ) -> impl Fn(Call, I, Option<String>) -> std::future::Ready<Result<(), Failure>>
    + Send
    + Sync
    + 'static {
        let log = self.clone();
        move |call, _, _| {
            log.note(format!("undo {}", call.step));
            std::future::ready(Ok(()))
        }
    }
}

fn quick(retries: u32) -> Retry {
    Retry::new(retries, Backoff::fixed(Duration::from_millis(10)))
}

fn ada() -> Operator {
    Operator::new("ada", "a test")
}

async fn executor(definitions: impl IntoIterator<Item = Definition>) -> Executor {
    let builder = Executor::builder(MemoryStore::default());
    let builder = definitions
        .into_iter()
        .fold(builder, orchestra_saga::executor::Builder::definition);
    builder.build().await.expect("built")
}

#[tokio::test(start_paused = true)]
async fn a_probe_decides_what_nobody_heard() {
    for (found, undone, applied) in [
        (Some(Some(7)), true, Applied::Known),
        (Some(None), false, Applied::Unknown),
        (None, true, Applied::Unknown),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls = Arc::clone(&seen);
        let mut d = Definition::builder("probing", "1");
        d.step("pay", (), |_: Call, (): ()| async {
            Err::<u32, _>(Failure::unknown("reset"))
        })
        .retry(quick(1))
        .compensation_retry(quick(1))
        .probe(move |call: Call, (): ()| {
            assert_eq!(call.op, Operation::Probe);
            let action = Call::key_of(call.saga, &call.step, 0, Operation::Action);
            assert_eq!(call.key, action);
            std::future::ready(found.ok_or_else(|| Failure::retryable("busy")))
        })
        .compensate(move |call: Call, (): (), output: Option<u32>| {
            calls.lock().push((call.applied, output));
            std::future::ready(Ok(()))
        });
        let executor = executor([d.build().expect("valid")]).await;
        let view = executor.run(Start::of("probing")).await.expect("ended");
        assert_eq!(view.status, Status::Compensated);
        let expected: Vec<_> = undone
            .then_some((applied, found.flatten()))
            .into_iter()
            .collect();
        assert_eq!(*seen.lock(), expected, "{found:?}");
        let history = executor.history(view.id).await.expect("read");
        let probes = history
            .iter()
            .filter(|it| it.event.name() == "probe_scheduled")
            .count();
        assert_eq!(probes, if found.is_some() { 1 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_attempt_is_continued_from_its_last_heartbeat() {
    let mut d = Definition::builder("copying", "1");
    d.step("copy", (), |call: Call, (): ()| async move {
        let from: u32 = match &call.details {
            Some(details) => details.read().expect("a number"),
            None => 0,
        };
        for part in from..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            call.heartbeat(&(part + 1)).await.expect("kept");
            if part == 6 && call.attempt == 1 {
                std::future::pending::<()>().await;
            }
        }
        Ok(from)
    })
    .heartbeat(Duration::from_secs(3))
    .timeout(Duration::from_secs(60))
    .attempt_timeout(Duration::from_secs(30))
    .retry(quick(1))
    .retriable();
    let executor = executor([d.build().expect("valid")]).await;
    let before = tokio::time::Instant::now();
    let view = executor.run(Start::of("copying")).await.expect("ended");
    assert_eq!(
        view.output("copy"),
        Some(&json!(7).into()),
        "it went on from there"
    );
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "silence was noticed"
    );
}

/// `plan` (a save-point), then `book` and `pay`; `pay` is refused so often.
fn journey(log: &Log, refusals: u32, restarts: u32) -> Definition {
    let mut d = Definition::builder("journey", "1");
    let plan = d
        .step("plan", (), log.act())
        .save_point(restarts)
        .compensate(log.undo());
    let book = d.step("book", plan, log.act()).compensate(log.undo());
    let (log, count) = (log.clone(), AtomicU32::new(0));
    d.step("pay", book, move |call: Call, _: String| {
        log.note(format!("pay {}", call.iteration));
        let refused = count.fetch_add(1, Ordering::Relaxed) < refusals;
        std::future::ready(if refused {
            Err(Failure::rejected("no"))
        } else {
            Ok(call.iteration)
        })
    })
    .pivot();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn a_saga_goes_back_to_its_save_point_and_forward_again() {
    let log = Log::default();
    let executor = executor([journey(&log, 2, 2)]).await;
    let view = executor.run(Start::of("journey")).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
    assert_eq!(view.cause, None);
    let expected = [
        "plan",
        "book",
        "pay 0",
        "undo book",
        "book",
        "pay 1",
        "undo book",
        "book",
        "pay 2",
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn after_so_many_restarts_it_goes_back_to_the_start() {
    let log = Log::default();
    let executor = executor([journey(&log, 9, 1)]).await;
    let view = executor.run(Start::of("journey")).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
    let expected = [
        "plan",
        "book",
        "pay 0",
        "undo book",
        "book",
        "pay 1",
        "undo book",
        "undo plan",
    ];
    assert_eq!(log.take(), expected);
}

/// A child of one step for each number, which is refused if the number is 13.
fn child(log: &Log) -> Definition {
    let mut d = Definition::builder("child", "1");
    let number = d.input::<u32>();
    let (act, undo) = (log.clone(), log.clone());
    d.step("work", number, move |_: Call, number: u32| {
        act.note(format!("work {number}"));
        let refused = number == 13;
        std::future::ready(if refused {
            Err(Failure::rejected("unlucky"))
        } else {
            Ok(number * 2)
        })
    })
    .compensate(move |_: Call, number: u32, _: Option<u32>| {
        undo.note(format!("undo {number}"));
        std::future::ready(Ok(()))
    });
    d.build().expect("valid")
}

/// A parent of as many children as its input has numbers; then a step that may refuse.
fn parent(refuses: bool) -> Definition {
    let mut d = Definition::builder("parent", "1");
    let numbers = d.input::<Vec<u32>>();
    let all = d
        .children("all", numbers, |_: &Call, numbers: Vec<u32>| {
            let start = |number| Start::of("child").input(&number);
            let starts = numbers.iter().map(start).collect::<Result<_, _>>();
            starts.map_err(|error| Failure::rejected(error.to_string()))
        })
        .revocable();
    d.step(
        "end",
        all,
        move |_: Call, outputs: Vec<serde_json::Value>| {
            std::future::ready(if refuses {
                Err(Failure::rejected("no"))
            } else {
                Ok(outputs)
            })
        },
    )
    .read_only();
    d.build().expect("valid")
}

async fn family(numbers: &[u32], refuses: bool) -> (Status, Option<Payload>, Vec<String>) {
    let log = Log::default();
    let executor = executor([child(&log), parent(refuses)]).await;
    let start = Start::of("parent").input(numbers).expect("json");
    let view = executor.run(start).await.expect("ended");
    let mut calls = log.take();
    calls.sort_unstable();
    (view.status, view.output("end").cloned(), calls)
}

#[tokio::test(start_paused = true)]
async fn children_are_a_step_of_their_parent() {
    let (status, output, calls) = family(&[1, 2, 3], false).await;
    assert_eq!(status, Status::Completed);
    let outputs = json!([{ "work": 2 }, { "work": 4 }, { "work": 6 }]);
    assert_eq!(output.map(|output| output.value()), Some(outputs));
    assert_eq!(calls, ["work 1", "work 2", "work 3"]);
}

#[tokio::test(start_paused = true)]
async fn with_one_child_that_goes_back_all_go_back() {
    let (status, _, calls) = family(&[1, 13, 3], false).await;
    assert_eq!(status, Status::Compensated);
    assert_eq!(calls, ["undo 1", "undo 3", "work 1", "work 13", "work 3"]);
}

#[tokio::test(start_paused = true)]
async fn children_that_completed_are_taken_back_with_their_parent() {
    let (status, _, calls) = family(&[1, 2], true).await;
    assert_eq!(status, Status::Compensated);
    assert_eq!(calls, ["undo 1", "undo 2", "work 1", "work 2"]);
}

#[tokio::test(start_paused = true)]
async fn parents_that_hold_all_room_do_not_wait_for_their_children() {
    let log = Log::default();
    let builder = Executor::builder(MemoryStore::default());
    let builder = builder.definition(child(&log)).definition(parent(false));
    let executor = builder
        .max_running(2.try_into().expect("two"))
        .max_waiting(10)
        .build()
        .await;
    let executor = executor.expect("built");
    let start = || Start::of("parent").input(&[1, 2, 3]).expect("json");
    let runs = (0..6).map(|_| executor.run(start()));
    for view in futures_util::future::join_all(runs).await {
        assert_eq!(view.expect("ended").status, Status::Completed);
    }
}

/// Room for one, and a parent whose child waits for a signal and then sleeps for five seconds.
async fn room_for_one(store: &Arc<MemoryStore>) -> Executor {
    let mut d = Definition::builder("child", "1");
    let number = d.input::<u32>();
    let word = d.signal::<u32, _>("word", number, "word", Duration::from_secs(60));
    let nap = d.sleep("nap", word, Duration::from_secs(5));
    d.step("work", word, |_: Call, n: u32| async move { Ok(n * 2) })
        .after(nap)
        .read_only();
    let mut all = Definition::builder("parent", "1");
    all.children("all", (), |_: &Call, (): ()| {
        let start = Start::of("child").input(&1);
        start
            .map(|start| vec![start])
            .map_err(|error| Failure::rejected(error.to_string()))
    })
    .read_only();
    let builder = Executor::builder(Arc::clone(store)).max_running(1.try_into().expect("one"));
    let builder = builder.definition(d.build().expect("valid"));
    let builder = builder.definition(all.build().expect("valid"));
    builder.build().await.expect("built")
}

#[tokio::test(start_paused = true)]
async fn a_child_that_slept_needs_no_place_of_its_own() {
    for is_taken_over in [false, true] {
        let store = Arc::<MemoryStore>::default();
        let mut executor = room_for_one(&store).await;
        let parent = executor.start(Start::of("parent")).await.expect("started");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(executor.running(), 1, "the child sleeps");
        let open = executor.list(&Filter::open().definition("child")).await;
        let child = open.expect("listed").first().expect("one").saga;
        if is_taken_over {
            // Another takes over: its parent has the only place when the child is told, and calls again then.
            executor = room_for_one(&store).await;
        }
        let begun = tokio::time::Instant::now();
        let told = executor.signal(child, "word", None, &21).await;
        told.expect("told");
        let view = executor.wait(parent).await.expect("ended");
        assert_eq!(view.status, Status::Completed);
        let output = view.output("all").map(Payload::value);
        assert_eq!(output, Some(json!([{ "word": 21, "work": 42 }])));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test(start_paused = true)]
async fn confirmations_follow_all_that_can_fail() {
    for refused in [false, true] {
        let log = Log::default();
        let confirm = |log: &Log| {
            let log = log.clone();
            move |call: Call, _: String| {
                log.note(call.step.as_str());
                std::future::ready(Ok(()))
            }
        };
        let mut d = Definition::builder("transfer", "1");
        d.step("take", (), log.act())
            .confirm(confirm(&log), log.undo());
        d.step("give", (), log.act())
            .confirm(confirm(&log), log.undo());
        d.step("check", (), move |_: Call, (): ()| {
            std::future::ready(if refused {
                Err(Failure::rejected("no"))
            } else {
                Ok(())
            })
        })
        .read_only();
        let executor = executor([d.build().expect("valid")]).await;
        let view = executor.run(Start::of("transfer")).await.expect("ended");
        let mut calls = log.take();
        calls[..2].sort_unstable();
        calls[2..].sort_unstable();
        let expected = if refused {
            ["give", "take", "undo give", "undo take"]
        } else {
            ["give", "take", "give.confirm", "take.confirm"]
        };
        assert_eq!(calls, expected);
        let decision = if refused {
            Decision::Abort
        } else {
            Decision::Commit
        };
        assert_eq!(executor.decision(view.id).await.expect("read"), decision);
    }
}

/// A participant that keeps what is prepared, and may refuse.
#[derive(Debug, Default)]
struct Books {
    prepared: Mutex<HashMap<String, bool>>,
    refuses: bool,
}

#[async_trait]
impl Participant for Books {
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
        if self.refuses {
            return Err(Failure::rejected("no"));
        }
        self.prepared.lock().insert(call.step.to_string(), false);
        Ok(json!(call.step.as_str()).into())
    }

    async fn commit(&self, call: &Call) -> Result<(), Failure> {
        let step = call.step.as_str().trim_end_matches(".confirm").to_owned();
        assert!(
            self.prepared.lock().insert(step, true).is_some(),
            "it was prepared"
        );
        Ok(())
    }

    async fn rollback(&self, call: &Call) -> Result<(), Failure> {
        let was = self.prepared.lock().remove(call.step.as_str());
        assert_eq!(was, Some(false), "it was prepared and not committed");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn two_phases_commit_all_or_none() {
    for refuses in [false, true] {
        let (one, two) = (
            Arc::<Books>::default(),
            Arc::new(Books {
                refuses,
                ..Books::default()
            }),
        );
        let mut d = Definition::builder("both", "1");
        d.two_phase::<String, _>("one", (), Arc::clone(&one)).end();
        d.two_phase::<String, _>("two", (), Arc::clone(&two))
            .with(|step| step.retry(quick(1)))
            .end();
        let executor = executor([d.build().expect("valid")]).await;
        let view = executor.run(Start::of("both")).await.expect("ended");
        let (one, two) = (one.prepared.lock().clone(), two.prepared.lock().clone());
        if refuses {
            assert_eq!(view.status, Status::Compensated);
            assert!(one.is_empty() && two.is_empty());
        } else {
            assert_eq!(view.status, Status::Completed);
            assert_eq!((one.get("one"), two.get("two")), (Some(&true), Some(&true)));
            // What is prepared anew must be all that is committed anew.
            for (from, unprepared) in [("one", "two"), ("one.confirm", "one")] {
                let from = StepName::new(from).expect("valid");
                let refused = executor.fork(view.id, &from, ada()).await;
                let refused = refused.expect_err("unprepared");
                assert_eq!(refused.kind(), orchestra_saga::ErrorKind::InvalidInput);
                let names = format!("{unprepared}.confirm would run again");
                assert!(refused.to_string().contains(&names), "{refused}");
            }
        }
    }
    let executor = executor([]).await;
    let nobody = orchestra_saga::SagaId::from_bytes([1; 16]);
    let decision = executor.decision(nobody).await.expect("read");
    assert_eq!(decision, Decision::Abort, "presumed");
}

#[tokio::test(start_paused = true)]
async fn an_operator_resolves_or_skips_what_is_parked() {
    let mut d = Definition::builder("stuck", "1");
    let first = d
        .step("first", (), |_: Call, (): ()| async { Ok(1) })
        .retry(quick(0))
        .compensation_retry(quick(0))
        .compensate(|_: Call, (): (), _: Option<u32>| async { Err(Failure::rejected("never")) });
    d.step("last", first, |_: Call, _: u32| async {
        Err::<u32, _>(Failure::retryable("down"))
    })
    .retry(quick(0))
    .retriable();
    let executor = executor([d.build().expect("valid")]).await;
    let saga = executor.start(Start::of("stuck")).await.expect("started");
    let last = StepName::new("last").expect("valid");
    let first = StepName::new("first").expect("valid");
    assert_eq!(
        executor.settled(saga).await.expect("parked").status,
        Status::Parked
    );
    let found = Resolution::Done(json!(5).into());
    let early = executor
        .resolve(saga, &first, Operation::Action, found.clone(), ada())
        .await;
    assert!(!early.expect("told"), "it is settled");
    let done = executor
        .resolve(saga, &last, Operation::Action, found, ada())
        .await;
    assert!(done.expect("told"));
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.output("last"), Some(&json!(5).into()));
    let history = executor.history(saga).await.expect("read");
    let by = history.iter().find_map(|recorded| match &recorded.event {
        Event::StepResolved { by, .. } => Some(by.clone()),
        _ => None,
    });
    assert_eq!(by, Some(ada()), "kept for an audit");
}

#[tokio::test(start_paused = true)]
async fn what_is_never_given_up_is_not_resolved_as_not_applied() {
    let mut forward = orchestra_saga::Config::default();
    forward.compensation.is_enabled = false;
    for (id, config) in [
        ("retriable", orchestra_saga::Config::default()),
        ("forward", forward),
    ] {
        let mut d = Definition::builder(id, "1").config(&config);
        let asked = Arc::<AtomicU32>::default();
        let step = d.step("only", (), move |_: Call, (): ()| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    Err(Failure::retryable("down"))
                } else {
                    Ok(5)
                }
            }
        });
        let step = step.retry(quick(0));
        if id == "retriable" {
            step.retriable();
        } else {
            step.read_only();
        }
        let executor = executor([d.build().expect("valid")]).await;
        let saga = executor.start(Start::of(id)).await.expect("started");
        let parked = executor.settled(saga).await.expect("parked");
        assert_eq!(parked.status, Status::Parked, "{id}");
        let only = StepName::new("only").expect("valid");
        let given_up = executor
            .resolve(
                saga,
                &only,
                Operation::Action,
                Resolution::NotApplied,
                ada(),
            )
            .await;
        assert!(
            !given_up.expect("told"),
            "{id}: it would stand still for ever"
        );
        let view = executor.wait(saga).await.expect("ended");
        assert_eq!(view.output("only"), Some(&json!(5).into()), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_cannot_be_done_is_skipped_by_hand() {
    let mut d = Definition::builder("stuck", "1");
    let first = d
        .step("first", (), |_: Call, (): ()| async { Ok(1) })
        .compensation_retry(quick(0))
        .compensate(|_: Call, (): (), _: Option<u32>| async { Err(Failure::rejected("never")) });
    d.step("second", first, |_: Call, _: u32| async {
        Err::<u32, _>(Failure::rejected("no"))
    })
    .read_only();
    let executor = executor([d.build().expect("valid")]).await;
    let saga = executor.start(Start::of("stuck")).await.expect("started");
    assert_eq!(
        executor.settled(saga).await.expect("parked").status,
        Status::Parked
    );
    let first = StepName::new("first").expect("valid");
    assert!(
        executor
            .skip(saga, &first, Operation::Compensation, ada())
            .await
            .expect("told")
    );
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
    assert!(matches!(view.cause, Some(Cause::Rejected { step, .. }) if step.as_str() == "second"));
}

const DECLARED: &str = r#"{
    "id": "declared", "version": "1",
    "steps": [
        { "name": "nap", "sleep_ms": 10000 },
        { "name": "ask", "signal": "go", "kind": "read_only" }
    ]
}"#;

#[tokio::test(start_paused = true)]
async fn a_saga_goes_on_by_the_definition_that_it_began_with() {
    let store = Arc::<MemoryStore>::default();
    let build = async |text: &str| {
        let definition = Definition::from_json(text).expect("valid");
        let builder = Executor::builder(Arc::clone(&store)).definition(definition);
        builder.build().await.expect("built")
    };
    let first = build(DECLARED).await;
    let saga = first.start(Start::of("declared")).await.expect("started");
    first.shutdown().await;
    // The same version with other steps, as if nobody had thought of the sagas in flight.
    let second = build(&DECLARED.replace("\"go\"", "\"stop\"")).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    second.signal(saga, "go", None, &3).await.expect("told");
    let view = second.wait(saga).await.expect("ended");
    assert_eq!(
        (view.status, view.output("ask")),
        (Status::Completed, Some(&json!(3).into()))
    );
}
