use std::hint::black_box;

use orchestra_testkit::{CountingAllocator, allocations, held_by_all, retained};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn each_kind_of_allocation_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| drop(black_box(vec![0_u8; 64]))), 1);

    let mut grown = Vec::with_capacity(1);
    grown.push(1_u8);
    assert_eq!(allocations(|| grown.reserve_exact(100)), 1);
}

#[test]
fn work_on_memory_that_is_there_counts_nothing() {
    let mut kept = Vec::with_capacity(8);
    assert_eq!(allocations(|| kept.extend([1, 2, 3])), 0);
    assert_eq!(allocations(|| drop(kept)), 0);
}

#[test]
fn another_thread_does_not_disturb_the_count() {
    let counted = allocations(|| {
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                (0..1_000).for_each(|size| drop(black_box(vec![0_u8; size + 1])));
            });
            busy.join().unwrap();
        });
    });
    assert!(
        counted < 100,
        "the other thread's 1,000 were counted: {counted}"
    );
}

#[test]
fn what_is_held_is_what_was_asked_for_and_not_given_back() {
    let (mut kept, bytes) = retained(|| {
        drop(black_box(vec![0_u8; 1_000]));
        Vec::<u64>::with_capacity(8)
    });
    assert_eq!(bytes, 64);
    assert_eq!(retained(|| kept.reserve_exact(16)).1, 64);
    assert_eq!(retained(|| drop(kept)).1, -128);
}

#[test]
fn what_another_thread_keeps_is_held_by_all() {
    // Other tests allocate meanwhile, but nothing so large.
    const LARGE: isize = 64 * 1024 * 1024;
    let before = held_by_all();
    let kept = std::thread::spawn(|| black_box(vec![0_u8; LARGE.cast_unsigned()]));
    let kept = kept.join().unwrap();
    assert!((held_by_all() - before - LARGE).abs() < LARGE / 2);
    drop(kept);
    assert!((held_by_all() - before).abs() < LARGE / 2);
}
