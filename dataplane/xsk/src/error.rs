//! Why a socket or its memory could not be created.

use std::io;

/// What failed, where, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The UMEM was refused.
    #[error("cannot create a UMEM of {frames} frames: {source}; {advice}", advice = umem_advice(source))]
    Umem {
        /// Frames asked for.
        frames: u32,
        /// Of mmap or `XDP_UMEM_REG`.
        source: io::Error,
    },
    /// The MTU is larger than packets can be.
    #[error("MTU {mtu} is larger than {max}, the most that AF_XDP frames carry; set an MTU of at most {max}")]
    Mtu {
        /// MTU asked for, in bytes.
        mtu: u32,
        /// The largest supported one, in bytes.
        max: u32,
    },
    /// The kernel or the driver passes no packets in several buffers.
    #[error(
        "MTU {mtu} needs packets in several buffers, which the kernel (before Linux 6.6) or the driver of {device} \
         refuses: {source}; set an MTU of at most {max}"
    )]
    MultiBuffer {
        /// Interface name.
        device: String,
        /// MTU asked for, in bytes.
        mtu: u32,
        /// The largest one that works, in bytes.
        max: u32,
        /// Of bind.
        source: io::Error,
    },
    /// The socket could not be created or bound.
    #[error("cannot bind an AF_XDP socket to {device} queue {queue}: {source}; {advice}", advice = bind_advice(source))]
    Bind {
        /// Interface name.
        device: String,
        /// Queue number.
        queue: u32,
        /// Of socket, setsockopt, mmap or bind.
        source: io::Error,
    },
    /// A socket needs a fill and a completion ring of its own, and got none.
    #[error("{device} queue {queue} is already served from the same UMEM")]
    Taken {
        /// Interface name.
        device: String,
        /// Queue number.
        queue: u32,
    },
}

fn umem_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS) => "raise RLIMIT_MEMLOCK or give the node more memory",
        Some(libc::EPERM) => "CAP_NET_RAW is needed",
        Some(libc::EAFNOSUPPORT) => "the kernel needs CONFIG_XDP_SOCKETS",
        _ => "see setsockopt XDP_UMEM_REG in the kernel's af_xdp.rst",
    }
}

fn bind_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => "another AF_XDP socket holds this queue",
        Some(libc::EINVAL) => "the device may lack this queue, or its MTU may not fit a frame",
        Some(libc::ENODEV) => "there is no such device in this network namespace",
        Some(libc::ENETDOWN) => "set the device up first",
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => "the driver lacks zero-copy; use copy mode",
        Some(libc::EPERM) => "CAP_NET_RAW and CAP_NET_ADMIN are needed",
        _ => "see bind in the kernel's af_xdp.rst",
    }
}

/// The OS error inside an error of `xsk-rs`, whose own text hides it.
pub(crate) fn os_error(error: impl std::error::Error) -> io::Error {
    match error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
    {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}
