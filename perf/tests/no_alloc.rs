//! The pipeline does not allocate: not for a known flow, cached or not, not for a new one, not for
//! a drop.
#![allow(unsafe_code)]

use dataplane::worker::hold::Hold;
use engine::{DropReason, Verdict};
use perf::pipeline::packet::{CHUNK, CLOSED_PORT, Frames, Packet, SERVER, load, remote};
use perf::pipeline::{Cache, SCENARIOS, Sizes, World};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::slice;
use std::sync::Arc;
use tables::IpEntry;
use wire::Identity;
use wire::parse::tcp::SYN;

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

const PACKETS: usize = 10_000;
const FLOWS: u32 = 1000;
const SIZES: Sizes = Sizes { rules: 100, addresses: 1000, services: 10, idle: 100 };

#[test]
fn deciding_about_packets_allocates_nothing() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1, "the counter does not count");
    let world = World::new(SIZES, FLOWS);
    for (scenario, cache) in
        SCENARIOS.into_iter().flat_map(|scenario| [(scenario, Cache::On), (scenario, Cache::Off)])
    {
        let mut worker = world.worker(cache);
        let frames = scenario.frames(&mut world.worker(Cache::On), SIZES, 0..FLOWS).unwrap();
        let mut chunk = [0; CHUNK];
        let count = allocations(|| {
            for frame in frames.iter().cycle().take(PACKETS) {
                worker.process(frames.port, &mut [load(&mut chunk, frame)], |verdict| {
                    assert!(scenario.expects(verdict), "{}: {verdict:?}", scenario.name);
                });
            }
        });
        assert_eq!(count, 0, "{}, {cache:?}: allocations in {PACKETS} packets", scenario.name);
        frames.tuples().for_each(|tuple| world.forget(&tuple));
    }
}

/// Neither to hold packets does, nor to look at them again and to give them up.
#[test]
fn waiting_for_newer_tables_allocates_nothing() {
    const SENDERS: u32 = 100;
    const SECOND: u64 = 1_000_000_000;
    let world = World::new(SIZES, FLOWS);
    let unknown = IpEntry { identity: Identity::UNKNOWN, hop: Default::default() };
    world.publisher.edit(|tables| tables.ipcache.upsert("10.128.0.0/16".parse().unwrap(), unknown));
    let syn = |n| Packet::new((remote(60_000 + n), 4000).into(), (SERVER.v4(), CLOSED_PORT).into(), SYN);
    let frames = Frames::new((0..SENDERS).map(syn));
    let mut worker = world.worker(Cache::On);
    let mut hold = Hold::new(1500, Arc::default());
    let (mut chunk, mut asked, mut dropped) = ([0; CHUNK], 0, 0);
    let count = allocations(|| {
        for round in 0..100 {
            let now = 10 * u64::from(round) * SECOND;
            for frame in frames.iter() {
                worker.may_hold = true;
                worker.process(frames.port, &mut [load(&mut chunk, frame)], |verdict| {
                    assert_eq!(verdict, Verdict::Hold);
                });
                hold.put(frames.port, [frame].into_iter(), round, now);
            }
            for (generation, later) in [(round + 1, now), (round + 1, now + SECOND)] {
                asked += hold.retry(generation, later, |port, frame, may_hold| {
                    worker.may_hold = may_hold;
                    let mut verdict = Verdict::Hold;
                    worker.process(port, slice::from_mut(frame), |decided| verdict = decided);
                    dropped += u32::from(verdict == Verdict::Drop(DropReason::UnknownIdentity));
                    verdict
                });
            }
            assert!(hold.is_empty());
        }
    });
    assert_eq!(count, 0, "allocations while packets wait");
    assert!(dropped > 0 && asked == 2 * dropped as usize, "{asked} {dropped}");
}
