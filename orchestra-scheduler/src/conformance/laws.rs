//! The laws, each a check that a fresh [`Subject`] passes.

use std::time::Duration;

use orchestra_core::InstanceId;

use super::subject::name;
use super::{Script, Subject, Violation};
use crate::error::{ErrorKind, Result as Outcome};
use crate::runtime::Exit;

type Checked = Result<(), Violation>;

/// How long anything that must happen may take.
const SOON: Duration = Duration::from_secs(10);
/// How long to look at what must not happen.
const WHILE: Duration = Duration::from_millis(50);

fn ensure(holds: bool, violation: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(violation()))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> Checked {
    ensure(seen == expected, || {
        format!("{what}: seen {seen:?}, expected {expected:?}")
    })
}

fn refused<T: std::fmt::Debug>(what: &str, seen: Outcome<T>, expected: ErrorKind) -> Checked {
    match seen {
        Ok(value) => Err(Violation::new(format!("{what}: answered {value:?}"))),
        Err(error) => same(what, &error.kind(), &expected),
    }
}

async fn soon<T>(what: &str, work: impl Future<Output = Outcome<T>>) -> Result<T, Violation> {
    match tokio::time::timeout(SOON, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Violation::new(format!("{what} did not return in time"))),
    }
}

async fn is_listed(subject: &Subject, id: &InstanceId) -> Result<bool, Violation> {
    let list = soon("list", subject.runtime().list()).await?;
    Ok(list.iter().any(|container| container.instance == *id))
}

async fn goes_on(subject: &Subject, id: &InstanceId) -> Checked {
    match tokio::time::timeout(WHILE, subject.runtime().wait(id)).await {
        Err(_) => Ok(()),
        Ok(answer) => Err(Violation::new(format!("{id} does not run: {answer:?}"))),
    }
}

async fn clean_up(subject: &Subject, id: &InstanceId) -> Result<Exit, Violation> {
    soon("kill", subject.runtime().kill(id)).await
}

/// `start` returns once the container runs, and `list` shows it.
pub async fn start_is_shown_by_list(subject: &Subject) -> Checked {
    let id = subject.start("shown", Script::Serve).await?;
    ensure(is_listed(subject, &id).await?, || {
        format!("{id} was started and is not listed")
    })?;
    clean_up(subject, &id).await.map(drop)
}

/// `start` of an id that is running is refused, and the running one goes on.
pub async fn a_running_id_is_refused(subject: &Subject) -> Checked {
    let id = subject.serving("twice", Script::Serve).await?;
    let again = subject.runtime().start(subject.spec(&id, Script::Serve));
    refused("second start", again.await, ErrorKind::AlreadyExists)?;
    goes_on(subject, &id).await?;
    clean_up(subject, &id).await.map(drop)
}

/// A `start` that fails leaves nothing.
pub async fn a_failed_start_leaves_nothing(subject: &Subject) -> Checked {
    let id = name("missing")?;
    let started = subject.runtime().start(subject.spec(&id, Script::Missing));
    ensure(started.await.is_err(), || {
        format!("{id} cannot be started, and was")
    })?;
    ensure(!is_listed(subject, &id).await?, || {
        format!("{id} was not started and is listed")
    })?;
    refused(
        "wait",
        subject.runtime().wait(&id).await,
        ErrorKind::NotFound,
    )
}

/// `list` does not show what has ended.
pub async fn list_drops_the_ended(subject: &Subject) -> Checked {
    let id = subject.start("ended", Script::Exit(0)).await?;
    soon("wait", subject.runtime().wait(&id)).await?;
    ensure(!is_listed(subject, &id).await?, || {
        format!("{id} has ended and is listed")
    })
}

/// `kill` returns after the end was observed.
pub async fn kill_returns_after_the_end(subject: &Subject) -> Checked {
    let id = subject.serving("killed", Script::Stubborn).await?;
    let exit = soon("kill", subject.runtime().kill(&id)).await?;
    ensure(exit.is_forced(), || format!("{id} was killed, exit {exit}"))?;
    ensure(!is_listed(subject, &id).await?, || {
        format!("kill of {id} returned while it ran")
    })
}

/// `kill` of what has ended answers with the same exit again.
pub async fn kill_is_idempotent(subject: &Subject) -> Checked {
    let id = subject.serving("killed", Script::Serve).await?;
    let first = soon("kill", subject.runtime().kill(&id)).await?;
    let second = soon("second kill", subject.runtime().kill(&id)).await?;
    same("second kill", &second, &first)
}

