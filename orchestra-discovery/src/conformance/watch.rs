//! Laws of watches.

use std::time::Duration;

use super::{Subject, Verdict, broken, expect};
use crate::instance::{Incarnation, Override};
use crate::source::{Change, RemovalReason, Revision, Watch, WatchEvent};

/// The incarnations that came, in order.
fn came(changes: &[Change]) -> Vec<Incarnation> {
    let upserted = |change: &Change| match change {
        Change::Upserted(instance) => Some(instance.incarnation),
        Change::Removed(_) => None,
    };
    changes.iter().filter_map(upserted).collect()
}

/// The incarnations that went, in order, and why.
fn went(changes: &[Change]) -> Vec<(Incarnation, RemovalReason)> {
    let removed = |change: &Change| match change {
        Change::Removed(removal) => Some((removal.incarnation, removal.reason)),
        Change::Upserted(_) => None,
    };
    changes.iter().filter_map(removed).collect()
}

async fn is_quiet(subject: &Subject, watch: &mut Watch) -> Verdict {
    let while_ = subject.slack.max(subject.ttl / 4);
    match tokio::time::timeout(while_, watch.next()).await {
        Err(_elapsed) => Ok(()),
        Ok(event) => broken(format!("{:?} came", event?)),
    }
}

async fn says_resync(subject: &Subject, after: Revision) -> Verdict {
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

pub(super) async fn renewal_is_silent(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    let mut watch = subject.watch_from_now().await?;
    subject.registry.renew(&lease).await?;
    is_quiet(subject, &mut watch).await
}

pub(super) async fn watch_begins_at_its_revision(subject: &Subject) -> Verdict {
    let revision = subject.snapshot().await?.revision();
    let lease = subject.register("early").await?;
    let mut watch = subject.watch(revision).await?;
    let changes = subject.changes(&mut watch, 1).await?;
    expect(came(&changes) == [lease.incarnation], || {
        format!("{changes:?} came")
    })
}

pub(super) async fn watch_resumes_where_another_ended(subject: &Subject) -> Verdict {
    let mut first = subject.watch_from_now().await?;
    subject.register("before").await?;
    subject.changes(&mut first, 1).await?;
    let revision = first.revision();
    drop(first);
    let mut second = subject.watch(revision).await?;
    let lease = subject.register("after").await?;
    let changes = subject.changes(&mut second, 1).await?;
    expect(came(&changes) == [lease.incarnation], || {
        format!("{changes:?} came instead of {}", lease.incarnation)
    })
}

pub(super) async fn watch_keeps_the_order(subject: &Subject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(subject.register("i").await?.incarnation);
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(came(&subject.changes(&mut watch, 1).await?));
    }
    expect(seen == expected, || {
        format!("{seen:?} came instead of {expected:?}")
    })
}

pub(super) async fn watch_delivers_each_change_once(subject: &Subject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    subject.register("i").await?;
    subject.changes(&mut watch, 1).await?;
    is_quiet(subject, &mut watch).await
}

pub(super) async fn watch_tells_deregistration(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    let mut watch = subject.watch_from_now().await?;
    subject.registry.deregister(&lease).await?;
    let changes = subject.changes(&mut watch, 1).await?;
    let expected = [(lease.incarnation, RemovalReason::Deregistered)];
    expect(went(&changes) == expected, || format!("{changes:?} came"))
}

pub(super) async fn watch_tells_expiry(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    let mut watch = subject.watch_from_now().await?;
    // Once more than the law allows, since the answer has to travel.
    let limit = subject.ttl + subject.slack * 2;
    let Ok(changes) = tokio::time::timeout(limit, subject.changes(&mut watch, 1)).await else {
        return broken(format!("nothing came within {limit:?}"));
    };
    let changes = changes?;
    let expected = [(lease.incarnation, RemovalReason::Expired)];
    expect(went(&changes) == expected, || format!("{changes:?} came"))
}

pub(super) async fn watch_tells_replacement(subject: &Subject) -> Verdict {
    let ghost = subject.register("i").await?;
    let mut watch = subject.watch_from_now().await?;
    let heir = subject.register("i").await?;
    let changes = subject.changes(&mut watch, 2).await?;
    let replaced = [(ghost.incarnation, RemovalReason::Replaced)];
    let told = went(&changes) == replaced && came(&changes) == [heir.incarnation];
    expect(told, || format!("{changes:?} came"))
}

/// Reads until this incarnation comes with this override.
async fn overridden(
    subject: &Subject,
    watch: &mut Watch,
    incarnation: Incarnation,
    forced: Override,
) -> Verdict {
    let mut seen = Vec::new();
    loop {
        let changes = subject.changes(watch, 1).await?;
        let told = changes.iter().any(|change| {
            matches!(change, Change::Upserted(instance)
                if instance.incarnation == incarnation && instance.forced == Some(forced))
        });
        if told {
            return Ok(());
        }
        seen.extend(changes);
        expect(seen.len() < 8, || {
            format!("{seen:?} came, and not incarnation {incarnation} with {forced:?}")
        })?;
    }
}

pub(super) async fn watch_tells_overrides(subject: &Subject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    let lease = subject.register("i").await?;
    subject.changes(&mut watch, 1).await?;
    let forced = Override::OutOfService;
    let registry = &subject.registry;
    registry
        .set_override(&lease.service, &lease.id, Some(forced))
        .await?;
    overridden(subject, &mut watch, lease.incarnation, forced).await
}

pub(super) async fn override_outlives_the_registration(subject: &Subject) -> Verdict {
    let asked = subject.asked("i")?;
    let forced = Override::ForcedHealthy;
    let registry = &subject.registry;
    registry
        .set_override(&asked.service, &asked.id, Some(forced))
        .await?;
    let mut watch = subject.watch_from_now().await?;
    for _ in 0..2 {
        let lease = subject.register("i").await?;
        overridden(subject, &mut watch, lease.incarnation, forced).await?;
        registry.deregister(&lease).await?;
    }
    Ok(())
}

pub(super) async fn watch_keeps_to_its_scope(subject: &Subject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    let elsewhere = subject.asked_of("conformance-b", "elsewhere")?;
    subject.registry.register(elsewhere).await?;
    let lease = subject.register("here").await?;
    let changes = subject.changes(&mut watch, 1).await?;
    expect(came(&changes) == [lease.incarnation], || {
        format!("{changes:?} came")
    })
}

pub(super) async fn cancelled_wait_loses_nothing(subject: &Subject) -> Verdict {
    let mut watch = subject.watch_from_now().await?;
    let lease = subject.register("i").await?;
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
        seen = subject.changes(&mut watch, 1).await?;
    }
    expect(came(&seen) == [lease.incarnation], || {
        format!("{seen:?} came")
    })
}

pub(super) async fn forgotten_revision_says_resync(subject: &Subject) -> Verdict {
    let Some(remembers) = subject.remembers else {
        return Ok(());
    };
    let revision = subject.snapshot().await?.revision();
    for _ in 0..=remembers {
        let lease = subject.register("i").await?;
        subject.registry.deregister(&lease).await?;
    }
    says_resync(subject, revision).await
}

pub(super) async fn unknown_revision_says_resync(subject: &Subject) -> Verdict {
    subject.register("i").await?;
    let latest = subject.snapshot().await?.revision();
    let future = Revision::new(latest.as_u64().saturating_add(1_000));
    says_resync(subject, future).await
}
