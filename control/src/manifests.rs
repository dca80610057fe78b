//! A directory of manifests as a source of objects: watched, and forgiving towards single mistakes.
//!
//! Every `*.yaml`, `*.yml` and `*.json` file directly in the directory is read, each with any number of
//! documents. A wrong document leaves all others and its own last good version in force.

mod parse;
#[cfg(test)]
mod tests;

pub use parse::{Document, parse};

use crate::directory;
use crate::model::ManifestError;
use crate::objects::{Invalid, Object, ObjectEvent, ObjectKey};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{fs, io, thread};
use tokio::sync::mpsc::Sender;

/// Larger files are refused, so that a stray file cannot exhaust memory.
const MAX_FILE: u64 = 16 << 20;
/// How often the directory is read although nothing was reported (network file systems report nothing).
const RESCAN: Duration = Duration::from_secs(5);
/// An editor's burst of events is over after this long without another one.
const SETTLE: Duration = Duration::from_millis(20);

/// Reads a directory now and whenever it changes, until the receiver of `events` is dropped.
pub fn watch(path: PathBuf, cluster: String, events: Sender<ObjectEvent>) -> io::Result<()> {
    fs::read_dir(&path)?;
    let (wake, woken) = channel();
    let watcher = directory::watch(&path, move || {
        // A closed channel means that the reader below is gone.
        let _ = wake.send(());
    })
    .map_err(io::Error::other)?;
    let mut directory = Directory::new(path, cluster);
    thread::Builder::new().name("manifests".into()).spawn(move || {
        let _watcher = watcher;
        let mut first = Some(ObjectEvent::Synced);
        loop {
            for event in directory.scan().into_iter().chain(first.take()) {
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            match woken.recv_timeout(RESCAN) {
                Ok(()) => while woken.recv_timeout(SETTLE).is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if events.is_closed() {
                return;
            }
        }
    })?;
    Ok(())
}

/// What is known of a directory.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    cluster: String,
    files: BTreeMap<String, File>,
    in_force: BTreeMap<ObjectKey, InForce>,
    errors: Vec<ManifestError>,
}

#[derive(Debug)]
struct File {
    text: Result<String, String>,
    documents: Vec<Document>,
}

#[derive(Clone, Debug)]
struct InForce {
    file: String,
    source: String,
    object: Object,
}

impl Directory {
    fn new(path: PathBuf, cluster: String) -> Self {
        Directory { path, cluster, files: BTreeMap::new(), in_force: BTreeMap::new(), errors: Vec::new() }
    }

    /// Reads what changed and reports the difference to the last scan.
    fn scan(&mut self) -> Vec<ObjectEvent> {
        let names = match names(&self.path) {
            Ok(names) => names,
            Err(error) => {
                let source = self.path.display().to_string();
                return self.report(vec![manifest_error(source, error, !self.in_force.is_empty())]);
            }
        };
        self.files.retain(|name, _| names.contains(name));
        for name in names {
            let text = read(&self.path.join(&name)).map_err(|e| e.to_string());
            if self.files.get(&name).is_none_or(|file| file.text != text) {
                let had_some = || self.in_force.values().any(|old| old.file == name);
                let documents = match &text {
                    // As a file looks that somebody has just begun to write anew.
                    Ok(text) if text.trim().is_empty() && had_some() => {
                        vec![Document::unreadable("the file is empty now; delete it if that is meant")]
                    }
                    Ok(text) => parse(text, &self.cluster),
                    Err(error) => vec![Document::unreadable(error)],
                };
                self.files.insert(name, File { text, documents });
            }
        }
        let (wanted, errors) = self.resolve();
        let mut events = Vec::new();
        for (key, new) in &wanted {
            if self.in_force.get(key).is_none_or(|old| old.object != new.object || old.source != new.source) {
                events.push(ObjectEvent::Upsert { object: new.object.clone(), source: new.source.clone() });
            }
        }
        let gone = self.in_force.keys().filter(|key| !wanted.contains_key(key));
        events.extend(gone.cloned().map(ObjectEvent::Delete));
        self.in_force = wanted;
        events.extend(self.report(errors));
        events
    }

    fn report(&mut self, errors: Vec<ManifestError>) -> Vec<ObjectEvent> {
        if self.errors == errors {
            return Vec::new();
        }
        for error in errors.iter().filter(|error| !self.errors.contains(error)) {
            tracing::warn!(source = error.source, "manifest refused: {}", error.message);
        }
        self.errors.clone_from(&errors);
        vec![ObjectEvent::Errors(errors)]
    }

    /// Which objects are in force now, and what is wrong.
    fn resolve(&self) -> (BTreeMap<ObjectKey, InForce>, Vec<ManifestError>) {
        let mut wanted: BTreeMap<ObjectKey, InForce> = BTreeMap::new();
        let mut wrong: Vec<(&str, String, &Document, &Invalid)> = Vec::new();
        let mut errors = Vec::new();
        for (file, document) in
            self.files.iter().flat_map(|(name, file)| file.documents.iter().map(move |d| (name, d)))
        {
            let source = format!("{file}#{}", document.index);
            match (&document.object, &document.key) {
                (Ok(object), _) => {
                    let key = object.key();
                    if let Some(first) = wanted.get(&key) {
                        let problem = format!("{key} is already defined in {}", first.source);
                        errors.push(manifest_error(source, problem, true));
                    } else {
                        wanted.insert(key, InForce { file: file.clone(), source, object: object.clone() });
                    }
                }
                (Err(error), _) => wrong.push((file, source, document, error)),
            }
        }
        // Wrong documents last: a good version elsewhere replaces the last good one.
        for (file, source, document, error) in wrong {
            let kept: HashMap<_, _> = match &document.key {
                Some(key) => self.in_force.get_key_value(key).into_iter().collect(),
                // It does not say which object it is: any that the file had before.
                None => self.in_force.iter().filter(|(_, old)| old.file == file).collect(),
            };
            let before = wanted.len();
            for (key, old) in kept {
                wanted.entry(key.clone()).or_insert_with(|| old.clone());
            }
            let name = document.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            errors.push(manifest_error(source, format!("{name}{error}"), wanted.len() > before));
        }
        errors.sort_by(|a, b| a.source.cmp(&b.source));
        (wanted, errors)
    }
}

fn manifest_error(source: String, message: impl ToString, last_good_in_force: bool) -> ManifestError {
    ManifestError { source, message: message.to_string(), last_good_in_force }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let extension = Path::new(&name).extension().and_then(|e| e.to_str());
        if !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    match metadata.len() {
        _ if !metadata.is_file() => Err(io::Error::other("not a file")),
        length if length > MAX_FILE => Err(io::Error::other(format!("{length} bytes: at most {MAX_FILE}"))),
        _ => fs::read_to_string(path),
    }
}
