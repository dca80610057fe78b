//! What may be asked of `endpoint add`, and the names that follow from it.

use super::super::Error;
use crate::api::model::EndpointAdd;

/// Longest interface name in bytes (`IFNAMSIZ` without its terminating zero).
const LONGEST_IFNAME: usize = 15;
/// Longest alias in bytes (`IFALIASZ` without its terminating zero).
const LONGEST_ALIAS: usize = 255;

/// Refuses names that Kubernetes or the kernel would not take.
pub(super) fn check(add: &EndpointAdd) -> Result<(), Error> {
    let refuse =
        |what: &str, value: &str, expected: &str| Err(Error::new(format!("{what} {value:?}: {expected}")));
    if add.namespace.len() > 63 || !is_dns_label(&add.namespace) {
        return refuse(
            "namespace",
            &add.namespace,
            "lower-case letters, digits and '-' (RFC 1123), at most 63",
        );
    }
    if add.name.len() > 253 || !add.name.split('.').all(is_dns_label) {
        return refuse(
            "pod name",
            &add.name,
            "lower-case letters, digits, '-' and '.' (RFC 1123), at most 253",
        );
    }
    let ifname = &add.ifname;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if ifname.is_empty() || ifname.len() > LONGEST_IFNAME || ifname.contains(odd) {
        return refuse("interface name", ifname, "1 to 15 bytes without spaces, '/' and ':'");
    }
    if matches!(ifname.as_str(), "." | ".." | "lo") {
        return refuse("interface name", ifname, "eth0 for example");
    }
    for port in &add.named_ports {
        if port.name.is_empty() || port.port == 0 || !matches!(port.protocol.as_str(), "TCP" | "UDP" | "SCTP")
        {
            let value = format!("{}={}/{}", port.name, port.port, port.protocol);
            return refuse("port", &value, "NAME=1..65535/TCP|UDP|SCTP");
        }
    }
    Ok(())
}

fn is_dns_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

/// The alias of a pod's link: whose it is and for which pod, cut to what the kernel takes.
pub(super) fn alias(agent: &str, pod: &str) -> String {
    let mut alias = format!("{agent} {pod}");
    alias.truncate(LONGEST_ALIAS);
    alias
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::records::NamedPort;

    fn add() -> EndpointAdd {
        EndpointAdd {
            namespace: "default".into(),
            name: "protected-db-0".into(),
            netns: "pod".into(),
            ifname: "eth0".into(),
            addresses: vec![],
            labels: Default::default(),
            named_ports: vec![NamedPort { name: "redis".into(), port: 6379, protocol: "TCP".into() }],
            service_account: None,
        }
    }

    #[test]
    fn odd_names_are_refused_with_what_would_be_right() {
        assert!(check(&add()).is_ok());
        let refused = |change: &dyn Fn(&mut EndpointAdd), message: &str| {
            let mut add = add();
            change(&mut add);
            assert_eq!(check(&add).unwrap_err().0, message);
        };
        refused(
            &|add| add.namespace = "Default".into(),
            "namespace \"Default\": lower-case letters, digits and '-' (RFC 1123), at most 63",
        );
        refused(
            &|add| add.name = "a..b".into(),
            "pod name \"a..b\": lower-case letters, digits, '-' and '.' (RFC 1123), at most 253",
        );
        refused(
            &|add| add.ifname = "../../etc/x".into(),
            "interface name \"../../etc/x\": 1 to 15 bytes without spaces, '/' and ':'",
        );
        refused(&|add| add.ifname = "lo".into(), "interface name \"lo\": eth0 for example");
        refused(&|add| add.named_ports[0].port = 0, "port \"redis=0/TCP\": NAME=1..65535/TCP|UDP|SCTP");
    }
}
