//! What the documents say of the code.

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files below a directory.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_list_of_unsafe_files_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(root, &mut files);
    let allows =
        |path: &PathBuf| fs::read_to_string(path).unwrap().contains(concat!("allow(", "unsafe_code)"));
    let mut allowing: Vec<String> = files
        .into_iter()
        .filter(allows)
        .map(|path| path.strip_prefix(root).unwrap().display().to_string())
        .collect();
    allowing.sort();
    let document = fs::read_to_string(root.join("docs/unsafe.md")).unwrap();
    let listed: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(listed, allowing);
}
