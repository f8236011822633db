//! Laws of snapshots.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::{
    ErrorKind, Scope, SourceSubject, Verdict, broken, detailed, expect, member, member_of,
};
use crate::instance::Incarnation;

pub(super) async fn snapshot_lists_what_is_there(subject: &SourceSubject) -> Verdict {
    let members = [member(3)?, detailed(1)?, member(2)?];
    subject.hold(&members).await?;
    subject.same(&subject.snapshot().await?, &members)
}

pub(super) async fn empty_answer_means_none(subject: &SourceSubject) -> Verdict {
    subject.same(&subject.snapshot().await?, &[])?;
    subject.hold(&[member(1)?]).await?;
    subject.snapshot().await?;
    subject.hold(&[]).await?;
    subject.same(&subject.snapshot().await?, &[])
}

pub(super) async fn revisions_rise_with_changes(subject: &SourceSubject) -> Verdict {
    let members = [member(1)?, member(2)?];
    let mut seen = vec![subject.snapshot().await?.revision()];
    for count in [1, 2, 1] {
        subject
            .hold(members.get(..count).unwrap_or_default())
            .await?;
        seen.push(subject.snapshot().await?.revision());
    }
    expect(seen.is_sorted_by(|a, b| a < b), || {
        format!("revisions {seen:?} of four states")
    })
}

pub(super) async fn revision_stays_without_a_change(subject: &SourceSubject) -> Verdict {
    subject.hold(&[member(1)?]).await?;
    let before = subject.snapshot().await?.revision();
    tokio::time::sleep(subject.lag * 2).await;
    let after = subject.snapshot().await?.revision();
    expect(before == after, || {
        format!("{before} became {after} without a change")
    })
}

/// The incarnation of the member that is listed first.
async fn first(subject: &SourceSubject) -> Result<Incarnation, super::Violation> {
    match subject.snapshot().await?.instances() {
        [first, ..] => Ok(first.incarnation),
        [] => broken("nothing is listed".to_owned()),
    }
}

pub(super) async fn incarnation_stays_with_the_instance(subject: &SourceSubject) -> Verdict {
    subject.hold(&[member(1)?]).await?;
    let alone = first(subject).await?;
    subject.hold(&[member(1)?, member(2)?]).await?;
    let beside = first(subject).await?;
    expect(alone == beside, || {
        format!("incarnation {alone} became {beside} when another came")
    })
}

pub(super) async fn returning_instance_has_a_greater_incarnation(
    subject: &SourceSubject,
) -> Verdict {
    subject.hold(&[member(1)?]).await?;
    let former = first(subject).await?;
    subject.hold(&[]).await?;
    subject.snapshot().await?;
    subject.hold(&[member(1)?]).await?;
    let present = first(subject).await?;
    expect(former < present, || {
        format!("incarnation {former} came back as {present}")
    })
}

pub(super) async fn all_services_are_covered_or_refused(subject: &SourceSubject) -> Verdict {
    let members = [member(1)?, member_of("conformance-b", 2)?];
    subject.hold(&members).await?;
    let all = subject.source.snapshot(&Scope::All).await;
    if subject.source.capabilities().all_services {
        return subject.same(&all?, &members);
    }
    match all {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        other => broken(format!("all services, which it cannot, give {other:?}")),
    }
}

pub(super) async fn cancelled_snapshot_leaves_no_trace(subject: &SourceSubject) -> Verdict {
    let members = [member(1)?];
    subject.hold(&members).await?;
    {
        let snapshot = pin!(subject.snapshot());
        let mut context = Context::from_waker(Waker::noop());
        let _either = snapshot.poll(&mut context);
    }
    subject.same(&subject.snapshot().await?, &members)
}
