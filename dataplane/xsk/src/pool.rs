//! The UMEM and who owns each chunk of it.
#![allow(unsafe_code)]

use crate::error::{Error, os_error};
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

/// The largest MTU in bytes (Ethernet header not counted) that a frame of `size` bytes carries.
const fn mtu_of(size: u32) -> u32 {
    size - HEADROOM - ETHERNET_HEADER
}

/// The largest MTU in bytes that any frame carries: a chunk cannot exceed a page.
pub const fn largest_mtu() -> u32 {
    mtu_of(4096)
}

/// One chunk of a [`Pool`], held by user space. It cannot be copied; give it back with
/// [`Pool::free`] or send it.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost for its pool"]
pub struct Frame {
    pool: u32,
    chunk: u32,
    /// Offset of the packet in the chunk.
    pub head: usize,
    /// Length of the packet in bytes.
    pub len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Free,
    User,
    Fill,
    Transmit,
}

/// The frames of one worker: a UMEM, its free list, and the owner of every chunk, so that no ring
/// entry, not even a wrong one, makes two owners.
#[derive(Debug)]
pub struct Pool {
    id: u32,
    umem: Umem,
    base: usize,
    size: usize,
    descs: Box<[FrameDesc]>,
    owner: Box<[Owner]>,
    // Last in, first out: what was used last is still in the cache.
    free: Vec<u32>,
}

impl Pool {
    /// Frames for packets of `mtu` bytes (Ethernet header not counted).
    pub fn new(frames: u32, mtu: u32) -> Result<Pool, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let size = [2048, 4096].into_iter().find(|&size| mtu <= mtu_of(size));
        let size = size.ok_or(Error::Mtu { mtu, max: largest_mtu() })?;
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
        let (umem, mut descs) = Umem::new(config, count, false).map_err(|e| refused(os_error(e)))?;
        let offset = descs[0].addr();
        // SAFETY: the descriptor was just returned for this UMEM and no ring holds it.
        let data = unsafe { umem.data_mut(&mut descs[0]) }.contents_mut().as_mut_ptr();
        let base = data.expose_provenance() - offset;
        Ok(Pool {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            umem,
            base,
            size: size as usize,
            owner: vec![Owner::Free; descs.len()].into(),
            free: (0..frames).rev().collect(),
            descs: descs.into(),
        })
    }
    /// Takes a free frame, empty and with the usual headroom.
    pub fn alloc(&mut self) -> Option<Frame> {
        let chunk = self.take(Owner::User)?;
        Some(Frame { pool: self.id, chunk, head: HEADROOM as usize, len: 0 })
    }

    /// Gives a frame back.
    pub fn free(&mut self, frame: Frame) {
        self.check(&frame);
        self.release(frame.chunk);
    }

    /// The whole chunk behind a frame.
    pub fn buffer(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.check(frame);
        let start = ptr::with_exposed_provenance_mut::<u8>(self.base + frame.chunk as usize * self.size);
        // SAFETY: the chunk lies in the mapping, which `umem` keeps alive; the frame says that no
        // ring holds it, and both borrows last as long as the slice, so nobody else reaches it.
        unsafe { slice::from_raw_parts_mut(start, self.size) }
    }

    /// Moves a frame of another pool into this one by copying; gives the frame back to `from` in
    /// any case. `None` if no frame is free here or the packet does not fit.
    pub fn copy_from(&mut self, from: &mut Pool, mut frame: Frame) -> Option<Frame> {
        let (head, len) = (frame.head, frame.len);
        let copy = from.buffer(&mut frame).get(head..head + len).and_then(|bytes| self.fill_new(bytes));
        from.free(frame);
        copy
    }

    /// A new frame that holds `bytes`; `None` if no frame is free or they do not fit.
    pub fn fill_new(&mut self, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.alloc()?;
        frame.len = bytes.len();
        let head = frame.head;
        match self.buffer(&mut frame).get_mut(head..head + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Some(frame)
            }
            None => {
                self.free(frame);
                None
            }
        }
    }

    /// Frames not in use.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Frames in all.
    pub fn capacity(&self) -> usize {
        self.descs.len()
    }

    pub(crate) fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
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
        self.owner[chunk as usize] = Owner::User;
        Some(Frame { pool: self.id, chunk, head, len })
    }

    /// Hands a frame to the TX ring's side. The packet is moved to the frame's usual place if the
    /// engine moved its head: a descriptor's address cannot be set through `xsk-rs`.
    pub(crate) fn lend_tx(&mut self, mut frame: Frame) -> Result<FrameDesc, Frame> {
        self.check(&frame);
        let mut desc = self.descs[frame.chunk as usize];
        let (head, len, usual) = (frame.head, frame.len, desc.addr() % self.size);
        if head + len > self.size || usual + len > self.size {
            return Err(frame);
        }
        if head != usual {
            self.buffer(&mut frame).copy_within(head..head + len, usual);
        }
        // SAFETY: the descriptor is of this UMEM and user space owns the chunk.
        unsafe { self.umem.data_mut(&mut desc) }.cursor().set_pos(len);
        self.owner[frame.chunk as usize] = Owner::Transmit;
        Ok(desc)
    }

    /// Undoes [`Pool::lend_tx`] for a descriptor that the ring did not take.
    pub(crate) fn unlend_tx(&mut self, desc: &FrameDesc) -> Option<Frame> {
        let chunk = self.chunk_of(desc, Owner::Transmit)?;
        self.owner[chunk as usize] = Owner::User;
        let head = desc.addr() % self.size;
        Some(Frame { pool: self.id, chunk, head, len: desc.lengths().data() })
    }

    /// Takes a chunk back from the completion ring; false if the kernel did not hold it for
    /// transmission (some kernels complete twice or too early).
    pub(crate) fn completed(&mut self, desc: &FrameDesc) -> bool {
        let chunk = self.chunk_of(desc, Owner::Transmit);
        chunk.inspect(|&chunk| self.release(chunk)).is_some()
    }

    fn chunk_of(&self, desc: &FrameDesc, owner: Owner) -> Option<u32> {
        let chunk = desc.addr() / self.size;
        (self.owner.get(chunk) == Some(&owner)).then_some(chunk as u32)
    }

    fn take(&mut self, owner: Owner) -> Option<u32> {
        let chunk = self.free.pop()?;
        self.owner[chunk as usize] = owner;
        Some(chunk)
    }

    fn release(&mut self, chunk: u32) {
        self.owner[chunk as usize] = Owner::Free;
        self.free.push(chunk);
    }

    /// A frame of another pool here would alias memory: a bug in the caller, never bad input.
    fn check(&self, frame: &Frame) {
        assert_eq!(frame.pool, self.id, "a frame was given to a pool that it is not of");
    }
}

#[cfg(test)]
mod tests;
