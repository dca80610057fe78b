//! Settings below `/proc/sys`; those in `net/` are the ones of the calling thread's network
//! namespace.

use super::{Context, Result};
use std::path::{Path, PathBuf};
use std::{fs, io};

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// The value of a setting, `net/ipv4/ip_forward` for example; `None` if the kernel lacks it.
pub fn get(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path(key).display())),
    }
}

/// Changes a setting; returns what it was if that is something else.
pub fn set(key: &str, value: &str) -> Result<Option<String>> {
    let before = get(key)?;
    if before.as_deref() == Some(value) {
        return Ok(None);
    }
    fs::write(path(key), value).context(|| format!("write {value} to {}", path(key).display()))?;
    Ok(before)
}
