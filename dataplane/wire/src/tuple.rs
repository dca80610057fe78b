//! The 5-tuple that names a flow.

use crate::addr::{Address, Protocol};

/// Addresses, ports and protocol of one packet, in its own direction.
///
/// For ICMP echo the identifier stands in the destination port of a request and in the source
/// port of a reply (the other port is 0), so a reply is the reverse of its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tuple {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port, host byte order; 0 where the protocol has none.
    pub sport: u16,
    /// Destination port, host byte order; 0 where the protocol has none.
    pub dport: u16,
    /// IP protocol.
    pub proto: Protocol,
}

impl Tuple {
    /// The tuple of the answering direction.
    pub const fn reversed(self) -> Tuple {
        Tuple { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }

    /// A 64-bit hash that is equal for both directions. `seed` keeps outsiders from aiming at
    /// one bucket.
    pub const fn symmetric_hash(&self, seed: u64) -> u64 {
        let a = endpoint_hash(self.src, self.sport, seed);
        let b = endpoint_hash(self.dst, self.dport, seed);
        mix(a.wrapping_add(b) ^ (self.proto.0 as u64) << 56, seed ^ a.wrapping_mul(b))
    }

    /// A 64-bit hash that depends on the direction (backend choice).
    pub const fn directed_hash(&self, seed: u64) -> u64 {
        let a = endpoint_hash(self.src, self.sport, seed);
        let b = endpoint_hash(self.dst, self.dport, seed.rotate_left(32) ^ FOLD);
        mix(a ^ (self.proto.0 as u64) << 56, b ^ FOLD)
    }
}

const FOLD: u64 = 0x9e37_79b9_7f4a_7c15;

const fn endpoint_hash(addr: Address, port: u16, seed: u64) -> u64 {
    let hi = (addr.0 >> 64) as u64;
    let lo = addr.0 as u64;
    mix(hi ^ seed ^ (port as u64) << 16 ^ port as u64, lo ^ FOLD.rotate_left(17) ^ seed)
}

/// Folded 64×64→128 multiply; both inputs are offset so that zero does not annihilate.
const fn mix(a: u64, b: u64) -> u64 {
    let m = (a ^ FOLD) as u128 * (b ^ 0xd6e8_feb8_6659_fd93) as u128;
    (m >> 64) as u64 ^ m as u64
}
