//! Users, roles and permissions of a cluster's etcd, as clustermesh-apiserver sets them up
//! (`cilium-interop` 2.13): users have no password, a client certificate's common name says who it is.

use super::Error;
use super::client::{Connection, end_of, timed};
use super::tls::Material;
use crate::mesh::config::{self, ClientConfig};
use crate::mesh::keys;
use crate::records::{ClusterConfig, from_json};
use etcd_client::{
    AuthClient, GetOptions, Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions,
};
use std::path::Path;

/// What an etcd is to be set up for.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Client configuration of the etcd, with a certificate of `root` or `admin-CLUSTER`.
    pub kvstore_config: &'a Path,
    /// Name of the cluster that it belongs to.
    pub cluster: &'a str,
    /// Id of the cluster, 1–255.
    pub id: u8,
    /// Remote clusters that get a user of their own.
    pub remotes: &'a [String],
}

/// A range of keys that a role may read; one key if it has no end.
#[derive(Clone, Debug, PartialEq)]
struct Range {
    from: String,
    end: Vec<u8>,
}

/// Prefixes below which a cluster's name is the next part of a key.
const BY_CLUSTER: [&str; 2] = ["cilium/state/nodes/v1/", "cilium/state/services/v1/"];
/// The role that may do everything.
const ROOT: &str = "root";
/// The role that agents of other clusters have.
pub(super) const REMOTE: &str = "remote";
/// The role of readers of kvstoremesh's cache.
const LOCAL: &str = "local";

impl Range {
    fn key(key: String) -> Range {
        Range { from: key, end: Vec::new() }
    }

    fn prefix(prefix: impl Into<String>) -> Range {
        let from = prefix.into();
        Range { end: end_of(&from), from }
    }

    fn is(&self, permission: &Permission) -> bool {
        permission.get_type() == PermissionType::Read as i32
            && permission.key() == self.from.as_bytes()
            && permission.range_end() == self.end
    }
}

