//! Joining two clusters and parting them: each gets the file by which its agents find the other one,
//! and the certificates that this file names.

use super::Error;
use super::client::Connection;
use super::files::{self, Change};
use crate::mesh::config::{self, ClientConfig};
use crate::mesh::keys;
use crate::records::{ClusterConfig, from_json};
use serde_norway::{Mapping, Value};
use std::path::{Path, PathBuf};

/// One of the two clusters.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// The directory that its agents have as `--clustermesh-config`.
    pub directory: PathBuf,
}

/// Keys of a client configuration that name files, and what these are called beside it, as
/// Cilium's own tools call them.
const FILES: [(&str, &str, u32); 3] = [
    ("trusted-ca-file", "etcd-client-ca.crt", 0o644),
    ("cert-file", "etcd-client.crt", 0o644),
    ("key-file", "etcd-client.key", 0o600),
];

/// Joins two clusters. Each comes with the client configuration by which others reach its etcd; both
/// etcds are asked who they are before anything is written. Returns the files that were changed, or,
/// in a dry run, would be.
///
/// # Errors
/// Names, ids, files or etcds are not right, or a file cannot be written; nothing is changed then.
pub async fn connect(sides: [(&Side, &Path); 2], dry_run: bool) -> Result<Vec<PathBuf>, Error> {
    let [left, right] = sides;
    check([left.0, right.0])?;
    let ids = [identify(left.0, left.1).await?, identify(right.0, right.1).await?];
    if ids[0] == ids[1] {
        return Err(Error(format!(
            "clusters {} and {} both have id {}: give every cluster of the mesh its own --cluster-id",
            left.0.name, right.0.name, ids[0]
        )));
    }
    let mut changes = introduce(left.0, right)?;
    changes.extend(introduce(right.0, left)?);
    changes.retain(|change| !is_so(change));
    if !dry_run {
        files::apply(&changes)?;
    }
    Ok(paths(&changes))
}

/// Parts two clusters: removes what [`connect`] writes. Returns the files that were removed, or, in
/// a dry run, would be.
///
/// # Errors
/// Neither knows the other one, or a file cannot be removed; nothing is changed then.
pub fn disconnect(sides: [&Side; 2], dry_run: bool) -> Result<Vec<PathBuf>, Error> {
    check(sides)?;
    let [left, right] = sides;
    let mut changes = Vec::new();
    for (at, other) in [(left, right), (right, left)] {
        let certificates = FILES.map(|(_, ending, _)| format!("{}.{ending}", other.name));
        // First what agents look at, so that they never miss a certificate of it.
        for file in std::iter::once(other.name.clone()).chain(certificates) {
            changes.push(Change::Remove { path: at.directory.join(file) });
        }
    }
    changes.retain(|change| change.path().symlink_metadata().is_ok());
    if changes.is_empty() {
        return Err(Error(format!(
            "clusters {} and {} are not connected: there is neither {} nor {}",
            left.name,
            right.name,
            left.directory.join(&right.name).display(),
            right.directory.join(&left.name).display()
        )));
    }
    if !dry_run {
        files::apply(&changes)?;
    }
    Ok(paths(&changes))
}

fn paths(changes: &[Change]) -> Vec<PathBuf> {
    changes.iter().map(|change| change.path().into()).collect()
}

fn check(sides: [&Side; 2]) -> Result<(), Error> {
    for side in sides {
        config::check_cluster_name(&side.name).map_err(Error)?;
        let shown = side.directory.display();
        if !side.directory.is_dir() {
            return Err(Error(format!("{shown}: not a directory: agents of {} watch one", side.name)));
        }
        if side.directory.join("..data").exists() {
            return Err(Error(format!(
                "{shown}: a mounted Secret or ConfigMap, whose files Kubernetes writes: change that object"
            )));
        }
    }
    let [left, right] = sides;
    if left.name == right.name {
        return Err(Error(format!("both clusters are called {}: names are unique in a mesh", left.name)));
    }
    if left.directory.canonicalize().ok() == right.directory.canonicalize().ok() {
        return Err(Error(format!("{}: both clusters have this directory", left.directory.display())));
    }
    Ok(())
}

