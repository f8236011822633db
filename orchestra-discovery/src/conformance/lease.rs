//! Laws of leases, and of what snapshots show of them.

use orchestra_core::{Labels, Locality};

use super::{Subject, Verdict, expect, name, own, refused};
use crate::error::ErrorKind;
use crate::instance::{Override, ProbeTarget, Status};
use crate::source::Scope;

pub(super) async fn registered_instance_is_listed(subject: &Subject) -> Verdict {
    let labels: Labels = [("tier", "backend")].try_into().map_err(own)?;
    let asked = subject
        .asked("full")?
        .weight(7)
        .priority(1)
        .probe(ProbeTarget::default().path("/up").port(81))
        .status(Status::Starting)
        .locality(Locality::new("eu").zone("a"))
        .labels(labels);
    let lease = subject.registry.register(asked.clone()).await?;
    let snapshot = subject.snapshot().await?;
    let listed: Vec<_> = snapshot.instances().iter().map(|it| &**it).collect();
    let expected = asked.instance(lease.incarnation);
    expect(listed == [&expected], || {
        format!("{listed:?} is listed instead of {expected:?}")
    })
}

pub(super) async fn incarnations_rise(subject: &Subject) -> Verdict {
    let first = subject.register("i").await?;
    let second = subject.register("i").await?;
    subject.registry.deregister(&second).await?;
    let third = subject.register("i").await?;
    let seen = [&first, &second, &third].map(|lease| lease.incarnation);
    expect(seen.is_sorted_by(|a, b| a < b), || {
        format!("incarnations {seen:?}")
    })
}

pub(super) async fn registering_anew_replaces_the_ghost(subject: &Subject) -> Verdict {
    let ghost = subject.register("i").await?;
    let heir = subject.register("i").await?;
    let listed = subject.listed().await?;
    expect(listed == [heir.incarnation], || {
        format!("{listed:?} are listed instead of {}", heir.incarnation)
    })?;
    let renewed = subject.registry.renew(&ghost).await;
    refused(renewed, ErrorKind::Replaced, "renewing a replaced lease")?;
    Ok(subject.registry.renew(&heir).await?)
}

pub(super) async fn stale_lease_cannot_deregister(subject: &Subject) -> Verdict {
    let ghost = subject.register("i").await?;
    let heir = subject.register("i").await?;
    // Whether this succeeds is another law's matter.
    let _said = subject.registry.deregister(&ghost).await.is_ok();
    let listed = subject.listed().await?;
    expect(listed == [heir.incarnation], || {
        format!("{listed:?} are listed after the ghost deregistered")
    })
}

pub(super) async fn status_needs_the_lease(subject: &Subject) -> Verdict {
    let ghost = subject.register("i").await?;
    let heir = subject.register("i").await?;
    let set = subject.registry.set_status(&ghost, Status::Draining).await;
    refused(set, ErrorKind::Replaced, "a status under a replaced lease")?;
    subject.registry.deregister(&heir).await?;
    let set = subject.registry.set_status(&heir, Status::Draining).await;
    refused(set, ErrorKind::LeaseLost, "a status under a lost lease")
}

pub(super) async fn status_change_keeps_the_lease(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    subject
        .registry
        .set_status(&lease, Status::Draining)
        .await?;
    let snapshot = subject.snapshot().await?;
    let listed: Vec<_> = snapshot
        .instances()
        .iter()
        .map(|it| (it.incarnation, it.status))
        .collect();
    expect(listed == [(lease.incarnation, Status::Draining)], || {
        format!("{listed:?} after a status change of {}", lease.incarnation)
    })?;
    Ok(subject.registry.renew(&lease).await?)
}

pub(super) async fn unrenewed_lease_expires(subject: &Subject) -> Verdict {
    let _lease = subject.register("i").await?;
    tokio::time::sleep(subject.ttl * 3 / 4).await;
    let listed = subject.listed().await?;
    expect(listed.len() == 1, || "gone before its ttl".to_owned())?;
    tokio::time::sleep(subject.ttl / 4 + subject.slack).await;
    let listed = subject.listed().await?;
    expect(listed.is_empty(), || {
        format!("{listed:?} is listed after ttl and slack")
    })
}

