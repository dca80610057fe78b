//! Workers make system calls per burst, not per packet: the kernel counts them.
#![allow(unsafe_code)]

use super::live::{PATIENCE, world};
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt::UdpGsoSegment},
};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::FromRawFd,
    path::Path,
    thread,
};

/// `struct perf_event_attr` of linux/perf_event.h, as far as its first version goes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

const PERF_TYPE_TRACEPOINT: u32 = 2;

/// The number of the tracepoint that every system call passes; tracefs is mounted only for us.
fn tracepoint() -> io::Result<u64> {
    let read = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (nothing, point) = (None::<&str>, Path::new("/sys/kernel/tracing"));
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        match mount(Some("tracefs"), point, Some("tracefs"), MsFlags::empty(), nothing) {
            // It is there already.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error.into()),
        }
        let id = fs::read_to_string(point.join("events/raw_syscalls/sys_enter/id"))?;
        id.trim().parse().map_err(io::Error::other)
    };
    thread::scope(|scope| scope.spawn(read).join().expect("no panic"))
}

/// A file that tells how many system calls a thread has made since.
fn count(thread: libc::pid_t, tracepoint: u64) -> io::Result<File> {
    let size = size_of::<Attributes>() as u32;
    let attributes = Attributes { kind: PERF_TYPE_TRACEPOINT, size, config: tracepoint, rest: [0; 6] };
    // SAFETY: the attributes have the size that they name and outlive the call; the result is a new
    // descriptor or negative.
    unsafe {
        let (any_cpu, no_group) = (-1, -1);
        match libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, any_cpu, no_group, 0) {
            fd @ 0.. => Ok(File::from_raw_fd(fd as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The workers' threads.
fn threads() -> impl Iterator<Item = libc::pid_t> {
    let is_worker = |thread: &fs::DirEntry| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    };
    let threads = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap).filter(is_worker);
    threads.map(|thread| thread.file_name().to_str().unwrap().parse().unwrap())
}

#[test]
fn system_calls_are_made_per_burst() {
    const SENDS: usize = 200;
    const SEGMENTS: usize = 60;
    const SIZE: usize = 100;
    let Some(world) = world("s", 1500) else { return };
    let tracepoint = match tracepoint() {
        Ok(id) => id,
        Err(error) => return eprintln!("SKIPPED: the kernel does not trace system calls: {error}"),
    };
    let workers = world.start();
    let counts: Vec<File> = threads().map(|thread| count(thread, tracepoint).unwrap()).collect();
    assert_eq!(counts.len(), 2);

    // What is sent at once is cut into packets on its way to the worker, and arrives at once.
    let (pod, peer) = (world.udp("pod", "10.60.1.7:0"), world.udp("peer", "10.60.2.7:7"));
    setsockopt(&pod, UdpGsoSegment, &(SIZE as i32)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..SENDS {
        pod.send_to(&[7; SEGMENTS * SIZE], "10.60.2.7:7").unwrap();
        for _ in 0..SEGMENTS {
            assert_eq!(peer.recv(&mut [0; 2 * SIZE]).unwrap(), SIZE);
        }
    }

    let packets = workers.shared.iter().map(|worker| worker.sockets[0].stats.rx_frames.get()).sum::<u64>();
    let calls: u64 = counts
        .into_iter()
        .map(|mut count| {
            let mut value = [0; 8];
            count.read_exact(&mut value).unwrap();
            u64::from_ne_bytes(value)
        })
        .sum();
    println!("{calls} system calls for {packets} packets in {SENDS} bursts");
    assert_eq!(packets, (SENDS * SEGMENTS) as u64);
    assert!(calls > 0 && calls < packets / 5, "{calls} system calls for {packets} packets");
}