/// An id that was never started is not found.
pub async fn unknown_ids_are_not_found(subject: &Subject) -> Checked {
    let (id, runtime) = (name("nobody")?, subject.runtime());
    refused("kill", runtime.kill(&id).await, ErrorKind::NotFound)?;
    refused("stop", runtime.stop(&id, WHILE).await, ErrorKind::NotFound)?;
    refused("wait", runtime.wait(&id).await, ErrorKind::NotFound)?;
    refused("output", runtime.output(&id).await, ErrorKind::NotFound)
}

/// `wait` answers every waiter with the same exit, those that come late too.
pub async fn wait_answers_every_waiter(subject: &Subject) -> Checked {
    let id = subject.serving("awaited", Script::Serve).await?;
    let waits = async {
        let wait = || soon("wait", subject.runtime().wait(&id));
        tokio::join!(wait(), wait())
    };
    let ((one, other), stopped) = tokio::join!(waits, async {
        tokio::time::sleep(WHILE).await;
        soon("stop", subject.runtime().stop(&id, SOON)).await
    });
    let late = soon("late wait", subject.runtime().wait(&id)).await?;
    stopped?;
    same("second waiter", &other?, &one.clone()?)?;
    same("late waiter", &late, &one?)
}

/// A `wait` that is dropped changes nothing.
pub async fn a_dropped_wait_changes_nothing(subject: &Subject) -> Checked {
    let id = subject.serving("dropped", Script::Serve).await?;
    goes_on(subject, &id).await?;
    // What the drop may have begun has time to show.
    tokio::time::sleep(WHILE).await;
    goes_on(subject, &id).await?;
    clean_up(subject, &id).await.map(drop)
}

/// The exit tells the code with which a container ended by itself.
pub async fn the_exit_code_is_reported(subject: &Subject) -> Checked {
    let id = subject.start("code", Script::Exit(3)).await?;
    let exit = soon("wait", subject.runtime().wait(&id)).await?;
    same("exit", &exit, &Exit::code(3))
}

/// `stop` lets a container end itself within the grace.
pub async fn stop_lets_the_container_end_itself(subject: &Subject) -> Checked {
    let id = subject.serving("willing", Script::Serve).await?;
    let exit = soon("stop", subject.runtime().stop(&id, SOON)).await?;
    same("exit", &exit, &Exit::code(7))
}

/// `stop` kills what is still there after the grace.
pub async fn stop_kills_after_the_grace(subject: &Subject) -> Checked {
    let id = subject.serving("stubborn", Script::Stubborn).await?;
    let exit = soon("stop", subject.runtime().stop(&id, WHILE)).await?;
    ensure(exit.is_forced(), || {
        format!("{id} ignores stop and was not killed: {exit}")
    })?;
    ensure(!is_listed(subject, &id).await?, || {
        format!("stop of {id} returned while it ran")
    })
}

/// Ending one container leaves the others alone.
pub async fn containers_do_not_disturb_each_other(subject: &Subject) -> Checked {
    let one = subject.serving("one", Script::Serve).await?;
    let other = subject.serving("other", Script::Serve).await?;
    clean_up(subject, &one).await?;
    goes_on(subject, &other).await?;
    clean_up(subject, &other).await.map(drop)
}

/// `output` holds what was written, all of it once `wait` has returned.
pub async fn output_holds_what_was_written(subject: &Subject) -> Checked {
    let id = subject.start("written", Script::Print(5)).await?;
    soon("wait", subject.runtime().wait(&id)).await?;
    let output = soon("output", subject.runtime().output(&id)).await?;
    let texts: Vec<_> = output.lines.into_iter().map(|line| line.text).collect();
    let expected: Vec<_> = (0..5).map(|number| format!("line {number}")).collect();
    same("output", &texts, &expected)
}

/// `output` keeps the newest lines and counts the others.
pub async fn output_is_bounded(subject: &Subject) -> Checked {
    const BEYOND: usize = 10;
    let kept = subject.runtime().capabilities().output_lines;
    let id = subject
        .start("talkative", Script::Print(kept + BEYOND))
        .await?;
    soon("wait", subject.runtime().wait(&id)).await?;
    let output = soon("output", subject.runtime().output(&id)).await?;
    same("kept lines", &output.lines.len(), &kept)?;
    same("lost lines", &output.lost, &(BEYOND as u64))?;
    let newest = output.lines.last().map(|line| line.text.clone());
    same(
        "newest line",
        &newest,
        &Some(format!("line {}", kept + BEYOND - 1)),
    )
}
