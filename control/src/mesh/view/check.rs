//! Which values are believed (`cilium-interop` 2.3–2.7).

use super::View;
use crate::labels::{self, Labels};
use crate::mesh::keys::Name;
use crate::mesh::slices::Slice;
use crate::records::{IpIdentity, Node, Service, from_json};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use wire::Identity;

/// A value in its typed form.
pub(super) enum Value {
    Node(Box<Node>, Vec<IpNet>),
    Identity(Identity, Labels),
    Ip(IpNet, IpIdentity),
    Service(Service),
    /// What a slice, by namespace and name, contributes to a service.
    EndpointSlice((String, String), Service),
    /// There, but to be treated as if it were not.
    Withdrawn,
}

impl View {
    pub(super) fn check(&self, name: &Name, value: &[u8]) -> Result<Value, String> {
        match name {
            Name::Node(name) => self.check_node(name, json(value)?),
            Name::Identity(id) => self.check_identity(*id, value),
            Name::Ip(net) => self.check_ip(*net, json(value)?),
            Name::Service(namespace, name) => self.check_service(namespace, name, json(value)?),
            Name::EndpointSlice(namespace, name) => self.check_slice(namespace, name, Slice::read(value)?),
        }
    }

    fn check_cluster(&self, field: &str, cluster: &str, id_field: &str, id: u32) -> Result<(), String> {
        if cluster != self.cluster {
            return Err(format!("{field} is '{cluster}', not '{}'", self.cluster));
        }
        if id != self.id {
            return Err(format!("{id_field} is {id}, not {}", self.id));
        }
        Ok(())
    }

    fn check_node(&self, name: &str, node: Node) -> Result<Value, String> {
        self.check_cluster("Cluster", &node.cluster, "ClusterID", node.cluster_id)?;
        if node.name != name {
            return Err(format!("Name is '{}', not that of the key", node.name));
        }
        for address in &node.ip_addresses {
            check_ip_text("IPAddresses", &address.ip)?;
        }
        let cidrs =
            node.pod_cidrs().map_err(|cidr| format!("pod CIDR {cidr} is not a prefix with a base64 mask"))?;
        Ok(Value::Node(Box::new(node), cidrs))
    }

    fn check_identity(&self, id: Identity, value: &[u8]) -> Result<Value, String> {
        if id.cluster() != self.id {
            return Err(format!(
                "number {} is outside of {}–{}",
                id.0,
                self.id << 16,
                (self.id << 16) + 0xffff
            ));
        }
        let text = std::str::from_utf8(value).map_err(|_| "labels are not UTF-8".to_owned())?;
        let labels = Labels::parse(text);
        match labels.get(labels::CLUSTER) {
            Some(label) if label.source == "k8s" && label.value == self.cluster => {
                Ok(Value::Identity(id, labels))
            }
            _ => Err(format!("labels '{text}' lack k8s:{}={}", labels::CLUSTER, self.cluster)),
        }
    }

    fn check_ip(&self, net: IpNet, mut record: IpIdentity) -> Result<Value, String> {
        if record.net() != Some(net) {
            return Err(format!("IP '{}' with Mask {:?} is not that of the key", record.ip, record.mask));
        }
        if net.trunc() != net {
            return Err(format!("the prefix has bits beyond its mask; {} would be right", net.trunc()));
        }
        check_ip_text("HostIP", &record.host_ip)?;
        let id = Identity(record.id);
        if !id.is_reserved() && id.cluster() != self.id {
            return Err(format!(
                "ID {} is neither reserved (below 256) nor in {}–{}",
                id.0,
                self.id << 16,
                (self.id << 16) + 0xffff
            ));
        }
        // Their host is not this host.
        if id == Identity::HOST {
            record.id = Identity::REMOTE_NODE.0;
        }
        Ok(Value::Ip(net, record))
    }

    fn check_service(&self, namespace: &str, name: &str, service: Service) -> Result<Value, String> {
        self.check_cluster("cluster", &service.cluster, "clusterID", service.cluster_id)?;
        if (service.namespace.as_str(), service.name.as_str()) != (namespace, name) {
            return Err(format!("it is {}/{}, not that of the key", service.namespace, service.name));
        }
        for ip in service.frontends.keys().chain(service.backends.keys()) {
            if ip.parse::<IpAddr>().is_err() {
                return Err(format!("'{ip}' among frontends and backends is not an address"));
            }
        }
        Ok(if service.shared && self.services_wanted { Value::Service(service) } else { Value::Withdrawn })
    }

    fn check_slice(&self, namespace: &str, name: &str, slice: Slice) -> Result<Value, String> {
        self.check_cluster("cluster", &slice.cluster, "clusterID", slice.cluster_id)?;
        if (slice.namespace.as_str(), slice.name.as_str()) != (namespace, name) {
            return Err(format!("it is {}/{}, not that of the key", slice.namespace, slice.name));
        }
        Ok(match slice.contribution()? {
            Some(service) => Value::EndpointSlice((namespace.into(), name.into()), service),
            None => Value::Withdrawn,
        })
    }
}

fn json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    from_json(value).map_err(|error| format!("value is not the right JSON: {error}"))
}

/// Go's `net.IP`: an address, or nothing.
fn check_ip_text(field: &str, text: &str) -> Result<(), String> {
    match text.is_empty() || text.parse::<IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(format!("{field} '{text}' is not an address")),
    }
}
