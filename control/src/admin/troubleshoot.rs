//! What keeps a remote cluster away: everything that a connection needs, in order, up to the first
//! thing that is wrong, with what to do about it.

use super::Error;
use super::probe::{self, Found, Trouble};
use super::tls::Material;
use crate::mesh::config::{self, ClientConfig, Endpoint};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod etcd;

/// A certificate that ends sooner is worth a warning.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A remote cluster to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name.
    pub cluster: String,
    /// Its client configuration.
    pub file: PathBuf,
}

/// Whose troubles they are: what remote clusters must differ from.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Name of this cluster, if known.
    pub name: Option<String>,
    /// Id of this cluster, if known.
    pub id: Option<u8>,
}

/// What was found of one remote cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub cluster: String,
    /// Its client configuration.
    pub file: PathBuf,
    /// Nothing is wrong.
    pub ok: bool,
    /// What was looked at, up to the first thing that is wrong.
    pub steps: Vec<Step>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// `config`, `client-certificate`, `dns`, `tcp`, `tls`, `authentication`, `permissions`,
    /// `cluster-config`, `canaries` or `heartbeat`.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but not well or not for long.
    Warning,
    /// It does not work.
    Failed,
}

/// The remote clusters that are configured in a directory, or those of them that are named.
///
/// # Errors
/// The directory cannot be read, has no configuration, or not one that is named.
pub fn targets(directory: &Path, names: &[String], own: Option<&str>) -> Result<Vec<Target>, Error> {
    let wrong = |what: String| Error(format!("{}: {what}", directory.display()));
    let entries = directory.read_dir().map_err(|error| wrong(error.to_string()))?;
    let mut all = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| wrong(error.to_string()))?.path();
        let cluster = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = file.is_file().then(|| std::fs::read_to_string(&file).ok()).flatten();
        if text.is_some_and(|text| text.contains(config::MARK)) && Some(cluster.as_str()) != own {
            all.push(Target { cluster, file });
        }
    }
    all.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    if all.is_empty() {
        return Err(wrong(format!("no file in it has '{}': no remote cluster is configured", config::MARK)));
    }
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|target| target.cluster == **name)) {
        let known: Vec<_> = all.iter().map(|target| target.cluster.as_str()).collect();
        return Err(wrong(format!("'{unknown}' is not configured in it; there is {}", known.join(", "))));
    }
    all.retain(|target| names.is_empty() || names.contains(&target.cluster));
    Ok(all)
}

/// Looks at remote clusters one after the other; `seen` hears of every step when it is done.
pub async fn troubleshoot(
    targets: &[Target],
    own: &Own,
    mut seen: impl FnMut(&Target, &Step),
) -> Vec<Report> {
    let mut ids = BTreeMap::new();
    let mut reports = Vec::new();
    for target in targets {
        let mut examination = Examination { target, own, steps: Vec::new(), seen: &mut seen };
        let ok = examination.run(&mut ids).await.is_ok();
        let steps = examination.steps;
        reports.push(Report { cluster: target.cluster.clone(), file: target.file.clone(), ok, steps });
    }
    reports
}

struct Examination<'a> {
    target: &'a Target,
    own: &'a Own,
    steps: Vec<Step>,
    seen: &'a mut dyn FnMut(&Target, &Step),
}

/// What comes next would fail too.
struct Stop;

