//! Frames whose checksums the kernel is to complete, as virtual machines send them.
#![allow(unsafe_code)]

use libc::{
    AF_PACKET, PACKET_VNET_HDR, SOCK_RAW, SOL_PACKET, if_nametoindex, sendto, setsockopt, sockaddr_ll, socket,
};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` of linux/virtio_net.h.
const NEEDS_CHECKSUM: u8 = 1;

/// Sends a frame out of `eth0`, of which the kernel sums up everything from byte `start` on and writes
/// the sum `offset` bytes behind that.
pub(crate) fn inject(frame: &[u8], start: u16, offset: u16) -> io::Result<()> {
    // `struct virtio_net_hdr`: flags, GSO type, length of headers, GSO size, start, offset.
    let [start, offset] = [start, offset].map(u16::to_ne_bytes);
    let header = [&[NEEDS_CHECKSUM, 0, 0, 0, 0, 0], &start[..], &offset].concat();
    let bytes = [&header, frame].concat();
    // SAFETY: no pointers are passed.
    let socket = unsafe { socket(AF_PACKET, SOCK_RAW, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let (on, size) = (1i32, size_of::<i32>() as u32);
    // SAFETY: the pointer and the size describe `on`.
    if unsafe { setsockopt(socket.as_raw_fd(), SOL_PACKET, PACKET_VNET_HDR, ptr::from_ref(&on).cast(), size) }
        < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are a valid address, and the name ends with a zero byte.
    let (mut to, ifindex) = unsafe { (std::mem::zeroed::<sockaddr_ll>(), if_nametoindex(c"eth0".as_ptr())) };
    (to.sll_family, to.sll_ifindex) = (AF_PACKET as u16, ifindex as i32);
    let (address, size) = (ptr::from_ref(&to).cast(), size_of::<sockaddr_ll>() as u32);
    // SAFETY: pointers and lengths describe `bytes` and `to`.
    match unsafe { sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, address, size) } {
        sent if sent == bytes.len() as isize => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
