#![no_main]

//! The reader of MP4 files, with an eye on what it takes of memory: a few times what the file is long, whatever the
//! file announces.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../targets.rs"]
mod targets;

/// Bytes that are taken now, and the most since [`PEAK`] was set.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is left to the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(taken, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an index takes beside the file: eight bytes for a count and a value, where the file may have one for both.
const TIMES: usize = 64;
/// Buffers whose size is no matter of the file.
const FIXED: usize = 2 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let before = TAKEN.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    targets::mp4(data);
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(taken <= FIXED + TIMES * data.len(), "{taken} bytes for a file of {}", data.len());
});
