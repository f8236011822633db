//! Proof that a path does not allocate, and how many bytes a value holds.
//!
//! A test binary installs [`CountingAllocator`] as its global allocator and asks [`allocations`] how
//! often the current thread allocated during a piece of work, or [`retained`] how many bytes more it holds
//! after it. Other threads do not disturb the counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicIsize, Ordering};

thread_local! {
    // `const` and without a destructor: touching it never allocates, not even for the first time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    // May be negative: a thread may give back what another one took. Sizes are at most `isize::MAX`.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// Of all threads together, for what one makes and another keeps.
static HELD_BY_ALL: AtomicIsize = AtomicIsize::new(0);

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

fn count(more: usize, fewer: usize) {
    // A thread that is being torn down has no count left to keep.
    let _gone = COUNT.try_with(|count| count.set(count.get() + 1));
    hold(more, fewer);
}

fn hold(more: usize, fewer: usize) {
    let change = more.wrapping_sub(fewer).cast_signed();
    HELD_BY_ALL.fetch_add(change, Ordering::Relaxed);
    let _gone = HELD.try_with(|held| held.set(held.get().wrapping_add(change)));
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without it; every call is passed to `System` unchanged"
)]
// SAFETY: each method forwards its arguments to `System`, which upholds the contract of `GlobalAlloc`;
// counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller upholds the contract of `realloc`.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        hold(0, layout.size());
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
    check_installed();
    counted(work)
}

/// What `work` makes, and how many bytes more the current thread holds after it than before: as many as were
/// asked for, without what the system's allocator adds to each piece.
///
/// ```
/// use orchestra_testkit::{CountingAllocator, retained};
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let (text, bytes) = retained(|| String::from("payments"));
/// assert_eq!((text.as_str(), bytes), ("payments", 8));
/// assert_eq!(retained(|| drop(text)).1, -8);
/// ```
///
/// # Panics
///
/// Where [`CountingAllocator`] is not the global allocator.
pub fn retained<T>(work: impl FnOnce() -> T) -> (T, isize) {
    check_installed();
    let before = HELD.get();
    let made = work();
    (made, HELD.get().wrapping_sub(before))
}

/// How many bytes all threads of the process hold together, as [`retained`] counts them: for work that many
/// threads share.
///
/// # Panics
///
/// Where [`CountingAllocator`] is not the global allocator.
pub fn held_by_all() -> isize {
    check_installed();
    HELD_BY_ALL.load(Ordering::Relaxed)
}

fn check_installed() {
    let installed = counted(|| drop(black_box(Box::new(black_box(0_u8)))));
    assert!(
        installed > 0,
        "`CountingAllocator` is not the global allocator of this binary"
    );
}

fn counted(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}
