//! What names an agent on its machine, so that several of them never touch each other.

use super::Error;
use crate::net::netns;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest part of the state-dir's name that is repeated.
const SLUG: usize = 32;

/// Names the agent with this state-dir in the calling thread's network namespace. The same one
/// for every run, also if all state was lost.
pub(super) fn name(state_dir: &Path) -> Result<String, Error> {
    Ok(format(state_dir, netns::current_inode()?))
}

/// The network namespace of an agent if it is another one than the calling thread's and still there.
pub(super) fn elsewhere(instance: &str) -> Result<Option<PathBuf>, Error> {
    let inode = instance.rsplit_once('@').and_then(|(_, inode)| inode.parse().ok());
    let here = netns::current_inode()?;
    Ok(inode.filter(|inode| *inode != here).and_then(netns::find))
}

/// The alias of this agent's hub; that of its other links starts with it.
pub(super) fn alias(instance: &str) -> String {
    format!("dataplane {instance}")
}

/// Whether a link with this alias belongs to the agent.
pub(super) fn owns(instance: &str, alias: &str) -> bool {
    alias.strip_prefix(&self::alias(instance)).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Names the boot of the machine.
pub(super) fn boot() -> Result<String, Error> {
    let file = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(file).map_err(|e| Error::new(format!("{file}: {e}")))?;
    Ok(id.trim().to_owned())
}

/// FNV-1a (draft-eastlake-fnv): a number for a name that is the same in every release.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// bpffs takes no dots in names.
fn format(state_dir: &Path, netns: u64) -> String {
    let last = state_dir.file_name().unwrap_or_default().to_string_lossy();
    let slug: String =
        last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(SLUG).collect();
    format!("{slug}-{:016x}@{netns}", hash(&state_dir.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_dir_and_namespace_has_its_own_name() {
        let name = |path: &str, netns| format(Path::new(path), netns);
        assert_eq!(name("/tmp/.tmpA1/state.d", 7), name("/tmp/.tmpA1/state.d", 7));
        assert_ne!(name("/tmp/.tmpA1/state.d", 7), name("/tmp/.tmpA2/state.d", 7));
        assert_ne!(name("/run/dataplane", 7), name("/run/dataplane", 8));
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8, "the published test vector");
        assert_eq!(name("/run/dataplane", 7), "dataplane-39ff0611eca79112@7");
        assert!(!name("/a/.b.c", 7).contains('.'));
    }

    #[test]
    fn links_are_told_apart() {
        assert!(owns("a@7", "dataplane a@7") && owns("a@7", "dataplane a@7 default/db-0"));
        assert!(!owns("a@7", "dataplane a@70") && !owns("a@7", "uplink"));
    }
}
