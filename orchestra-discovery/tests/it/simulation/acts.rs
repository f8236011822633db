//! What happens to the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestra_core::Clock;
use orchestra_discovery::cache::Freshness;
use orchestra_discovery::heartbeat::{self, Heartbeat};
use orchestra_discovery::registry::memory;
use orchestra_discovery::{Incarnation, Instance, MemoryRegistry, Registry, Source, Status};
use tokio::time::{sleep, timeout};

use super::link::Mood;
use super::plan::{Act, Feed};
use super::setup::{LASTING, TTL, begun};
use super::uplink::{Line, Uplink};
use super::ward::Condition;
use super::world::{Process, World, asked, endpoint, id};
use super::{millis, secs};
use crate::cache::scope;
use crate::common::service;

impl World {
    pub(super) fn runs(&self, n: u8) -> bool {
        self.processes.iter().any(|process| process.n == n)
    }

    pub(super) fn start(&mut self, n: u8, weight: u32) {
        self.seen.disturbed.insert(n, self.clock.now());
        let asked = asked(id(n).as_str(), &endpoint(n), TTL).weight(weight);
        let uplink = Uplink::new(&self.registry, Line::Up);
        let config = heartbeat::Config::default()
            .seed(self.rng.u64(..))
            .listener(self.ear.listener(&self.registry_clock, &self.house));
        let heartbeat = Heartbeat::start(Arc::clone(&uplink) as _, asked, config);
        self.processes.push(Process {
            n,
            heartbeat,
            uplink,
            status: Status::Ready,
        });
        if self.ward_of(n).is_none() {
            self.ward.set(&endpoint(n), Some(Condition::Well));
        }
    }

    fn ward_of(&self, n: u8) -> Option<Condition> {
        let (id, endpoint) = (id(n), endpoint(n).parse().unwrap());
        let instance = Instance::new(service(), id, Incarnation::default(), endpoint);
        self.ward.condition(&instance)
    }

    /// Takes the processes of this number out.
    fn take(&mut self, n: u8) -> Vec<Process> {
        self.seen.disturbed.insert(n, self.clock.now());
        self.ward.set(&endpoint(n), None);
        self.processes.extract_if(.., |it| it.n == n).collect()
    }

    pub(super) async fn act(&mut self, act: &Act) {
        match act {
            Act::Churn(acts) => {
                for (pause, act) in acts {
                    self.do_one(act).await;
                    sleep(millis(u64::from(*pause))).await;
                }
            }
            act => self.do_one(act).await,
        }
    }

    async fn do_one(&mut self, act: &Act) {
        match act {
            Act::Start(n, weight) if !self.runs(*n) => self.start(*n, *weight),
            Act::Twin(n) if self.runs(*n) => {
                self.seen.contested.insert(*n);
                self.start(*n, 1);
            }
            Act::Crash(n) => drop(self.take(*n)),
            Act::Restart(n, weight) => {
                drop(self.take(*n));
                self.start(*n, *weight);
            }
            Act::Stop(n) => {
                self.seen.contested.insert(*n);
                for process in self.take(*n) {
                    self.leaving.spawn(async move {
                        let _lapses = process.heartbeat.shutdown().await.is_err();
                    });
                }
            }
            Act::Drain(n, busy) => {
                self.seen.contested.insert(*n);
                let busy = *busy;
                for process in self.take(*n) {
                    self.leaving.spawn(async move {
                        let drained = process.heartbeat.drain(sleep(busy), secs(4));
                        let _lapses = drained.await.is_err();
                    });
                }
            }
            Act::Status(n, status) => {
                for process in self.processes.iter_mut().filter(|it| it.n == *n) {
                    process.status = *status;
                    process.heartbeat.set_status(*status);
                }
            }
            Act::Override(n, forced) => {
                let (backend, service) = (self.registry.backend(), service());
                backend
                    .set_override(&service, &id(*n), *forced)
                    .await
                    .unwrap();
            }
            Act::Line(n, line) => self.lines(*line, |it| it == *n),
            Act::Lines(line) => self.lines(*line, |_| true),
            act => self.happen(act).await,
        }
    }

    pub(super) fn lines(&mut self, line: Line, of: impl Fn(u8) -> bool) {
        for process in self.processes.iter().filter(|it| of(it.n)) {
            if line != Line::Up || process.uplink.line() != Line::Up {
                self.seen.disturbed.insert(process.n, self.clock.now());
            }
            process.uplink.set(line);
        }
    }

