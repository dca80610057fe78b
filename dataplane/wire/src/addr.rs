//! Addresses, protocol numbers and security identities as small values.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address of either family in 128 bits; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// One spelling for both families keeps keys of fixed size and comparisons free of branches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub u128);

const V4_MAPPED: u128 = 0xffff << 32;

impl Address {
    /// `::`, used where no address is meant.
    pub const UNSPECIFIED: Address = Address(0);

    /// An IPv4 address from its value in host byte order.
    pub const fn v4(bits: u32) -> Self {
        Address(V4_MAPPED | bits as u128)
    }

    /// An IPv6 address from its value in host byte order.
    pub const fn v6(bits: u128) -> Self {
        Address(bits)
    }

    /// The IPv4 value in host byte order, if this is an IPv4 address.
    pub const fn as_v4(self) -> Option<u32> {
        if self.is_v4() { Some(self.0 as u32) } else { None }
    }

    /// Whether this is an IPv4 address.
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == V4_MAPPED >> 32
    }

    /// The standard library's form.
    pub fn ip(self) -> IpAddr {
        match self.as_v4() {
            Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Address::v4(v4.to_bits()),
            IpAddr::V6(v6) => Address::v6(v6.to_bits()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether the group bit is set (broadcast included).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// ICMPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Protocol::ICMP => f.write_str("ICMP"),
            Protocol::TCP => f.write_str("TCP"),
            Protocol::UDP => f.write_str("UDP"),
            Protocol::ICMPV6 => f.write_str("ICMPv6"),
            Protocol::SCTP => f.write_str("SCTP"),
            Protocol(n) => write!(f, "{n}"),
        }
    }
}

/// A numeric security identity as Cilium numbers them: reserved below 256, `cluster id << 16 | n`
/// for pods, `1 << 24 | n` for CIDR identities that exist on this node only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Identity(pub u32);

impl Identity {
    /// Nobody, or somebody who is not known yet.
    pub const UNKNOWN: Identity = Identity(0);
    /// This node itself.
    pub const HOST: Identity = Identity(1);
    /// Everything outside that nothing more specific names (single-stack).
    pub const WORLD: Identity = Identity(2);
    /// The health endpoint.
    pub const HEALTH: Identity = Identity(4);
    /// A pod whose labels are not known yet.
    pub const INIT: Identity = Identity(5);
    /// Any other node, of any cluster.
    pub const REMOTE_NODE: Identity = Identity(6);
    /// World over IPv4 in a dual-stack cluster.
    pub const WORLD_IPV4: Identity = Identity(9);
    /// World over IPv6 in a dual-stack cluster.
    pub const WORLD_IPV6: Identity = Identity(10);

    /// Reserved identities have fixed numbers and the same meaning in every cluster.
    pub const fn is_reserved(self) -> bool {
        self.0 < 256
    }

    /// The cluster whose allocator made this identity; 0 for reserved and node-local ones.
    pub const fn cluster(self) -> u32 {
        if self.0 < 1 << 24 { self.0 >> 16 } else { 0 }
    }
}

impl fmt::Display for Identity {
    /// The name if reserved, the number otherwise, as `cilium monitor` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "unknown",
            1 => "host",
            2 => "world",
            3 => "unmanaged",
            4 => "health",
            5 => "init",
            6 => "remote-node",
            7 => "kube-apiserver",
            8 => "ingress",
            9 => "world-ipv4",
            10 => "world-ipv6",
            n => return write!(f, "{n}"),
        };
        f.write_str(name)
    }
}
