//! Address → identity, longest prefix first.

use crate::HopId;
use ipnet::IpNet;
use wire::{Address, Identity};

/// What is known of an address or prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpEntry {
    /// Who is behind it.
    pub identity: Identity,
    /// The node to send it to, or none.
    pub hop: HopId,
}

/// Longest-prefix map for both families. Host entries and CIDRs live apart, so that the common
/// case is one hash lookup.
#[derive(Clone, Debug, Default)]
pub struct IpCache {}

impl IpCache {
    /// The entry of the longest prefix that holds `address`.
    pub fn lookup(&self, _address: Address) -> Option<IpEntry> {
        todo!()
    }
    /// Adds or replaces; true if something changed.
    pub fn upsert(&mut self, _prefix: IpNet, _entry: IpEntry) -> bool {
        todo!()
    }
    /// Removes; true if it was there.
    pub fn remove(&mut self, _prefix: IpNet) -> bool {
        todo!()
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, IpEntry)> {
        std::iter::empty::<(IpNet, IpEntry)>()
    }
}
