use crate::definition::count;
use crate::event::Event;

/// So many events are not left to be read even if no step ends: retries, signals, heartbeats.
const MOST_EVENTS: u32 = 256;

/// When the next snapshot of a saga is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshots {
    /// After so many steps; never if 0.
    every: u32,
    /// Steps done or undone, and events: in all, and at the last snapshot.
    steps: u32,
    events: u32,
    kept_steps: u32,
    kept_events: u32,
}

impl Snapshots {
    pub(super) fn new(every: u32, events: u64) -> Self {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        // A saga that is continued has ended about every other event a step.
        let steps = events / 2;
        Self {
            every,
            steps,
            events,
            kept_steps: steps,
            kept_events: events,
        }
    }

    /// Notes what was appended; whether a snapshot is due now.
    pub(super) fn note(&mut self, appended: &[Event]) -> bool {
        if self.every == 0 {
            return false;
        }
        let ended = appended.iter().filter(|event| ends_a_step(event)).count();
        self.steps = self.steps.saturating_add(count(ended));
        self.events = self.events.saturating_add(count(appended.len()));
        let (steps, events) = (self.steps - self.kept_steps, self.events - self.kept_events);
        let due = steps >= self.every.max(self.kept_steps / 2)
            || events >= MOST_EVENTS.max(self.kept_events / 2);
        if due {
            (self.kept_steps, self.kept_events) = (self.steps, self.events);
        }
        due
    }
}

fn ends_a_step(event: &Event) -> bool {
    matches!(
        event,
        Event::StepCompleted { .. }
            | Event::TimerFired { .. }
            | Event::SignalTaken { .. }
            | Event::CompensationCompleted { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired() -> Event {
        let step = "wait".parse().expect("a name");
        Event::TimerFired { step }
    }

    fn kept(every: u32, steps: u64) -> Vec<u64> {
        let mut snapshots = Snapshots::new(every, 0);
        let due = |&number: &u64| {
            assert!(number > 0);
            snapshots.note(&[fired()])
        };
        (1..=steps).filter(due).collect()
    }

    #[test]
    fn every_fifth_step_is_kept_and_later_ones_less_often() {
        assert_eq!(kept(5, 60), [5, 10, 15, 22, 33, 49]);
        let all = kept(5, 10_000);
        let cost: u64 = all.iter().sum();
        assert!(cost < 30_000, "linear in the steps: {cost}");
        let last = all.last().expect("some");
        assert!(*last > 6_600, "no more than a third is left to be read");
    }

    #[test]
    fn none_is_kept_when_none_is_wanted_and_each_when_each_is() {
        assert!(kept(0, 1_000).is_empty());
        assert_eq!(kept(1, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn what_ends_no_step_counts_as_well() {
        let mut snapshots = Snapshots::new(5, 0);
        let reason = String::new();
        let events = vec![Event::SagaCancelRequested { reason }; 255];
        assert!(!snapshots.note(&events));
        assert!(snapshots.note(&events[..1]));
        assert!(!snapshots.note(&events));
    }
}
