//! From the object file to loaded programs over the maps of an earlier process.

use crate::{Error, Options, links::Hook, sys};
use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject};
use std::{fs, io, path::Path};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dataplane.bpf.o"));
/// The map of verdicts.
pub(crate) const VERDICTS: &str = "verdicts";
/// The section of `verdict_mask`.
const MASK: &str = ".rodata.mask";
/// Size of a verdict in bytes (`struct verdict`).
pub(crate) const SLOT_SIZE: usize = 192;

/// Loads the programs over the maps that are pinned in `dir`.
pub(crate) fn object(dir: &Path, options: &Options) -> Result<Object, Error> {
    // Multi-buffer XDP, which large MTUs need, came with Linux 5.18.
    load(dir, options, sys::XDP_HAS_FRAGS).or_else(|first| {
        let object = load(dir, options, 0)?;
        tracing::info!(error = %first, "no multi-buffer XDP: the largest possible MTU is 3498");
        Ok(object)
    })
}

fn load(dir: &Path, options: &Options, xdp_flags: u32) -> Result<Object, Error> {
    let failed = |e: libbpf_rs::Error| {
        let advice = "if another version pinned other maps there, run `dataplane cleanup` first";
        Error::advised(
            "load BPF programs with maps in",
            dir.display(),
            io::Error::other(format!("{e:#}")),
            advice,
        )
    };
    let mut object = open(dir).map_err(failed)?;
    for mut program in object.progs_mut() {
        if Hook::ALL.iter().any(|hook| hook.is_xdp() && program.name() == hook.program()) {
            program.set_flags(xdp_flags);
        }
    }
    for mut map in object.maps_mut() {
        match map.name().to_str() {
            Some(VERDICTS) => map.set_max_entries(options.verdicts),
            Some(MASK) => map.set_initial_value(&(options.verdicts - 1).to_ne_bytes()),
            _ => Ok(()),
        }
        .map_err(failed)?;
    }
    unpin_if_different(&dir.join(VERDICTS), options.verdicts)?;
    object.load().map_err(failed)
}

fn open(dir: &Path) -> libbpf_rs::Result<OpenObject> {
    ObjectBuilder::default().pin_root_path(dir)?.open_memory(OBJECT)
}

/// Unpins a table of verdicts that another version or another setting made: what it says is only
/// a copy of what workers decide again.
fn unpin_if_different(path: &Path, slots: u32) -> Result<(), Error> {
    let Ok(pinned) = MapHandle::from_pinned_path(path) else { return Ok(()) };
    if (pinned.max_entries(), pinned.value_size() as usize) == (slots, SLOT_SIZE) {
        return Ok(());
    }
    tracing::info!(path = %path.display(), slots, "replacing a table of verdicts of another size");
    fs::remove_file(path).map_err(|e| Error::new("unpin", path.display(), e))
}
