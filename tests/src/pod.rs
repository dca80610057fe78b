//! A pod: a namespace that an agent has connected.

use crate::host::Host;
use crate::node::Cli;
use crate::sockets::Server;
use crate::wait::eventually;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

/// A connected pod. Acts as the [`Host`] that it is.
pub struct Pod {
    /// `namespace/name`.
    pub name: String,
    /// Endpoint number.
    pub id: u16,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
    host: Host,
    cli: Cli,
}

impl Deref for Pod {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Pod {
    /// Looks it up and waits until it has an identity.
    pub(crate) fn find(host: Host, name: &str, cli: Cli) -> Pod {
        let entry = eventually(&format!("{name} is ready"), || {
            let list = cli.json("endpoint list");
            let entry = list.as_array().and_then(|all| all.iter().find(|entry| is_named(entry, name)));
            match entry {
                Some(entry) if entry["status"]["state"] == "ready" => Ok(entry.clone()),
                _ => Err(format!("{list:#}")),
            }
        });
        let addresses: Vec<IpAddr> =
            serde_json::from_value(entry["addresses"].clone()).unwrap_or_else(|e| panic!("{e}: {entry:#}"));
        let ipv4 = addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
        let ipv6 = addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        Pod {
            name: name.to_owned(),
            id: entry["id"].as_u64().and_then(|id| id.try_into().ok()).expect("an endpoint number"),
            ipv4: ipv4.expect("an IPv4 address"),
            ipv6: ipv6.expect("an IPv6 address"),
            host,
            cli,
        }
    }

    /// Its addresses, IPv4 and IPv6.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }

    /// Serves on a port, under a name, until the server is dropped.
    pub fn serve(&self, port: u16, name: &str) -> Server {
        self.host.serve(self.addresses(), port, name)
    }

    /// What the agent says of it.
    pub fn status(&self) -> Value {
        self.cli.json(&format!("endpoint get {}", self.id))
    }

    /// Its numeric identity.
    pub fn identity(&self) -> u64 {
        let status = self.status();
        status["status"]["identity"].as_u64().unwrap_or_else(|| panic!("no identity: {status:#}"))
    }

    /// Has the agent disconnect it.
    pub fn delete(&self) {
        self.cli.show(&format!("endpoint delete {}", self.id));
    }
}

fn is_named(entry: &Value, name: &str) -> bool {
    let part = |key: &str| entry[key].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name")) == name
}