    async fn happen(&mut self, act: &Act) {
        match act {
            Act::Mood(feed, mood) => {
                let lasting = self.channel(*feed).mood() == *mood;
                if *feed == Feed::Registry && matches!(mood, Mood::Refusing | Mood::Hanging) {
                    self.note_cut().await;
                }
                self.channel(*feed).set(*mood);
                if *feed == Feed::Registry && !lasting {
                    self.seen.mood_changed(*mood, self.clock.now());
                }
                if *feed == Feed::Dns {
                    self.seen.dns_unsynced = self.clock.now();
                }
            }
            Act::Reset(feed) => {
                self.channel(*feed).reset();
                self.seen.unsynced(self.clock.now());
                self.seen.dns_unsynced = self.clock.now();
            }
            Act::Keep => {
                let snapshot = self.registry.backend().snapshot(&scope()).await.unwrap();
                self.registry.keep(snapshot);
            }
            Act::Lag if self.registry.mood() != Mood::Blank => {
                self.registry.lag();
                self.seen.unsynced(self.clock.now());
            }
            Act::RestartRegistry => self.restart_registry(),
            Act::Freeze(lasting) => self.freeze(*lasting).await,
            Act::Wall(step) => self.wall += step,
            Act::Dns(n, listed) => {
                self.seen.dns_changed.insert(*n, self.clock.now());
                let backend = self.dns.backend();
                let record = asked(&format!("10-0-0-{n}"), &endpoint(*n), LASTING);
                let lease = backend.register(record).await.unwrap();
                if !listed {
                    backend.deregister(&lease).await.unwrap();
                }
            }
            Act::Condition(n, condition) if self.runs(*n) => {
                self.ward.set(&endpoint(*n), Some(*condition));
            }
            Act::Shut(n, shut) => self.house.shut(&id(*n), *shut),
            Act::Gates(shut) => {
                for id in self.members().keys() {
                    self.house.shut(id, *shut);
                }
            }
            Act::Calls(count) => self.call(*count),
            Act::AbortCalls => self.calls.abort(),
            Act::Ask => self.ask().await,
            Act::Lookup(n) => {
                for n in *n..n.saturating_add(9) {
                    let stranger = format!("stranger-{}", n % 40).parse().unwrap();
                    let _none = timeout(millis(20), self.cache.lookup(&stranger)).await;
                }
            }
            _ => {}
        }
    }

    /// What is not fresh is said to be so.
    async fn ask(&mut self) {
        let service = service();
        let answer = timeout(secs(2), self.cache.lookup(&service)).await;
        self.ear.listen();
        if let Ok(Ok(answer)) = answer
            && answer.freshness > Freshness::Fresh
        {
            assert_eq!(self.ear.stale, Some(answer.freshness), "stale and silent");
        }
    }

    fn restart_registry(&mut self) {
        self.ear.begin_life();
        let elapsed = self.clock.now().as_nanos() / 1_000_000;
        let config = memory::Config::default()
            .clock(Arc::clone(&self.registry_clock) as _)
            .listener(self.ear.listener(&self.registry_clock, &self.house));
        let config = begun(config, self.wall + i64::try_from(elapsed).unwrap());
        self.registry.replace(MemoryRegistry::new(config));
        self.seen.restarted(self.clock.now());
    }

    /// When it wakes up, some leases have lapsed.
    async fn freeze(&mut self, lasting: Duration) {
        let before = self.registry.backend().snapshot(&scope()).await.unwrap();
        let nanos = u64::try_from(lasting.as_nanos()).unwrap();
        self.registry_clock.1.fetch_add(nanos, Ordering::Relaxed);
        let after = self.registry.backend().snapshot(&scope()).await.unwrap();
        let left: BTreeMap<_, _> = after.instances().iter().map(|it| (&it.id, it)).collect();
        // What the client never saw is not held.
        let view = self.members();
        let seen = before.instances().iter().filter(|it| {
            let found = view.get(&it.id);
            found.is_some_and(|found| found.incarnation == it.incarnation)
        });
        let lost = seen.clone().map(|it| it.id.clone());
        let lost: Vec<_> = lost.filter(|id| !left.contains_key(id)).collect();
        self.ear.listen();
        let (of, holds) = (seen.count(), self.ear.holds_left);
        self.seen.frozen(lost, of, holds, self.clock.now());
    }
}
