//! Documents → objects, with everything checked that later code relies on.

use super::*;
use crate::policy::{cilium, kubernetes};
use crate::records::{NamedPort, ZoneHint};
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads a value and says where in it something is wrong.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        Invalid::new(if path == "." { String::new() } else { path }, e.inner().to_string())
    })
}

/// Reads a Kubernetes type and refuses fields in its `spec` that the type does not have, as the
/// API server's strict validation does.
fn strict<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, Invalid> {
    let object: T = typed(document)?;
    let known = serde_json::to_value(&object).map_err(|e| Invalid::new("", e.to_string()))?;
    let unknown = document.as_object().into_iter().flatten().find_map(|(key, given)| match key.as_str() {
        "apiVersion" | "kind" | "metadata" | "status" => None,
        _ => dropped(given, known.get(key)).map(|path| format!("{key}{path}")),
    });
    match unknown {
        Some(path) => Err(Invalid::new(path, "unknown field")),
        None => Ok(object),
    }
}

/// The path of the first field that is in `given` but not in `known`.
fn dropped(given: &Value, known: Option<&Value>) -> Option<String> {
    match (given, known) {
        (Value::Null, _) => None,
        (_, None) => Some(String::new()),
        (Value::Object(given), Some(known)) => given
            .iter()
            .find_map(|(key, value)| dropped(value, known.get(key)).map(|path| format!(".{key}{path}"))),
        (Value::Array(given), Some(known)) => given
            .iter()
            .enumerate()
            .find_map(|(i, value)| dropped(value, known.get(i)).map(|path| format!("[{i}]{path}"))),
        _ => None,
    }
}

/// The key of a document as far as it says; `None` if it does not name an object we understand.
pub(crate) fn key_of(document: &Value) -> Option<ObjectKey> {
    let kind = document.get("kind")?.as_str()?;
    let kind = KINDS.into_iter().find(|known| *known == kind)?;
    let text = |field: &str| document.get("metadata")?.get(field)?.as_str().map(str::to_string);
    let namespace = match kind {
        "Namespace" | "CiliumClusterwideNetworkPolicy" => String::new(),
        _ => text("namespace").unwrap_or_else(|| "default".into()),
    };
    Some(ObjectKey { kind, namespace, name: text("name")? })
}

impl Object {
    /// Reads one document. `cluster` is the name of the own cluster.
    pub(crate) fn read(document: &Value, cluster: &str) -> Result<Object, Invalid> {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !KINDS.contains(&kind) {
            return Err(Invalid::new(
                "kind",
                format!("{kind:?}: must be List or one of {}", KINDS.join(", ")),
            ));
        }
        let Some(key) = key_of(document) else {
            return Err(Invalid::new("metadata.name", "missing"));
        };
        check_name(&key)?;
        let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let expected = api_version(key.kind);
        if version != expected {
            return Err(Invalid::new("apiVersion", format!("{version:?}: must be {expected} for {kind}")));
        }
        let ObjectKey { kind, namespace, name } = key;
        Ok(match kind {
            "Namespace" => Object::Namespace(read_namespace(document, name)?),
            "Pod" => Object::Pod(read_pod(document, namespace, name)?),
            "Service" => Object::Service(read_service(document, namespace, name)?),
            "EndpointSlice" => Object::EndpointSlice(read_slice(document, namespace, name)?),
            "NetworkPolicy" => Object::Policy(kubernetes::read(namespace, name, document, cluster)?),
            "CiliumNetworkPolicy" => {
                Object::Policy(cilium::read(PolicyKind::Cilium, namespace, name, document, cluster)?)
            }
            _ => Object::Policy(cilium::read(
                PolicyKind::CiliumClusterwide,
                namespace,
                name,
                document,
                cluster,
            )?),
        })
    }
}

fn api_version(kind: &str) -> &'static str {
    match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "NetworkPolicy" => "networking.k8s.io/v1",
        "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => "cilium.io/v2",
        _ => "v1",
    }
}

/// Names end up in etcd keys, so they must be what Kubernetes allows (RFC 1123 subdomains).
fn check_name(key: &ObjectKey) -> Result<(), Invalid> {
    let fits = |text: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        text.len() <= 253 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
    };
    for (field, text) in [("metadata.name", &key.name), ("metadata.namespace", &key.namespace)] {
        let absent = field == "metadata.namespace" && text.is_empty();
        if !absent && !fits(text) {
            let problem = format!("{text:?}: must be at most 253 lower-case letters, digits, '-' and '.'");
            return Err(Invalid::new(field, problem));
        }
    }
    Ok(())
}

/// The protocol of a service or container port.
pub(crate) fn protocol(name: &str) -> Result<Protocol, Invalid> {
    match name {
        "TCP" => Ok(Protocol::TCP),
        "UDP" => Ok(Protocol::UDP),
        "SCTP" => Ok(Protocol::SCTP),
        other => Err(Invalid::new("", format!("{other:?}: must be TCP, UDP or SCTP"))),
    }
}

fn port(number: i32) -> Result<u16, Invalid> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Invalid::new("", format!("{number}: must be 1 to 65535")))
}

/// One that is mapped into IPv6 is an IPv4 address, as in Kubernetes.
fn ip(text: &str) -> Result<IpAddr, Invalid> {
    let ip =
        text.parse::<IpAddr>().map_err(|_| Invalid::new("", format!("{text:?} is not an IP address")))?;
    Ok(ip.to_canonical())
}

