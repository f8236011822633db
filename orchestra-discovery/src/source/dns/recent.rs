//! What was asked for recently, of which there is no more than so much.

use std::collections::HashMap;
use std::sync::Arc;

use orchestra_core::ServiceName;

/// Values by service; the one that was used least recently and is held by nobody makes room for a new one.
#[derive(Debug)]
pub(super) struct Recent<T> {
    held: HashMap<ServiceName, Used<T>>,
    capacity: usize,
    uses: u64,
}

#[derive(Debug)]
struct Used<T> {
    value: Arc<T>,
    last: u64,
}

impl<T> Recent<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            held: HashMap::new(),
            capacity,
            uses: 0,
        }
    }

    /// The value of a service, and a new one if there is none; `None` when every value is held by somebody.
    ///
    /// A new one costs a scan of all: little beside the questions that it will ask.
    pub(super) fn get(
        &mut self,
        service: &ServiceName,
        make: impl FnOnce() -> T,
    ) -> Option<Arc<T>> {
        self.uses += 1;
        let last = self.uses;
        if let Some(used) = self.held.get_mut(service) {
            used.last = last;
            return Some(Arc::clone(&used.value));
        }
        if self.held.len() >= self.capacity {
            self.make_room()?;
        }
        let value = Arc::new(make());
        let used = Used {
            value: Arc::clone(&value),
            last,
        };
        self.held.insert(service.clone(), used);
        Some(value)
    }

    fn make_room(&mut self) -> Option<()> {
        let idle = self
            .held
            .iter()
            .filter(|(_, used)| Arc::strong_count(&used.value) == 1);
        let (service, _) = idle.min_by_key(|(_, used)| used.last)?;
        let service = service.clone();
        self.held.remove(&service);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn least_recently_used_makes_room() {
        let mut recent = Recent::new(2);
        for service in ["a", "b", "a", "c"] {
            assert!(recent.get(&name(service), || service).is_some());
        }
        let mut fresh = |service| *recent.get(&name(service), || "new").unwrap();
        assert_eq!(fresh("a"), "a");
        assert_eq!(fresh("b"), "new");
        assert_eq!(recent.held.len(), 2);
    }

    #[test]
    fn what_is_held_stays() {
        let mut recent = Recent::new(2);
        let a = recent.get(&name("a"), || 1);
        let b = recent.get(&name("b"), || 2);
        assert_eq!(recent.get(&name("c"), || 3), None);
        drop(b);
        assert_eq!(recent.get(&name("c"), || 3).as_deref(), Some(&3));
        assert_eq!(recent.get(&name("a"), || 4), a);
    }
}
