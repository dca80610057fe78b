//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (`cilium-interop` 5.1–5.5).

use super::ports::{PortRule, RawIcmpRule, RawPortRule};
use super::selector::{Keys, LabelSelector, Selector};
use super::{Entry, Peer, Peers, PolicyKind, PolicyObject, Rule, Section, cidr};
use crate::objects::{Invalid, each};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// A policy as written; `status` and the type fields are not read here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    spec: Option<RawRule>,
    specs: Option<Vec<RawRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule {
    endpoint_selector: Option<LabelSelector>,
    node_selector: Option<Value>,
    ingress: Option<Vec<RawEntry>>,
    ingress_deny: Option<Vec<RawEntry>>,
    egress: Option<Vec<RawEntry>>,
    egress_deny: Option<Vec<RawEntry>>,
    enable_default_deny: Option<DefaultDeny>,
    /// Metadata without effect on packets.
    #[serde(rename = "labels")]
    _labels: Option<Value>,
    #[serde(rename = "description")]
    _description: Option<String>,
    log: Option<Log>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultDeny {
    ingress: Option<bool>,
    egress: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default)]
    value: String,
}

/// One element of any of the four lists; which names fit which list is checked afterwards.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEntry {
    #[serde(alias = "toEndpoints")]
    from_endpoints: Option<Vec<LabelSelector>>,
    #[serde(rename = "fromCIDR", alias = "toCIDR")]
    from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet", alias = "toCIDRSet")]
    from_cidr_set: Option<Vec<RawCidr>>,
    #[serde(alias = "toEntities")]
    from_entities: Option<Vec<String>>,
    #[serde(alias = "toRequires")]
    from_requires: Option<Value>,
    #[serde(alias = "toNodes")]
    from_nodes: Option<Value>,
    #[serde(alias = "toGroups")]
    from_groups: Option<Value>,
    to_services: Option<Value>,
    #[serde(rename = "toFQDNs")]
    to_fqdns: Option<Value>,
    authentication: Option<Value>,
    to_ports: Option<Vec<RawPortRule>>,
    icmps: Option<Vec<RawIcmpRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCidr {
    cidr: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    cidr_group_ref: Option<Value>,
    cidr_group_selector: Option<Value>,
}

/// Where a rule stands.
struct Scope<'a> {
    /// `None` for a cluster-wide policy.
    namespace: Option<&'a str>,
    cluster: &'a str,
}

/// Refuses fields whose meaning we could only ignore.
pub(super) fn unsupported(fields: &[(&str, &Option<Value>)]) -> Result<(), Invalid> {
    match fields.iter().find(|(_, value)| value.is_some()) {
        Some((field, _)) => Err(Invalid::new(*field, "not supported; the policy is refused as a whole")),
        None => Ok(()),
    }
}

/// Reads, translates and scopes a policy document. `cluster` is the name of the own cluster.
pub(crate) fn read(
    kind: PolicyKind,
    namespace: String,
    name: String,
    document: &Value,
    cluster: &str,
) -> Result<PolicyObject, Invalid> {
    let mut body = document.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|key, _| !["apiVersion", "kind", "metadata", "status"].contains(&&**key));
    }
    check_nulls(&body)?;
    check_sides(&body)?;
    let raw: RawPolicy = crate::objects::typed(&body)?;
    let scope = Scope { namespace: (kind == PolicyKind::Cilium).then_some(&*namespace), cluster };
    let mut rules = Vec::new();
    if raw.spec.is_none() && raw.specs.as_ref().is_none_or(Vec::is_empty) {
        return Err(Invalid::new("spec", "missing: a policy needs spec or specs"));
    }
    if let Some(spec) = &raw.spec {
        rules.push(spec.rule(&scope).map_err(|e| e.under("spec"))?);
    }
    rules.extend(each("specs", raw.specs.as_deref().unwrap_or_default(), |_, spec| spec.rule(&scope))?);
    let spec = match body.get("spec") {
        Some(spec) if raw.specs.is_none() => spec.clone(),
        _ => body,
    };
    Ok(PolicyObject { kind, namespace, name, rules, spec })
}

