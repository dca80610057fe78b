//! Network namespaces: naming them, and working inside one.

use super::{Context, Error, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A network namespace that is held open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens a namespace by its name below `/run/netns`, or by an absolute path.
    pub fn open(name: &str) -> Result<Netns> {
        let what = |why| Error::new(format!("network namespace {name}"), io::Error::other(why));
        let path = if name.starts_with('/') {
            PathBuf::from(name)
        } else if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(what("a name below /run/netns or an absolute path is wanted"));
        } else {
            Path::new("/run/netns").join(name)
        };
        let file = File::open(&path).context(|| format!("network namespace {}", path.display()))?;
        let kind = nix::sys::statfs::fstatfs(&file).map_err(|e| what(e.desc()))?.filesystem_type();
        if kind != nix::sys::statfs::NSFS_MAGIC {
            return Err(what("not a network namespace: create it with `ip netns add`"));
        }
        Ok(Netns { file, path })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the calling thread is in it.
    pub fn is_current(&self) -> Result<bool> {
        let meta = self.file.metadata().context(|| format!("stat {}", self.path.display()))?;
        Ok(meta.ino() == current_inode()?)
    }

    /// Runs `work` to its end on a thread of its own inside the namespace, with a runtime for
    /// netlink. The calling thread never changes its namespace.
    pub async fn run<T, F, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
        W: FnOnce() -> F + Send + 'static,
    {
        let what = format!("network namespace {}", self.path.display());
        let file = self.file.try_clone().context(|| what.clone())?;
        let (done, result) = tokio::sync::oneshot::channel();
        let enter = move || {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| Error::new(what.clone(), e))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context(|| what)?.block_on(work())
        };
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || done.send(enter()))
            .context(|| "start a thread".into())?;
        result
            .await
            .unwrap_or_else(|_| Err(Error::new("network namespace", io::Error::other("thread panicked"))))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The number that names the calling thread's network namespace while it exists.
pub fn current_inode() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path).context(|| path.into())?.ino())
}

/// Where the network namespace with this number can be entered: a name below `/run/netns`, or a
/// process in it; `None` if it is gone.
pub fn find(inode: u64) -> Option<PathBuf> {
    let entries = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = entries("/run/netns");
    let of_processes = entries("/proc").map(|process| process.join("ns/net"));
    named.chain(of_processes).find(|path| fs::metadata(path).is_ok_and(|meta| meta.ino() == inode))
}
