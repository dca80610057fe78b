//! Checksums: the Internet's (RFC 1071), its incremental update (RFC 1624), and SCTP's CRC32c
//! (RFC 9260 appendix A), which is linear and can be updated too.
//!
//! An update keeps a wrong checksum wrong, so a damaged packet never becomes a valid one.

use crate::addr::{Address, Protocol};

/// One's complement sum of `data`, not complemented; an odd last byte counts as if a zero
/// followed it.
pub fn sum(data: &[u8]) -> u16 {
    smoltcp::wire::checksum::data(data)
}

/// Whether the checksum in an IPv4 header without options is right.
#[inline]
pub fn ipv4_header_is_right(header: &[u8; 20]) -> bool {
    // Sums carry around, so words of any size and byte order do (RFC 1071 §2).
    let words = header.as_chunks::<4>().0.iter().map(|&word| u64::from(u32::from_ne_bytes(word)));
    fold(words.sum()) == 0xffff
}

/// Sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1), not
/// complemented. `length` is that of L4 header and payload in bytes.
pub fn pseudo_header(src: Address, dst: Address, proto: Protocol, length: u32) -> u16 {
    fold(words(src) + words(dst) + u64::from(proto.0) + u64::from(length))
}

/// Adds sums and complements: the value of a checksum field.
pub fn finish(sums: &[u16]) -> u16 {
    !fold(sums.iter().map(|&sum| u64::from(sum)).sum())
}

/// A change of some 16-bit words, to be applied to the checksums that cover them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(u64);

impl Delta {
    /// Records that a word changed.
    #[inline]
    pub fn word(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Records that an address changed to another one of its family.
    pub fn address(&mut self, old: Address, new: Address) {
        let complement = match old.as_v4() {
            Some(v4) => u64::from(!v4),
            None => words_of(!old.0),
        };
        self.0 += complement + words(new);
    }

    /// The change that adds this to the sum of 32-bit words as they lie in memory, which is what
    /// `bpf_csum_diff` gives; byte order does not matter to a sum (RFC 1071 §2).
    #[inline]
    pub const fn from_memory(sum: u32) -> Delta {
        Delta(u16::from_be(fold(sum as u64)) as u64)
    }

    /// The checksum after the change (RFC 1624 eqn. 3).
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + u64::from(!checksum))
    }

    /// The UDP checksum after the change: 0 means "none" and stays, a computed 0 is sent as
    /// 0xffff (RFC 768).
    #[inline]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        match (checksum, self.apply(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, updated) => updated,
        }
    }
}

impl core::ops::AddAssign for Delta {
    fn add_assign(&mut self, other: Delta) {
        self.0 += other.0;
    }
}

fn words(address: Address) -> u64 {
    address.as_v4().map_or_else(|| words_of(address.0), u64::from)
}

/// Sum of the 32-bit words; they carry into each other just as 16-bit ones do (RFC 1071 §2).
const fn words_of(bits: u128) -> u64 {
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

#[inline]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// CRC32c of an SCTP packet whose checksum field is zero; the field holds it little-endian.
pub fn crc32c(data: &[u8]) -> u32 {
    !crc32c_continue(!0, data.iter().copied())
}

/// What to XOR into the CRC32c of an SCTP packet of `length` bytes whose first four (the ports)
/// change from `old` to `new`.
pub fn crc32c_ports(old: [u8; 4], new: [u8; 4], length: usize) -> u32 {
    let changed = old.into_iter().zip(new).map(|(old, new)| old ^ new);
    crc32c_continue(0, changed.chain(core::iter::repeat_n(0, length.saturating_sub(4))))
}

fn crc32c_continue(crc: u32, data: impl Iterator<Item = u8>) -> u32 {
    data.fold(crc, |crc, byte| crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)])
}

/// Remainders of all bytes for the Castagnoli polynomial, bits reversed.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Sums of 0 and 0xffff are the same number.
    fn canonical(sum: u16) -> u16 {
        if sum == 0xffff { 0 } else { sum }
    }

    #[test]
    fn crc32c_matches_the_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn sum_equals_the_naive_one(data: Vec<u8>) {
            prop_assert_eq!(canonical(sum(&data)), canonical(naive(&data)));
        }

        #[test]
        fn update_equals_recomputation(mut data in prop::collection::vec(any::<u8>(), 40..80), new: u128, port: u16) {
            let before = finish(&[naive(&data)]);
            let mut delta = Delta::default();
            let old = u128::from_be_bytes(data[4..20].try_into().unwrap());
            prop_assume!(!Address(old).is_v4() && !Address(new).is_v4());
            delta.address(Address(old), Address(new));
            delta.word(u16::from_be_bytes([data[20], data[21]]), port);
            let v4 = u32::from_be_bytes(data[24..28].try_into().unwrap());
            delta.address(Address::v4(v4), Address::v4(new as u32));
            data[4..20].copy_from_slice(&new.to_be_bytes());
            data[20..22].copy_from_slice(&port.to_be_bytes());
            data[24..28].copy_from_slice(&(new as u32).to_be_bytes());
            prop_assert_eq!(canonical(delta.apply(before)), canonical(finish(&[naive(&data)])));
            prop_assert_eq!(delta.apply_udp(0), 0);
            prop_assert_ne!(delta.apply_udp(before.max(1)), 0);
        }

        #[test]
        fn sums_of_memory_are_changes(old: u32, new: u32, checksum: u16) {
            let mut delta = Delta::default();
            delta.address(Address::v4(old), Address::v4(new));
            let memory = |bits: u32| u32::from_ne_bytes(bits.to_be_bytes());
            let sum = u64::from(!memory(old)) + u64::from(memory(new));
            let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
            let sum = sum + u32::from(carry);
            prop_assume!(sum != 0);
            prop_assert_eq!(Delta::from_memory(sum).apply(checksum), delta.apply(checksum));
        }

        #[test]
        fn crc_update_equals_recomputation(mut data in prop::collection::vec(any::<u8>(), 12..80), new: [u8; 4]) {
            let old = data[..4].try_into().unwrap();
            let updated = crc32c(&data) ^ crc32c_ports(old, new, data.len());
            data[..4].copy_from_slice(&new);
            prop_assert_eq!(updated, crc32c(&data));
        }
    }
}
