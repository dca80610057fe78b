//! The kernel's side of the network: links, addresses, routes, neighbours, network namespaces.

pub mod ethtool;
pub mod events;
pub mod gso;
pub mod hub;
pub mod links;
pub mod neighbors;
pub mod netns;
pub mod node_routes;
pub mod pod;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use thiserror::Error;
use wire::MacAddr;

/// The gateway's link-layer address on every pod link and on every node ("dp" in the middle).
pub const GATEWAY_MAC: MacAddr = MacAddr([0x0a, 0x64, 0x70, 0x00, 0x00, 0x01]);

/// Something the kernel refused: what was tried, and its answer.
#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct Error {
    /// What was tried, on what.
    pub what: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl Error {
    /// Names what was tried when `source` came.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error { what: what.into(), source: source.into() }
    }

    /// Whether the kernel says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENOENT | nix::libc::ESRCH))
    }
}

/// Result of an operation on the kernel's network.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was tried on the way out of a netlink request.
trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, rtnetlink::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(message) => Error::new(what(), message.to_io()),
            other => Error::new(what(), io::Error::other(other)),
        })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(what(), error))
    }
}
