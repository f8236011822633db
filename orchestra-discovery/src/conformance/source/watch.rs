//! Laws of watches.

use std::time::Duration;

use super::{
    Change, Revision, SourceSubject, Verdict, WatchEvent, brings, broken, endpoint, expect, member,
    member_of,
};

pub(super) async fn watch_tells_a_removal(subject: &SourceSubject) -> Verdict {
    subject.hold(&[member(1)?, member(2)?]).await?;
    let snapshot = subject.snapshot().await?;
    let going = snapshot
        .instances()
        .iter()
        .find(|instance| instance.endpoint == endpoint(1));
    let Some(going) = going else {
        return broken("it is not listed".to_owned());
    };
    let mut watch = subject.watch(snapshot.revision()).await?;
    subject.hold(&[member(2)?]).await?;
    let gone =
        |change: &Change| matches!(change, Change::Removed(removal) if removal.id == going.id);
    subject.until(&mut watch, gone).await
}

pub(super) async fn watch_tells_an_alteration(subject: &SourceSubject) -> Verdict {
    if !subject.expresses.weights {
        return Ok(());
    }
    let (mut altered, other) = (member(1)?, member(2)?);
    subject.hold(&[altered.clone(), other.clone()]).await?;
    let mut watch = subject.watch_from_now().await?;
    altered.weight = 5;
    subject.hold(&[altered, other]).await?;
    let told = |change: &Change| matches!(change, Change::Upserted(instance) if instance.endpoint == endpoint(1) && instance.weight == 5);
    subject.until(&mut watch, told).await
}

pub(super) async fn watch_does_not_repeat_the_snapshot(subject: &SourceSubject) -> Verdict {
    subject.hold(&[member(1)?]).await?;
    let mut watch = subject.watch_from_now().await?;
    subject.is_quiet(&mut watch).await
}

pub(super) async fn watch_tells_each_change_once(subject: &SourceSubject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    subject.hold(&[member(1)?]).await?;
    subject.next(&mut watch).await?;
    subject.is_quiet(&mut watch).await
}

pub(super) async fn watch_begins_at_its_revision(subject: &SourceSubject) -> Verdict {
    let revision = subject.snapshot().await?.revision();
    subject.hold(&[member(1)?]).await?;
    // Another reader has seen the change before the watch begins.
    subject.snapshot().await?;
    if !subject.source.capabilities().resume {
        return told_or_resync(subject, revision).await;
    }
    let mut watch = subject.watch(revision).await?;
    let (_, changes) = subject.next(&mut watch).await?;
    expect(matches!(&*changes, [change] if brings(change, 1)), || {
        format!("{changes:?} came")
    })
}

/// A source that does not resume may have forgotten the change, but not pass over it.
async fn told_or_resync(subject: &SourceSubject, after: Revision) -> Verdict {
    let mut watch = subject.watch(after).await?;
    match tokio::time::timeout(subject.patience(), watch.next()).await {
        Ok(event) => match event? {
            WatchEvent::Resync => Ok(()),
            WatchEvent::Changes { changes, .. } => {
                let told = matches!(&*changes, [change] if brings(change, 1));
                expect(told, || format!("{changes:?} came"))
            }
        },
        Err(_elapsed) => broken("the change was passed over".to_owned()),
    }
}

pub(super) async fn watch_resumes_where_another_ended(subject: &SourceSubject) -> Verdict {
    let mut former = subject.watch_from_now().await?;
    subject.hold(&[member(1)?]).await?;
    subject.next(&mut former).await?;
    let revision = former.revision();
    drop(former);
    let mut watch = subject.watch(revision).await?;
    subject.hold(&[member(1)?, member(2)?]).await?;
    let (_, changes) = subject.next(&mut watch).await?;
    expect(matches!(&*changes, [change] if brings(change, 2)), || {
        format!("{changes:?} came")
    })
}

/// However the states between are merged.
pub(super) async fn watch_leads_to_the_last_state(subject: &SourceSubject) -> Verdict {
    let mut members = subject.snapshot().await?;
    let mut watch = subject.watch(members.revision()).await?;
    let (one, two) = (member(1)?, member(2)?);
    subject.hold(std::slice::from_ref(&one)).await?;
    // A reader that is not the watch, so that a source which looks when it is asked sees each state.
    subject.snapshot().await?;
    subject.hold(&[one, two.clone()]).await?;
    subject.snapshot().await?;
    subject.hold(std::slice::from_ref(&two)).await?;
    while subject.same(&members, std::slice::from_ref(&two)).is_err() {
        let (revision, changes) = subject.next(&mut watch).await?;
        expect(revision >= members.revision(), || {
            format!("{revision} came after {}", members.revision())
        })?;
        members.advance(revision, &changes);
    }
    let latest = subject.snapshot().await?;
    expect(latest.instances() == members.instances(), || {
        format!("{members:?} from the watch, but {latest:?}")
    })
}

pub(super) async fn watch_keeps_to_its_service(subject: &SourceSubject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    let elsewhere = member_of("conformance-b", 2)?;
    subject.hold(std::slice::from_ref(&elsewhere)).await?;
    subject.hold(&[elsewhere, member(1)?]).await?;
    let (_, changes) = subject.next(&mut watch).await?;
    expect(matches!(&*changes, [change] if brings(change, 1)), || {
        format!("{changes:?} came")
    })
}

pub(super) async fn cancelled_wait_loses_no_change(subject: &SourceSubject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    subject.hold(&[member(1)?]).await?;
    let mut seen = Vec::new();
    for _ in 0..8 {
        // A deadline that has passed polls once and drops.
        if let Ok(event) = tokio::time::timeout(Duration::ZERO, watch.next()).await
            && let WatchEvent::Changes { changes, .. } = event?
        {
            seen = changes;
            break;
        }
    }
    if seen.is_empty() {
        seen = subject.next(&mut watch).await?.1;
    }
    expect(matches!(&*seen, [change] if brings(change, 1)), || {
        format!("{seen:?} came")
    })
}

async fn says_resync(subject: &SourceSubject, after: Revision) -> Verdict {
    let mut watch = subject.watch(after).await?;
    for _ in 0..2 {
        match tokio::time::timeout(subject.patience(), watch.next()).await {
            Ok(event) => {
                let event = event?;
                expect(event == WatchEvent::Resync, || format!("{event:?} came"))?;
            }
            Err(_elapsed) => return broken("nothing came".to_owned()),
        }
    }
    Ok(())
}

pub(super) async fn forgotten_revision_is_answered_by_resync(subject: &SourceSubject) -> Verdict {
    let Some(remembers) = subject.remembers else {
        return Ok(());
    };
    let revision = subject.snapshot().await?.revision();
    for round in 0..=remembers {
        let members = if round % 2 == 0 {
            vec![member(1)?]
        } else {
            Vec::new()
        };
        subject.hold(&members).await?;
        subject.snapshot().await?;
    }
    says_resync(subject, revision).await
}

pub(super) async fn unknown_revision_is_answered_by_resync(subject: &SourceSubject) -> Verdict {
    subject.hold(&[member(1)?]).await?;
    let latest = subject.snapshot().await?.revision();
    says_resync(
        subject,
        Revision::new(latest.as_u64().saturating_add(1_000)),
    )
    .await
}