fn roles(cluster: &str) -> [(&'static str, Vec<Range>); 2] {
    let local = [keys::HEARTBEAT, "cilium/cache/", keys::CLUSTER_CONFIGS, "cilium/synced/"];
    let remote = vec![
        Range::prefix(keys::HEARTBEAT),
        Range::prefix("cilium/state/"),
        Range::key(keys::cluster_config(cluster)),
        Range::prefix(keys::canaries(cluster)),
    ];
    [(LOCAL, local.map(Range::prefix).into()), (REMOTE, remote)]
}

fn users(cluster: &str, remotes: &[String]) -> Vec<(String, &'static str)> {
    let remotes = remotes.iter().map(|name| (format!("remote-{name}"), REMOTE));
    let own = [
        (ROOT.to_owned(), ROOT),
        (admin(cluster), ROOT),
        (format!("local-{cluster}"), LOCAL),
        (REMOTE.to_owned(), REMOTE),
    ];
    own.into_iter().chain(remotes).collect()
}

/// The user that a cluster's own agents are.
fn admin(cluster: &str) -> String {
    format!("admin-{cluster}")
}

/// Sets up users and roles and turns authentication on; what is right already stays. Returns what
/// it did in words, nothing if there was nothing to do.
///
/// # Errors
/// The etcd belongs to another cluster, does not answer or refuses; or its clients would be locked
/// out, as it is not reached with the certificate of an administrator.
pub async fn init(setup: &Setup<'_>) -> Result<Vec<String>, Error> {
    for name in setup.remotes.iter().map(String::as_str).chain([setup.cluster]) {
        config::check_cluster_name(name).map_err(Error)?;
    }
    if setup.remotes.iter().any(|name| name == setup.cluster) {
        return Err(Error(format!("'{}' is this cluster, not a remote one", setup.cluster)));
    }
    let config = ClientConfig::read(setup.kvstore_config)?;
    let user = administrator(setup, &config)?;
    let connection = Connection::open(&config).await?;
    let on = connection.requires_authentication().await?;
    belongs(&connection, setup).await?;
    let mut done = Vec::new();
    let auth = &mut connection.auth();
    for (role, ranges) in roles(setup.cluster) {
        set_role(auth, role, &ranges, &mut done).await?;
    }
    for (user, role) in users(setup.cluster, setup.remotes) {
        set_user(auth, &user, role, &mut done).await?;
    }
    if !on {
        timed(auth.auth_enable()).await?;
        done.push("turned authentication on".into());
    }
    let again = Connection::open(&config).await?;
    timed(again.auth().user_get(&user)).await.map_err(|error| {
        Error(format!(
            "authentication is on, but etcd does not take the certificate for user {user} ({error}): \
             start etcd with --client-cert-auth"
        ))
    })?;
    Ok(done)
}

/// The user that the client certificate is for, if it may set up an etcd.
fn administrator(setup: &Setup<'_>, config: &ClientConfig) -> Result<String, Error> {
    let file = setup.kvstore_config.display();
    let admin = admin(setup.cluster);
    let wanted =
        format!("users are told apart by certificate: use cert-file and key-file of '{admin}' or '{ROOT}'");
    let Some(tls) = &config.tls else {
        return Err(Error(format!("{file}: endpoints: {}: {wanted}, with https", config.endpoints[0].url)));
    };
    if let Some((name, _)) = &config.user {
        return Err(Error(format!("{file}: username: '{name}': {wanted} instead")));
    }
    match Material::load(setup.kvstore_config, tls)?.client.first() {
        None => Err(Error(format!("{file}: cert-file: missing; {wanted}"))),
        Some(certificate) if [ROOT, &admin].contains(&certificate.common_name.as_str()) => {
            Ok(certificate.common_name.clone())
        }
        Some(certificate) => Err(Error(format!(
            "{file}: cert-file: common name '{}' would be locked out once authentication is on; {wanted}",
            certificate.common_name
        ))),
    }
}

/// Refuses an etcd that another cluster uses.
async fn belongs(connection: &Connection, setup: &Setup<'_>) -> Result<(), Error> {
    let refusal = |what: String| {
        Err(Error(format!(
            "this etcd belongs to another cluster: {what}; give cluster {} one of its own",
            setup.cluster
        )))
    };
    let users = timed(connection.auth().user_list()).await?;
    let admins = users.users().iter().filter_map(|user| user.strip_prefix("admin-"));
    if let Some(other) = admins.into_iter().find(|name| *name != setup.cluster) {
        return refusal(format!("it has the user admin-{other}"));
    }
    let configs = connection.get(keys::CLUSTER_CONFIGS, GetOptions::new().with_prefix()).await?;
    for kv in configs.kvs() {
        let key = String::from_utf8_lossy(kv.key());
        let config: ClusterConfig = from_json(kv.value()).unwrap_or_default();
        let own = key == keys::cluster_config(setup.cluster);
        if own && config.id != u32::from(setup.id) {
            return refusal(format!("{key} has id {}, not {}", config.id, setup.id));
        }
        // What kvstoremesh has copied here is of other clusters by its nature.
        if !own && !config.capabilities.cached {
            return refusal(format!("it has {key}"));
        }
    }
    for prefix in BY_CLUSTER {
        let own = format!("{prefix}{}/", setup.cluster);
        for (from, end) in
            [(prefix.as_bytes().to_vec(), own.clone().into_bytes()), (end_of(&own), end_of(prefix))]
        {
            let options = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
            let found = timed(connection.kv().get(from, Some(options))).await?;
            if let Some(kv) = found.kvs().first() {
                return refusal(format!("it has {}", String::from_utf8_lossy(kv.key())));
            }
        }
    }
    Ok(())
}

/// Makes a role read exactly these ranges.
async fn set_role(
    auth: &mut AuthClient,
    role: &str,
    ranges: &[Range],
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let known = timed(auth.role_list()).await?;
    let before = if known.roles().iter().any(|name| name == role) {
        timed(auth.role_get(role)).await?.permissions()
    } else {
        timed(auth.role_add(role)).await?;
        done.push(format!("added role {role}"));
        Vec::new()
    };
    for extra in before.iter().filter(|permission| !ranges.iter().any(|range| range.is(permission))) {
        let options = RoleRevokePermissionOptions::new().with_range_end(extra.range_end());
        timed(auth.role_revoke_permission(role, extra.key(), Some(options))).await?;
        done.push(format!("role {role}: took back {}", String::from_utf8_lossy(extra.key())));
    }
    for range in ranges.iter().filter(|range| !before.iter().any(|permission| range.is(permission))) {
        let permission = Permission::read(range.from.as_str()).with_range_end(range.end.clone());
        timed(auth.role_grant_permission(role, permission)).await?;
        let kind = if range.end.is_empty() { "key" } else { "prefix" };
        done.push(format!("role {role}: may read {kind} {}", range.from));
    }
    Ok(())
}

/// Makes sure that there is a user with a role.
async fn set_user(
    auth: &mut AuthClient,
    user: &str,
    role: &str,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let known = timed(auth.user_list()).await?;
    if !known.users().iter().any(|name| name == user) {
        let options = UserAddOptions::new().with_no_pwd();
        timed(auth.user_add(user, "", Some(options))).await?;
        done.push(format!("added user {user}"));
    }
    if !timed(auth.user_get(user)).await?.roles().iter().any(|name| name == role) {
        timed(auth.user_grant_role(user, role)).await?;
        done.push(format!("user {user}: has role {role}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As clustermesh-apiserver grants them.
    #[test]
    fn ranges_are_exact() {
        let [(_, local), (_, remote)] = roles("east");
        let text = |ranges: Vec<Range>| -> Vec<String> {
            let range = |range: Range| format!("[{}, {})", range.from, String::from_utf8(range.end).unwrap());
            ranges.into_iter().map(range).collect()
        };
        assert_eq!(
            text(local),
            [
                "[cilium/.heartbeat, cilium/.heartbeau)",
                "[cilium/cache/, cilium/cache0)",
                "[cilium/cluster-config/, cilium/cluster-config0)",
                "[cilium/synced/, cilium/synced0)"
            ]
        );
        assert_eq!(
            text(remote),
            [
                "[cilium/.heartbeat, cilium/.heartbeau)",
                "[cilium/state/, cilium/state0)",
                "[cilium/cluster-config/east, )",
                "[cilium/synced/east/, cilium/synced/east0)"
            ]
        );
    }
}
