//! The values of each kind of key (`cilium-interop` 2.3 to 2.10).

use super::json::Object;
use super::pattern;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Address types of Kubernetes and Cilium.
const ADDRESS_TYPES: [&str; 6] =
    ["InternalIP", "ExternalIP", "CiliumInternalIP", "Hostname", "InternalDNS", "ExternalDNS"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const NODE: [&str; 18] = [
    "Name",
    "Cluster",
    "IPAddresses",
    "IPv4AllocCIDR",
    "IPv4SecondaryAllocCIDRs",
    "IPv6AllocCIDR",
    "IPv6SecondaryAllocCIDRs",
    "IPv4HealthIP",
    "IPv6HealthIP",
    "IPv4IngressIP",
    "IPv6IngressIP",
    "ClusterID",
    "Source",
    "EncryptionKey",
    "Labels",
    "Annotations",
    // Only until Cilium 1.18.
    "NodeIdentity?",
    "WireguardPubKey",
];
const IP: [&str; 10] = [
    "IP",
    "Mask",
    "HostIP",
    "ID",
    "Key",
    "Metadata",
    "K8sNamespace?",
    "K8sPodName?",
    "K8sServiceAccount?",
    "NamedPorts?",
];
const SERVICE: [&str; 12] = [
    "cluster",
    "namespace",
    "name",
    "frontends",
    "backends",
    "hostnames?",
    "zones?",
    "labels",
    "selector",
    "includeExternal",
    "shared",
    "clusterID",
];

/// What a cluster says of itself.
pub(super) struct Cluster {
    pub(super) name: String,
    id: u64,
    /// Addresses of its nodes.
    pub(super) hosts: BTreeSet<IpAddr>,
    pub(super) canaries: bool,
    slices: String,
    exports: bool,
    /// Bits of an identity within the cluster.
    bits: u32,
}

impl Cluster {
    pub(super) fn read(name: &str, value: &[u8]) -> Result<Cluster, String> {
        let config = Object::read(value, &["id", "capabilities"])?;
        let capabilities = config.get("capabilities").to_string();
        // serde_json sorts what is inside; the order there is checked by the text itself.
        let order =
            text(value)?.split_once("\"capabilities\":").map_or("{}", |(_, rest)| rest.trim_end_matches('}'));
        let inner = format!("{}}}", order);
        let can = Object::read(
            inner.as_bytes(),
            &[
                "syncedCanaries?",
                "cached?",
                "maxConnectedClusters?",
                "serviceExportsEnabled?",
                "endpointSlicesExportMode?",
            ],
        )
        .map_err(|problem| format!("capabilities {capabilities}: {problem}"))?;
        let (id, most) = (config.number("id")?, can.get("maxConnectedClusters").as_u64().unwrap_or(255));
        if !(1..=most).contains(&id) {
            return Err(format!("id is {id}; 1 to {most} would be right"));
        }
        Ok(Cluster {
            name: name.into(),
            id,
            hosts: BTreeSet::new(),
            canaries: can.get("syncedCanaries") == true,
            slices: can.get("endpointSlicesExportMode").as_str().unwrap_or_default().into(),
            exports: can.get("serviceExportsEnabled").is_boolean(),
            bits: if most == 511 { 15 } else { 16 },
        })
    }

    /// The kinds that it exports.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let mut kinds = vec!["nodes", "identities", "ip"];
        kinds.extend((self.slices != "endpointslices-only").then_some("services"));
        kinds.extend((!self.slices.is_empty()).then_some("endpointslices"));
        kinds.extend(self.exports.then_some("serviceexports"));
        kinds
    }

    pub(super) fn node(&self, name: &str, value: &[u8]) -> Result<(), String> {
        // The boot id is the last field.
        let order: Vec<_> = NODE.into_iter().chain(["BootID"]).collect();
        let node = Object::read(value, &order)?;
        node.expect("Name", name)?;
        node.expect("Cluster", self.name.as_str())?;
        node.expect("ClusterID", self.id)?;
        for entry in node.get("IPAddresses").as_array().ok_or("IPAddresses is not a list")? {
            let (kind, ip) = (entry["Type"].as_str(), entry["IP"].as_str().unwrap_or_default());
            if !kind.is_some_and(|kind| ADDRESS_TYPES.contains(&kind)) || ip.parse::<IpAddr>().is_err() {
                return Err(format!("{entry} is not an address"));
            }
        }
        if node_addresses(value).next().is_none() {
            return Err("no InternalIP to reach the node by".into());
        }
        for name in ["IPv4AllocCIDR", "IPv6AllocCIDR"] {
            cidr(node.get(name)).map_err(|problem| format!("{name}: {problem}"))?;
        }
        for name in ["IPv4SecondaryAllocCIDRs", "IPv6SecondaryAllocCIDRs"] {
            node.get(name).as_array().into_iter().flatten().try_for_each(cidr)?;
        }
        ["IPv4HealthIP", "IPv6HealthIP", "IPv4IngressIP", "IPv6IngressIP"]
            .into_iter()
            .try_for_each(|name| address_or_none(node.text(name)?))
    }

    pub(super) fn identity(&self, number: &str, value: &[u8]) -> Result<(), String> {
        self.in_range(number.parse().map_err(|_| "the key is not a number")?)?;
        let labels = text(value)?;
        let shape = pattern(r"^([a-z0-9]+:[^=;:]+=[^;]*;)+$");
        if !shape.is_match(labels) {
            return Err(format!("'{labels}': 'source:key=value;' again and again would be right"));
        }
        let keys: Vec<_> = labels
            .split_terminator(';')
            .filter_map(|label| label.split_once(':')?.1.split_once('='))
            .map(|(key, _)| key)
            .collect();
        if !keys.is_sorted() {
            return Err(format!("'{labels}' is not sorted by key"));
        }
        match labels.contains(&format!("k8s:io.cilium.k8s.policy.cluster={};", self.name)) {
            true => Ok(()),
            false => Err(format!("'{labels}' does not say which cluster it is of")),
        }
    }

    /// Checks a record; its identity.
    pub(super) fn ip(&self, name: &str, value: &[u8]) -> Result<u64, String> {
        let record = Object::read(value, &IP)?;
        let address: IpAddr = record.text("IP")?.parse().map_err(|_| "IP is not an address")?;
        let key = match record.get("Mask") {
            Value::Null => address.to_string(),
            mask => format!("{address}/{}", mask_length(mask)?),
        };
        if key != name {
            return Err(format!("it is about {key}"));
        }
        match record.text("HostIP")?.parse::<IpAddr>() {
            Ok(host) if self.hosts.contains(&host) => {}
            // A CIDR has no host.
            Err(_) if record.text("HostIP")?.is_empty() && !record.get("Mask").is_null() => {}
            _ => return Err(format!("HostIP {} is no node of the cluster", record.get("HostIP"))),
        }
        for name in ["K8sNamespace", "K8sPodName", "K8sServiceAccount", "NamedPorts"] {
            let field = record.get(name);
            if field == "" || field.as_array().is_some_and(Vec::is_empty) {
                return Err(format!("{name} is empty; it is left out then"));
            }
        }
        for port in record.get("NamedPorts").as_array().into_iter().flatten() {
            port_number(&port["Port"], &port["Protocol"])?;
        }
        let identity = record.number("ID")?;
        if identity >= 256 {
            self.in_range(identity)?;
        }
        Ok(identity)
    }

    pub(super) fn service(&self, name: &str, value: &[u8]) -> Result<(), String> {
        let service = Object::read(value, &SERVICE)?;
        service.expect("cluster", self.name.as_str())?;
        service.expect("clusterID", self.id)?;
        if format!("{}/{}", service.text("namespace")?, service.text("name")?) != name {
            return Err("namespace and name are not those of the key".into());
        }
        for side in ["frontends", "backends"] {
            for (ip, ports) in service.get(side).as_object().ok_or(format!("{side} is not an object"))? {
                ip.parse::<IpAddr>().map_err(|_| format!("'{ip}' among {side} is not an address"))?;
                for port in
                    ports.as_object().ok_or(format!("{side}: the ports of {ip} are not an object"))?.values()
                {
                    port_number(&port["Port"], &port["Protocol"])?;
                }
            }
        }
        match !service.truth("shared")? || service.truth("includeExternal")? {
            true => Ok(()),
            false => Err("what is shared includes the backends of others".into()),
        }
    }

    pub(super) fn service_export(&self, name: &str, value: &[u8]) -> Result<(), String> {
        let export: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let text = |field: &str| export[field].as_str().unwrap_or_default();
        let same = text("cluster") == self.name && format!("{}/{}", text("namespace"), text("name")) == name;
        if same { Ok(()) } else { Err("cluster, namespace and name are not those of the key".into()) }
    }

    fn in_range(&self, identity: u64) -> Result<(), String> {
        let range = self.id << self.bits..(self.id + 1) << self.bits;
        if range.contains(&identity) { Ok(()) } else { Err(format!("{identity} is not in {range:?}")) }
    }
}

