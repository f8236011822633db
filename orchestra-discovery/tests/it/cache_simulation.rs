//! Two sources of a cache refuse, hang, lie, forget and step back in time, and what must hold is checked after
//! every event.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::InstanceId;
use orchestra_discovery::cache::SourceOptions;
use orchestra_discovery::merge::{Statement, merge};
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    Cache, Change, Incarnation, Lease, MemoryRegistry, Registry, Removal, RemovalReason, Revision,
    Snapshot, Source, Watch, WatchEvent, coalesce,
};
use tokio::time::{sleep, timeout};

use crate::cache::{at, config, over, scope, secs};
use crate::doubles::{Mood, Moody};

const MOODS: [Mood; 4] = [Mood::Up, Mood::Refusing, Mood::Hanging, Mood::Blank];
/// It is registered from the beginning to the end.
const ANCHOR: &str = "anchor";

struct World {
    rng: fastrand::Rng,
    registry: Moody,
    dns: Moody,
    cache: Cache,
    watch: Watch,
    /// What a follower of the cache has made of its changes.
    mirror: Snapshot,
    leases: Vec<Lease>,
    /// Of every id the registration that is gone by an explicit word, as a follower was told.
    given_back: BTreeSet<(InstanceId, Incarnation)>,
    trail: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let (registry, dns) = (Moody::new(), Moody::new());
        let mut gathering = config();
        gathering.coalesce = coalesce::Config::default();
        gathering.seed = Some(seed);
        let cache = over(&registry)
            .source(
                "dns",
                Arc::new(dns.clone()),
                SourceOptions::default().without_leases(),
            )
            .config(gathering)
            .build()
            .unwrap();
        let anchor = at(ANCHOR, "10.0.0.99:80", secs(80_000));
        let lease = registry.registry().register(anchor).await.unwrap();
        let mirror = cache.snapshot(&scope()).await.unwrap();
        let watch = cache.watch(&scope(), mirror.revision()).await.unwrap();
        Self {
            rng: fastrand::Rng::with_seed(seed),
            registry,
            dns,
            cache,
            watch,
            mirror,
            leases: vec![lease],
            given_back: BTreeSet::new(),
            trail: Vec::new(),
        }
    }

    async fn step(&mut self) {
        let (draw, id) = (self.rng.u8(..100), self.rng.u8(1..9));
        let endpoint = format!("10.0.0.{id}:80");
        let ttl = secs(self.rng.u64(1..120));
        self.trail.push(format!("{draw} {id} {ttl:?}"));
        match draw {
            0..30 => {
                let asked = at(&format!("i{id}"), &endpoint, ttl).weight(u32::from(draw));
                let lease = self.registry.registry().register(asked).await.unwrap();
                self.leases.push(lease);
            }
            30..45 => {
                let at = self.rng.usize(..self.leases.len());
                if at > 0 {
                    let lease = self.leases.swap_remove(at);
                    self.registry.registry().deregister(&lease).await.unwrap();
                }
            }
            45..55 => {
                let asked = at(&format!("10-0-0-{id}"), &endpoint, ttl);
                self.dns.registry().register(asked).await.unwrap();
            }
            55..70 => self.registry.set(MOODS[self.rng.usize(..4)]),
            70..80 => self.dns.set(MOODS[self.rng.usize(..4)]),
            80..84 => self.restart().await,
            _ => {}
        }
        // A lie that lasts longer than the grace would be believed.
        for source in [&self.registry, &self.dns] {
            if source.mood() == Mood::Blank && self.rng.u8(..4) > 0 {
                source.set(Mood::Up);
            }
        }
        let pause = Duration::from_millis(self.rng.u64(0..1_000));
        sleep(pause).await;
    }

    /// The registry comes back with its members, its clock ahead or an hour behind.
    async fn restart(&mut self) {
        let before = self.registry.registry().snapshot(&scope()).await.unwrap();
        let mut clock = memory::Config::default();
        let start = clock.start.as_u64();
        clock.start = if self.rng.bool() {
            Revision::new(start + (1 << 40))
        } else {
            Revision::new(start - (3_600_000 << 20))
        };
        let heir = MemoryRegistry::new(clock);
        self.leases.clear();
        let mut members: Vec<_> = before.instances().iter().collect();
        members.sort_by_key(|instance| instance.id.as_str() != ANCHOR);
        for instance in members {
            let ttl = if instance.id.as_str() == ANCHOR {
                80_000
            } else {
                60
            };
            let endpoint = instance.endpoint.to_string();
            let asked = at(instance.id.as_str(), &endpoint, secs(ttl)).weight(instance.weight);
            self.leases.push(heir.register(asked).await.unwrap());
        }
        // The incarnations of another clock say nothing about those given back before.
        self.given_back.clear();
        self.registry.replace(heir);
    }

    /// Takes what the watch has to say, and checks that each of it may be said.
    async fn follow(&mut self) {
        while let Ok(event) = timeout(Duration::ZERO, self.watch.next()).await {
            let WatchEvent::Changes { revision, changes } = event.unwrap() else {
                panic!("resync; {:?}", self.trail);
            };
            assert!(revision > self.mirror.revision(), "revisions rise");
            for change in &changes {
                match change {
                    Change::Upserted(instance) => {
                        let key = (instance.id.clone(), instance.incarnation);
                        assert!(
                            !self.given_back.contains(&key),
                            "{instance:?} is back; {:?}",
                            self.trail
                        );
                    }
                    Change::Removed(Removal {
                        id,
                        incarnation,
                        reason: RemovalReason::Deregistered,
                        ..
                    }) => {
                        self.given_back.insert((id.clone(), *incarnation));
                    }
                    _ => {}
                }
            }
            self.mirror.advance(revision, &changes);
        }
    }

    async fn check(&mut self) {
        self.follow().await;
        let served = self.cache.snapshot(&scope()).await.unwrap();
        self.follow().await;
        assert_eq!(served, self.mirror, "a follower agrees; {:?}", self.trail);
        let anchored = served.instances().iter().any(|it| it.id.as_str() == ANCHOR);
        assert!(anchored, "the anchor is gone; {:?}", self.trail);
    }

    /// Once everything is well, the cache says what the sources say.
    async fn converge(&mut self) {
        self.registry.set(Mood::Up);
        self.dns.set(Mood::Up);
        sleep(secs(400)).await;
        self.check().await;
        let registry = self.registry.registry().snapshot(&scope()).await.unwrap();
        let dns = self.dns.registry().snapshot(&scope()).await.unwrap();
        let statements = [
            Statement::new("registry", registry.instances().to_vec()),
            Statement::new("dns", dns.instances().to_vec()).without_leases(),
        ];
        let expected: Vec<_> = merge(&statements)
            .iter()
            .map(orchestra_discovery::merge::Merged::instance)
            .collect();
        assert_eq!(self.mirror.instances(), expected, "{:?}", self.trail);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_resurrected_or_reordered_whatever_the_sources_do() {
    for seed in 0..40 {
        let mut world = World::new(seed).await;
        for _ in 0..300 {
            world.step().await;
            world.check().await;
        }
        world.converge().await;
    }
}
