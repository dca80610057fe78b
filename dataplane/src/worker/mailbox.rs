//! How a worker gets frames out of an uplink that another worker serves: by copy, bounded.

use crossbeam::queue::ArrayQueue;
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

/// Frames under way to one worker.
const SLOTS: usize = 256;
/// Ethernet header and an 802.1Q tag.
const LINK_HEADER: u32 = 18;

/// A frame for an uplink.
pub(super) struct Parcel {
    /// Index of the uplink.
    pub(super) uplink: u8,
    len: usize,
    bytes: Box<[u8]>,
}

impl Parcel {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Where other workers leave frames for one worker. Buffers go round, nothing is allocated.
pub(super) struct Mailbox {
    full: ArrayQueue<Parcel>,
    empty: ArrayQueue<Box<[u8]>>,
    asleep: AtomicBool,
    bell: PipeWriter,
    door: PipeReader,
}

impl Mailbox {
    pub(super) fn new(mtu: u32) -> io::Result<Mailbox> {
        let (door, bell) = io::pipe()?;
        let empty = ArrayQueue::new(SLOTS);
        for _ in 0..SLOTS {
            let _ = empty.push(vec![0; (mtu + LINK_HEADER) as usize].into());
        }
        Ok(Mailbox { full: ArrayQueue::new(SLOTS), empty, asleep: AtomicBool::new(false), bell, door })
    }

    /// Leaves a frame, given in parts; false if there is no room or it is too long.
    pub(super) fn put<'a>(&self, uplink: u8, frame: impl Iterator<Item = &'a [u8]>) -> bool {
        let Some(mut bytes) = self.empty.pop() else { return false };
        let mut len = 0;
        for part in frame {
            let Some(room) = bytes.get_mut(len..len + part.len()) else {
                let _ = self.empty.push(bytes);
                return false;
            };
            room.copy_from_slice(part);
            len += part.len();
        }
        // There are as many buffers as slots, so there is room.
        self.full.push(Parcel { uplink, len, bytes }).is_ok()
    }

    /// Takes a frame; give it back with [`Mailbox::recycle`].
    pub(super) fn take(&self) -> Option<Parcel> {
        self.full.pop()
    }

    pub(super) fn recycle(&self, parcel: Parcel) {
        let _ = self.empty.push(parcel.bytes);
    }

    /// Wakes the owner if it sleeps; once per burst.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `doze`: either we see `asleep` or the owner sees the frame.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // At most one byte per sleep is in the pipe, so this never blocks.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// The owner is about to sleep on [`Mailbox::door`]; false if there is something to do first.
    pub(super) fn doze(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.full.is_empty() || {
            self.awake();
            false
        }
    }

    /// The owner is awake again. If somebody rang, the byte is or will be there, so this reads it.
    pub(super) fn awake(&self) {
        if !self.asleep.swap(false, Ordering::Relaxed) {
            let _ = (&self.door).read(&mut [0]);
        }
    }

    /// Readable when somebody rang.
    pub(super) fn door(&self) -> BorrowedFd<'_> {
        self.door.as_fd()
    }
}
