//! The directory of remote clusters (`cilium-interop` 1.1, 1.2): one file per cluster, named like it;
//! watched, and looked at again now and then, so that also the swap of a mounted secret is seen.

use super::config::{self, ClientConfig};
use super::remote::Remote;
use super::{Restoring, Shared, lock};
use crate::directory;
use crate::model::RemoteStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// How often the directory is looked at without an event.
const RESCAN: Duration = Duration::from_secs(5);
/// Changes come in bursts: how long to wait for the rest of one.
const SETTLE: Duration = Duration::from_millis(50);

pub(super) struct Clusters {
    shared: Arc<Shared>,
    directory: PathBuf,
    followed: Mutex<BTreeMap<String, Followed>>,
    /// Clusters that are being forgotten: one that is configured again is followed after that.
    drained: Arc<Mutex<BTreeSet<String>>>,
    drains: Mutex<JoinSet<()>>,
    /// There is something to look at.
    changed: Arc<Notify>,
    /// What is wrong with the directory or its files, as of the last look.
    problems: Mutex<Vec<String>>,
    /// Until the directory has been read once.
    restoring: Mutex<Option<Restoring>>,
}

struct Followed {
    remote: Arc<Remote>,
    text: String,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Clusters {
    pub(super) fn new(shared: Arc<Shared>, directory: PathBuf) -> Clusters {
        let (followed, drained, drains, changed, problems, restoring) = Default::default();
        Clusters { shared, directory, followed, drained, drains, changed, problems, restoring }
    }

    pub(super) fn status(&self) -> Vec<RemoteStatus> {
        lock(&self.followed).values().map(|followed| followed.remote.status()).collect()
    }

    pub(super) fn conflicts(&self) -> Vec<String> {
        let refused: Vec<_> =
            lock(&self.followed).values().filter_map(|followed| followed.remote.conflict()).collect();
        lock(&self.problems).iter().cloned().chain(refused).collect()
    }

    /// Follows the directory for ever; holds `restoring` until all clusters in it are restored.
    pub(super) async fn run(&self, restoring: Restoring) {
        *lock(&self.restoring) = Some(restoring);
        let mut watcher = None;
        loop {
            if watcher.is_none() {
                let changed = self.changed.clone();
                watcher = directory::watch(&self.directory, move || changed.notify_one())
                    .map_err(|error| {
                        tracing::debug!("{}: {error}; looking every {RESCAN:?}", self.directory.display())
                    })
                    .ok();
            }
            self.scan().await;
            *lock(&self.restoring) = None;
            if tokio::time::timeout(RESCAN, self.changed.notified()).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// Stops following all clusters; what was learned stays as it is.
    pub(super) fn stop(&self) {
        lock(&self.followed).clear();
        lock(&self.drains).abort_all();
    }

    async fn scan(&self) {
        let (files, mut problems) = match read(&self.directory, &self.shared.config.cluster_name) {
            Ok(found) => found,
            Err(error) => {
                // Whatever is wrong with the directory, it does not say that clusters went.
                *lock(&self.problems) =
                    vec![format!("--clustermesh-config {}: {error}", self.directory.display())];
                return;
            }
        };
        // Only a file that is gone ends a cluster: one that is empty may be half-written.
        let present = |name: &String| files.contains_key(name) || self.directory.join(name).is_file();
        let gone: Vec<_> = lock(&self.followed).extract_if(.., |name, _| !present(name)).collect();
        for (name, followed) in gone {
            tracing::info!("remote cluster {name} is no longer configured");
            self.drain(name, followed);
        }
        self.shared.persistence.iter().for_each(|persistence| {
            persistence.retain(|name| name == self.shared.config.cluster_name || present(&name.to_owned()));
        });
        for name in lock(&self.followed).keys().filter(|name| !files.contains_key(*name)) {
            problems.push(format!(
                "{}: no '{}' can be read in it: its last good version stays in force; \
                 delete the file to leave the cluster",
                self.directory.join(name).display(),
                config::MARK
            ));
        }
        for (name, text) in files {
            let unchanged = lock(&self.followed).get(&name).is_some_and(|followed| followed.text == text);
            if unchanged || lock(&self.drained).contains(&name) {
                continue;
            }
            match ClientConfig::parse(&self.directory.join(&name), &text) {
                Ok(config) => self.follow(name, text, config).await,
                Err(error) => problems.push(error.to_string()),
            }
        }
        *lock(&self.problems) = problems;
    }

    /// Forgets a cluster in the background.
    fn drain(&self, name: String, mut followed: Followed) {
        lock(&self.drained).insert(name.clone());
        let (drained, changed) = (self.drained.clone(), self.changed.clone());
        let mut drains = lock(&self.drains);
        while drains.try_join_next().is_some() {}
        drains.spawn(async move {
            followed.stop().await;
            followed.remote.forget().await;
            lock(&drained).remove(&name);
            changed.notify_one();
        });
    }

    /// Starts to follow a cluster, or goes on with another configuration.
    async fn follow(&self, name: String, text: String, config: ClientConfig) {
        let before = lock(&self.followed).remove(&name);
        let remote = match before {
            Some(mut followed) => {
                followed.stop().await;
                followed.remote.clone()
            }
            None => {
                let remote = Arc::new(Remote::new(self.shared.clone(), name.clone()));
                let (restored, restoring) = (remote.clone(), lock(&self.restoring).clone());
                // Not to be stopped half-way.
                tokio::spawn(async move {
                    restored.restore().await;
                    drop(restoring);
                });
                remote
            }
        };
        let running = remote.clone();
        let task = tokio::spawn(async move { running.run(config).await });
        lock(&self.followed).insert(name, Followed { remote, text, task });
    }
}

impl Followed {
    async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await; // cancelled, as just asked
    }
}

/// Text of each remote cluster's file, and what is wrong with others.
fn read(directory: &Path, own: &str) -> std::io::Result<(BTreeMap<String, String>, Vec<String>)> {
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // Anything but a readable text file with the mark is not a configuration: keys, folders, …
        let Some(text) = path.is_file().then(|| std::fs::read_to_string(&path).ok()).flatten() else {
            continue;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !text.contains(config::MARK) || name == own {
            continue;
        }
        match config::check_cluster_name(&name) {
            Ok(()) => drop(files.insert(name, text)),
            Err(problem) => problems.push(format!("{}: {problem}; the file is passed over", path.display())),
        }
    }
    Ok((files, problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_qualify_by_content_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("east", "endpoints:\n- http://a:1\n");
        put("own", "endpoints:\n- http://a:1\n");
        put("ca.crt", "-----BEGIN");
        put("Bad_Name", "endpoints: []");
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::fs::create_dir(dir.path().join("..data")).unwrap();
        put("..data/west", "endpoints:\n- http://b:1\n");
        std::os::unix::fs::symlink("..data/west", dir.path().join("west")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        let (files, problems) = read(dir.path(), "own").unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["east", "west"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("'Bad_Name'"), "{problems:?}");
    }
}
