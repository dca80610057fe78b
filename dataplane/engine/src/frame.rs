//! A frame in its buffer, and the link-layer header it leaves with.

use crate::Port;
use tables::Endpoint;
use wire::MacAddr;
use wire::hub::{HOST_MAC, deliver_to_pod};

/// A frame in its buffer; the free bytes behind it let answers and errors be built in place. A
/// long one goes on in further buffers, which are nobody's to read here: headers are in the first.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The whole chunk.
    pub buf: &'a mut [u8],
    /// Where the Ethernet header starts.
    pub head: usize,
    /// Bytes of the frame in this buffer.
    pub len: usize,
    /// Bytes of the frame in further buffers.
    pub tail: usize,
}

impl Frame<'_> {
    /// The frame's bytes in this buffer; none if they do not lie in it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.head.checked_add(self.len).and_then(|end| self.buf.get(self.head..end)).unwrap_or_default()
    }

    /// The frame's bytes and all that is free behind them.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.head..).unwrap_or_default()
    }

    /// Cuts off what follows byte `end` of the frame.
    pub(crate) fn truncate(&mut self, end: usize) {
        self.len = self.len.min(end);
        self.tail = self.tail.min(end - self.len);
    }

    /// Makes the first `len` bytes of [`Frame::room`] the whole frame.
    pub(crate) fn replace(&mut self, len: usize) {
        (self.len, self.tail) = (len, 0);
    }
}

/// Where a frame leaves, with its link-layer addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) port: Port,
    pub(crate) to: MacAddr,
    pub(crate) from: MacAddr,
}

impl Link {
    /// Up to the node's stack.
    pub(crate) const TO_HOST: Link = Link { port: Port::Hub, to: HOST_MAC, from: HOST_MAC };

    /// To a local pod.
    pub(crate) fn to_pod(endpoint: &Endpoint) -> Link {
        Link { port: Port::Hub, to: endpoint.mac, from: deliver_to_pod(endpoint.ifindex) }
    }

    /// Writes the addresses into a frame, which has an Ethernet header.
    #[inline]
    pub(crate) fn write(&self, frame: &mut [u8]) {
        frame[..6].copy_from_slice(&self.to.0);
        frame[6..12].copy_from_slice(&self.from.0);
    }
}
