//! The follower, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_discovery::{
    Capabilities, Error, ErrorKind, Event, Follow, Registry, Resolver, Revision, Scope, Snapshot,
    Source, Watch, WatchEvent, WatchStream, follow, resolver,
};
use parking_lot::Mutex;

use crate::common::{asked, draw, service};
use crate::doubles::{Flaky, heard};

const TTL: Duration = Duration::from_secs(9);

#[tokio::test(start_paused = true)]
async fn follower_sees_members_come_and_go() {
    let registry = Flaky::new();
    let payments = Resolver::new(service(), resolver::Config::default());
    let source = Arc::new(registry.clone());
    let follow = Follow::start(source, payments.clone(), follow::Config::default());
    follow.ready().await.unwrap();
    assert!(payments.pick(&draw(1)).is_err());

    let lease = registry.register(asked("p-1", TTL)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let picked = payments.pick(&draw(1)).unwrap();
    assert_eq!(picked.instance().incarnation, lease.incarnation);

    tokio::time::sleep(TTL).await;
    assert_eq!(payments.pick(&draw(1)).unwrap_err().registered, 0);
    follow.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_known_last_stay_while_the_source_fails() {
    let registry = Flaky::new();
    registry.register(asked("p-1", TTL * 100)).await.unwrap();
    let payments = Resolver::new(service(), resolver::Config::default());
    let (events, listener) = heard();
    let config = follow::Config::default().seed(3).listener(listener);
    let source = ResyncsWhenDown(registry.clone());
    let follow = Follow::start(Arc::new(source), payments.clone(), config);
    follow.ready().await.unwrap();

    registry.set_down(true);
    let behind = asked("p-2", TTL * 100);
    registry.inner.register(behind).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payments.members().len(), 1);
    let failures = |events: &[Event]| {
        let failed = events
            .iter()
            .filter(|event| matches!(event, Event::SourceFailed { .. }));
        failed.count()
    };
    assert!(
        (5..100).contains(&failures(&events.lock())),
        "{:?}",
        events.lock()
    );

    registry.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payments.members().len(), 2);
    let recovered = |event: &Event| matches!(event, Event::SourceRecovered { .. });
    assert!(events.lock().iter().any(recovered));
    follow.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_outage_is_told_and_counted_by_itself() {
    let registry = Flaky::new();
    let payments = Resolver::new(service(), resolver::Config::default());
    let (events, listener) = heard();
    let config = follow::Config::default().seed(3).listener(listener);
    let source = ResyncsWhenDown(registry.clone());
    let follow = Follow::start(Arc::new(source), payments, config);
    follow.ready().await.unwrap();
    for outage in 1..=3 {
        registry.set_down(true);
        let behind = asked(&format!("p-{outage}"), TTL * 100);
        registry.inner.register(behind).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        registry.set_down(false);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let heard = std::mem::take(&mut *events.lock());
        let first = heard.iter().find_map(|event| match event {
            Event::SourceFailed { failures, .. } => Some(*failures),
            _ => None,
        });
        let recoveries = heard
            .iter()
            .filter(|event| matches!(event, Event::SourceRecovered { .. }));
        assert_eq!((first, recoveries.count()), (Some(1), 1));
    }
    follow.shutdown().await.unwrap();
}

/// Its watches break when a change arrives while the registry is down.
#[derive(Debug)]
struct ResyncsWhenDown(Flaky);

struct Breaking(Watch, Flaky);

#[async_trait]
impl WatchStream for Breaking {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        let event = self.0.next().await?;
        self.1.reachable().map(|()| event)
    }

    fn revision(&self) -> Revision {
        self.0.revision()
    }
}

#[async_trait]
impl Source for ResyncsWhenDown {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        let watch = self.0.watch(scope, after).await?;
        Ok(Watch::new(Breaking(watch, self.0.clone())))
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

/// Has nothing to say but that it must be asked again.
#[derive(Debug, Default)]
struct AlwaysResync(Mutex<u32>);

struct Resyncs;

#[async_trait]
impl WatchStream for Resyncs {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        Revision::new(1)
    }
}

#[async_trait]
impl Source for AlwaysResync {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        *self.0.lock() += 1;
        Ok(Snapshot::new(scope.clone(), Revision::new(1), Vec::new()))
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        Ok(Watch::new(Resyncs))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test(start_paused = true)]
async fn source_that_only_resyncs_is_not_asked_in_a_tight_loop() {
    let source = Arc::new(AlwaysResync::default());
    let payments = Resolver::new(service(), resolver::Config::default());
    let follow = Follow::start(
        Arc::clone(&source) as _,
        payments,
        follow::Config::default().seed(1),
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = *source.0.lock();
    assert!((10..100).contains(&asked), "{asked}");
    follow.shutdown().await.unwrap();
}

/// Never answers a snapshot.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl Source for Hanging {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot, Error> {
        std::future::pending().await
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        std::future::pending().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_source_is_a_failing_source() {
    let (events, listener) = heard();
    let payments = Resolver::new(service(), resolver::Config::default());
    let config = follow::Config::default().listener(listener);
    let follow = Follow::start(Arc::new(Hanging), payments, config);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let timed_out = |event: &Event| {
        matches!(
            event,
            Event::SourceFailed {
                kind: ErrorKind::Timeout,
                ..
            }
        )
    };
    assert!(events.lock().iter().any(timed_out), "{:?}", events.lock());
    follow.shutdown().await.unwrap();
}
