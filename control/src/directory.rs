//! Hearing of changes in a directory of configuration or manifests.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::Path;

/// Calls `changed` after changes directly below `directory` until the watcher is dropped.
/// Reading is none: whoever looks at the files when called must not be called for that.
pub(crate) fn watch(
    directory: &Path,
    changed: impl Fn() + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let read = |kind| !matches!(kind, AccessKind::Close(AccessMode::Write));
        match event {
            Ok(Event { kind: EventKind::Access(kind), .. }) if read(kind) => {}
            _ => changed(),
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
