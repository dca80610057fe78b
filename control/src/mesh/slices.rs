//! EndpointSlices of another cluster (`cilium-interop` 2.8), which some clusters export instead of
//! services. Those of one service are put together to what a cluster that exports services says.

use crate::records::{Port, Ports, Service, Zone, ZoneHint};
use crate::update::Update;
use prost::Message;
use ruzstd::decoding::StreamingDecoder;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;

/// The label that says whose endpoints a slice has.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Largest slice in bytes. Kubernetes' own store takes no object of more than 1.5 MiB.
const SIZE_MAX: u64 = 4 << 20;

/// `ClusterEndpointSlice`; fields of no use here are left out.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Slice {
    #[prost(string, tag = "1")]
    pub(super) cluster: String,
    #[prost(uint32, tag = "2")]
    pub(super) cluster_id: u32,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(btree_map = "string, string", tag = "5")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "7")]
    address_type: String,
    #[prost(message, repeated, tag = "8")]
    endpoints: Vec<Endpoint>,
    #[prost(message, repeated, tag = "9")]
    ports: Vec<EndpointPort>,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<Conditions>,
    #[prost(string, tag = "3")]
    hostname: String,
    #[prost(string, tag = "7")]
    zone: String,
    #[prost(message, optional, tag = "8")]
    hints: Option<Hints>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Conditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Hints {
    #[prost(message, repeated, tag = "1")]
    for_zones: Vec<ForZone>,
}

#[derive(Clone, PartialEq, Message)]
struct ForZone {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointPort {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
}

impl Slice {
    /// Reads a value: one zstd frame around a protobuf message.
    pub(crate) fn read(value: &[u8]) -> Result<Slice, String> {
        let mut message = Vec::new();
        let frame = StreamingDecoder::new_with_max_window_size(value, SIZE_MAX)
            .map_err(|error| format!("value is not a zstd frame: {error}"))?;
        frame
            .take(SIZE_MAX + 1)
            .read_to_end(&mut message)
            .map_err(|error| format!("value is not a whole zstd frame: {error}"))?;
        if message.len() as u64 > SIZE_MAX {
            return Err(format!("value is larger than {SIZE_MAX} bytes when decompressed"));
        }
        Slice::decode(&*message).map_err(|error| format!("value is not an EndpointSlice: {error}"))
    }

    /// What it contributes to its service, as that is written where services are exported; `None`
    /// if it belongs to none.
    pub(crate) fn contribution(self) -> Result<Option<Service>, String> {
        let Some(service) = self.labels.get(SERVICE_NAME).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let mut contribution = Service {
            cluster: self.cluster.clone(),
            namespace: self.namespace.clone(),
            name: service.clone(),
            include_external: true,
            shared: true,
            cluster_id: self.cluster_id,
            ..Service::default()
        };
        let ports = self.ports()?;
        let usable = self.endpoints.iter().filter(|endpoint| endpoint.is_usable());
        for (endpoint, text) in
            usable.flat_map(|endpoint| endpoint.addresses.iter().map(move |a| (endpoint, a)))
        {
            let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
            let address = match (self.address_type.as_str(), address) {
                ("FQDN", _) => continue, // no service sends packets to a name
                ("IPv4", Ok(address @ IpAddr::V4(_))) | ("IPv6", Ok(address @ IpAddr::V6(_))) => address,
                (kind, _) => {
                    return Err(format!("'{text}' among endpoints is not an address of type '{kind}'"));
                }
            };
            let key = address.to_string();
            if !endpoint.hostname.is_empty() {
                contribution.hostnames.insert(key.clone(), endpoint.hostname.clone());
            }
            if !endpoint.zone.is_empty() {
                contribution.zones.insert(key.clone(), endpoint.zone());
            }
            contribution.backends.insert(key, ports.clone());
        }
        Ok(Some(contribution))
    }

    /// Ports without number, which mean all of them, are left out: no frontend has such a port.
    fn ports(&self) -> Result<Ports, String> {
        let numbered = self.ports.iter().filter_map(|port| Some((port, port.port?)));
        numbered
            .map(|(port, number)| {
                let number = u16::try_from(number).map_err(|_| format!("{number} is not a port"))?;
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                Ok((port.name.clone(), Port { protocol, port: number }))
            })
            .collect()
    }
}

impl Endpoint {
    /// It takes flows, or still serves those that it has. What is not said is true, as in Kubernetes.
    fn is_usable(&self) -> bool {
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        ready || conditions.serving.unwrap_or(ready)
    }

    fn zone(&self) -> Zone {
        let hints = self.hints.iter().flat_map(|hints| &hints.for_zones);
        let for_zones = hints.map(|hint| ZoneHint { name: hint.name.clone() }).collect();
        Zone { zone: self.zone.clone(), for_zones }
    }
}

/// Namespace and name.
type Name = (String, String);

/// What the slices of one cluster contribute, by service and slice.
#[derive(Debug, Default)]
pub(super) struct Slices {
    services: BTreeMap<Name, BTreeMap<String, Service>>,
    /// Service that a slice belongs to.
    owners: BTreeMap<Name, Name>,
    /// Services whose slices have changed and that nobody was told of yet, and whether they were known
    /// before: a service with many slices is put together once for all of them.
    touched: BTreeMap<Name, bool>,
}

impl Slices {
    /// A slice appeared or changed.
    pub(super) fn put(&mut self, slice: Name, contribution: Service) {
        let owner = (contribution.namespace.clone(), contribution.name.clone());
        if self.owners.get(&slice).is_some_and(|before| *before != owner) {
            self.remove(&slice);
        }
        self.touch(&owner);
        self.services.entry(owner.clone()).or_default().insert(slice.1.clone(), contribution);
        self.owners.insert(slice, owner);
    }

    /// A slice went.
    pub(super) fn remove(&mut self, slice: &Name) {
        let Some(owner) = self.owners.remove(slice) else { return };
        self.touch(&owner);
        if let Some(slices) = self.services.get_mut(&owner) {
            slices.remove(&slice.1);
            if slices.is_empty() {
                self.services.remove(&owner);
            }
        }
    }

    fn touch(&mut self, service: &Name) {
        self.touched.entry(service.clone()).or_insert_with(|| self.services.contains_key(service));
    }

    /// Tells what came of the services whose slices have changed.
    pub(super) fn settle(&mut self, cluster: &str) -> Vec<Update> {
        let touched = std::mem::take(&mut self.touched);
        let told = touched.into_iter().filter_map(|(name, known)| match self.service(&name) {
            Some(service) => Some(Update::ServiceUpsert(service)),
            None => known.then(|| Update::ServiceDelete(cluster.into(), name.0, name.1)),
        });
        told.collect()
    }

    /// How many services there are.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are slices of a service.
    pub(super) fn contains(&self, service: &Name) -> bool {
        self.services.contains_key(service)
    }

    /// Forgets all; gives the services there were.
    pub(super) fn drain(&mut self) -> BTreeSet<Name> {
        std::mem::take(self).services.into_keys().collect()
    }

    fn service(&self, name: &Name) -> Option<Service> {
        self.services.get(name)?.values().cloned().reduce(|mut service, more| {
            for (address, ports) in more.backends {
                service.backends.entry(address).or_default().extend(ports);
            }
            service.hostnames.extend(more.hostnames);
            service.zones.extend(more.zones);
            service
        })
    }
}

#[cfg(test)]
mod tests;
