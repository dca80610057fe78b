//! What may be asked of `endpoint add`, and the names that follow from it.

use super::super::Error;
use crate::api::model::EndpointAdd;
use crate::names;
use control::records::NamedPort;

/// Longest alias in bytes (`IFALIASZ` without its terminating zero).
const LONGEST_ALIAS: usize = 255;

/// Refuses what Kubernetes or the kernel would not take.
pub(super) fn check(add: &EndpointAdd) -> Result<(), Error> {
    let of = |what: &str, value: &str, rule: Result<(), String>| {
        rule.map_err(|right| Error::new(format!("{what} `{value}`: {right}")))
    };
    of("namespace", &add.namespace, names::namespace(&add.namespace))?;
    of("pod name", &add.name, names::dns_name(&add.name))?;
    of("interface name", &add.ifname, names::interface(&add.ifname))?;
    if add.ifname == "lo" {
        return Err(Error::new(
            "interface name `lo`: is the loopback interface: choose another, as in `eth0`",
        ));
    }
    for (key, value) in &add.labels {
        of("label", &format!("{key}={value}"), names::label(key, value))?;
    }
    if let Some(account) = &add.service_account {
        of("service account", account, names::dns_name(account))?;
    }
    for (n, port) in add.named_ports.iter().enumerate() {
        let NamedPort { name, port: number, protocol } = port;
        let value = format!("{name}={number}/{protocol}");
        of("port", &value, names::port(name).map_err(|right| format!("name {right}")))?;
        of("port", &value, names::protocol(protocol).map_err(|right| format!("protocol {right}")))?;
        if *number == 0 {
            return Err(Error::new(format!("port `{value}`: number must be from 1 to 65535")));
        }
        if add.named_ports[..n].iter().any(|other| other.name == *name) {
            return Err(Error::new(format!("port `{value}`: the name `{name}` was given before")));
        }
    }
    Ok(())
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
            "namespace `Default`: must be 1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
        );
        refused(
            &|add| add.ifname = "../../etc/x".into(),
            "interface name `../../etc/x`: must be an interface name of 1 to 15 characters",
        );
        refused(
            &|add| add.ifname = "lo".into(),
            "interface name `lo`: is the loopback interface: choose another, as in `eth0`",
        );
        refused(
            &|add| drop(add.labels.insert("a".into(), ";".into())),
            "label `a=;`: value `;` must be empty or up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit \
             at both ends",
        );
        refused(&|add| add.named_ports[0].port = 0, "port `redis=0/TCP`: number must be from 1 to 65535");
        refused(
            &|add| add.named_ports.push(NamedPort { port: 1, ..add.named_ports[0].clone() }),
            "port `redis=1/TCP`: the name `redis` was given before",
        );
    }
}
