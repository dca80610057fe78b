//! How large the packets are that a stack hands to a link, to be segmented by whoever can.
//!
//! A TCP stream between pods of one node is never segmented, so it costs the less the larger its
//! packets are. For IPv4 they may be larger than the 64 KiB that the header can tell ("BIG TCP",
//! Linux 6.3); over IPv6 such packets carry an extension header, which keeps them out of the
//! verdict cache, so those keep their size.

use super::Result;
use super::links::{Links, change};
use rtnetlink::packet_route::link::LinkAttribute;

/// What every link is given if nothing else is said, in bytes.
pub const LEGACY: u32 = 65_536;
/// The largest packets that are of use, in bytes: three times that.
pub const LARGEST: u32 = 3 * LEGACY;

/// Sets the largest IPv4 packet in bytes that the link `index` is handed. Kernels that do not
/// know such sizes keep theirs.
///
/// # Errors
/// If the link does not take it.
pub async fn set(links: &Links, index: u32, size: u32, link: &str) -> Result<()> {
    let message = change(index).append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(size)).build();
    links.set(message, || format!("link {link}: take packets of {size} bytes")).await
}
