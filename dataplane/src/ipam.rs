//! Addresses for pods, out of the node's pod CIDRs.
//!
//! The first address of a CIDR is its network (subnet-router anycast in IPv6, RFC 4291 §2.6.1),
//! the second one the pods' gateway, the last one of an IPv4 CIDR its broadcast address; pods get
//! what is left, each address again only after all others had their turn.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why there is no address.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum IpamError {
    /// A CIDR without room for gateway and pod.
    #[error("pod CIDR {0}: too small: a /30 (IPv4) or /126 (IPv6) at least")]
    TooSmall(IpNet),
    /// CIDRs that share addresses.
    #[error("pod CIDR {0}: overlaps {1}")]
    Overlap(IpNet, IpNet),
    /// An address from elsewhere.
    #[error("address {0}: not in this node's pod CIDRs {1}")]
    Outside(IpAddr, String),
    /// An address that no pod can have.
    #[error("address {0}: is the {1} address of pod CIDR {2}")]
    Reserved(IpAddr, &'static str, IpNet),
    /// An address of another endpoint.
    #[error("address {0}: in use by endpoint {1}")]
    InUse(IpAddr, u16),
    /// More than one address of a family.
    #[error("address {0}: a pod has one address per family, {1} was given before")]
    SameFamily(IpAddr, IpAddr),
    /// No address is left.
    #[error("pod CIDR {0}: all {1} addresses are in use: delete endpoints or add a pod CIDR")]
    Exhausted(String, u128),
}

/// All pools of the node and who has which address.
#[derive(Debug)]
pub struct Ipam {
    pools: Vec<Pool>,
}

#[derive(Debug)]
struct Pool {
    net: IpNet,
    /// Offset of the first address that pods can have, and of the last one.
    first: u128,
    last: u128,
    /// Where the search for a free address starts.
    next: u128,
    used: BTreeMap<u128, u16>,
}

impl Ipam {
    /// Empty pools, one per CIDR.
    pub fn new(cidrs: &[IpNet]) -> Result<Ipam, IpamError> {
        let mut pools: Vec<Pool> = Vec::new();
        for cidr in cidrs {
            let net = cidr.trunc();
            if let Some(other) = pools.iter().find(|p| p.net.contains(&net) || net.contains(&p.net)) {
                return Err(IpamError::Overlap(net, other.net));
            }
            pools.push(Pool::new(net)?);
        }
        Ok(Ipam { pools })
    }

    /// The gateway of each CIDR, in their order.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.pools.iter().map(|pool| pool.address(GATEWAY))
    }

    /// Gives endpoint `id` one address per family that there is a pool for: those `wanted`,
    /// free ones for the rest. All or nothing.
    pub fn allocate(&mut self, id: u16, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
        for (n, &ip) in wanted.iter().enumerate() {
            if let Some(&before) = wanted[..n].iter().find(|w| w.is_ipv4() == ip.is_ipv4()) {
                return Err(IpamError::SameFamily(ip, before));
            }
            self.check(ip)?;
        }
        let chosen =
            [true, false].into_iter().filter_map(|v4| match wanted.iter().find(|ip| ip.is_ipv4() == v4) {
                Some(&ip) => Some(Ok(ip)),
                None => self.choose(v4),
            });
        let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
        chosen.iter().for_each(|&ip| self.take(ip, id));
        Ok(chosen)
    }

    /// Gives endpoint `id` exactly these addresses, as it had them before a restart.
    pub fn claim(&mut self, id: u16, addresses: &[IpAddr]) -> Result<(), IpamError> {
        addresses.iter().try_for_each(|&ip| self.check(ip).map(drop))?;
        addresses.iter().for_each(|&ip| self.take(ip, id));
        Ok(())
    }

    /// Takes back all addresses of endpoint `id`.
    pub fn release(&mut self, id: u16) {
        self.pools.iter_mut().for_each(|pool| pool.used.retain(|_, owner| *owner != id));
    }

    /// (CIDR, addresses in use, addresses in all) of every pool.
    pub fn usage(&self) -> impl Iterator<Item = (IpNet, u128, u128)> {
        self.pools.iter().map(|pool| (pool.net, pool.used.len() as u128, pool.capacity()))
    }

    /// The pool of an address that a pod may have and none has.
    fn check(&self, ip: IpAddr) -> Result<&Pool, IpamError> {
        let Some(pool) = self.pools.iter().find(|pool| pool.net.contains(&ip)) else {
            let cidrs: Vec<_> = self.pools.iter().map(|pool| pool.net.to_string()).collect();
            return Err(IpamError::Outside(ip, cidrs.join(", ")));
        };
        let offset = pool.offset(ip);
        let reserved = |what| Err(IpamError::Reserved(ip, what, pool.net));
        match offset {
            0 => reserved("network"),
            GATEWAY => reserved("gateway"),
            _ if offset > pool.last => reserved("broadcast"),
            _ => match pool.used.get(&offset) {
                Some(&owner) => Err(IpamError::InUse(ip, owner)),
                None => Ok(pool),
            },
        }
    }

    /// A free address of a family; `None` if there is no pool for it.
    fn choose(&self, v4: bool) -> Option<Result<IpAddr, IpamError>> {
        let pools = || self.pools.iter().filter(|pool| pool.net.addr().is_ipv4() == v4);
        pools().next()?;
        Some(pools().find_map(Pool::free).ok_or_else(|| {
            let cidrs: Vec<_> = pools().map(|pool| pool.net.to_string()).collect();
            IpamError::Exhausted(cidrs.join(", "), pools().map(Pool::capacity).sum())
        }))
    }

    fn take(&mut self, ip: IpAddr, id: u16) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.net.contains(&ip)) {
            let offset = pool.offset(ip);
            pool.used.insert(offset, id);
            pool.next = if offset < pool.last { offset + 1 } else { pool.first };
        }
    }
}

/// Offset of the gateway in its CIDR.
const GATEWAY: u128 = 1;

impl Pool {
    fn new(net: IpNet) -> Result<Pool, IpamError> {
        let bits = net.max_prefix_len() - net.prefix_len();
        if bits < 2 {
            return Err(IpamError::TooSmall(net));
        }
        let size = 1u128.checked_shl(bits.into()).map_or(u128::MAX, |size| size - 1);
        let first = GATEWAY + 1;
        let last = if net.addr().is_ipv4() { size - 1 } else { size };
        Ok(Pool { net, first, last, next: first, used: BTreeMap::new() })
    }

    fn capacity(&self) -> u128 {
        self.last - self.first + 1
    }

    fn offset(&self, ip: IpAddr) -> u128 {
        bits(ip) - bits(self.net.addr())
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.net {
            // An offset never leaves the CIDR, so the sum is an IPv4 address.
            IpNet::V4(net) => Ipv4Addr::from_bits(net.addr().to_bits() + offset as u32).into(),
            IpNet::V6(net) => Ipv6Addr::from_bits(net.addr().to_bits() + offset).into(),
        }
    }

    /// The first free address from `next` on, wrapping around.
    fn free(&self) -> Option<IpAddr> {
        self.gap(self.next, self.last)
            .or_else(|| self.gap(self.first, self.next - 1))
            .map(|o| self.address(o))
    }

    /// The lowest free offset in `from..=to`; visits only the used ones before it.
    fn gap(&self, from: u128, to: u128) -> Option<u128> {
        if from > to {
            return None;
        }
        let taken = self.used.range(from..=to).map(|(&offset, _)| offset);
        let free = from + taken.zip(from..).take_while(|(used, expected)| used == expected).count() as u128;
        (free <= to).then_some(free)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests;
