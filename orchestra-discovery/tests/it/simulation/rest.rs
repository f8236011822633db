//! What holds once all is repaired and quiet.

use std::collections::{BTreeMap, BTreeSet};

use orchestra_core::InstanceId;
use orchestra_discovery::Source;
use orchestra_discovery::cache::Freshness;
use tokio::time::{sleep, timeout};

use super::invariants::has_ended;
use super::link::Mood;
use super::plan::Feed;
use super::uplink::Line;
use super::world::{World, id};
use super::{millis, secs};
use crate::cache::scope;
use crate::common::service;

impl World {
    /// Everything is repaired, and time passes.
    pub(super) async fn come_to_rest(&mut self) {
        for feed in [Feed::Registry, Feed::Dns, Feed::Fallback] {
            self.channel(feed).set(Mood::Up);
        }
        self.seen.mood_changed(Mood::Up, self.now());
        self.house.open_all();
        self.lines(Line::Up, |_| true);
        let mut asked = 0;
        for second in 0..45 {
            if second == 25 {
                asked = self.fallback.asked();
            }
            self.settle_due(self.now());
            while self.leaving.try_join_next().is_some() {}
            sleep(secs(1)).await;
            self.check().await;
        }
        assert!(self.leaving.is_empty(), "some never left");
        let spare = self.members().keys().any(|id| id.as_str().starts_with('f'));
        let again = self.fallback.asked() > asked;
        assert!(spare || !again, "a fallback is asked that nobody needs");
        self.settle_due(self.now() + secs(60));
        self.check_rest().await;
    }

    async fn check_rest(&mut self) {
        let mut ended = Vec::new();
        for (at, process) in self.processes.iter().enumerate() {
            if has_ended(process).await {
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            self.processes.remove(at);
        }
        let view = self.members();
        let truth = self.registry.backend().snapshot(&scope()).await.unwrap();
        let running = self.processes.iter().map(|it| id(it.n));
        let running: Vec<_> = running.collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(running.len(), self.processes.len(), "two hold one id");
        let listed: Vec<_> = truth.instances().iter().map(|it| it.id.clone()).collect();
        assert_eq!(listed, running, "who runs is listed");
        for process in &self.processes {
            let instance = &view[&id(process.n)];
            assert_eq!(instance.status, process.status, "{instance:?}");
        }
        assert_eq!(
            view.keys().cloned().collect::<BTreeSet<_>>(),
            self.expected().await
        );
        assert!(self.ear.holds.is_empty(), "{:?}", self.ear.holds);
        for id in view.keys() {
            assert_eq!(self.resolver.in_flight(id), Some(0), "{id}");
        }
        let service = service();
        let answer = timeout(millis(1), self.cache.lookup(&service)).await;
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.freshness, Freshness::Fresh);
        self.call(40);
    }

    /// Those of the registry, those of DNS at other addresses, and the fallback's if there are none.
    async fn expected(&self) -> BTreeSet<InstanceId> {
        let mut expected = BTreeMap::new();
        for feed in [Feed::Registry, Feed::Dns, Feed::Fallback] {
            if feed == Feed::Fallback && !expected.is_empty() {
                break;
            }
            let listed = self
                .channel(feed)
                .backend()
                .snapshot(&scope())
                .await
                .unwrap();
            for instance in listed.instances() {
                let endpoint = instance.endpoint.to_string();
                expected
                    .entry(endpoint)
                    .or_insert_with(|| instance.id.clone());
            }
        }
        expected.into_values().collect()
    }
}