fn read_namespace(document: &Value, name: String) -> Result<Namespace, Invalid> {
    let namespace: core::Namespace = strict(document)?;
    let mut labels = namespace.metadata.labels.unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".into(), name.clone());
    Ok(Namespace { name, labels })
}

fn read_pod(document: &Value, namespace: String, name: String) -> Result<Pod, Invalid> {
    let pod: core::Pod = strict(document)?;
    let spec = pod.spec.unwrap_or_default();
    let containers = each("spec.containers", &spec.containers, |_, container| {
        each("ports", container.ports.as_deref().unwrap_or_default(), |_, given| {
            let proto = given.protocol.as_deref().unwrap_or("TCP");
            protocol(proto).map_err(|e| e.under("protocol"))?;
            let number = port(given.container_port).map_err(|e| e.under("containerPort"))?;
            let named = |name| NamedPort { name, port: number, protocol: proto.into() };
            Ok(given.name.clone().map(named))
        })
    })?;
    Ok(Pod {
        namespace,
        name,
        labels: pod.metadata.labels.unwrap_or_default(),
        service_account: spec.service_account_name,
        named_ports: containers.into_iter().flatten().flatten().collect(),
    })
}

fn read_service(document: &Value, namespace: String, name: String) -> Result<Service, Invalid> {
    let service: core::Service = strict(document)?;
    let spec = service.spec.unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let given = match spec.cluster_ips.filter(|ips| !ips.is_empty()) {
        Some(ips) => ips,
        None => spec.cluster_ip.into_iter().filter(|ip| !ip.is_empty()).collect(),
    };
    if given.is_empty() && !external {
        let problem = "missing: nothing here allocates it; give an address, or None for a headless service";
        return Err(Invalid::new("spec.clusterIP", problem));
    }
    let headless = external || given.iter().any(|ip| ip == "None");
    let cluster_ips =
        if headless { Vec::new() } else { each("spec.clusterIPs", &given, |_, text| ip(text))? };
    let ports = spec.ports.unwrap_or_default();
    let unnamed = ports.iter().filter(|port| port.name.as_deref().unwrap_or_default().is_empty()).count();
    if ports.len() > 1 && unnamed > 0 {
        return Err(Invalid::new("spec.ports", "every port needs a name when there are several"));
    }
    Ok(Service {
        ports: each("spec.ports", &ports, |_, given| service_port(given))?,
        labels: service.metadata.labels.unwrap_or_default(),
        selector: spec.selector.unwrap_or_default(),
        mesh: annotations::read(&service.metadata.annotations.unwrap_or_default())?,
        namespace,
        name,
        cluster_ips,
    })
}

fn service_port(given: &core::ServicePort) -> Result<ServicePort, Invalid> {
    let number = port(given.port).map_err(|e| e.under("port"))?;
    let target = match &given.target_port {
        None => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => {
            TargetPort::Number(port(*target).map_err(|e| e.under("targetPort"))?)
        }
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => TargetPort::Number(port(target).map_err(|e| e.under("targetPort"))?),
            Err(_) => TargetPort::Name(name.clone()),
        },
    };
    let proto = protocol(given.protocol.as_deref().unwrap_or("TCP")).map_err(|e| e.under("protocol"))?;
    Ok(ServicePort { name: given.name.clone().unwrap_or_default(), proto, port: number, target })
}

fn read_slice(document: &Value, namespace: String, name: String) -> Result<EndpointSlice, Invalid> {
    let slice: discovery::EndpointSlice = strict(document)?;
    let labels = slice.metadata.labels.unwrap_or_default();
    let Some(service) = labels.get("kubernetes.io/service-name") else {
        return Err(Invalid::new("metadata.labels", "kubernetes.io/service-name: missing"));
    };
    if !["IPv4", "IPv6"].contains(&&*slice.address_type) {
        let problem = format!("{:?}: must be IPv4 or IPv6", slice.address_type);
        return Err(Invalid::new("addressType", problem));
    }
    let endpoints = each("endpoints", &slice.endpoints, |_, endpoint| {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let state = match (ready, serving && conditions.and_then(|c| c.terminating).unwrap_or(false)) {
            (true, _) => Readiness::Ready,
            (false, true) => Readiness::Terminating,
            (false, false) => Readiness::NotReady,
        };
        let addresses = each("addresses", &endpoint.addresses, |_, text| match ip(text)? {
            address if address.is_ipv4() == (slice.address_type == "IPv4") => Ok(address),
            address => Err(Invalid::new("", format!("{address} is not an {} address", slice.address_type))),
        })?;
        let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.clone()).unwrap_or_default();
        let hints = hints.into_iter().map(|hint| ZoneHint { name: hint.name }).collect();
        let zone = endpoint.zone.clone().map(|zone| Zone { zone, for_zones: hints });
        let given = SliceEndpoint { state, hostname: endpoint.hostname.clone(), zone };
        Ok(addresses.into_iter().map(move |address| (address, given.clone())))
    })?;
    let ports = each("ports", slice.ports.as_deref().unwrap_or_default(), |_, given| {
        let proto = protocol(given.protocol.as_deref().unwrap_or("TCP")).map_err(|e| e.under("protocol"))?;
        let number = given.port.ok_or_else(|| {
            Invalid::new("port", "missing: an absent port means all ports, which is not supported")
        })?;
        Ok((given.name.clone().unwrap_or_default(), proto, port(number).map_err(|e| e.under("port"))?))
    })?;
    Ok(EndpointSlice {
        namespace,
        name,
        service: service.clone(),
        endpoints: endpoints.into_iter().flatten().collect(),
        ports: ports.into_iter().collect(),
    })
}
