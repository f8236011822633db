use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestra_core::{Listener, Silent};

#[test]
fn closures_boxes_and_arcs_listen() {
    let sum = Arc::new(AtomicU32::new(0));
    let add = {
        let sum = Arc::clone(&sum);
        move |n: &u32| {
            sum.fetch_add(*n, Ordering::Relaxed);
        }
    };
    add.on_event(&1);
    let shared: Arc<dyn Listener<u32>> = Arc::new(add);
    shared.on_event(&2);
    let boxed: Box<dyn Listener<u32>> = Box::new(shared);
    boxed.on_event(&4);
    Silent.on_event(&8_u32);
    assert_eq!(sum.load(Ordering::Relaxed), 7);
}
