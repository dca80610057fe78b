//! The UMEM and who owns each chunk of it.
#![allow(unsafe_code)]

mod chain;

use crate::error::{Error, os_error};
use chain::{END, Part};
use std::{
    num::NonZeroU32,
    ptr, slice,
    sync::atomic::{AtomicU32, Ordering},
};
use xsk_rs::{
    FrameDesc, Umem,
    config::{FrameSize, QueueSize, UmemConfig},
};

/// Bytes the kernel leaves free in front of a received packet (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
const ETHERNET_HEADER: u32 = 14;
/// Sizes of a chunk in bytes: the least one, and a page, which is the most.
const CHUNKS: [u32; 2] = [2048, 4096];
/// Most chunks of one packet.
pub(crate) const PARTS: u32 = 3;
/// Option of a descriptor: the packet goes on in the next one (linux/if_xdp.h).
const XDP_PKT_CONTD: u32 = 1;
const HUGE_PAGE: u64 = 2 << 20;

/// The largest MTU in bytes (Ethernet header not counted) of packets in `parts` chunks of `size`.
const fn mtu_of(size: u32, parts: u32) -> u32 {
    (size - HEADROOM) * parts - ETHERNET_HEADER
}

/// The largest MTU in bytes that packets can have here.
pub const fn largest_mtu() -> u32 {
    mtu_of(CHUNKS[1], PARTS)
}

/// The largest MTU in bytes of packets in one chunk; beyond, the kernel has to pass packets in
/// several buffers.
pub(crate) const fn largest_single_mtu() -> u32 {
    mtu_of(CHUNKS[1], 1)
}

/// A packet in a chunk of a [`Pool`], and in further ones if it is too long for one, held by user
/// space. It cannot be copied; give it back with [`Pool::free`] or send it.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost for its pool"]
pub struct Frame {
    pool: u32,
    chunk: u32,
    /// Offset of the packet in the chunk.
    pub head: usize,
    /// Bytes of the packet in the chunk.
    pub len: usize,
    /// Bytes of the packet in further chunks; what is taken from it here is cut off.
    pub tail: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Free,
    User,
    Fill,
    Transmit,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    owner: Owner,
    /// Where the packet goes on, or [`END`].
    next: u32,
    /// What a further chunk holds of its packet: offset and length.
    head: u16,
    len: u16,
}

/// The frames of one worker: a UMEM, its free list, and the owner of every chunk, so that no ring
/// entry, not even a wrong one, makes two owners.
#[derive(Debug)]
pub struct Pool {
    id: u32,
    umem: Umem,
    base: usize,
    size: usize,
    mtu: u32,
    huge_pages: bool,
    descs: Box<[FrameDesc]>,
    chunks: Box<[Chunk]>,
    // Last in, first out: what was used last is still in the cache.
    free: Vec<u32>,
}

