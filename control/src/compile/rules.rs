//! Rules → entries of one pod's policy, and the names of rules.

use crate::agent::PolicyMode;
use crate::labels::Labels;
use crate::objects::ObjectKey;
use crate::policy::ports::PortRule;
use crate::policy::{Entry, Peer, Peers, Section};
use crate::records::NamedPort;
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tables::{Direction, PolicySpec, PortMatch, RuleEntry, RuleId};
use wire::{Identity, Protocol};

/// Any protocol, any port.
const ALL: PortMatch = PortMatch { proto: None, ports: 0..=u16::MAX };

/// What a rule id stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Origin {
    /// An element of a policy's list: policy, number of the spec, list, position.
    Rule(ObjectKey, usize, Section, usize),
    /// The node may reach its own pods (`cilium-interop` 5.8).
    Localhost,
    /// Rules without default deny leave everything else allowed (5.7).
    NoDefaultDeny,
}

/// Numbers of rules; a rule keeps its number while its policy exists.
#[derive(Debug, Default)]
pub struct Registry {
    ids: BTreeMap<Origin, RuleId>,
    origins: HashMap<RuleId, Origin>,
    last: u32,
}

/// The policy of pods with certain labels.
#[derive(Debug, Default)]
pub struct EndpointPolicy {
    /// Their labels.
    labels: Labels,
    /// Their named ports.
    named_ports: Vec<NamedPort>,
    /// For the tables.
    pub spec: PolicySpec,
    /// Selectors whose members are in it.
    pub uses: HashSet<Arc<Peer>>,
    /// It depends on the named ports of others.
    pub named_egress: bool,
    /// Rules that allow something: ingress, egress.
    pub allows: [usize; 2],
}

impl Registry {
    /// What a rule is called.
    pub fn describe(&self, rule: RuleId) -> Option<String> {
        Some(match self.origins.get(&rule)? {
            Origin::Rule(policy, spec, section, index) => {
                let slash = if policy.namespace.is_empty() { "" } else { "/" };
                let spec = if *spec == 0 { String::new() } else { format!(" spec {}", spec + 1) };
                let ObjectKey { namespace, name, .. } = policy;
                format!("rule {} of {namespace}{slash}{name}{spec} ({section})", index + 1)
            }
            Origin::Localhost => "the node may reach its own pods".into(),
            Origin::NoDefaultDeny => "no rule puts it into default deny".into(),
        })
    }

    /// All rules with what they are called.
    pub(super) fn descriptions(&self) -> impl Iterator<Item = (RuleId, String)> {
        self.origins.keys().filter_map(|&id| Some((id, self.describe(id)?)))
    }

    /// Drops the numbers of policies that are gone.
    pub(super) fn forget_all_but<'a>(&mut self, policies: impl Iterator<Item = &'a ObjectKey>) {
        let kept: BTreeSet<_> = policies.collect();
        let gone = |origin: &Origin| matches!(origin, Origin::Rule(key, ..) if !kept.contains(key));
        self.ids.retain(|origin, _| !gone(origin));
        self.origins.retain(|_, origin| !gone(origin));
    }

    fn id(&mut self, origin: Origin) -> RuleId {
        if let Some(id) = self.ids.get(&origin) {
            return *id;
        }
        self.last += 1;
        let id = RuleId(self.last);
        self.ids.insert(origin.clone(), id);
        self.origins.insert(id, origin);
        id
    }

    /// The policy of pods with these labels and named ports (`cilium-interop` 5.7, 5.8).
    pub(super) fn resolve(
        &mut self,
        state: &State,
        labels: &Labels,
        named_ports: &[NamedPort],
        mode: PolicyMode,
    ) -> EndpointPolicy {
        let mut policy = EndpointPolicy {
            labels: labels.clone(),
            named_ports: named_ports.to_vec(),
            ..EndpointPolicy::default()
        };
        if mode == PolicyMode::Never {
            return policy;
        }
        let mut entries = [Vec::new(), Vec::new()];
        let mut selected = [false; 2];
        let mut enforced = [mode == PolicyMode::Always; 2];
        for (key, (object, _)) in &state.policies {
            for (number, rule) in
                object.rules.iter().enumerate().filter(|(_, rule)| rule.subject.matches(labels))
            {
                for direction in [Direction::Ingress, Direction::Egress] {
                    enforced[direction as usize] |= rule.default_deny(direction);
                    selected[direction as usize] |= rule.default_deny(direction);
                }
                for entry in &rule.entries {
                    let side = entry.section.direction() as usize;
                    selected[side] = true;
                    policy.allows[side] += usize::from(!entry.section.is_deny());
                    let rule = self.id(Origin::Rule(key.clone(), number, entry.section, entry.index));
                    policy.add(state, entry, rule, &mut entries[side]);
                    if entry.section.is_deny() {
                        policy.deny_unknown(entry, rule, &mut entries[side]);
                    }
                }
            }
        }
        let [mut ingress, mut egress] = entries;
        if enforced[0] && selected[0] {
            let host = tables::Peers::Set(Arc::from([Identity::HOST]));
            ingress.push(self.implicit(host, Origin::Localhost));
        }
        for (entries, enforced) in [&mut ingress, &mut egress].into_iter().zip(&mut enforced) {
            if !*enforced && entries.iter().any(|entry| entry.deny) {
                entries.push(self.implicit(tables::Peers::Any, Origin::NoDefaultDeny));
                *enforced = true;
            }
        }
        policy.spec =
            PolicySpec { ingress: enforced[0].then_some(ingress), egress: enforced[1].then_some(egress) };
        policy
    }

    fn implicit(&mut self, peers: tables::Peers, origin: Origin) -> RuleEntry {
        RuleEntry { peers, ports: ALL, deny: false, rule: self.id(origin) }
    }
}

