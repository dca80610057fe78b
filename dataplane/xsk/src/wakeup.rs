//! Asking the kernel to work on a socket's rings, with errno kept and an end to every retry.
#![allow(unsafe_code)]

use std::{io, os::fd::RawFd, ptr};

/// The socket was unbound because its device went away; it will never work again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the device was removed, its AF_XDP socket is unbound")]
pub struct Dead;

/// What one system call achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kick {
    /// It did what it could.
    Done,
    /// Ran out of budget, buffer space or device room: try again.
    Again,
    /// The device refused a frame and the kernel dropped it; the others wait.
    Dropped,
    /// The device is down, for now.
    Down,
}

/// Transmits what is on the TX ring (in copy mode at most the socket's TX budget per call).
pub(crate) fn transmit(fd: RawFd) -> Result<Kick, Dead> {
    // SAFETY: no buffer is passed; a stale descriptor gives EBADF.
    let result = unsafe { libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    outcome(result)
}

/// Lets the driver continue with the fill ring.
pub(crate) fn refill(fd: RawFd) -> Result<Kick, Dead> {
    // SAFETY: as above.
    let result = unsafe {
        libc::recvfrom(fd, ptr::null_mut(), 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut())
    };
    outcome(result)
}

/// The errors of `xsk_generic_xmit` and `xsk_check_common` (net/xdp/xsk.c).
fn outcome(result: isize) -> Result<Kick, Dead> {
    if result >= 0 {
        return Ok(Kick::Done);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EBUSY) => Ok(Kick::Dropped),
        Some(libc::ENETDOWN) => Ok(Kick::Down),
        Some(libc::ENXIO | libc::EBADF) => Err(Dead),
        _ => Ok(Kick::Again),
    }
}

/// Sets an integer option; false if this kernel does not know it.
pub(crate) fn set_option(fd: RawFd, level: i32, option: i32, value: u32) -> bool {
    // SAFETY: the pointer and the length describe `value`.
    let result = unsafe {
        libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<u32>() as libc::socklen_t)
    };
    result == 0
}