impl Pool {
    /// Frames for packets of `mtu` bytes (Ethernet header not counted); on huge pages if the
    /// machine has enough of them.
    pub fn new(frames: u32, mtu: u32) -> Result<Pool, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if mtu > largest_mtu() {
            return Err(Error::Mtu { mtu, max: largest_mtu() });
        }
        let size = if mtu <= mtu_of(CHUNKS[0], 1) { CHUNKS[0] } else { CHUNKS[1] };
        let refused = |source| Error::Umem { frames, source };
        let ring = QueueSize::new(crate::socket::RING).map_err(|e| refused(os_error(e)))?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(size).map_err(|e| refused(os_error(e)))?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(|e| refused(os_error(e)))?;
        let count =
            NonZeroU32::new(frames).ok_or_else(|| refused(std::io::ErrorKind::InvalidInput.into()))?;
        // Only whole huge pages can be unmapped again.
        let huge_pages = (u64::from(frames) * u64::from(size)).is_multiple_of(HUGE_PAGE);
        let huge = huge_pages.then(|| Umem::new(config, count, true).ok()).flatten();
        let huge_pages = huge.is_some();
        let (umem, mut descs) = match huge {
            Some(created) => created,
            None => Umem::new(config, count, false).map_err(|e| refused(os_error(e)))?,
        };
        let offset = descs[0].addr();
        // SAFETY: the descriptor was just returned for this UMEM and no ring holds it.
        let data = unsafe { umem.data_mut(&mut descs[0]) }.contents_mut().as_mut_ptr();
        let base = data.expose_provenance() - offset;
        let chunk = Chunk { owner: Owner::Free, next: END, head: 0, len: 0 };
        Ok(Pool {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            umem,
            base,
            size: size as usize,
            mtu,
            huge_pages,
            chunks: vec![chunk; descs.len()].into(),
            free: (0..frames).rev().collect(),
            descs: descs.into(),
        })
    }

    /// Takes a free frame, empty and with the usual headroom.
    pub fn alloc(&mut self) -> Option<Frame> {
        let chunk = self.take(Owner::User)?;
        Some(Frame { pool: self.id, chunk, head: HEADROOM as usize, len: 0, tail: 0 })
    }

    /// Gives a frame back.
    pub fn free(&mut self, frame: Frame) {
        self.check(&frame);
        self.release_chain(frame.chunk);
    }

    /// The whole chunk behind a frame, the first one if it has several.
    pub fn buffer(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.check(frame);
        // SAFETY: the chunk lies in the mapping, which `umem` keeps alive; the frame says that no
        // ring holds it, and both borrows last as long as the slice, so nobody else reaches it.
        unsafe { slice::from_raw_parts_mut(self.start(frame.chunk), self.size) }
    }

    /// Frames not in use.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Frames in all.
    pub fn capacity(&self) -> usize {
        self.descs.len()
    }

    /// Whether it lies on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    pub(crate) fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Moves up to `into.len()` free chunks to the fill ring's side; returns how many.
    pub(crate) fn lend_fill(&mut self, into: &mut [FrameDesc]) -> usize {
        let mut n = 0;
        for slot in into {
            let Some(chunk) = self.take(Owner::Fill) else { break };
            *slot = self.descs[chunk as usize];
            n += 1;
        }
        n
    }

    /// Undoes [`Pool::lend_fill`] for a descriptor that the ring did not take.
    pub(crate) fn unlend_fill(&mut self, desc: &FrameDesc) {
        if let Some(chunk) = self.chunk_of(desc, Owner::Fill) {
            self.release(chunk);
        }
    }

    /// The frame of an RX ring entry; `None` if the kernel does not hold that chunk for receiving
    /// or the packet does not lie inside it.
    pub(crate) fn received(&mut self, desc: &FrameDesc) -> Option<Frame> {
        let chunk = self.chunk_of(desc, Owner::Fill)?;
        let (head, len) = (desc.addr() % self.size, desc.lengths().data());
        if head + len > self.size {
            self.release(chunk);
            return None;
        }
        self.chunks[chunk as usize].owner = Owner::User;
        Some(Frame { pool: self.id, chunk, head, len, tail: 0 })
    }

    /// Hands a frame to the TX ring's side, as the first of the descriptors in `into`; returns
    /// how many. Refuses what does not lie in its chunks.
    pub(crate) fn lend_tx(&mut self, frame: Frame, into: &mut [FrameDesc]) -> Result<usize, Frame> {
        self.check(&frame);
        if !self.trim(&frame) {
            return Err(frame);
        }
        let first = Part { chunk: frame.chunk, head: frame.head, len: frame.len };
        let (mut next, mut n) = (Some(first), 0);
        while let Some(part) = next {
            into[n] = self.lend_part(part);
            next = self.unlink(part.chunk);
            if next.is_some() {
                into[n].set_options(XDP_PKT_CONTD);
            }
            n += 1;
        }
        Ok(n)
    }

    /// The descriptor of one part. The bytes are moved to the usual place if they are elsewhere: a
    /// descriptor's address cannot be set through `xsk-rs`.
    fn lend_part(&mut self, Part { chunk, head, len }: Part) -> FrameDesc {
        let mut desc = self.descs[chunk as usize];
        if head != HEADROOM as usize {
            // SAFETY: as in `buffer`; the part is of a frame that the caller holds.
            let buffer = unsafe { slice::from_raw_parts_mut(self.start(chunk), self.size) };
            buffer.copy_within(head..head + len, HEADROOM as usize);
        }
        // SAFETY: the descriptor is of this UMEM and user space owns the chunk.
        unsafe { self.umem.data_mut(&mut desc) }.cursor().set_pos(len);
        self.chunks[chunk as usize].owner = Owner::Transmit;
        desc
    }

    /// Takes a chunk back from the completion ring, or one that the TX ring did not take; false if
    /// the kernel did not hold it for transmission (some kernels complete twice or too early).
    pub(crate) fn completed(&mut self, desc: &FrameDesc) -> bool {
        let chunk = self.chunk_of(desc, Owner::Transmit);
        chunk.inspect(|&chunk| self.release(chunk)).is_some()
    }

    fn chunk_of(&self, desc: &FrameDesc, owner: Owner) -> Option<u32> {
        let index = desc.addr() / self.size;
        (self.chunks.get(index)?.owner == owner).then_some(index as u32)
    }

    fn take(&mut self, owner: Owner) -> Option<u32> {
        let chunk = self.free.pop()?;
        self.chunks[chunk as usize].owner = owner;
        Some(chunk)
    }

    fn release(&mut self, chunk: u32) {
        self.chunks[chunk as usize].owner = Owner::Free;
        self.free.push(chunk);
    }

    /// The bytes of a part of a frame, none if they do not lie in their chunk.
    fn bytes<'a>(&'a self, _: &'a Frame, part: Part) -> &'a [u8] {
        // SAFETY: the chunk lies in the mapping, which `umem` keeps alive; it is that of the
        // frame's holder, who changes nothing as long as frame and pool are borrowed.
        let buffer = unsafe { slice::from_raw_parts(self.start(part.chunk), self.size) };
        buffer.get(part.head..part.head + part.len).unwrap_or_default()
    }

    fn start(&self, chunk: u32) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.base + chunk as usize * self.size)
    }

    /// A frame of another pool here would alias memory: a bug in the caller, never bad input.
    fn check(&self, frame: &Frame) {
        assert_eq!(frame.pool, self.id, "a frame was given to a pool that it is not of");
    }
}

#[cfg(test)]
mod tests;
