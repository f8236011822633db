//! What the run reports of itself: who was fenced, which outcomes were unknown, how long repairs took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use orchestra::core::{InstanceId, Listener};
use orchestra::saga::{Event as SagaEvent, Notice, SagaId};
use orchestra::scheduler::Event;
use orchestra::scheduler::event::FenceReason;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Hears the scheduler and the sagas.
#[derive(Debug)]
pub struct Watched {
    /// Orders of which a step's outcome was unknown for a while.
    unknown: Mutex<BTreeSet<SagaId>>,
    pub lapsed: AtomicU64,
    serving: watch::Sender<Serving>,
}

/// Since when instances serve, and whose end was seen.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    pub ready: BTreeMap<InstanceId, Instant>,
    /// The one that took the place of another.
    pub successor: BTreeMap<InstanceId, InstanceId>,
}

impl Default for Watched {
    fn default() -> Self {
        let serving = watch::Sender::new(Serving::default());
        Self {
            unknown: Mutex::default(),
            lapsed: AtomicU64::new(0),
            serving,
        }
    }
}

impl Watched {
    /// Remembers whose step had an outcome that nobody knew.
    pub fn notice(&self, notice: &Notice<'_>) {
        let Notice::Appended { saga, events, .. } = notice else {
            return;
        };
        if events
            .iter()
            .any(|event| matches!(event, SagaEvent::StepUnknown { .. }))
        {
            self.unknown.lock().insert(*saga);
        }
    }

    pub fn unknown(&self) -> BTreeSet<String> {
        self.unknown
            .lock()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Waits until the successor of an instance serves; the moment at which it began.
    pub async fn replaced(&self, instance: &InstanceId) -> Option<Instant> {
        let mut serving = self.serving.subscribe();
        let serving = serving
            .wait_for(|serving| serving.heir(instance).is_some())
            .await
            .ok()?;
        serving.heir(instance)
    }
}

impl Serving {
    fn heir(&self, instance: &InstanceId) -> Option<Instant> {
        self.ready.get(self.successor.get(instance)?).copied()
    }
}

impl Listener<Event> for Watched {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Ready { instance, .. } => {
                self.serving.send_modify(|serving| {
                    serving.ready.insert(instance.clone(), Instant::now());
                });
            }
            Event::Replaced { old, new, .. } => {
                self.serving.send_modify(|serving| {
                    serving.successor.insert(old.clone(), new.clone());
                });
            }
            Event::Fenced {
                reason: FenceReason::LeaseLapsed,
                ..
            } => {
                self.lapsed.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
