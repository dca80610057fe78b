//! Changes of files in several directories: all of them or none. Written files come whole, as agents
//! read them at any time; a staging folder beside them is nothing that an agent reads.

use super::Error;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// The file is to have this content and these permissions.
    Write { path: PathBuf, content: Vec<u8>, mode: u32 },
    /// The file is to go.
    Remove { path: PathBuf },
}

impl Change {
    pub(super) fn path(&self) -> &Path {
        match self {
            Change::Write { path, .. } | Change::Remove { path } => path,
        }
    }

    fn directory(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new("."))
    }
}

/// Where the new files of a directory wait and the old ones are kept; removed in the end.
struct Stage(PathBuf);

impl Stage {
    fn make(directory: &Path) -> Result<Stage, Error> {
        let path = directory.join(format!(".dataplane-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| about(&path, &error))?;
        Ok(Stage(path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nobody misses anything in it, and agents pass it over.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A change with its files in the stage.
struct Staged<'a> {
    change: &'a Change,
    new: PathBuf,
    /// What was there before, if anything.
    old: Option<PathBuf>,
}

/// Makes all changes, or none: what was done before one failed is undone.
pub(super) fn apply(changes: &[Change]) -> Result<(), Error> {
    let directories: BTreeSet<&Path> = changes.iter().map(Change::directory).collect();
    let stages = directories.iter().map(|directory| Stage::make(directory)).collect::<Result<Vec<_>, _>>()?;
    let mut staged = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let stage = stages.iter().find(|stage| stage.0.parent() == Some(change.directory()));
        let Some(Stage(stage)) = stage else { continue };
        staged.push(stage_one(change, stage, number).map_err(|error| about(change.path(), &error))?);
    }
    for (done, next) in staged.iter().enumerate() {
        if let Err(error) = next.commit() {
            let undone = staged[..done].iter().rev().map(Staged::undo).collect::<io::Result<Vec<()>>>();
            let outcome = match undone {
                Ok(_) => "everything is as it was".into(),
                Err(error) => format!("and what was done before could not be undone: {error}"),
            };
            return Err(Error(format!("{}: {error}; {outcome}", next.change.path().display())));
        }
    }
    for directory in directories {
        File::open(directory).and_then(|d| d.sync_all()).map_err(|error| about(directory, &error))?;
    }
    Ok(())
}

fn stage_one<'a>(change: &'a Change, stage: &Path, number: usize) -> io::Result<Staged<'a>> {
    let (new, kept) = (stage.join(format!("{number}.new")), stage.join(format!("{number}.old")));
    if let Change::Write { content, mode, .. } = change {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    let old = match fs::hard_link(change.path(), &kept) {
        Ok(()) => Some(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Staged { change, new, old })
}

impl Staged<'_> {
    fn commit(&self) -> io::Result<()> {
        match self.change {
            Change::Write { path, .. } => fs::rename(&self.new, path),
            Change::Remove { path } => fs::remove_file(path),
        }
    }

    fn undo(&self) -> io::Result<()> {
        match &self.old {
            Some(old) => fs::rename(old, self.change.path()),
            None => fs::remove_file(self.change.path()),
        }
    }
}

fn about(path: &Path, error: &io::Error) -> Error {
    Error(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: PathBuf, content: &str) -> Change {
        Change::Write { path, content: content.into(), mode: 0o600 }
    }

    /// Names and texts of all files in a directory.
    fn content(directory: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into(), fs::read_to_string(path).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn all_changes_are_made_or_none() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [left, right] = [left.path(), right.path()];
        fs::write(left.join("a"), "old").unwrap();
        fs::write(left.join("b"), "going").unwrap();
        let good = [
            write(left.join("a"), "new"),
            Change::Remove { path: left.join("b") },
            write(left.join("c"), "fresh"),
            write(right.join("a"), "other"),
        ];
        // A folder cannot be replaced by a file, which shows only when it is tried.
        fs::create_dir(right.join("folder")).unwrap();
        fs::create_dir(right.join("folder/full")).unwrap();
        let before = [content(left), content(right)];
        let bad: Vec<_> = good.iter().cloned().chain([write(right.join("folder"), "x")]).collect();
        let error = apply(&bad).unwrap_err().to_string();
        assert!(error.contains("folder"), "{error}");
        assert_eq!([content(left), content(right)], before);
        apply(&good).unwrap();
        assert_eq!(content(left), [("a".into(), "new".into()), ("c".into(), "fresh".into())]);
        assert_eq!(content(right), [("a".into(), "other".into())]);
        assert_eq!(fs::metadata(left.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(left).unwrap().count(), 2, "nothing else is left");
    }
}
