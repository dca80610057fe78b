//! One AF_XDP socket: a (device, queue) pair with its four rings.
#![allow(unsafe_code)]

use crate::{
    Dead, Error, Frame, Pool, Stats,
    assembly::Assembly,
    error::os_error,
    pool::{PARTS, largest_single_mtu},
    wakeup::{self, Kick},
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    thread,
    time::Duration,
};
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue,
    config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig},
};

/// Most frames taken from a ring at once.
pub const BURST: usize = 64;
/// Entries of every ring: absorbs a few milliseconds without the worker.
pub const RING: u32 = 1024;
/// Wakeups without progress before frames are left for the next round.
const STALLS: u32 = 4;
/// Times and pause between attempts to bind: the kernel releases a queue asynchronously after
/// its last owner closed it.
const BIND_ATTEMPTS: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors per transmit call in copy mode (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17; 32 before).
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const SEND_BUFFER: u32 = 4 << 20;

/// A burst of received frames.
pub type Batch = Vec<Frame>;

/// How packets get between the device and the UMEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The kernel copies them.
    Copy,
    /// The device works on the UMEM.
    ZeroCopy,
}

/// An AF_XDP socket bound to one queue of a device. No XDP program is loaded and no map is
/// filled here: put [`Socket::fd`] into the XSKMAP.
#[derive(Debug)]
pub struct Socket {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    fd: RawFd,
    pool: u32,
    mode: Mode,
    scratch: [FrameDesc; BURST],
    assembly: Assembly,
    stats: Arc<Stats>,
}

