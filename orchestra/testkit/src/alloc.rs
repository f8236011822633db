//! Proof that a path does not allocate.
//!
//! A test binary installs [`CountingAllocator`] as its global allocator and asks [`allocations`] how
//! often the current thread allocated during a piece of work. Other threads do not disturb the count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

thread_local! {
    // `const` and without a destructor: touching it never allocates, not even for the first time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which also counts per thread.
///
/// ```
/// use orchestra_testkit::{CountingAllocator, allocations};
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let text = String::from("payments");
/// assert_eq!(allocations(|| { std::hint::black_box(text.len()); }), 0);
/// assert_eq!(allocations(|| { std::hint::black_box(text.clone()); }), 1);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

fn count() {
    // A thread that is being torn down has no count left to keep.
    let _gone = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without it; every call is passed to `System` unchanged"
)]
// SAFETY: each method forwards its arguments to `System`, which upholds the contract of `GlobalAlloc`;
// counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `realloc`.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often the current thread allocated or reallocated during `work`.
///
/// # Panics
///
/// Where [`CountingAllocator`] is not the global allocator: the answer would be zero for everything.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let installed = counted(|| drop(black_box(Box::new(black_box(0_u8)))));
    assert!(
        installed > 0,
        "`CountingAllocator` is not the global allocator of this binary"
    );
    counted(work)
}

fn counted(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}
