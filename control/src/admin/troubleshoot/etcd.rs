//! What an etcd and the cluster that it belongs to must be like, once it answers.

use super::{Finding, Own, Target};
use crate::admin::Error;
use crate::admin::access::REMOTE;
use crate::admin::client::{Connection, timed};
use crate::admin::probe::Trouble;
use crate::admin::tls::Material;
use crate::mesh::config::{self, ClientConfig};
use crate::mesh::keys::{self, Kind, Layout};
use crate::records::{Capabilities, ClusterConfig, from_json};
use etcd_client::GetOptions;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A heartbeat within this time is a living publisher's: it writes one each minute.
const BEAT: SignedDuration = SignedDuration::from_secs(90);
/// How long an older heartbeat is waited for, in case only the clocks differ.
const BEAT_WAIT: Duration = Duration::from_secs(70);
/// Pause between looks at it.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of an etcd that can be talked to.
pub(super) struct Store {
    pub(super) connection: Connection,
    config: Option<ClusterConfig>,
}

impl Store {
    fn can(&self) -> Capabilities {
        self.config.as_ref().map(|config| config.capabilities.clone()).unwrap_or_default()
    }

    fn layout(&self) -> Layout {
        if self.can().cached { Layout::Cache } else { Layout::State }
    }

    /// What a reader follows.
    fn kinds(&self) -> [Kind; 4] {
        [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::services_of(&self.can())]
    }

    /// The clusters that have said what they are, as far as that may be read.
    async fn other_configs(&self) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let answer = self.connection.get(keys::CLUSTER_CONFIGS, options).await;
        let kvs = answer.map(|mut answer| answer.take_kvs()).unwrap_or_default();
        kvs.iter().map(|kv| String::from_utf8_lossy(kv.key()).into_owned()).collect()
    }
}

pub(super) async fn authenticate(
    target: &Target,
    config: &ClientConfig,
    material: Option<&Material>,
) -> Result<(Connection, Finding), Trouble> {
    let file = target.file.display();
    let wrong = |what: String, fix: String| Err(Trouble { what, fix });
    let client = material.and_then(|material| material.client.first());
    let connection = match Connection::open(config).await {
        Ok(connection) => connection,
        Err(error) => {
            let fix = match &config.user {
                Some((name, _)) => format!("correct username '{name}' and password in {file}"),
                None => "look whether etcd is healthy: it listens, but does not answer".into(),
            };
            return wrong(error.to_string(), fix);
        }
    };
    match connection.requires_authentication().await {
        Err(error) => return wrong(error.to_string(), "look whether etcd is healthy".into()),
        Ok(false) => return Ok((connection, "etcd asks nobody who they are".to_owned().into())),
        Ok(true) => {}
    }
    let name = config.user.as_ref().map(|(name, _)| name.as_str());
    let Some(user) = name.or(client.map(|client| client.common_name.as_str())) else {
        let fix = format!("add cert-file and key-file of one of its users to {file}, as `{REMOTE}`");
        return wrong("etcd wants to know who asks".into(), fix);
    };
    let error = match timed(connection.auth().user_get(user)).await {
        Ok(answer) => {
            let roles = answer.roles().join(", ");
            return Ok((connection, format!("user {user} with role {roles}").into()));
        }
        Err(error) => error.to_string(),
    };
    if error.contains("user name not found") {
        let init = user
            .strip_prefix("remote-")
            .map(|name| format!("`dataplane clustermesh init … --remote {name}`, or "));
        let fix = format!(
            "add it to that etcd: {}`etcdctl user add {user} --no-password` and `etcdctl user grant-role {user} {REMOTE}`",
            init.unwrap_or_default()
        );
        return wrong(format!("etcd has no user '{user}'"), fix);
    }
    if error.contains("user name is empty") {
        return wrong(
            "etcd does not take the certificate's common name for a user".into(),
            "start etcd with --client-cert-auth, or add username and password".into(),
        );
    }
    wrong(format!("user '{user}': {error}"), "have an administrator look at `etcdctl user get` there".into())
}

/// Reads every range once that an agent reads, and what the cluster says of itself.
pub(super) async fn permissions(
    target: &Target,
    connection: Connection,
) -> Result<(Store, Finding), Trouble> {
    let cluster = &target.cluster;
    let config_key = keys::cluster_config(cluster);
    let config = connection.value(&config_key).await;
    let known = config.as_ref().ok().and_then(|value| from_json(value.as_ref()?).ok());
    let store = Store { connection, config: known };
    let mut denied = Vec::new();
    let mut judge = |what: String, error: Option<Error>| match error {
        Some(error) if error.to_string().contains("permission denied") => {
            denied.push(what);
            Ok(())
        }
        Some(error) => Err(Trouble {
            what: format!("{what}: {error}"),
            fix: "look whether etcd is healthy: it answers only in part".into(),
        }),
        None => Ok(()),
    };
    judge(config_key, config.err())?;
    let ranges = [keys::HEARTBEAT.to_owned(), keys::canaries(cluster)];
    let data = store.kinds().map(|kind| keys::prefix(kind, store.layout(), cluster));
    let ranges: Vec<String> = ranges.into_iter().chain(data).collect();
    for range in &ranges {
        let options = GetOptions::new().with_prefix().with_keys_only().with_limit(1);
        judge(range.clone(), store.connection.get(range, options).await.err())?;
    }
    match denied.is_empty() {
        true => Ok((store, format!("{} ranges of keys can be read", ranges.len() + 1).into())),
        false => Err(Trouble {
            what: format!("may not read {}", denied.join(", ")),
            fix: format!(
                "let role {REMOTE} of that etcd read them: `dataplane clustermesh init --cluster-name \
                 {cluster} …` does, as does `etcdctl role grant-permission --prefix {REMOTE} read KEY`"
            ),
        }),
    }
}

