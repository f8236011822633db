use std::sync::Arc;

use orchestra_core::Listener;

/// Tells several listeners, in the order in which they were added.
pub(crate) struct Fan<E: ?Sized>(Vec<Arc<dyn Listener<E>>>);

impl<E: ?Sized> Fan<E> {
    pub(crate) fn add(&mut self, listener: Arc<dyn Listener<E>>) {
        self.0.push(listener);
    }
}

impl<E: ?Sized> Default for Fan<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: ?Sized> Clone for Fan<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: ?Sized> Listener<E> for Fan<E> {
    fn on_event(&self, event: &E) {
        for listener in &self.0 {
            listener.on_event(event);
        }
    }
}
