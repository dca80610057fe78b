//! The few calls that `libbpf-rs` does not wrap: links of every kind as file descriptors, and a
//! map's memory.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr, slice,
    sync::atomic::AtomicU64,
};

use libbpf_sys::bpf_tc_attach_point;
pub(crate) use libbpf_sys::{BPF_TCX_EGRESS, BPF_TCX_INGRESS, BPF_XDP, XDP_ATTACHED_SKB, bpf_attach_type};

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;
pub(crate) const XDP_NATIVE: u32 = 1 << 2;

/// `BPF_F_XDP_HAS_FRAGS` of `linux/bpf.h`.
pub(crate) const XDP_HAS_FRAGS: u32 = 1 << 5;

/// Attaches a program to an interface.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    kind: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut options = libbpf_sys::bpf_link_create_opts { flags, ..Default::default() };
    options.sz = mem::size_of_val(&options) as libbpf_sys::size_t;
    // SAFETY: the options are initialised, carry their size and outlive the call.
    owned(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, kind, &options) })
}

/// Replaces the program of a link without a gap.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no options are passed.
    checked(unsafe { libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), ptr::null()) })
        .map(drop)
}

/// Takes the program off its interface now; closing a link's last descriptor does so some time later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes nothing but the descriptor.
    checked(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// Names a tc filter of an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilterId {
    pub(crate) handle: u32,
    pub(crate) priority: u32,
}

/// Takes a BPF filter off the clsact qdisc of an interface.
pub(crate) fn detach_filter(ifindex: u32, direction: bpf_tc_attach_point, id: FilterId) -> io::Result<()> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut hook = libbpf_sys::bpf_tc_hook { ifindex, attach_point: direction, ..Default::default() };
    hook.sz = mem::size_of_val(&hook) as libbpf_sys::size_t;
    let FilterId { handle, priority } = id;
    let mut options = libbpf_sys::bpf_tc_opts { handle, priority, ..Default::default() };
    options.sz = mem::size_of_val(&options) as libbpf_sys::size_t;
    // SAFETY: both are initialised, carry their size and outlive the call.
    checked(unsafe { libbpf_sys::bpf_tc_detach(&hook, &options) }).map(drop)
}

/// Gives a link a name in bpffs, which keeps it attached after this process.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    checked(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// Opens a pinned object.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: as above.
    owned(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

/// Whether a directory is in a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, the buffer has the size of the structure.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs succeeded and filled it.
    Ok(unsafe { stat.assume_init() }.f_type == libc::BPF_FS_MAGIC as libc::c_long)
}

/// Maps the first `words` of an array map made with `BPF_F_MMAPABLE`.
pub(crate) fn map_words(map: BorrowedFd<'_>, words: usize) -> io::Result<&'static [AtomicU64]> {
    let (length, rights) = (words * size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the kernel chooses an address where nothing is.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, rights, libc::MAP_SHARED, map.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `length` bytes from `start`, page aligned, are mapped and stay so until the process
    // ends: the kernel refuses more than the map has, and nobody unmaps them. The kernel's programs
    // write to them too, as others with this mapping do, with atomic accesses of whole words.
    Ok(unsafe { slice::from_raw_parts(start.cast(), words) })
}

/// libbpf returns the negative error number.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn owned(result: i32) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result is a descriptor that belongs to the caller.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
