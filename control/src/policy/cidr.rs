//! Prefixes that policies name, and the labels of the identities that stand for them
//! (`cilium-interop` 3.5, 5.4).

use super::Peer;
use crate::labels::Labels;
use crate::objects::Invalid;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

const SOURCE: &str = "cidr";

/// Reads a prefix; bits beyond its length are cut off, a plain address is a host prefix.
pub(super) fn parse(text: &str) -> Result<IpNet, Invalid> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match net {
        Some(net) => Ok(net.trunc()),
        None => Err(Invalid::new("", format!("{text:?} is not a prefix like 10.0.0.0/8 or fd00::/64"))),
    }
}

/// A peer by prefix; exceptions have to lie inside it.
pub(super) fn peer(cidr: &str, except: &[String]) -> Result<Arc<Peer>, Invalid> {
    let net = parse(cidr).map_err(|e| e.under("cidr"))?;
    let except = crate::objects::each("except", except, |_, text| match parse(text)? {
        inner if net.contains(&inner) => Ok(inner),
        inner => Err(Invalid::new("", format!("{inner} is not inside {net}"))),
    })?;
    Ok(Arc::new(Peer::Cidr { net, except }))
}

/// The name of the world label for a family.
pub fn world(net: &IpNet, dual_stack: bool) -> &'static str {
    match (dual_stack, net) {
        (false, _) => "world",
        (true, IpNet::V4(_)) => "world-ipv4",
        (true, IpNet::V6(_)) => "world-ipv6",
    }
}

/// The labels of the identity for a prefix.
pub fn labels(net: &IpNet, dual_stack: bool) -> Labels {
    let mut labels = Labels::default();
    labels.insert("reserved", world(net, dual_stack), "");
    if net.prefix_len() > 0 {
        // `:` separates source and key, so IPv6 addresses are written with `-`.
        let mut address = net.addr().to_string().replace(':', "-");
        if address.starts_with('-') {
            address.insert(0, '0');
        }
        if address.ends_with('-') {
            address.push('0');
        }
        labels.insert(SOURCE, &format!("{address}/{}", net.prefix_len()), "");
    }
    labels
}

/// The prefix that labels name, if they are those of a prefix.
pub fn of(labels: &Labels) -> Option<IpNet> {
    let label = labels.iter().find(|label| label.source == SOURCE)?;
    label.key.replace('-', ":").parse().ok()
}

/// Whether an identity lies inside a prefix: its own prefix does, or it is the rest of the world
/// and the prefix holds all of that.
pub(super) fn within(net: IpNet, labels: &Labels) -> bool {
    match of(labels) {
        Some(inner) => net.contains(&inner),
        None => {
            let reserved = |name: &str| labels.get(name).is_some_and(|label| label.source == "reserved");
            net.prefix_len() == 0 && (reserved("world") || reserved(world(&net, true)))
        }
    }
}
