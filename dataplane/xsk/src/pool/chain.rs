//! Packets that are too long for one chunk: the first is the [`Frame`]'s, each leads to the next.

use super::{Frame, HEADROOM, PARTS, Pool, largest_single_mtu};
use std::{iter, mem};

/// After the last chunk of a packet.
pub(super) const END: u32 = u32::MAX;

/// What a chunk holds of a packet.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) chunk: u32,
    pub(super) head: usize,
    pub(super) len: usize,
}

impl Pool {
    /// The packet, chunk by chunk.
    pub fn parts<'a>(&'a self, frame: &'a Frame) -> impl Iterator<Item = &'a [u8]> {
        self.check(frame);
        let first = Part { chunk: frame.chunk, head: frame.head, len: frame.len };
        let mut left = frame.tail;
        let further = iter::successors(self.after(frame.chunk), |part| self.after(part.chunk));
        let further = further.map_while(move |part| {
            let len = part.len.min(left);
            left -= len;
            (len > 0).then_some(Part { len, ..part })
        });
        iter::once(first).chain(further).map(|part| self.bytes(frame, part))
    }

    /// Moves a frame of another pool into this one by copying; gives the frame back to `from` in
    /// any case. `None` if too little is free here or the packet is too long for this pool.
    pub fn copy_from(&mut self, from: &mut Pool, frame: Frame) -> Option<Frame> {
        let copy = self.gather(from.parts(&frame));
        from.free(frame);
        copy
    }

    /// A new frame that holds `parts` one after the other; `None` if too little is free or they
    /// are too long for this pool.
    pub fn gather<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Option<Frame> {
        let (mut begun, mut last) = (None, self.alloc()?);
        let mut further = if self.multi_buffer() { PARTS - 1 } else { 0 };
        for mut bytes in parts {
            loop {
                bytes = self.fill(&mut last, bytes);
                if bytes.is_empty() {
                    break;
                }
                let next = if further > 0 { self.alloc() } else { None };
                let Some(next) = next else {
                    begun.into_iter().chain([last]).for_each(|frame| self.free(frame));
                    return None;
                };
                begun = Some(self.join(begun, mem::replace(&mut last, next)));
                further -= 1;
            }
        }
        Some(self.join(begun, last))
    }

    /// Whether packets may take several chunks.
    pub(crate) fn multi_buffer(&self) -> bool {
        self.mtu > largest_single_mtu()
    }

    /// Appends to a frame of one chunk; returns what does not fit.
    fn fill<'a>(&mut self, frame: &mut Frame, bytes: &'a [u8]) -> &'a [u8] {
        let free = &mut self.buffer(frame)[frame.head + frame.len..];
        let (now, rest) = bytes.split_at(bytes.len().min(free.len()));
        free[..now.len()].copy_from_slice(now);
        frame.len += now.len();
        rest
    }

    /// Hangs the next part of a packet on what there is of it.
    pub(crate) fn join(&mut self, begun: Option<Frame>, part: Frame) -> Frame {
        let Some(mut packet) = begun else { return part };
        let mut last = packet.chunk;
        while let Some(next) = self.after(last) {
            last = next.chunk;
        }
        self.chunks[last as usize].next = part.chunk;
        let chunk = &mut self.chunks[part.chunk as usize];
        // A chunk is no larger than a page.
        (chunk.head, chunk.len) = (part.head as u16, part.len as u16);
        packet.tail += part.len;
        packet
    }

    /// Cuts a packet to its length; false if its chunks do not have that much, are too many, or
    /// hold more than can be sent from one.
    pub(super) fn trim(&mut self, frame: &Frame) -> bool {
        let most = self.size - HEADROOM as usize;
        let (mut last, mut left, mut further) = (frame.chunk, frame.tail, PARTS - 1);
        while left > 0 {
            let Some(part) = self.after(last).filter(|part| part.len <= most && further > 0) else {
                return false;
            };
            let len = part.len.min(left);
            self.chunks[part.chunk as usize].len = len as u16;
            (last, left, further) = (part.chunk, left - len, further - 1);
        }
        if let Some(surplus) = self.unlink(last) {
            self.release_chain(surplus.chunk);
        }
        frame.len <= most && frame.head + frame.len <= self.size
    }

    /// Gives a chunk and all that follow it back.
    pub(super) fn release_chain(&mut self, chunk: u32) {
        let mut next = Some(chunk);
        while let Some(chunk) = next {
            next = self.unlink(chunk).map(|part| part.chunk);
            self.release(chunk);
        }
    }

    /// The part that follows a chunk.
    fn after(&self, chunk: u32) -> Option<Part> {
        let next = self.chunks[chunk as usize].next;
        let chunk = self.chunks.get(next as usize)?;
        Some(Part { chunk: next, head: chunk.head.into(), len: chunk.len.into() })
    }

    /// The same, which from now on follows nothing.
    pub(super) fn unlink(&mut self, chunk: u32) -> Option<Part> {
        let next = self.after(chunk)?;
        self.chunks[chunk as usize].next = END;
        Some(next)
    }
}