pub(super) async fn lapsed_lease_is_refused(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    subject.lapse().await;
    for _ in 0..2 {
        let renewed = subject.registry.renew(&lease).await;
        refused(renewed, ErrorKind::LeaseLost, "renewing a lapsed lease")?;
    }
    Ok(())
}

pub(super) async fn renewal_extends_the_lease(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    for _ in 0..3 {
        tokio::time::sleep(subject.ttl / 2).await;
        subject.registry.renew(&lease).await?;
    }
    tokio::time::sleep(subject.ttl / 2).await;
    let listed = subject.listed().await?;
    expect(listed == [lease.incarnation], || {
        format!("{listed:?} after two ttls of renewals")
    })
}

pub(super) async fn override_is_listed(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    let (service, id) = (&lease.service, &lease.id);
    let overrides = [
        Some(Override::OutOfService),
        Some(Override::ForcedHealthy),
        None,
    ];
    for forced in overrides {
        subject.registry.set_override(service, id, forced).await?;
        let snapshot = subject.snapshot().await?;
        let listed: Vec<_> = snapshot.instances().iter().map(|it| it.forced).collect();
        expect(listed == [forced], || {
            format!("{listed:?} after an override of {forced:?}")
        })?;
    }
    Ok(subject.registry.renew(&lease).await?)
}

pub(super) async fn deregistered_instance_is_gone_at_once(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    subject.registry.deregister(&lease).await?;
    let listed = subject.listed().await?;
    expect(listed.is_empty(), || format!("{listed:?} is still listed"))
}

pub(super) async fn deregistering_twice_succeeds(subject: &Subject) -> Verdict {
    let lease = subject.register("i").await?;
    subject.registry.deregister(&lease).await?;
    Ok(subject.registry.deregister(&lease).await?)
}

pub(super) async fn zero_ttl_is_invalid(subject: &Subject) -> Verdict {
    let mut asked = subject.asked("i")?;
    asked.ttl = std::time::Duration::ZERO;
    let registered = subject.registry.register(asked).await;
    refused(registered, ErrorKind::Invalid, "a ttl of zero")
}

pub(super) async fn ids_belong_to_their_service(subject: &Subject) -> Verdict {
    let here = subject.register("i").await?;
    let there = subject.asked_of("conformance-b", "i")?;
    let there = subject.registry.register(there).await?;
    let listed = subject.listed().await?;
    expect(listed == [here.incarnation], || {
        format!("{listed:?} after the id was registered elsewhere")
    })?;
    subject.registry.deregister(&here).await?;
    Ok(subject.registry.renew(&there).await?)
}

pub(super) async fn revisions_rise(subject: &Subject) -> Verdict {
    let before = subject.snapshot().await?.revision();
    let lease = subject.register("i").await?;
    let between = subject.snapshot().await?.revision();
    subject.registry.deregister(&lease).await?;
    let after = subject.snapshot().await?.revision();
    expect(before < between && between < after, || {
        format!("revisions {before}, {between}, {after}")
    })
}

pub(super) async fn all_services_are_covered(subject: &Subject) -> Verdict {
    if !subject.registry.capabilities().all_services {
        return Ok(());
    }
    let from = subject.registry.snapshot(&Scope::All).await?.revision();
    let mut watch = subject.registry.watch(&Scope::All, from).await?;
    subject.register("here").await?;
    let there = subject.asked_of("conformance-b", "there")?;
    subject.registry.register(there).await?;
    let snapshot = subject.registry.snapshot(&Scope::All).await?;
    let services: Vec<_> = snapshot.instances().iter().map(|it| &it.service).collect();
    let both = [&name("conformance-a")?, &name("conformance-b")?];
    expect(services == both, || format!("{services:?} are listed"))?;
    subject.changes(&mut watch, 2).await.map(drop)
}
