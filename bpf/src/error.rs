//! What failed in the kernel, on what, and what helps.

use std::io;

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[error("{call} {on}: {source}{}{}", if advice.is_empty() { "" } else { "; " }, advice)]
pub struct Error {
    call: &'static str,
    on: String,
    source: io::Error,
    advice: &'static str,
}

impl Error {
    pub(crate) fn new(call: &'static str, on: impl ToString, source: io::Error) -> Error {
        let advice = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "CAP_BPF and CAP_NET_ADMIN are needed",
            Some(libc::ENODEV) => "there is no such interface in this network namespace",
            Some(libc::EBUSY | libc::EEXIST) => "another program is attached there; detach it first",
            Some(libc::ERANGE) => {
                "the MTU is too large for XDP; 3498 is possible everywhere, more since Linux 5.18"
            }
            Some(libc::ENOSPC) => "give the device as many receive queues as its peer has transmit queues",
            _ => "",
        };
        Error { call, on: on.to_string(), source, advice }
    }

    /// Of a `libbpf-rs` call, whose error chain carries the explanation.
    pub(crate) fn libbpf(call: &'static str, on: impl ToString, source: libbpf_rs::Error) -> Error {
        Error::advised(call, on, io::Error::other(format!("{source:#}")), "")
    }

    pub(crate) fn advised(
        call: &'static str,
        on: impl ToString,
        source: io::Error,
        advice: &'static str,
    ) -> Error {
        Error { call, on: on.to_string(), source, advice }
    }
}
