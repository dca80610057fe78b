//! Kubernetes NetworkPolicy (`cilium-interop` 5.11).

use super::ports::{PortRule, all_ports, port_rules};
use super::selector::{Keys, LabelSelector, Selector};
use super::{Entry, Peer, Peers, PolicyKind, PolicyObject, Rule, Section, cidr};
use crate::labels::NAMESPACE;
use crate::objects::{Invalid, each};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// `spec` of a NetworkPolicy. Read strictly: a misspelt field must not widen or narrow a policy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSpec {
    #[serde(default)]
    pod_selector: LabelSelector,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<RawIngress>>,
    egress: Option<Vec<RawEgress>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIngress {
    from: Option<Vec<RawPeer>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEgress {
    to: Option<Vec<RawPeer>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPeer {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<RawBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    cidr: String,
    #[serde(default)]
    except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPort {
    protocol: Option<String>,
    port: Option<NumberOrName>,
    end_port: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(i64),
    Name(String),
}

/// Reads, translates and scopes a policy document. `cluster` is the name of the own cluster.
pub(crate) fn read(
    namespace: String,
    name: String,
    document: &Value,
    cluster: &str,
) -> Result<PolicyObject, Invalid> {
    let Some(spec) = document.get("spec") else {
        return Err(Invalid::new("spec", "missing"));
    };
    let at = |e: Invalid| e.under("spec");
    let raw: RawSpec = crate::objects::typed(spec).map_err(at)?;
    let rule = raw.rule(&namespace, cluster).map_err(at)?;
    Ok(PolicyObject { kind: PolicyKind::Kubernetes, namespace, name, rules: vec![rule], spec: spec.clone() })
}

impl RawSpec {
    fn rule(&self, namespace: &str, cluster: &str) -> Result<Rule, Invalid> {
        let subject =
            self.pod_selector.add_to(Selector::default(), Keys::Pod).map_err(|e| e.under("podSelector"))?;
        let (denies_ingress, denies_egress) = self.directions()?;
        let ingress = each("ingress", self.ingress.as_deref().unwrap_or_default(), |index, raw| {
            entry(Section::Ingress, index, ("from", &raw.from), &raw.ports, namespace, cluster)
        })?;
        let egress = each("egress", self.egress.as_deref().unwrap_or_default(), |index, raw| {
            entry(Section::Egress, index, ("to", &raw.to), &raw.ports, namespace, cluster)
        })?;
        let in_force = |entry: &Entry| match entry.section {
            Section::Ingress => denies_ingress,
            _ => denies_egress,
        };
        Ok(Rule {
            subject: subject.in_namespace(namespace),
            denies_ingress,
            denies_egress,
            entries: ingress.into_iter().chain(egress).filter(in_force).collect(),
        })
    }

    /// Which directions the policy is about.
    fn directions(&self) -> Result<(bool, bool), Invalid> {
        let Some(types) = self.policy_types.as_deref().filter(|types| !types.is_empty()) else {
            return Ok((true, self.egress.is_some()));
        };
        if let Some(other) = types.iter().find(|t| !["Ingress", "Egress"].contains(&&***t)) {
            return Err(Invalid::new("policyTypes", format!("{other:?}: must be Ingress or Egress")));
        }
        Ok((types.iter().any(|t| t == "Ingress"), types.iter().any(|t| t == "Egress")))
    }
}

fn entry(
    section: Section,
    index: usize,
    (field, peers): (&str, &Option<Vec<RawPeer>>),
    ports: &Option<Vec<RawPort>>,
    namespace: &str,
    cluster: &str,
) -> Result<Entry, Invalid> {
    let peers = match peers.as_deref() {
        None | Some([]) => Peers::Any,
        Some(peers) => Peers::Selected(each(field, peers, |_, peer| peer.peer(namespace, cluster))?),
    };
    let ports = match ports.as_deref() {
        None | Some([]) => None,
        Some(ports) => Some(each("ports", ports, |_, port| port.rules())?.concat()),
    };
    Ok(Entry { section, index, peers, ports })
}

impl RawPeer {
    fn peer(&self, namespace: &str, cluster: &str) -> Result<Arc<Peer>, Invalid> {
        match (&self.pod_selector, &self.namespace_selector, &self.ip_block) {
            (None, None, Some(block)) => cidr::peer(&block.cidr, block.except.as_deref().unwrap_or_default())
                .map_err(|e| e.under("ipBlock")),
            (None, None, None) => {
                Err(Invalid::new("", "empty: needs podSelector, namespaceSelector or ipBlock"))
            }
            (_, _, Some(_)) => {
                Err(Invalid::new("ipBlock", "cannot be combined with podSelector or namespaceSelector"))
            }
            (pods, namespaces, None) => {
                let mut selector = Selector::default();
                if let Some(pods) = pods {
                    selector = pods.add_to(selector, Keys::Pod).map_err(|e| e.under("podSelector"))?;
                }
                selector = match namespaces {
                    None => selector.require("k8s", NAMESPACE, namespace),
                    Some(all) if all.is_empty() => selector.require_key("k8s", NAMESPACE),
                    Some(some) => some
                        .add_to(selector, Keys::Namespace)
                        .map_err(|e| e.under("namespaceSelector"))?
                        .require_key("k8s", NAMESPACE),
                };
                Ok(Arc::new(Peer::Labels(selector.in_cluster_by_default(cluster))))
            }
        }
    }
}

impl RawPort {
    fn rules(&self) -> Result<Vec<PortRule>, Invalid> {
        let name = self.protocol.as_deref().unwrap_or("TCP");
        let proto = crate::objects::protocol(name).map_err(|e| e.under("protocol"))?;
        let (port, end) = match (&self.port, self.end_port) {
            (None, None) => return Ok(vec![all_ports(proto)]),
            (Some(NumberOrName::Number(port @ 1..=65535)), end) => (port.to_string(), end.unwrap_or(0)),
            (Some(NumberOrName::Number(port)), _) => {
                return Err(Invalid::new("port", format!("{port}: must be 1 to 65535")));
            }
            (Some(NumberOrName::Name(name)), None) if name.parse::<i64>().is_err() => (name.clone(), 0),
            (Some(NumberOrName::Name(name)), None) => {
                return Err(Invalid::new("port", format!("{name:?}: write a number without quotes")));
            }
            (_, Some(end)) => {
                return Err(Invalid::new("endPort", format!("{end}: needs port to be a number")));
            }
        };
        port_rules(&port, end, &[proto])
    }
}
