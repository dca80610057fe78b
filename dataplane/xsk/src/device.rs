//! What a socket's user has to know of a device, and waiting for several sockets.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `ETHTOOL_GCHANNELS` and its structure, of linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// The number of receive queues of a device in this thread's network namespace.
pub fn queues(device: &str) -> io::Result<u32> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Default::default() };
    // SAFETY: `ifreq` is plain data, all zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request names a device and points to a structure of the command's kind.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } == 0 {
        return Ok((channels.rx + channels.combined).max(1));
    }
    match io::Error::last_os_error() {
        // The driver has one fixed queue.
        e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        e => Err(e),
    }
}

/// Waits until one of several descriptors is readable, without allocating.
#[derive(Debug)]
pub struct Waiter(Vec<libc::pollfd>);

impl Waiter {
    /// The descriptors must stay open as long as it is used; a closed one is reported as ready.
    pub fn new<'a>(fds: impl IntoIterator<Item = BorrowedFd<'a>>) -> Waiter {
        let entry =
            |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        Waiter(fds.into_iter().map(entry).collect())
    }

    /// Sleeps at most `timeout_ms`; true if something is ready. For sockets in copy mode the
    /// kernel also transmits what is on their TX rings.
    pub fn wait(&mut self, timeout_ms: i32) -> io::Result<bool> {
        // SAFETY: pointer and length are of the vector.
        match unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, timeout_ms) } {
            0.. => Ok(self.0.iter().any(|entry| entry.revents != 0)),
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
                e => Err(e),
            },
        }
    }

    /// Stops waiting for the `index`th descriptor.
    pub fn forget(&mut self, index: usize) {
        if let Some(entry) = self.0.get_mut(index) {
            entry.fd = -1;
        }
    }
}