/// Refuses fields without a value: `fromEndpoints:` with its list forgotten must not read as "anyone".
fn check_nulls(value: &Value) -> Result<(), Invalid> {
    match value {
        Value::Null => Err(Invalid::new("", "has no value: give one or leave the field out")),
        Value::Array(items) => each("", items, |_, item| check_nulls(item)).map(|_| ()),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, field)| check_nulls(field).map_err(|e| e.under(key)))
        }
        _ => Ok(()),
    }
}

/// Refuses `to…` in ingress and `from…` in egress, which [`RawEntry`] would take for each other.
fn check_sides(body: &Value) -> Result<(), Invalid> {
    let specs = body.get("specs").and_then(Value::as_array).into_iter().flatten();
    for spec in body.get("spec").into_iter().chain(specs) {
        for (list, prefix) in
            [("ingress", "to"), ("ingressDeny", "to"), ("egress", "from"), ("egressDeny", "from")]
        {
            let entries = spec.get(list).and_then(Value::as_array).into_iter().flatten();
            let mut keys = entries.filter_map(Value::as_object).flat_map(|entry| entry.keys());
            if let Some(key) = keys.find(|key| key.starts_with(prefix) && *key != "toPorts") {
                return Err(Invalid::new(format!("spec.{list}"), format!("{key} does not belong here")));
            }
        }
    }
    Ok(())
}

impl RawRule {
    fn rule(&self, scope: &Scope<'_>) -> Result<Rule, Invalid> {
        unsupported(&[("nodeSelector", &self.node_selector)])?;
        let Some(selector) = &self.endpoint_selector else {
            return Err(Invalid::new("endpointSelector", "missing: {} selects all pods"));
        };
        if let Some(log) = self.log.as_ref().filter(|log| log.value.len() > 32) {
            return Err(Invalid::new("log.value", format!("{:?}: at most 32 characters", log.value)));
        }
        let mut subject =
            selector.add_to(Selector::default(), Keys::Cilium).map_err(|e| e.under("endpointSelector"))?;
        if let Some(namespace) = scope.namespace {
            subject = subject.in_namespace(namespace);
        }
        let mut entries = Vec::new();
        for (section, list) in [
            (Section::Ingress, &self.ingress),
            (Section::IngressDeny, &self.ingress_deny),
            (Section::Egress, &self.egress),
            (Section::EgressDeny, &self.egress_deny),
        ] {
            entries.extend(each(&section.to_string(), list.as_deref().unwrap_or_default(), |index, raw| {
                raw.entry(section, index, scope)
            })?);
        }
        if entries.is_empty() {
            let problem = "ingress, ingressDeny, egress and egressDeny are all empty: \
                           such a rule has no effect; use ingress: [{}] to deny everything";
            return Err(Invalid::new("", problem));
        }
        let has = |direction| entries.iter().any(|entry: &Entry| entry.section.direction() == direction);
        let wanted = self.enable_default_deny.as_ref();
        Ok(Rule {
            denies_ingress: has(tables::Direction::Ingress) && wanted.and_then(|w| w.ingress).unwrap_or(true),
            denies_egress: has(tables::Direction::Egress) && wanted.and_then(|w| w.egress).unwrap_or(true),
            subject,
            entries,
        })
    }
}

impl RawEntry {
    fn entry(&self, section: Section, index: usize, scope: &Scope<'_>) -> Result<Entry, Invalid> {
        unsupported(&[
            ("fromRequires/toRequires", &self.from_requires),
            ("fromNodes/toNodes", &self.from_nodes),
            ("fromGroups/toGroups", &self.from_groups),
            ("toServices", &self.to_services),
            ("toFQDNs", &self.to_fqdns),
            ("authentication", &self.authentication),
        ])?;
        let ports = self.ports()?;
        let peers = match self.peers(section, scope)? {
            Some(peers) => peers,
            None if ports.is_some() => Peers::Any,
            // An element that names neither peers nor ports allows nothing.
            None => Peers::Selected(Vec::new()),
        };
        Ok(Entry { section, index, peers, ports })
    }

