//! Conntrack's memory: a file in the state-dir, so that connections outlive the process.
#![allow(unsafe_code)]

use super::Error;
use crate::worker::now;
use flow::{FlowId, Table};
use memmap2::MmapRaw;
use nix::fcntl::posix_fallocate;
use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use wire::Address;

/// Pause between two sweeps.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Buckets per sweep: a table of the default size is swept within 5 s, each step takes well
/// under a millisecond.
const SWEEP_BUCKETS: usize = 1024;

/// Maps the table of the run before, or a new one if that was in another `epoch` (another boot),
/// for the life of this process. Returns it with the number of connections taken over.
pub(super) fn open(path: &Path, flows: usize, epoch: u64) -> Result<(&'static Table, usize), Error> {
    let failed = |error: io::Error| Error::new(format!("conntrack {}: {error}", path.display()));
    let words = map(path, Table::words_for(flows)).map_err(failed)?;
    let (table, kept) = Table::attach(words, epoch, rand::random());
    Ok((Box::leak(Box::new(table)), kept))
}

/// Maps the file as words that are never unmapped.
fn map(path: &Path, words: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = words * size_of::<AtomicU64>();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_len(bytes as u64)?;
    // A full file system has to be noticed now: later it would be a SIGBUS.
    posix_fallocate(&file, 0, bytes as nix::libc::off_t)?;
    let map = MmapRaw::map_raw(&file)?;
    let start = map.as_mut_ptr().cast::<AtomicU64>();
    std::mem::forget(map);
    // SAFETY: the mapping is page-aligned, has `bytes` bytes and is never unmapped (forgotten
    // above); the state-dir's lock keeps other agents from mapping or shrinking the file, and
    // every access goes through atomics, for which any bit pattern is valid.
    Ok(unsafe { std::slice::from_raw_parts(start, words) })
}

/// Removes expired connections for ever, a bounded number at a time.
pub(super) async fn sweep(table: &'static Table) {
    let mut position = 0;
    let mut tick = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tick.tick().await;
        (position, _) = table.sweep(position, SWEEP_BUCKETS, now());
    }
}

/// Removes all connections of these addresses.
pub(super) fn forget(table: &Table, addresses: &[IpAddr]) {
    let of_pod = |address: Address| addresses.contains(&address.ip());
    let mut ids: Vec<FlowId> = Vec::new();
    table.for_each(now(), |flow, _| {
        if of_pod(flow.new.tuple.src) || of_pod(flow.new.tuple.dst) {
            ids.push(flow.id);
        }
    });
    for id in ids {
        table.remove(id);
    }
}
