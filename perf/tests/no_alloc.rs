//! The pipeline does not allocate: not for a known flow, not for a new one, not for a drop.
#![allow(unsafe_code)]

use perf::scenario::load;
use perf::{SCENARIOS, Scenario, Sizes, World};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator; counts per thread, since the test harness has threads of its own.
struct Counting;

// SAFETY: every call is handed on unchanged to `System`, which keeps the contract. Counting does
// not allocate: the cell is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    of();
    ALLOCATIONS.get() - before
}

const PACKETS: u16 = 20_000;

fn process_all(world: &mut World, scenario: &Scenario, frames: &[Vec<u8>]) {
    for frame in frames {
        let mut chunk = [0; 2048];
        let verdict = world.process(&mut load(&mut chunk, frame));
        assert!(scenario.check(verdict).is_ok(), "{}: {verdict:?}", scenario.name);
    }
}

#[test]
fn deciding_about_packets_allocates_nothing() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1, "the counter does not count");
    let sizes = Sizes { rules: 100, pods: 1000, services: 10, backends: 10, flows: 65_536 };
    let mut world = World::new(sizes);
    for scenario in SCENARIOS {
        let frames = scenario.frames(PACKETS, 1000);
        scenario.prepare(&mut world, 1000).unwrap();
        let count = allocations(|| process_all(&mut world, &scenario, &frames));
        assert_eq!(count, 0, "{}: allocations in {PACKETS} packets", scenario.name);
    }
    assert!(world.events() >= PACKETS.into(), "the denied packets were reported");
}
