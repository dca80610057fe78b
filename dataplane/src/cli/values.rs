//! Values of flags: text in, checked value or what would be right out.

use crate::names;
use control::records::NamedPort;
use ipnet::IpNet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A pod: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    /// Namespace.
    pub(super) namespace: String,
    /// Name.
    pub(super) name: String,
}

/// A number within bounds.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    text: &str,
    bounds: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("must be a number from {} to {}", bounds.start(), bounds.end()))
}

/// An endpoint id.
pub(super) fn endpoint(text: &str) -> Result<u16, String> {
    number(text, 1..=u16::MAX)
}

/// An IP address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "must be an IP address".into())
}

/// An address to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be ADDRESS:PORT, as in `127.0.0.1:9962` or `[::1]:9962`".into())
}

/// A cluster name.
pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    names::cluster(text).map(|()| text.into())
}

/// The name of a node, which becomes part of etcd keys, or of a service account.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    names::dns_name(text).map(|()| text.into())
}

/// `NAMESPACE/NAME` of a pod.
pub(super) fn pod(text: &str) -> Result<PodName, String> {
    let (namespace, name) = text.split_once('/').ok_or("must be NAMESPACE/NAME")?;
    names::namespace(namespace).map_err(|right| format!("namespace `{namespace}` {right}"))?;
    names::dns_name(name).map_err(|right| format!("name `{name}` {right}"))?;
    Ok(PodName { namespace: namespace.into(), name: name.into() })
}

/// A pod label, `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    names::label(key, value).map(|()| (key.into(), value.into()))
}

/// A named container port, `NAME=NUMBER/PROTOCOL`.
pub(super) fn named_port(text: &str) -> Result<NamedPort, String> {
    const FORM: &str = "must be NAME=NUMBER/PROTOCOL, as in `redis=6379/TCP`";
    let (name, rest) = text.split_once('=').ok_or(FORM)?;
    let (number, protocol) = rest.split_once('/').ok_or(FORM)?;
    names::port(name).map_err(|right| format!("port name `{name}` {right}"))?;
    let port = self::number(number, 1..=u16::MAX).map_err(|right| format!("port `{number}` {right}"))?;
    names::protocol(protocol).map_err(|right| format!("protocol `{protocol}` {right}"))?;
    Ok(NamedPort { name: name.into(), port, protocol: protocol.into() })
}

/// A pod CIDR: a network address, with room for a gateway and at least one pod.
pub(super) fn pod_cidr(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| "must be ADDRESS/LENGTH, as in `10.60.1.0/24`")?;
    if net.addr() != net.network() {
        return Err(format!("has host bits set; the network is {}", net.trunc()));
    }
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err(format!("is too small; the longest usable prefix is /{}", net.max_prefix_len() - 2));
    }
    if net.prefix_len() < 8 {
        return Err("is too large; the shortest usable prefix is /8".into());
    }
    Ok(net)
}

/// An address that other nodes can send to.
pub(super) fn node_ip(text: &str) -> Result<IpAddr, String> {
    let ip = address(text)?;
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err("must be an address that other nodes can send to".into());
    }
    Ok(ip)
}

/// The name of an interface.
pub(super) fn interface(text: &str) -> Result<String, String> {
    names::interface(text).map(|()| text.into())
}

/// CPUs in the order the workers get them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuList(pub(super) Vec<usize>);

/// A list of CPUs: numbers and ranges, `0,2-3`.
pub(super) fn cpu_list(text: &str) -> Result<CpuList, String> {
    const FORM: &str = "must be a list of CPU numbers and ranges without repetition, as in `0,2-3`";
    const HIGHEST: usize = 8191; // the kernel's own limit (CONFIG_NR_CPUS)
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.trim().parse().map_err(|_| FORM)?, last.trim().parse().map_err(|_| FORM)?);
        if first > last || last > HIGHEST || (first..=last).any(|cpu| cpus.contains(&cpu)) {
            return Err(FORM.into());
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

/// A time span: numbers with units, `30s`, `10m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "must be a time span with units h, m, s, as in `30s`, `10m` or `1h30m`";
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.as_bytes()[0] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(FORM.into()),
        };
        let number: u64 = number.parse().map_err(|_| FORM)?;
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or(FORM)?;
        rest = &tail[1..];
    }
    if text.is_empty() { Err(FORM.into()) } else { Ok(Duration::from_secs(total)) }
}

/// Term of a lease, in the limits that Cilium has for it.
pub(super) fn lease_ttl(text: &str) -> Result<Duration, String> {
    let term = duration(text)?;
    let allowed = Duration::from_secs(25)..=Duration::from_secs(24 * 3600);
    if allowed.contains(&term) { Ok(term) } else { Err("must be a time span from 25s to 24h".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods() {
        let redis = pod("default/protected-db-0").unwrap();
        assert_eq!((redis.namespace.as_str(), redis.name.as_str()), ("default", "protected-db-0"));
        for bad in ["", "a", "/", "a/", "/a", "a/b/c", "a.b/c", "A/b"] {
            assert!(pod(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels() {
        assert_eq!(label("app=db"), Ok(("app".into(), "db".into())));
        assert_eq!(label("example.com/tier="), Ok(("example.com/tier".into(), String::new())));
        for bad in ["app", "a=b=c", "a/b/c=d"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn named_ports() {
        let redis = NamedPort { name: "redis".into(), port: 6379, protocol: "TCP".into() };
        assert_eq!(named_port("redis=6379/TCP"), Ok(redis));
        for bad in ["redis", "redis=6379", "6379=6379/TCP", "a=0/TCP", "a=65536/TCP", "a=1/tcp", "a=1/ICMP"] {
            assert!(named_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pod_cidrs() {
        assert_eq!(pod_cidr("10.60.1.0/24"), Ok("10.60.1.0/24".parse().unwrap()));
        assert_eq!(pod_cidr("10.60.1.5/24"), Err("has host bits set; the network is 10.60.1.0/24".into()));
        assert_eq!(pod_cidr("fd00::/127"), Err("is too small; the longest usable prefix is /126".into()));
        for bad in ["10.60.1.0", "10.60.1.0/33", "10.60.1/24", "0.0.0.0/0", "x"] {
            assert!(pod_cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0,2-3"), Ok(CpuList(vec![0, 2, 3])));
        for bad in ["", "a", "3-2", "0,0", "0-2,1", "0,", "-1", "0-99999999"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "10", "m", "1d", "1.5s", "99999999999999999999h", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(lease_ttl("15m"), Ok(Duration::from_secs(900)));
        for bad in ["24s", "24h1s", "x"] {
            assert!(lease_ttl(bad).is_err(), "{bad}");
        }
    }
}