impl Socket {
    /// Binds to a queue. Sockets of one pool all have the mode of the first one.
    pub fn bind(device: &str, queue: u32, mode: Mode, pool: &mut Pool) -> Result<Socket, Error> {
        let failed = |source| Error::Bind { device: device.into(), queue, source };
        let name = Interface::new(CString::new(device).map_err(|e| failed(e.into()))?);
        let copy = match mode {
            Mode::Copy => BindFlags::XDP_COPY,
            Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        };
        let ring = QueueSize::new(RING).map_err(|e| failed(os_error(e)))?;
        let flags = copy | BindFlags::XDP_USE_NEED_WAKEUP;
        let open = |flags| {
            let config = SocketConfig::builder()
                .rx_queue_size(ring)
                .tx_queue_size(ring)
                .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
                .bind_flags(flags)
                .build();
            let mut attempt = 0;
            loop {
                // SAFETY: no program is loaded by libxdp (the flag above).
                match unsafe { xsk_rs::Socket::new(config, pool.umem(), &name, queue) }.map_err(os_error) {
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < BIND_ATTEMPTS => {
                        attempt += 1;
                        thread::sleep(BIND_PAUSE);
                    }
                    result => return result,
                }
            }
        };
        let (tx, rx, rings) = match pool.multi_buffer() {
            false => open(flags).map_err(failed)?,
            true => open(flags | BindFlags::XDP_USE_SG).map_err(|source| match open(flags) {
                Ok(_) => Error::MultiBuffer {
                    device: device.into(),
                    mtu: pool.mtu(),
                    max: largest_single_mtu(),
                    source,
                },
                Err(_) => failed(source),
            })?,
        };
        let (fill, completion) = rings.ok_or_else(|| Error::Taken { device: device.into(), queue })?;
        let fd = tx.fd().as_raw_fd();
        // Both only make bursts cheaper: without them a burst takes more system calls.
        wakeup::set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, RING);
        wakeup::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER);
        let scratch = [FrameDesc::default(); BURST];
        let stats = Arc::new(Stats::default());
        let (pool_id, assembly) = (pool.id(), Assembly::default());
        let mut socket =
            Socket { rx, tx, fill, completion, fd, pool: pool_id, mode, scratch, assembly, stats };
        for _ in 0..RING as usize / BURST {
            socket.refill(pool);
        }
        Ok(socket)
    }

    /// Takes up to [`BURST`] received frames into `batch`, after the fill ring was topped up.
    pub fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize {
        self.check(pool);
        self.reclaim(pool);
        self.refill(pool);
        // SAFETY: the ring belongs to the pool's UMEM (checked above).
        let n = unsafe { self.rx.consume(&mut self.scratch) };
        let (before, mut unknown) = (batch.len(), 0);
        for desc in &self.scratch[..n] {
            let part = pool.received(desc);
            unknown += u64::from(part.is_none());
            batch.extend(self.assembly.add(pool, part, desc.has_more_frames()));
        }
        self.stats.rx_frames.add((batch.len() - before) as u64);
        self.stats.unknown_address.add(unknown);
        n
    }

    /// Puts a frame on the TX ring; [`Socket::kick`] sends it. If the ring is full even after a
    /// wakeup the frame is dropped, counted and back in the pool.
    pub fn send(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Dead> {
        self.check(pool);
        if self.tx.nb_free(PARTS) < PARTS
            && let Err(dead) = self.kick(pool)
        {
            pool.free(frame);
            return Err(dead);
        }
        match pool.lend_tx(frame, &mut self.scratch) {
            // SAFETY: user space owned the chunks and the pool marked them as the kernel's.
            Ok(n) if unsafe { self.tx.produce(&self.scratch[..n]) } == n => self.stats.tx_frames.add(1),
            Ok(n) => {
                self.scratch[..n].iter().for_each(|desc| _ = pool.completed(desc));
                self.stats.tx_ring_full.add(1);
            }
            Err(frame) => {
                pool.free(frame);
                self.stats.tx_oversize.add(1);
            }
        }
        Ok(())
    }

    /// Makes the kernel transmit what is on the TX ring. Ends after a bounded number of calls;
    /// what is then left (back-pressure) goes with the next kick.
    pub fn kick(&mut self, pool: &mut Pool) -> Result<(), Dead> {
        self.check(pool);
        let mut stalls = 0;
        let mut pending = self.pending();
        while pending > 0 && (self.mode == Mode::Copy || self.tx.needs_wakeup()) {
            self.reclaim(pool);
            self.stats.kicks.add(1);
            let outcome = wakeup::transmit(self.fd)?;
            let left = self.pending();
            match outcome {
                Kick::Done => break,
                Kick::Again => {}
                Kick::Dropped => self.stats.tx_device_dropped.add(1),
                Kick::Down => {
                    self.stats.tx_down.add(1);
                    break;
                }
            }
            stalls = if left < pending { 0 } else { stalls + 1 };
            if stalls == STALLS {
                self.stats.tx_deferred.add(1);
                break;
            }
            pending = left;
        }
        self.reclaim(pool);
        Ok(())
    }

    /// Frames on the TX ring that the kernel has not taken yet.
    pub fn pending(&mut self) -> u32 {
        RING - self.tx.nb_free_exact()
    }

    /// Whether the device still exists. Costs a system call.
    pub fn check_alive(&self) -> Result<(), Dead> {
        wakeup::transmit(self.fd).map(drop)
    }

    /// Reads the kernel's own statistics into [`Socket::stats`]. Costs a system call.
    pub fn refresh_stats(&self) -> io::Result<()> {
        let kernel = self.tx.fd().xdp_statistics()?;
        self.stats.rx_dropped.set(kernel.rx_dropped());
        self.stats.rx_ring_full.set(kernel.rx_ring_full());
        self.stats.rx_fill_ring_empty.set(kernel.rx_fill_ring_empty_descs());
        self.stats.rx_invalid_descs.set(kernel.rx_invalid_descs());
        self.stats.tx_invalid_descs.set(kernel.tx_invalid_descs());
        Ok(())
    }

    /// The counters, for other threads to read.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// How packets are moved.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The socket, for the XSKMAP and for poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the rings keep the socket open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Tops up the fill ring, one burst at most.
    fn refill(&mut self, pool: &mut Pool) {
        let room = (self.fill.nb_free(BURST as u32) as usize).min(BURST);
        if room == 0 {
            return;
        }
        let n = pool.lend_fill(&mut self.scratch[..room]);
        if n < room {
            self.stats.pool_empty.add(1);
        }
        // SAFETY: the pool marked these chunks as the kernel's, nobody else holds them.
        if unsafe { self.fill.produce(&self.scratch[..n]) } < n {
            self.scratch[..n].iter().for_each(|desc| pool.unlend_fill(desc));
        }
        // A dead socket shows at the next transmit or liveness check.
        if self.fill.needs_wakeup() {
            let _ = wakeup::refill(self.fd);
        }
    }

    /// Takes transmitted frames back, at most one ring full.
    fn reclaim(&mut self, pool: &mut Pool) {
        for _ in 0..RING as usize / BURST {
            // SAFETY: the ring belongs to the pool's UMEM.
            let n = unsafe { self.completion.consume(&mut self.scratch) };
            let known = self.scratch[..n].iter().filter(|desc| pool.completed(desc)).count();
            self.stats.completed.add(known as u64);
            self.stats.unknown_address.add((n - known) as u64);
            if n < BURST {
                break;
            }
        }
    }

    fn check(&self, pool: &Pool) {
        assert_eq!(self.pool, pool.id(), "a socket was used with a pool that it is not bound to");
    }
}
