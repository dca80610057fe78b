//! Priority tags beside a frame, as devices pass them that take them out of it.
#![allow(unsafe_code)]

use libbpf_rs::{TC_EGRESS, TcHookBuilder};
use libbpf_sys::{BPF_FUNC_skb_vlan_push, BPF_PROG_TYPE_SCHED_CLS, bpf_insn, bpf_prog_load};
use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    ptr,
};

const VLAN_8021Q: u16 = 0x8100;
/// The highest priority, VLAN 0.
const TAG: i32 = 0xe000;

/// Tags all IP packets that leave by an interface of this thread's network namespace.
pub(crate) fn tag_all(ifindex: u32) {
    let instruction = |code, register, imm| bpf_insn {
        code,
        _bitfield_1: bpf_insn::new_bitfield_1(register, 0),
        imm,
        ..Default::default()
    };
    // r0 = skb_vlan_push(r1, 802.1Q, tag); return 0
    let program = [
        instruction(0xb7, 2, VLAN_8021Q.to_be().into()),
        instruction(0xb7, 3, TAG),
        instruction(0x85, 0, BPF_FUNC_skb_vlan_push as i32),
        instruction(0xb7, 0, 0),
        instruction(0x95, 0, 0),
    ];
    let (name, license, length) = (c"tag_all".as_ptr(), c"GPL".as_ptr(), program.len() as u64);
    // SAFETY: names end with a zero byte, pointer and length describe the program, options may be null.
    let fd = unsafe {
        bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, name, license, program.as_ptr(), length, ptr::null_mut())
    };
    assert!(fd >= 0, "{}", io::Error::from_raw_os_error(-fd));
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut hook = TcHookBuilder::new(fd.as_fd()).ifindex(ifindex as i32).hook(TC_EGRESS);
    hook.create().expect("a qdisc");
    hook.attach().expect("a filter");
}