impl Examination<'_> {
    async fn run(&mut self, ids: &mut BTreeMap<u32, String>) -> Result<(), Stop> {
        let read = self.read();
        let (mut config, material) = self.note("config", read)?;
        let certificate = certificate(material.as_ref());
        self.note("client-certificate", certificate)?;
        let endpoints = config.endpoints.clone();
        let resolved =
            join_all(endpoints.iter().map(async |endpoint| (endpoint, probe::resolve(endpoint).await)));
        let resolved = self.note_all("dns", resolved.await)?;
        let reached = join_all(
            resolved
                .into_iter()
                .map(async |(endpoint, addresses)| (endpoint, probe::reach(&addresses).await)),
        );
        let reached = self.note_all("tcp", reached.await)?;
        let mut secured = Vec::new();
        for (endpoint, stream) in reached {
            secured.push((endpoint, probe::secure(endpoint, stream, material.as_ref()).await));
        }
        let secured = self.note_all("tls", secured)?;
        config.endpoints = secured.into_iter().map(|(endpoint, ())| endpoint.clone()).collect();
        let authenticated = etcd::authenticate(self.target, &config, material.as_ref()).await;
        let connection = self.note("authentication", authenticated)?;
        let permitted = etcd::permissions(self.target, connection).await;
        let store = self.note("permissions", permitted)?;
        let configured = etcd::cluster_config(self.target, self.own, &store, ids).await;
        self.note("cluster-config", configured)?;
        let canaries = etcd::canaries(self.target, &store).await;
        self.note("canaries", canaries)?;
        let heartbeat = etcd::heartbeat(&store.connection).await;
        self.note("heartbeat", heartbeat)
    }

    fn push(&mut self, name: &'static str, state: State, detail: String, fix: Option<String>) {
        let step = Step { name, state, detail, fix };
        (self.seen)(self.target, &step);
        self.steps.push(step);
    }

    fn note<T>(&mut self, name: &'static str, found: Result<(T, Finding), Trouble>) -> Result<T, Stop> {
        match found {
            Ok((value, Finding { detail, warning })) => {
                let state = if warning.is_some() { State::Warning } else { State::Ok };
                self.push(name, state, detail, warning);
                Ok(value)
            }
            Err(Trouble { what, fix }) => {
                self.push(name, State::Failed, what, Some(fix));
                Err(Stop)
            }
        }
    }

    /// Goes on with the endpoints that are fine, if there is one.
    fn note_all<'e, T>(
        &mut self,
        name: &'static str,
        tried: Vec<(&'e Endpoint, Found<T>)>,
    ) -> Result<Vec<(&'e Endpoint, T)>, Stop> {
        let (mut fine, mut details, mut fix) = (Vec::new(), Vec::new(), None);
        for (endpoint, found) in tried {
            match found {
                Ok((value, detail)) => {
                    details.push(detail);
                    fine.push((endpoint, value));
                }
                Err(trouble) => {
                    details.push(trouble.what);
                    fix.get_or_insert(trouble.fix);
                }
            }
        }
        let detail = details.join("; ");
        let found = match (fine.is_empty(), fix) {
            (true, fix) => Err(Trouble { what: detail, fix: fix.unwrap_or_default() }),
            (false, warning) => Ok((fine, Finding { detail, warning })),
        };
        self.note(name, found)
    }

    fn read(&self) -> Result<((ClientConfig, Option<Material>), Finding), Trouble> {
        let file = &self.target.file;
        let trouble = |error: String| Trouble { what: error, fix: format!("correct {}", file.display()) };
        config::check_cluster_name(&self.target.cluster).map_err(|what| Trouble {
            what,
            fix: "name the file like the remote cluster, whose agents have it from --cluster-name".into(),
        })?;
        let config = ClientConfig::read(file).map_err(|error| trouble(error.to_string()))?;
        let material = config.tls.as_ref().map(|tls| Material::load(file, tls)).transpose();
        let material = material.map_err(|error| trouble(error.to_string()))?;
        let urls: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        let detail = format!("{}: {}", file.display(), urls.join(", "));
        Ok(((config, material), detail.into()))
    }
}

/// Something that works.
struct Finding {
    detail: String,
    /// What to do before it does not any more.
    warning: Option<String>,
}

impl From<String> for Finding {
    fn from(detail: String) -> Finding {
        Finding { detail, warning: None }
    }
}

/// Looks at the client's certificate before a server does.
fn certificate(material: Option<&Material>) -> Result<((), Finding), Trouble> {
    let Some(client) = material.and_then(|material| material.client.first()) else {
        return Ok(((), "none".to_owned().into()));
    };
    let left = Timestamp::now().duration_until(client.not_after);
    if left.is_negative() {
        return Err(Trouble {
            what: format!("'{}' expired at {}", client.subject, client.not_after),
            fix: format!("renew cert-file with '{}'", client.issuer),
        });
    }
    if Timestamp::now() < client.not_before {
        return Err(Trouble {
            what: format!("'{}' is not valid before {}", client.subject, client.not_before),
            fix: "set the clocks of this node and of the CA right".into(),
        });
    }
    let detail = format!("{}, issued by {}, valid until {}", client.subject, client.issuer, client.not_after);
    let warning = (left < SOON).then(|| format!("renew cert-file within {} hours", left.as_hours()));
    Ok(((), Finding { detail, warning }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_files_with_endpoints() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("east", "endpoints: []"), ("own", "endpoints: []"), ("ca.crt", "-----BEGIN")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
            let found = targets(dir.path(), &names, Some("own")).map_err(|error| error.to_string());
            found.map(|all| all.into_iter().map(|target| target.cluster).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]), Ok(vec!["east".into()]));
        assert_eq!(names(&["east"]), Ok(vec!["east".into()]));
        let unknown = names(&["west"]).unwrap_err();
        assert!(unknown.ends_with("'west' is not configured in it; there is east"), "{unknown}");
        let none = targets(&dir.path().join("none"), &[], None).unwrap_err().to_string();
        assert!(none.contains("none: No such file"), "{none}");
    }
}
