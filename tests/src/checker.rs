//! A second reading of the mesh's etcd format: judges everything in an etcd by Cilium's rules
//! (`cilium-interop` 2 and 3), and shares no code with the agent that wrote it.

mod json;
mod values;

use crate::etcd::Etcd;
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use values::Cluster;

/// Most keys that one lease may carry (2.12).
const KEYS_PER_LEASE: usize = 1000;
/// Shortest term of a lease, seconds (2.12).
const SHORTEST_LEASE: i64 = 25;
/// Who publishes is our own agents' affair, out of the way of Cilium's readers.
const ELECTION: &str = "cilium/.dataplane/";
/// The kinds that every cluster exports.
const KINDS: [&str; 4] = ["nodes", "identities", "ip", "services"];

/// All that is in an etcd.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// By key.
    pub entries: BTreeMap<String, Entry>,
    /// Granted seconds by lease.
    pub leases: BTreeMap<String, i64>,
}

/// A key's value with what etcd knows of it.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Its lease, if it has one.
    pub lease: Option<String>,
    /// Revision in which the key was made.
    pub created: i64,
    /// Revision in which it was last written.
    pub modified: i64,
}

impl Dump {
    /// What is in a running etcd now.
    pub fn of(etcd: &Etcd) -> Dump {
        let ask = |words: &[&str]| -> Value {
            let answer = etcd.ctl(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{words:?}: {e}: {answer}"))
        };
        let mut dump = Dump::default();
        for kv in ask(&["get", "", "--prefix", "-w", "json"])["kvs"].as_array().into_iter().flatten() {
            let key = String::from_utf8(json::base64(&kv["key"])).expect("keys are text");
            // etcdctl prints leases as numbers here and wants them in hexadecimal.
            let lease = kv["lease"].as_i64().map(|lease| format!("{lease:x}"));
            let entry = Entry {
                value: json::base64(&kv["value"]),
                lease,
                created: kv["create_revision"].as_i64().unwrap_or_default(),
                modified: kv["mod_revision"].as_i64().unwrap_or_default(),
            };
            dump.entries.insert(key, entry);
        }
        let leases: BTreeSet<_> = dump.entries.values().filter_map(|entry| entry.lease.clone()).collect();
        for lease in leases {
            let granted = ask(&["lease", "timetolive", &lease, "-w", "json"])["granted-ttl"].as_i64();
            dump.leases.insert(lease, granted.unwrap_or_default());
        }
        dump
    }

    /// Stages recorded from real Cilium programs (`control/tests/fixtures`), by name. Leases and
    /// revisions were not recorded: one lease has all keys.
    pub fn recorded(text: &str) -> Vec<(String, Dump)> {
        let stages: Vec<Value> = serde_json::from_str(text).expect("a list of stages");
        let mut dump = Dump { leases: BTreeMap::from([("recorded".into(), 900)]), ..Dump::default() };
        let mut recorded = Vec::new();
        for stage in &stages {
            let fields = |name: &str| stage[name].as_object().cloned().unwrap_or_default();
            let texts = fields("put")
                .into_iter()
                .map(|(key, value)| (key, value.as_str().unwrap_or_default().as_bytes().to_vec()));
            let bytes = fields("put_base64").into_iter().map(|(key, value)| (key, json::base64(&value)));
            for (key, value) in texts.chain(bytes) {
                let lease = Some("recorded".to_owned());
                dump.entries.insert(key, Entry { value, lease, created: 0, modified: 1 });
            }
            for key in stage["delete"].as_array().into_iter().flatten() {
                dump.entries.remove(key.as_str().unwrap_or_default());
            }
            recorded.push((stage["stage"].as_str().unwrap_or_default().to_owned(), dump.clone()));
        }
        recorded
    }

    /// Everything that is not as the format wants it, in words; `cluster` is whose store it is.
    pub fn faults(&self, cluster: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let Some(cluster) = self.cluster(cluster, &mut faults) else { return faults };
        for (key, entry) in &self.entries {
            let told = self.judge(&cluster, key, entry);
            faults.extend(told.err().map(|problem| format!("{key}: {problem}")));
        }
        faults.extend(self.lease_faults());
        faults.extend(self.canary_faults(&cluster));
        faults
    }

    /// Canaries that were written before data of their kind, in a store whose data has not changed
    /// since they were.
    pub fn early_canaries(&self, cluster: &str) -> Vec<String> {
        let early = |kind: &&&str| {
            let canary = self.entries.get(&canary(cluster, kind)).map_or(0, |entry| entry.modified);
            let data = self.below(&format!("cilium/state/{kind}/"));
            data.filter(|(key, _)| !key.contains("/value/")).any(|(_, entry)| entry.modified > canary)
        };
        KINDS
            .iter()
            .filter(early)
            .map(|kind| format!("the canary of {kind} is older than its data"))
            .collect()
    }

    fn below<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> + use<'a> {
        let prefix = prefix.to_owned();
        let all = self.entries.range(prefix.clone()..).map(|(key, entry)| (key.as_str(), entry));
        all.take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// What the cluster says of itself (1.5).
    fn cluster(&self, name: &str, faults: &mut Vec<String>) -> Option<Cluster> {
        let key = format!("cilium/cluster-config/{name}");
        let Some(entry) = self.entries.get(&key) else {
            faults.push(format!("{key} is missing"));
            return None;
        };
        let nodes = self.below(&format!("cilium/state/nodes/v1/{name}/"));
        match Cluster::read(name, &entry.value) {
            Ok(mut cluster) => {
                cluster.hosts = nodes.flat_map(|(_, entry)| values::node_addresses(&entry.value)).collect();
                Some(cluster)
            }
            Err(problem) => {
                faults.push(format!("{key}: {problem}"));
                None
            }
        }
    }

    fn judge(&self, cluster: &Cluster, key: &str, entry: &Entry) -> Result<(), String> {
        let own = format!("/{}/", cluster.name);
        let value = &entry.value;
        let Some((kind, rest)) = key.strip_prefix("cilium/state/").and_then(|key| key.split_once("/v1"))
        else {
            return self.judge_other(cluster, key, entry);
        };
        match (kind, rest.strip_prefix(own.as_str())) {
            ("nodes", Some(name)) => cluster.node(name, value),
            ("services", Some(name)) => cluster.service(name, value),
            ("serviceexports", Some(name)) => cluster.service_export(name, value),
            ("endpointslices", Some(name)) => values::endpoint_slice(name, value),
            ("identities", _) => self.judge_identity(cluster, rest, entry),
            ("ip", _) => {
                let name = rest.strip_prefix("/default/").ok_or("below 'default' would be right")?;
                let identity = cluster.ip(name, value)?;
                if identity < 256 {
                    return Ok(());
                }
                let master = format!("cilium/state/identities/v1/id/{identity}");
                let known = self.entries.get(&master).ok_or(format!("{master} is missing"))?;
                // A reader must find the labels before the address that has them.
                if known.created < entry.modified { Ok(()) } else { Err(format!("{master} is younger")) }
            }
            _ => Err("not a key of the format".into()),
        }
    }

    fn judge_identity(&self, cluster: &Cluster, rest: &str, entry: &Entry) -> Result<(), String> {
        if let Some(number) = rest.strip_prefix("/id/") {
            return cluster.identity(number, &entry.value);
        }
        if rest.starts_with("/locks/") {
            return Ok(());
        }
        // The labels may contain slashes, the suffix does not.
        let (labels, suffix) = rest
            .strip_prefix("/value/")
            .and_then(|rest| rest.rsplit_once('/'))
            .ok_or("neither id/NUMBER, value/LABELS/SUFFIX nor locks/LABELS/LEASE")?;
        if suffix.is_empty() {
            return Err("without a suffix that says whose use it is".into());
        }
        let number = values::text(&entry.value)?;
        let master = format!("cilium/state/identities/v1/id/{number}");
        match self.entries.get(&master) {
            Some(known) if known.value == labels.as_bytes() => Ok(()),
            Some(known) => Err(format!("{master} has the labels {}", String::from_utf8_lossy(&known.value))),
            None => Err(format!("{master} is missing")),
        }
    }

    fn judge_other(&self, cluster: &Cluster, key: &str, entry: &Entry) -> Result<(), String> {
        let synced = format!("cilium/synced/{}/cilium/state/", cluster.name);
        if key == "cilium/.heartbeat" || key.starts_with(&synced) {
            return values::time(&entry.value);
        }
        let config = format!("cilium/cluster-config/{}", cluster.name);
        let others = [config.as_str(), "cilium/.initlock/", ELECTION];
        match others.iter().any(|known| key.starts_with(known)) {
            true => Ok(()),
            false => Err("not a key of the format".into()),
        }
    }

    fn lease_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut carried: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, entry) in self.entries.iter().filter(|(key, _)| !key.starts_with(ELECTION)) {
            match &entry.lease {
                Some(lease) => *carried.entry(lease).or_default() += 1,
                // Numbers must not be given to others while somebody is away.
                None if key.starts_with("cilium/state/identities/v1/id/") => {}
                None => faults.push(format!("{key}: without a lease it outlives its owner")),
            }
        }
        for (lease, keys) in carried {
            if keys > KEYS_PER_LEASE {
                faults.push(format!("lease {lease}: {keys} keys; at most {KEYS_PER_LEASE} would be right"));
            }
            let granted = self.leases.get(lease).copied().unwrap_or_default();
            if granted < SHORTEST_LEASE {
                faults.push(format!("lease {lease}: {granted} s; at least {SHORTEST_LEASE} would be right"));
            }
        }
        faults
    }

    /// A cluster that promises canaries has one of each kind it exports (1.5, 2.11).
    fn canary_faults(&self, cluster: &Cluster) -> Vec<String> {
        let promised = if cluster.canaries { cluster.kinds() } else { vec![] };
        let missing = |kind: &&'static str| !self.entries.contains_key(&canary(&cluster.name, kind));
        promised.into_iter().filter(missing).map(|kind| format!("no canary of {kind}")).collect()
    }
}

fn canary(cluster: &str, kind: &str) -> String {
    format!("cilium/synced/{cluster}/cilium/state/{kind}/v1")
}

/// Compiles a pattern of this module.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}
