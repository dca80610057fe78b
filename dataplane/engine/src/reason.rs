//! Why packets are dropped: one list gives number, text, counter and metric label.

use wire::Malformed;

/// Declares the reasons once: variant, Cilium's number (7.3 of the reference; ours from 230 up),
/// text.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        /// Why a packet was dropped. Numbers and texts are Cilium's where it has the reason;
        /// numbers from 230 up are ours.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)+ }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];
            /// How many there are.
            pub const COUNT: usize = DropReason::ALL.len();
            /// The number people know from `cilium monitor` and Hubble.
            pub const fn code(self) -> u8 { match self { $(DropReason::$name => $code,)+ } }
            /// The text people know from `cilium monitor`.
            pub const fn text(self) -> &'static str { match self { $(DropReason::$name => $text,)+ } }
            /// Position in [`DropReason::ALL`].
            pub const fn index(self) -> usize { self as usize }
        }
    };
}

reasons! {
    /// The source MAC is not the pod's.
    InvalidSourceMac = 130, "Invalid source mac";
    /// The destination MAC is nobody's here.
    InvalidDestinationMac = 131, "Invalid destination mac";
    /// The source address is not one the link may use.
    InvalidSourceIp = 132, "Invalid source ip";
    /// No rule allows it and the endpoint is in default deny.
    PolicyDenied = 133, "Policy denied";
    /// Headers are truncated, contradictory or have a wrong length.
    InvalidPacket = 134, "Invalid packet";
    /// The L4 header is truncated or invalid.
    InvalidL4Header = 135, "CT: Truncated or invalid header";
    /// Larger than the next link takes; an ICMP error says so to the sender.
    FragmentationNeeded = 136, "Fragmentation needed";
    /// A protocol that cannot be tracked.
    UnknownL4 = 137, "CT: Unknown L4 protocol";
    /// Neither IPv4, IPv6 nor ARP.
    UnsupportedL3 = 139, "Unsupported L3 protocol";
    /// An ICMP message that is neither echo nor error.
    UnknownIcmpv4Type = 144, "Unknown ICMPv4 type";
    /// An ICMPv6 message that is neither echo, error nor neighbour discovery.
    UnknownIcmpv6Type = 146, "Unknown ICMPv6 type";
    /// Neighbour solicitation or ARP for somebody we do not answer for; probes of a pod for its
    /// own address (duplicate address detection) end here too.
    UnknownL3Target = 150, "Unknown L3 target address";
    /// No way to the destination.
    Unroutable = 151, "Stale or unroutable IP";
    /// No room in conntrack, or the flow's tuple is in use by one that is translated differently.
    ConntrackFull = 155, "CT: Map insertion failed";
    /// An IPv6 extension header that is unknown, repeated, misplaced or too many of them.
    InvalidExtensionHeader = 156, "Invalid IPv6 extension header";
    /// A fragment that cannot be dealt with alone: of an ICMP error, or of an SCTP packet whose
    /// ports change (its checksum covers all fragments).
    FragmentUnsupported = 157, "IP fragmentation not supported";
    /// The service has no backend, or its virtual address no such port.
    NoServiceBackend = 158, "Service backend not found";
    /// The next node's link-layer address is not known (yet).
    NoNeighbor = 169, "FIB lookup failed";
    /// A fragment whose first part was never seen.
    FragmentNotFound = 175, "First logical datagram fragment not found";
    /// An ICMPv6 message that pods must not send or receive.
    ForbiddenIcmpv6 = 176, "Forbidden ICMPv6 message";
    /// A deny rule matched.
    PolicyDeniedByRule = 181, "Policy denied by denylist";
    /// 802.1Q or 802.1ad tags are not accepted.
    Vlan = 182, "VLAN traffic disallowed by VLAN filter";
    /// TTL or hop limit ran out.
    TtlExceeded = 196, "TTL exceeded";
    /// Frame on the hub that steering did not mark, or from an interface that is no endpoint's.
    UnknownOrigin = 230, "Unknown origin link";
    /// An address that never appears on the wire in that place (loopback, multicast source, …).
    Martian = 231, "Martian address";
    /// IPv4 options (source routing and friends) are not accepted.
    IpOptions = 232, "IP options not allowed";
    /// A wrong IPv4 header checksum.
    BadChecksum = 233, "Wrong IP header checksum";
    /// An ICMP error or echo reply that belongs to no tracked flow.
    UnrelatedIcmp = 234, "ICMP error or reply without flow";
    /// Multicast and broadcast are not forwarded.
    Multicast = 235, "Multicast not forwarded";
    /// One of the two is a pod of which only the node is known yet, and no rule lets everybody
    /// through.
    UnknownIdentity = 236, "Unknown identity";
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Packet | Malformed::Fragment => DropReason::InvalidPacket,
            Malformed::Vlan => DropReason::Vlan,
            Malformed::Ethertype => DropReason::UnsupportedL3,
            Malformed::Options => DropReason::IpOptions,
            Malformed::HeaderChecksum => DropReason::BadChecksum,
            Malformed::ExtensionHeader => DropReason::InvalidExtensionHeader,
            Malformed::L4Header => DropReason::InvalidL4Header,
            Malformed::MappedAddress => DropReason::Martian,
        }
    }
}
