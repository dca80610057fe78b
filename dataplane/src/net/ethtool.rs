//! Device features that rtnetlink does not reach.
#![allow(unsafe_code)]

use super::{Context, Result};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

/// Get and set TX checksum offload and generic receive offload (`linux/ethtool.h`).
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// Whether the stack leaves checksums to the device.
pub fn tx_checksum(ifname: &str) -> Result<bool> {
    Ok(call(ifname, "TX checksum offload", ETHTOOL_GTXCSUM, 0)? != 0)
}

/// Off: the stack fills in complete checksums before it hands packets to the device.
pub fn set_tx_checksum(ifname: &str, on: bool) -> Result<()> {
    call(ifname, "TX checksum offload", ETHTOOL_STXCSUM, on.into()).map(drop)
}

/// Whether received segments of a stream are joined before the stack sees them.
pub fn gro(ifname: &str) -> Result<bool> {
    Ok(call(ifname, "generic receive offload", ETHTOOL_GGRO, 0)? != 0)
}

/// Joins received segments of a stream, or leaves them as they came.
pub fn set_gro(ifname: &str, on: bool) -> Result<()> {
    call(ifname, "generic receive offload", ETHTOOL_SGRO, on.into()).map(drop)
}

fn call(ifname: &str, feature: &str, cmd: u32, data: u32) -> Result<u32> {
    let what = || format!("link {ifname}: {feature}");
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(io::Error::from)
        .context(what)?;
    let mut value = Value { cmd, data };
    let mut name = [0; libc::IFNAMSIZ];
    if ifname.len() >= name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).context(what);
    }
    for (to, from) in name.iter_mut().zip(ifname.bytes()) {
        *to = from as libc::c_char;
    }
    let data = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() };
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru: data };
    // SAFETY: SIOCETHTOOL takes an ifreq whose ifru_data points to a struct ethtool_value; both
    // live until the call returns, and the kernel keeps neither.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()).context(what),
    }
}