pub(super) async fn cluster_config(
    target: &Target,
    own: &Own,
    store: &Store,
    ids: &mut BTreeMap<u32, String>,
) -> Result<((), Finding), Trouble> {
    let cluster = &target.cluster;
    let key = keys::cluster_config(cluster);
    let wrong = |what: String, fix: String| Err(Trouble { what, fix });
    let value = store.connection.value(&key).await;
    let value = value
        .map_err(|error| Trouble { what: error.to_string(), fix: "look whether etcd is healthy".into() })?;
    let Some(value) = value else {
        let others = store.other_configs().await;
        let there = if others.is_empty() { "" } else { ", but there is " };
        return wrong(
            format!("{key} is missing{there}{}", others.join(", ")),
            format!(
                "start an agent of cluster {cluster} on that etcd; if the cluster has another name, name \
                 {} like it",
                target.file.display()
            ),
        );
    };
    let config: ClusterConfig = match from_json(&value) {
        Ok(config) => config,
        Err(error) => {
            let text = String::from_utf8_lossy(&value);
            return wrong(
                format!("{key} is '{text}': {error}"),
                format!("have whoever publishes cluster {cluster} write it anew: restart it"),
            );
        }
    };
    if let Err(what) = config::check_cluster_config(cluster, &config) {
        return wrong(what, format!("run cluster {cluster} with settings that this mesh supports"));
    }
    let other = match own.id == u8::try_from(config.id).ok() {
        true => Some(own.name.as_deref().unwrap_or("this cluster")),
        false => ids.get(&config.id).map(String::as_str),
    };
    if let Some(other) = other {
        return wrong(
            format!("cluster {cluster} has id {}, which {other} has too", config.id),
            "give every cluster of the mesh an id of its own: --cluster-id".into(),
        );
    }
    ids.insert(config.id, cluster.clone());
    let cached = if config.capabilities.cached { ", a copy by kvstoremesh" } else { "" };
    Ok(((), format!("id {}{cached}", config.id).into()))
}

pub(super) async fn canaries(target: &Target, store: &Store) -> Result<((), Finding), Trouble> {
    if !store.can().synced_canaries {
        return Ok(((), "none are written: everything is read at once".to_owned().into()));
    }
    let (mut missing, mut there) = (Vec::new(), Vec::new());
    for kind in store.kinds() {
        let key = keys::canary(&target.cluster, kind, store.layout());
        match store.connection.value(&key).await {
            Ok(Some(_)) => there.push(kind.name()),
            Ok(None) => missing.push(key),
            Err(error) => {
                let fix = "look whether etcd is healthy".into();
                return Err(Trouble { what: format!("{key}: {error}"), fix });
            }
        }
    }
    match missing.is_empty() {
        true => Ok(((), there.join(", ").into())),
        false => Err(Trouble {
            what: format!("missing: {}", missing.join(", ")),
            fix: format!(
                "whoever publishes cluster {} writes them once it has written everything: look at its \
                 status and log",
                target.cluster
            ),
        }),
    }
}

/// Whether the publisher lives. Clocks may differ, so an old heartbeat gets the time to change.
pub(super) async fn heartbeat(connection: &Connection) -> Result<((), Finding), Trouble> {
    let began = Instant::now();
    let mut first = None;
    loop {
        let answer = connection.get(keys::HEARTBEAT, GetOptions::new()).await;
        let answer = answer.map_err(|error| Trouble {
            what: error.to_string(),
            fix: "look whether etcd is healthy".into(),
        })?;
        let kv = answer.kvs().first();
        let text = kv.map(|kv| String::from_utf8_lossy(kv.value()).into_owned());
        let age = text.as_ref().and_then(|text| text.parse().ok());
        let age = age.map(|at: Timestamp| at.duration_until(Timestamp::now()));
        if let Some(age) = age.filter(|age| age.abs() <= BEAT) {
            return Ok(((), format!("{} s ago", age.as_secs().max(0)).into()));
        }
        let revision = kv.map(|kv| kv.mod_revision());
        match first {
            Some(before) if before != revision => {
                let by = age.map_or(String::new(), |age| format!(": its clock and ours differ by {age:#}"));
                return Ok(((), format!("advances{by}").into()));
            }
            _ => first = Some(revision),
        }
        if began.elapsed() > BEAT_WAIT {
            let what = match text {
                Some(text) => format!("{} is '{text}' and does not advance", keys::HEARTBEAT),
                None => format!("{} is missing", keys::HEARTBEAT),
            };
            let fix = "whoever publishes that cluster writes it each minute: look whether it runs".into();
            return Err(Trouble { what, fix });
        }
        sleep(LOOK).await;
    }
}