/// The addresses that other nodes reach a node by.
pub(super) fn node_addresses(value: &[u8]) -> impl Iterator<Item = IpAddr> + use<> {
    let node: Value = serde_json::from_slice(value).unwrap_or_default();
    let entries = node["IPAddresses"].as_array().cloned().unwrap_or_default();
    let internal = entries.into_iter().filter(|entry| entry["Type"] == "InternalIP");
    internal.filter_map(|entry| entry["IP"].as_str()?.parse().ok())
}

/// One zstd frame (2.8); what is inside is for its reader's tests.
pub(super) fn endpoint_slice(name: &str, value: &[u8]) -> Result<(), String> {
    if name.split('/').count() != 2 {
        return Err("the key is not NAMESPACE/NAME".into());
    }
    match value.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        true => Ok(()),
        false => Err("not a zstd frame".into()),
    }
}

/// RFC 3339.
pub(super) fn time(value: &[u8]) -> Result<(), String> {
    let time = text(value)?;
    let shape = pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$");
    if shape.is_match(time) { Ok(()) } else { Err(format!("'{time}' is not a time of RFC 3339")) }
}

pub(super) fn text(value: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(value).map_err(|_| "not UTF-8".into())
}

fn address_or_none(text: &str) -> Result<(), String> {
    match text.is_empty() || text.parse::<IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(format!("'{text}' is not an address")),
    }
}

/// Go's `cidr.CIDR`, or null.
fn cidr(value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let address = value["IP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    address.ok_or(format!("{value} has no address"))?;
    mask_length(&value["Mask"]).map(drop)
}

/// Length of a base64 mask of one family.
fn mask_length(mask: &Value) -> Result<u32, String> {
    let bytes = super::json::base64(mask);
    let ones = bytes.iter().map(|byte| byte.leading_ones()).take_while(|ones| *ones > 0).sum::<u32>();
    let all = bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    match matches!(bytes.len(), 4 | 16) && ones == all {
        true => Ok(ones),
        false => Err(format!("{mask} is not a mask")),
    }
}

fn port_number(port: &Value, protocol: &Value) -> Result<(), String> {
    let number = port.as_u64().is_some_and(|port| (1..=65535).contains(&port));
    let known = protocol.as_str().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
    if number && known { Ok(()) } else { Err(format!("{port}/{protocol} is not a port")) }
}