impl EndpointPolicy {
    /// Whether it is the policy of pods with these labels and named ports.
    pub(super) fn is_for(&self, labels: &Labels, named_ports: &[NamedPort]) -> bool {
        self.labels == *labels && self.named_ports == named_ports
    }

    /// Adds what one element of a rule means now.
    fn add(&mut self, state: &State, entry: &Entry, rule: RuleId, entries: &mut Vec<RuleEntry>) {
        let peers = match &entry.peers {
            Peers::Any => None,
            Peers::Selected(selected) => {
                self.uses.extend(selected.iter().cloned());
                Some(union(state, selected))
            }
        };
        if peers.as_ref().is_some_and(|members| members.is_empty()) {
            return;
        }
        let deny = entry.section.is_deny();
        let whom = || peers.clone().map_or(tables::Peers::Any, tables::Peers::Set);
        let Some(ports) = &entry.ports else {
            entries.push(RuleEntry { peers: whom(), ports: ALL, deny, rule });
            return;
        };
        for port in ports {
            match port {
                PortRule::Number(ports) => {
                    entries.push(RuleEntry { peers: whom(), ports: ports.clone(), deny, rule });
                }
                PortRule::Name { proto, name } if entry.section.direction() == Direction::Ingress => {
                    for number in numbers(&self.named_ports, *proto, name) {
                        entries.push(RuleEntry { peers: whom(), ports: one(*proto, number), deny, rule });
                    }
                }
                PortRule::Name { proto, name } => {
                    self.named_egress = true;
                    for (number, members) in served(state, peers.as_deref(), *proto, name) {
                        let peers = tables::Peers::Set(members.into_iter().collect());
                        entries.push(RuleEntry { peers, ports: one(*proto, number), deny, rule });
                    }
                }
            }
        }
    }

    /// Denies those who are not known yet what an element denies some pods: they may be among these,
    /// and may call any port by the name it has.
    fn deny_unknown(&self, entry: &Entry, rule: RuleId, entries: &mut Vec<RuleEntry>) {
        let (by_labels, anyone) = match &entry.peers {
            Peers::Any => (false, true),
            Peers::Selected(selected) => {
                let by_labels = selected.iter().any(|peer| peer.is_about_pods());
                (by_labels, by_labels)
            }
        };
        let unknown: Arc<[Identity]> = Arc::from([Identity::UNKNOWN]);
        let mut deny = |ports| {
            let peers = tables::Peers::Set(unknown.clone());
            entries.push(RuleEntry { peers, ports, deny: true, rule });
        };
        let Some(ports) = &entry.ports else {
            if by_labels {
                deny(ALL);
            }
            return;
        };
        let egress = entry.section.direction() == Direction::Egress;
        for port in ports {
            match port {
                PortRule::Name { proto, .. } if egress && anyone => {
                    deny(PortMatch { proto: Some(*proto), ..ALL })
                }
                _ if !by_labels => {}
                PortRule::Number(ports) => deny(ports.clone()),
                PortRule::Name { proto, name } => {
                    numbers(&self.named_ports, *proto, name).into_iter().for_each(|n| deny(one(*proto, n)));
                }
            }
        }
    }
}

fn one(proto: Protocol, port: u16) -> PortMatch {
    PortMatch { proto: Some(proto), ports: port..=port }
}

/// The identities that any of the selectors matches.
fn union(state: &State, selected: &[Arc<Peer>]) -> Arc<[Identity]> {
    match selected {
        [one] => state.selectors.members(one),
        several => {
            let mut all = BTreeSet::new();
            for peer in several {
                all.extend(state.selectors.members(peer).iter().copied());
            }
            all.into_iter().collect()
        }
    }
}

/// The numbers that a port name stands for.
fn numbers(named: &[NamedPort], proto: Protocol, name: &str) -> BTreeSet<u16> {
    let proto = proto.to_string();
    let fits = |port: &&NamedPort| {
        port.name.eq_ignore_ascii_case(name) && port.protocol.eq_ignore_ascii_case(&proto)
    };
    named.iter().filter(fits).map(|port| port.port).collect()
}

/// Which of the peers (`None`: of all) serve a named port, by its number there.
fn served(
    state: &State,
    peers: Option<&[Identity]>,
    proto: Protocol,
    name: &str,
) -> BTreeMap<u16, BTreeSet<Identity>> {
    let all: Vec<Identity>;
    let peers = match peers {
        Some(peers) => peers,
        None => {
            all = state.selectors.identities().map(|(identity, _)| identity).collect();
            &all
        }
    };
    let mut served: BTreeMap<u16, BTreeSet<Identity>> = BTreeMap::new();
    for identity in peers {
        for (_, named_ports) in state.ipcache.of_identity(*identity) {
            for number in numbers(named_ports, proto, name) {
                served.entry(number).or_default().insert(*identity);
            }
        }
    }
    served
}