    /// `None` if no member about peers is there.
    fn peers(&self, section: Section, scope: &Scope<'_>) -> Result<Option<Peers>, Invalid> {
        let way = if section.direction() == tables::Direction::Ingress { "from" } else { "to" };
        let field = |name: &str| format!("{way}{name}");
        let given = [
            ("Endpoints", self.from_endpoints.as_ref().map(Vec::len)),
            ("CIDR", self.from_cidr.as_ref().map(Vec::len)),
            ("CIDRSet", self.from_cidr_set.as_ref().map(Vec::len)),
            ("Entities", self.from_entities.as_ref().map(Vec::len)),
        ];
        let used: Vec<_> =
            given.iter().filter(|(_, len)| len.is_some_and(|n| n > 0)).map(|(name, _)| field(name)).collect();
        if used.len() > 1 {
            return Err(Invalid::new("", format!("{} cannot be combined in one rule", used.join(" and "))));
        }
        if given.iter().all(|(_, len)| len.is_none()) {
            return Ok(None);
        }
        let mut peers =
            each(&field("Endpoints"), self.from_endpoints.as_deref().unwrap_or_default(), |_, raw| {
                let selector = raw.add_to(Selector::default(), Keys::Cilium)?;
                Ok(Arc::new(Peer::Labels(selector.scoped(scope.namespace, scope.cluster))))
            })?;
        peers.extend(each(&field("CIDR"), self.from_cidr.as_deref().unwrap_or_default(), |_, net| {
            Ok(Arc::new(Peer::Cidr { net: cidr::parse(net)?, except: Vec::new() }))
        })?);
        peers.extend(each(
            &field("CIDRSet"),
            self.from_cidr_set.as_deref().unwrap_or_default(),
            |_, raw| raw.peer(),
        )?);
        let entities = self.from_entities.as_deref().unwrap_or_default();
        peers.extend(
            each(&field("Entities"), entities, |_, entity| entity_peers(entity, scope.cluster))?.concat(),
        );
        Ok(Some(match entities.iter().any(|entity| entity == "all") {
            true => Peers::Any,
            false => Peers::Selected(peers),
        }))
    }

    fn ports(&self) -> Result<Option<Vec<PortRule>>, Invalid> {
        let to_ports = self.to_ports.as_deref().unwrap_or_default();
        let icmps = self.icmps.as_deref().unwrap_or_default();
        if to_ports.is_empty() && icmps.is_empty() {
            return Ok(None);
        }
        if !to_ports.is_empty() && !icmps.is_empty() {
            return Err(Invalid::new("", "toPorts and icmps cannot be combined in one rule"));
        }
        let mut rules = each("toPorts", to_ports, |_, raw| raw.rules())?.concat();
        rules.extend(each("icmps", icmps, |_, raw| raw.rules())?.concat());
        Ok(Some(rules))
    }
}

impl RawCidr {
    fn peer(&self) -> Result<Arc<Peer>, Invalid> {
        unsupported(&[
            ("cidrGroupRef", &self.cidr_group_ref),
            ("cidrGroupSelector", &self.cidr_group_selector),
        ])?;
        match &self.cidr {
            Some(cidr) => cidr::peer(cidr, &self.except),
            None => Err(Invalid::new("cidr", "missing")),
        }
    }
}

const CLUSTER_ENTITIES: [&str; 7] =
    ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];

/// What an entity stands for (5.3).
fn entity_peers(entity: &str, cluster: &str) -> Result<Vec<Arc<Peer>>, Invalid> {
    let reserved = |name: &str| Arc::new(Peer::Labels(Selector::default().require_key("reserved", name)));
    Ok(match entity {
        // `all` is more than a list of peers; the caller sees to it.
        "none" | "all" => Vec::new(),
        "world" => ["world", "world-ipv4", "world-ipv6"].map(reserved).into(),
        "cluster" => {
            let pods = Selector::default().require("k8s", crate::labels::CLUSTER, cluster);
            let mut peers: Vec<_> = CLUSTER_ENTITIES.map(reserved).into();
            peers.push(Arc::new(Peer::Labels(pods)));
            peers
        }
        name if CLUSTER_ENTITIES.contains(&name) => vec![reserved(name)],
        other => {
            let known = CLUSTER_ENTITIES.join(", ");
            return Err(Invalid::new("", format!("{other:?}: must be all, none, world, cluster, {known}")));
        }
    })
}
