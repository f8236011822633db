//! Typed events out of a component.

use std::sync::Arc;

/// Receives the events of a component as they happen.
///
/// Laws: 1. `on_event` is called on the component's own path, so it returns at once: count, or send to
/// a bounded queue with `try_send`; 2. it does not panic; 3. it does not call back into the component.
///
/// A closure is a listener, and so is an `Arc` or `Box` of one:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use orchestra_core::Listener;
///
/// let count = AtomicU64::new(0);
/// let listener = |_: &&str| { count.fetch_add(1, Ordering::Relaxed); };
/// listener.on_event(&"started");
/// assert_eq!(count.load(Ordering::Relaxed), 1);
/// ```
pub trait Listener<E: ?Sized>: Send + Sync {
    /// Takes one event.
    fn on_event(&self, event: &E);
}

/// The listener that hears nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silent;

impl<E: ?Sized> Listener<E> for Silent {
    fn on_event(&self, _: &E) {}
}

impl<E: ?Sized, F: Fn(&E) + Send + Sync> Listener<E> for F {
    fn on_event(&self, event: &E) {
        self(event);
    }
}

impl<E: ?Sized> Listener<E> for Arc<dyn Listener<E>> {
    fn on_event(&self, event: &E) {
        (**self).on_event(event);
    }
}

impl<E: ?Sized> Listener<E> for Box<dyn Listener<E>> {
    fn on_event(&self, event: &E) {
        (**self).on_event(event);
    }
}
