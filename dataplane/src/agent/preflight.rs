//! Checks before anything is touched: what is missing is named here, not by a failing system
//! call later.

use super::{Config, Error};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::Pid;
use rustix::thread::{MembarrierQuery, membarrier_query};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Oldest kernel with all that we use: AF_XDP on veth with `bpf_redirect_peer`, BPF links for
/// XDP, ring wakeups per socket.
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// The kernel's types, by which programs read its structures.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Checks privileges and kernel.
pub(super) fn check_machine() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("dataplane run: needs root (network administration and BPF)"));
    }
    let name = nix::sys::utsname::uname().map_err(|e| Error::new(format!("uname: {e}")))?;
    check_kernel(&name.release().to_string_lossy())?;
    fs::metadata(KERNEL_TYPES).map(drop).map_err(|e| {
        Error::new(format!(
            "{KERNEL_TYPES}: {e}: the programs need a kernel built with CONFIG_DEBUG_INFO_BTF"
        ))
    })
}

fn check_kernel(release: &str) -> Result<(), Error> {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Err(Error::new(format!("kernel {release}: not a version number as 5.15.0")));
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    if (major, minor) < OLDEST_KERNEL {
        return Err(Error::new(format!("kernel {release}: too old: {oldest_major}.{oldest_minor} at least")));
    }
    // CVE-2025-68232: a race can stop a veth's transmit queue for good.
    let patch = numbers.next().unwrap_or(0);
    if (major, minor) == (6, 16) || (major, minor) == (6, 17) && patch < 10 {
        tracing::warn!(
            "kernel {release}: veth queues can stall (CVE-2025-68232): 6.17.10 or newer is better"
        );
    }
    Ok(())
}

/// Checks what can be checked of the configuration before anything is made on the node.
pub(super) fn check_config(config: &Config) -> Result<(), Error> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(|e| Error::new(format!("CPUs: {e}")))?;
    if let Some(cpu) = config.cpus.iter().find(|cpu| !allowed.is_set(**cpu).unwrap_or(false)) {
        let usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let usable: Vec<_> = usable.map(|cpu| cpu.to_string()).collect();
        return Err(Error::new(format!("--cpus {cpu}: is not usable here: there are {}", usable.join(", "))));
    }
    if config.offload && !membarrier_query().contains(MembarrierQuery::GLOBAL) {
        return Err(Error::new(
            "--offload on: the kernel does not offer membarrier(2), as with nohz_full CPUs: use --offload off",
        ));
    }
    if let Some(file) = &config.kvstore_config {
        fs::read(file).map_err(|e| Error::new(format!("--kvstore-config {}: {e}", file.display())))?;
    }
    if let Some(dir) = &config.manifests {
        fs::read_dir(dir).map_err(|e| Error::new(format!("--manifests {}: {e}", dir.display())))?;
    }
    Ok(())
}

/// The directory below which programs can be pinned so that they outlive this process: `wanted`
/// if a BPF file system is there. If not, it is mounted, unless we are in a mount namespace of
/// our own (`ip netns exec` makes one, which hides it and takes every pin along when it ends):
/// then the one of the first process is used.
pub(super) fn find_bpffs(wanted: &Path) -> Result<PathBuf, Error> {
    if let Some(found) = existing_bpffs(wanted) {
        return Ok(found);
    }
    if in_initial_mount_namespace() {
        return match mount_bpffs(wanted) {
            Ok(()) => Ok(wanted.into()),
            Err(e) => {
                Err(Error::new(format!("BPF file system {}: cannot be mounted: {e}", wanted.display())))
            }
        };
    }
    Err(Error::new(format!(
        "BPF file system {0}: not mounted, and this is not the initial mount namespace: run `mount -t bpf bpf {0}` \
         outside; to enter a network namespace only, use `nsenter --net=/run/netns/NAME`",
        wanted.display()
    )))
}

/// The BPF file system at `wanted`, or where the first process sees it there.
pub(super) fn existing_bpffs(wanted: &Path) -> Option<PathBuf> {
    let outside = Path::new("/proc/1/root").join(wanted.strip_prefix("/").unwrap_or(wanted));
    [wanted.to_owned(), outside].into_iter().find(|path| is_bpffs(path))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(path: &Path) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
}

fn in_initial_mount_namespace() -> bool {
    let inode = |of: &str| fs::metadata(format!("/proc/{of}/ns/mnt")).map(|meta| meta.ino()).ok();
    inode("self").is_some() && inode("self") == inode("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_15_are_refused() {
        for good in ["5.15.0-100-generic", "6.1.0", "6.18.5", "7.0-rc1"] {
            assert!(check_kernel(good).is_ok(), "{good}");
        }
        assert_eq!(check_kernel("5.10.0-8").unwrap_err().0, "kernel 5.10.0-8: too old: 5.15 at least");
        assert_eq!(check_kernel("linux").unwrap_err().0, "kernel linux: not a version number as 5.15.0");
    }
}
