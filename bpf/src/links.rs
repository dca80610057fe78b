//! Attached programs and the names that keep them attached.

use crate::{
    Error, TcMode, XdpMode,
    sys::{self, FilterId},
};
use libbpf_rs::{Program, TC_EGRESS, TC_INGRESS, TcAttachPoint, TcHookBuilder, Xdp, XdpFlags};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Our filters. On an uplink there may be others, not with this handle.
const FILTER: FilterId = FilterId { handle: 0x6470, priority: 1 };

/// A place where one of our programs is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    HubXdp,
    HubIngress,
    HubEgress,
    UplinkXdp,
    UplinkIngress,
    PodIngress,
    PodEgress,
}

impl Hook {
    pub(crate) const ALL: [Hook; 7] = [
        Hook::HubXdp,
        Hook::HubIngress,
        Hook::HubEgress,
        Hook::UplinkXdp,
        Hook::UplinkIngress,
        Hook::PodIngress,
        Hook::PodEgress,
    ];

    pub(crate) const fn program(self) -> &'static str {
        match self {
            Hook::HubXdp => "redirect_hub",
            Hook::HubIngress => "deliver",
            Hook::HubEgress => "steer_from_host",
            Hook::UplinkXdp => "redirect_uplink",
            Hook::UplinkIngress => "steer_from_uplink",
            Hook::PodIngress => "steer_from_pod",
            Hook::PodEgress => "steer_to_pod",
        }
    }

    pub(crate) const fn is_xdp(self) -> bool {
        matches!(self, Hook::HubXdp | Hook::UplinkXdp)
    }

    fn tc(self) -> (sys::bpf_attach_type, TcAttachPoint) {
        match self {
            Hook::HubEgress | Hook::PodEgress => (sys::BPF_TCX_EGRESS, TC_EGRESS),
            _ => (sys::BPF_TCX_INGRESS, TC_INGRESS),
        }
    }
}

/// The pinned links of one agent: files `<program>-<ifindex>` in one directory.
#[derive(Debug)]
pub(crate) struct Links {
    dir: PathBuf,
}

impl Links {
    /// The links in `dir`, which is made if it is missing.
    pub(crate) fn open(dir: PathBuf) -> Result<Links, Error> {
        fs::create_dir_all(&dir).map_err(|e| Error::new("mkdir", dir.display(), e))?;
        Ok(Links { dir })
    }

