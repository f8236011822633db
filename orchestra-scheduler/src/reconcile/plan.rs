use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};

use super::Phase;
use super::state::{Replica, Service, State};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Place a new instance and start it.
    Start {
        /// The service.
        service: ServiceName,
        /// The empty seat.
        ordinal: u32,
    },
    /// Ask an instance to end.
    Stop {
        /// The instance.
        id: InstanceId,
        /// How long it may take.
        grace: Duration,
    },
    /// Kill an instance.
    Kill {
        /// The instance.
        id: InstanceId,
    },
}

/// What to do now, and when to look again if nothing happens before.
///
/// Laws: 1. an instance is started only for a wanted seat that nobody holds; 2. an instance is neither
/// stopped nor killed while its start is under way, and not twice at a time; 3. at most one ready replica
/// of a service is stopped for being outdated, and only while all others are ready.
pub fn plan(state: &State, now: Monotonic) -> (Vec<Action>, Option<Monotonic>) {
    let mut agenda = Agenda {
        now,
        actions: Vec::new(),
        wake: None,
    };
    for (id, replica) in &state.replicas {
        agenda.end(state, id, replica);
    }
    for (name, service) in &state.services {
        agenda.replace_outdated(state, service);
        agenda.fill(name, service);
    }
    (agenda.actions, agenda.wake)
}

struct Agenda {
    now: Monotonic,
    actions: Vec<Action>,
    wake: Option<Monotonic>,
}

impl Agenda {
    /// Whether `moment` has come; otherwise it is when to look again.
    fn is_due(&mut self, moment: Monotonic) -> bool {
        if moment <= self.now {
            return true;
        }
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
        false
    }

    fn end(&mut self, state: &State, id: &InstanceId, replica: &Replica) {
        if let Some(deadline) = replica.start_deadline() {
            self.is_due(deadline);
        }
        if replica.is_launching || replica.is_ending || !self.is_due(replica.retry_at) {
            return;
        }
        match replica.phase {
            Phase::Fenced => self.actions.push(Action::Kill { id: id.clone() }),
            Phase::Stopping => self.stop(id, replica),
            Phase::Starting | Phase::Ready => {
                let service = state.services.get(&replica.service);
                if !service.is_some_and(|service| service.wants(replica.ordinal)) {
                    self.stop(id, replica);
                }
            }
            Phase::Pending => {}
        }
    }

    fn stop(&mut self, id: &InstanceId, replica: &Replica) {
        self.actions.push(Action::Stop {
            id: id.clone(),
            grace: replica.workload.template.stop_grace,
        });
    }

    fn replace_outdated(&mut self, state: &State, service: &Service) {
        let wanted = || service.seats.iter().filter(|(at, _)| service.wants(**at));
        let held = || {
            wanted().filter_map(|(_, seat)| {
                let id = seat.holder()?;
                Some((id, state.replicas.get(id)?))
            })
        };
        let missing = wanted().count() - held().filter(|(_, r)| r.phase == Phase::Ready).count();
        let mut spare = usize::from(missing == 0);
        for (id, replica) in held().filter(|(_, r)| r.revision != service.revision) {
            if replica.is_launching || replica.is_ending {
                continue;
            }
            match replica.phase {
                Phase::Starting => self.stop(id, replica),
                Phase::Ready if spare > 0 => {
                    spare -= 1;
                    self.stop(id, replica);
                }
                _ => {}
            }
        }
    }

    fn fill(&mut self, name: &ServiceName, service: &Service) {
        for (&ordinal, seat) in &service.seats {
            if seat.holder().is_none() && service.wants(ordinal) && self.is_due(seat.not_before()) {
                self.actions.push(Action::Start {
                    service: name.clone(),
                    ordinal,
                });
            }
        }
    }
}
