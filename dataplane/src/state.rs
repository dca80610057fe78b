//! What the next run has to know: endpoints with their ids and identities, and what was changed
//! on the node. Lives in the state-dir, guarded by a lock that dies with its process.

use control::model::LocalEndpoint;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of the state file that this code reads and writes.
const VERSION: u32 = 1;

/// What is remembered from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Names the agent on this machine: its directory below bpffs, its links.
    pub instance: String,
    /// Boot of the machine that the rest is about; no link outlives it.
    pub boot: String,
    /// Settings of the node that were changed: file below `/proc/sys` → value before.
    pub sysctls: BTreeMap<String, String>,
    /// Uplinks whose TX checksum offload was switched off.
    pub complete_checksums: BTreeSet<String>,
    /// Uplinks whose generic receive offload was switched on.
    #[serde(default)]
    pub joined_segments: BTreeSet<String>,
    /// Uplinks that take larger packets from the stack than before: name → bytes before.
    #[serde(default)]
    pub packet_sizes: BTreeMap<String, u32>,
    /// Local pods.
    pub endpoints: Vec<Endpoint>,
}

/// A local pod and its veth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// The pod as control knows it.
    pub pod: LocalEndpoint,
    /// Network namespace as given.
    pub netns: String,
    /// Name of the interface inside the pod.
    pub ifname: String,
    /// Name of the interface on the host's side.
    pub host_ifname: String,
}

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file system refused.
    #[error("state-dir {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another process has the lock.
    #[error("state-dir {dir}: in use by the agent with pid {pid}: stop it or choose another --state-dir")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// The state file is not what was written.
    #[error("state file {0}: {1}: restore it, or start over with `dataplane cleanup` after removing it")]
    Invalid(PathBuf, String),
}

/// A state-dir that this process alone uses.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl State {
    /// Nothing remembered yet.
    pub fn new(instance: String, boot: String) -> State {
        State {
            version: VERSION,
            instance,
            boot,
            sysctls: BTreeMap::new(),
            complete_checksums: BTreeSet::new(),
            joined_segments: BTreeSet::new(),
            packet_sizes: BTreeMap::new(),
            endpoints: Vec::new(),
        }
    }

    /// Parses and checks a state file.
    fn parse(text: &str) -> Result<State, String> {
        let state: State = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if state.version != VERSION {
            return Err(format!("version {}: this dataplane reads version {VERSION}", state.version));
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for pod in state.endpoints.iter().map(|endpoint| &endpoint.pod) {
            if pod.id == 0 || !ids.insert(pod.id) {
                return Err(format!("endpoint id {}: zero or twice", pod.id));
            }
            if let Some(twice) = pod.addresses.iter().find(|&&ip| !addresses.insert(ip)) {
                return Err(format!("endpoint {}: address {twice}: twice", pod.id));
            }
        }
        Ok(state)
    }
}

impl StateDir {
    /// Makes the directory if need be and locks it; refuses if another process has it.
    pub fn lock(path: &Path) -> Result<StateDir, StateError> {
        let failed = |error| StateError::Io(path.into(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = &path.canonicalize().map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed)?;
                return Err(StateError::Locked { dir: path.into(), pid: pid.trim().into() });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        // A cleanup may have removed the file between open and lock: then it guards nothing.
        if !fs::metadata(path.join("lock"))
            .is_ok_and(|now| lock.metadata().is_ok_and(|m| m.ino() == now.ino()))
        {
            return StateDir::lock(path);
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(StateDir { path: path.into(), _lock: lock })
    }

    /// The directory, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the run before; `None` if there was none.
    pub fn load(&self) -> Result<Option<State>, StateError> {
        let file = self.file();
        match fs::read_to_string(&file) {
            Ok(text) => State::parse(&text).map(Some).map_err(|why| StateError::Invalid(file, why)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Io(file, error)),
        }
    }

    /// Replaces the state file in one step: a crash leaves the old or the new one.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let new = self.path.join("endpoints.json.new");
        let write = || {
            let mut file = File::create(&new)?;
            serde_json::to_writer_pretty(&mut file, state)?;
            file.sync_all()?;
            fs::rename(&new, self.file())
        };
        write().map_err(|error| StateError::Io(self.file(), error))
    }

    /// Where connections are kept.
    pub fn conntrack(&self) -> PathBuf {
        self.path.join("conntrack")
    }

    /// Where what was learned of other nodes and clusters is kept.
    pub fn learned(&self) -> PathBuf {
        self.path.join("learned.redb")
    }

    /// Removes every file that agents keep here, and the directory if nothing else is in it.
    pub fn remove(self) -> Result<(), StateError> {
        for name in
            ["endpoints.json", "endpoints.json.new", "conntrack", "learned.redb", "dataplane.sock", "lock"]
        {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Io(self.path.join(name), error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(StateError::Io(self.path, error))
            }
            _ => Ok(()),
        }
    }

    fn file(&self) -> PathBuf {
        self.path.join("endpoints.json")
    }
}

#[cfg(test)]
mod tests;