    /// Gives every link of an earlier process its new program, without a gap; links whose
    /// interface is gone are removed.
    pub(crate) fn take_over<'a>(
        &self,
        program: impl Fn(Hook) -> Result<Program<'a>, Error>,
    ) -> Result<usize, Error> {
        let mut taken = 0;
        for (hook, ifindex) in self.list()? {
            taken += usize::from(self.update(hook, ifindex, program(hook)?.as_fd())?);
        }
        Ok(taken)
    }

    /// Attaches an XDP program, in the driver if it can, else in the generic hook; an existing
    /// link is updated and keeps its mode.
    pub(crate) fn attach_xdp(
        &self,
        hook: Hook,
        ifindex: u32,
        program: BorrowedFd<'_>,
    ) -> Result<XdpMode, Error> {
        let on = || format!("{} on interface {ifindex}", hook.program());
        if !self.update(hook, ifindex, program)? {
            let create = |flags| sys::link_create(program, ifindex, sys::BPF_XDP, flags);
            let link = create(sys::XDP_NATIVE).or_else(|native| {
                tracing::info!(ifindex, error = %native, "no native XDP, trying the generic hook");
                create(sys::XDP_GENERIC).map_err(|_| native)
            });
            let link = link.map_err(|e| Error::new("attach XDP program", on(), e))?;
            self.pin(hook, ifindex, link.as_fd())?;
        }
        let attached = Xdp::new(program).query(index(ifindex)?, XdpFlags::NONE);
        let attached = attached.map_err(|e| Error::libbpf("query XDP program", on(), e))?;
        let generic = attached.attach_mode == sys::XDP_ATTACHED_SKB as u8;
        Ok(if generic { XdpMode::Generic } else { XdpMode::Native })
    }

    /// Attaches a tc program; an existing one is replaced.
    pub(crate) fn attach_tc(
        &self,
        hook: Hook,
        ifindex: u32,
        program: BorrowedFd<'_>,
        mode: TcMode,
    ) -> Result<TcMode, Error> {
        if mode == TcMode::Tcx {
            if self.update(hook, ifindex, program)? {
                return Ok(TcMode::Tcx);
            }
            match sys::link_create(program, ifindex, hook.tc().0, 0) {
                Ok(link) => return self.pin(hook, ifindex, link.as_fd()).map(|()| TcMode::Tcx),
                // Before Linux 6.6.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => {
                    let on = format!("{} on interface {ifindex}", hook.program());
                    return Err(Error::new("attach tc program", on, e));
                }
            }
        }
        attach_clsact(hook, ifindex, program)?;
        Ok(TcMode::Clsact)
    }

    /// Detaches the program of an interface and forgets its link.
    pub(crate) fn remove(&self, hook: Hook, ifindex: u32) -> Result<(), Error> {
        let path = self.path(hook, ifindex);
        if let Ok(link) = sys::open(&path) {
            // Fails if the interface is gone, and with it what was attached.
            let _ = sys::link_detach(link.as_fd());
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new("unpin", path.display(), e)),
            _ => Ok(()),
        }
    }

    /// Detaches both programs of an uplink; the one that says so in [`Links::list`] last.
    pub(crate) fn remove_uplink(&self, ifindex: u32) -> Result<(), Error> {
        if !self.path(Hook::UplinkIngress, ifindex).exists() {
            // Fails if the interface is gone, and with it the filter.
            let _ = sys::detach_filter(ifindex, Hook::UplinkIngress.tc().1, FILTER);
        }
        self.remove(Hook::UplinkIngress, ifindex)?;
        self.remove(Hook::UplinkXdp, ifindex)
    }

    /// Everything that is pinned.
    pub(crate) fn list(&self) -> Result<Vec<(Hook, u32)>, Error> {
        let failed = |e| Error::new("read", self.dir.display(), e);
        let mut links = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            links.extend(parse(&entry.map_err(failed)?.file_name().to_string_lossy()));
        }
        Ok(links)
    }

    /// Replaces the program of a pinned link; false if there is none (any more).
    fn update(&self, hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<bool, Error> {
        let path = self.path(hook, ifindex);
        let link = match sys::open(&path) {
            Ok(link) => link,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::new("open link", path.display(), e)),
        };
        match sys::link_update(link.as_fd(), program) {
            Ok(()) => Ok(true),
            // The interface is gone, and with it what was attached.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => {
                self.remove(hook, ifindex)?;
                Ok(false)
            }
            Err(e) => Err(Error::new("update link", path.display(), e)),
        }
    }

    fn pin(&self, hook: Hook, ifindex: u32, link: BorrowedFd<'_>) -> Result<(), Error> {
        let path = self.path(hook, ifindex);
        sys::pin(link, &path).map_err(|e| Error::new("pin link", path.display(), e))
    }

    fn path(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.dir.join(format!("{}-{ifindex}", hook.program()))
    }
}

fn parse(name: &str) -> Option<(Hook, u32)> {
    let (program, ifindex) = name.rsplit_once('-')?;
    let hook = Hook::ALL.into_iter().find(|hook| hook.program() == program)?;
    Some((hook, ifindex.parse().ok()?))
}

/// A filter on the clsact qdisc, replaced atomically: always the same handle and priority.
fn attach_clsact(hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |call| move |e| Error::libbpf(call, format!("{} on interface {ifindex}", hook.program()), e);
    let FilterId { handle, priority } = FILTER;
    let mut tc = TcHookBuilder::new(program);
    let tc = tc.ifindex(index(ifindex)?).replace(true).handle(handle).priority(priority);
    let mut tc = tc.hook(hook.tc().1);
    tc.create().map_err(failed("create clsact qdisc for"))?;
    tc.attach().map_err(failed("attach tc filter"))?;
    Ok(())
}

/// An interface index as libbpf's older calls want it.
fn index(ifindex: u32) -> Result<i32, Error> {
    let none = |_| Error::new("look up interface", ifindex, io::Error::from_raw_os_error(libc::ENODEV));
    i32::try_from(ifindex).map_err(none)
}

/// Detaches all programs of an agent and removes its directory, if it is there.
pub(crate) fn remove_all(dir: &Path) -> Result<(), Error> {
    let links = Links { dir: dir.join("links") };
    if links.dir.is_dir() {
        for (hook, ifindex) in links.list()? {
            match hook {
                Hook::UplinkXdp => links.remove_uplink(ifindex)?,
                // With the one before, which takes its absence for a filter of an older kernel.
                Hook::UplinkIngress => {}
                _ => links.remove(hook, ifindex)?,
            }
        }
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new("remove", dir.display(), e)),
        _ => Ok(()),
    }
}