/// The id of a cluster, from its etcd.
async fn identify(side: &Side, file: &Path) -> Result<u32, Error> {
    let about =
        |what: String| Error(format!("cluster {}: etcd of {}: {what}", side.name, file.display())).advised();
    let config = ClientConfig::read(file)?;
    let connection = Connection::open(&config).await.map_err(|error| about(error.to_string()))?;
    let key = keys::cluster_config(&side.name);
    let value = connection.value(&key).await.map_err(|error| about(format!("{key}: {error}")))?;
    let value = value.ok_or_else(|| {
        about(format!("{key} is missing: is this its name, and has one of its agents run with this etcd?"))
    })?;
    let config: ClusterConfig = from_json(&value).map_err(|error| about(format!("{key}: {error}")))?;
    config::check_cluster_config(&side.name, &config).map_err(about)?;
    Ok(config.id)
}

/// What tells the agents of one cluster about the other one. Certificates come first: the
/// configuration that names them must not be there before them.
fn introduce(to: &Side, (other, file): (&Side, &Path)) -> Result<Vec<Change>, Error> {
    let about = |key: &str, what: &dyn std::fmt::Display| Error(format!("{}: {key}{what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| about("", &error))?;
    let mut yaml: Mapping = serde_norway::from_str(&text).map_err(|error| about("", &error))?;
    let directory = std::path::absolute(&to.directory).map_err(|error| about("", &error))?;
    let mut changes = Vec::new();
    for (key, ending, mode) in FILES {
        let Some(Value::String(from)) = yaml.get(key) else { continue };
        let content = std::fs::read(from).map_err(|error| about(&format!("{key}: '{from}': "), &error))?;
        let path = directory.join(format!("{}.{ending}", other.name));
        yaml.insert(key.into(), path.display().to_string().into());
        changes.push(Change::Write { path, content, mode });
    }
    let content = serde_norway::to_string(&yaml).map_err(|error| about("", &error))?.into_bytes();
    // There may be a password in it.
    changes.push(Change::Write { path: directory.join(&other.name), content, mode: 0o600 });
    Ok(changes)
}

fn is_so(change: &Change) -> bool {
    matches!(change, Change::Write { path, content, .. }
        if std::fs::read(path).is_ok_and(|there| there == *content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_introduction_brings_its_certificates_and_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("ca", "C"), ("cert", "D"), ("key", "K")] {
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir(at("mesh")).unwrap();
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| at(name).display().to_string());
        let yaml = format!(
            "endpoints: ['https://a:1']\ntrusted-ca-file: {ca}\ncert-file: {cert}\nkey-file: {key}\nx-unknown: 1\n"
        );
        fs::write(at("east.yaml"), yaml).unwrap();
        let to = Side { name: "west".into(), directory: at("mesh") };
        let other = Side { name: "east".into(), directory: at("elsewhere") };
        let changes = introduce(&to, (&other, &at("east.yaml"))).unwrap();
        files::apply(&changes).unwrap();
        let read = |name: &str| fs::read_to_string(at("mesh").join(name)).unwrap();
        assert_eq!([read("east.etcd-client-ca.crt"), read("east.etcd-client.key")], ["C", "K"]);
        let mesh = at("mesh").display().to_string();
        assert_eq!(
            read("east"),
            format!(
                "endpoints:\n- https://a:1\ntrusted-ca-file: {mesh}/east.etcd-client-ca.crt\n\
                 cert-file: {mesh}/east.etcd-client.crt\nkey-file: {mesh}/east.etcd-client.key\nx-unknown: 1\n"
            )
        );
        assert!(changes.iter().all(is_so));
        ClientConfig::read(&at("mesh/east")).unwrap();

        fs::remove_file(at("key")).unwrap();
        let error = introduce(&to, (&other, &at("east.yaml"))).unwrap_err().to_string();
        assert!(error.contains("key-file: '") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn sides_must_differ_and_be_directories_of_files() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let side = |name: &str, dir: &Path| Side { name: name.into(), directory: dir.into() };
        let error = |left: Side, right: Side| disconnect([&left, &right], false).unwrap_err().to_string();
        let [l, r] = [left.path(), right.path()];
        assert!(error(side("east", l), side("east", r)).contains("both clusters are called east"));
        assert!(error(side("east", l), side("west", l)).contains("both clusters have this directory"));
        assert!(error(side("East", l), side("west", r)).contains("'East'"));
        assert!(error(side("east", &l.join("x")), side("west", r)).contains("not a directory"));
        assert!(error(side("east", l), side("west", r)).contains("are not connected"));
        fs::create_dir(r.join("..data")).unwrap();
        assert!(error(side("east", l), side("west", r)).contains("a mounted Secret"));
    }
}
