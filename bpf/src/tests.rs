//! What the programs do, one packet at a time.

mod cache;

use super::*;
use libbpf_rs::ProgramInput;
use std::{fs, num::NonZeroU32, process};
use wire::{
    MacAddr,
    hub::{LinkDestination, Origin},
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_SHOT: u32 = 2;
const TC_OK: u32 = 0;
/// `TC_ACT_UNSPEC`: as the next program says.
const TC_NEXT: u32 = u32::MAX;
const TC_REDIRECT: u32 = 7;

/// Programs in a directory of this test; `None`, said loudly, without root.
struct Loaded(Bpf, PathBuf);

fn load(name: &str) -> Option<Loaded> {
    // Only root can write to bpffs.
    let dir = instance_dir(&format!("test-{}-{name}", process::id()));
    match fs::create_dir_all(&dir) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: loading BPF programs needs root");
            None
        }
        result => {
            result.expect("bpffs is mounted");
            let options = Options { verdicts: 64, ..Options::default() };
            Some(Loaded(Bpf::load(&dir, &options).expect("programs load"), dir))
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = cleanup(&self.1);
    }
}

impl Loaded {
    /// Return value and the frame afterwards.
    fn run(&self, hook: Hook, frame: &[u8]) -> (u32, Vec<u8>) {
        self.test_run(hook, frame, None)
    }

    /// The same for a frame that the host received from the interface `from`.
    fn run_forwarded(&self, hook: Hook, frame: &[u8], from: u32) -> (u32, Vec<u8>) {
        // The start of `struct __sk_buff`, which ends here with `ingress_ifindex`.
        let mut context = [[0; 4]; 10];
        context[9] = from.to_ne_bytes();
        self.test_run(hook, frame, Some(context.as_flattened_mut()))
    }

    /// The same for a GSO frame with so much payload in each of its segments.
    fn run_gso(&self, hook: Hook, frame: &[u8], size: u32) -> (u32, Vec<u8>) {
        // `struct __sk_buff` up to `gso_size`.
        let mut context = [[0; 4]; 45];
        context[44] = size.to_ne_bytes();
        self.test_run(hook, frame, Some(context.as_flattened_mut()))
    }

    fn test_run(&self, hook: Hook, frame: &[u8], context_in: Option<&mut [u8]>) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 64];
        let input =
            ProgramInput { data_in: Some(frame), data_out: Some(&mut out), context_in, ..Default::default() };
        let mut programs = self.0.object.progs_mut();
        let program = programs.find(|program| program.name() == hook.program()).expect("a program");
        let output = program.test_run(input).expect("test run");
        (output.return_value, output.data.map(|data| data.to_vec()).unwrap_or_default())
    }
}

fn frame(dst: MacAddr, src: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4_to(address: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[16..20].copy_from_slice(&address);
    frame(MacAddr([2; 6]), MacAddr([4; 6]), 0x0800, &packet)
}

fn ipv6_to(address: &str) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = 0x60;
    let IpAddr::V6(address) = address.parse().expect("an address") else { panic!("not IPv6") };
    packet[24..40].copy_from_slice(&address.octets());
    frame(MacAddr([2; 6]), MacAddr([4; 6]), 0x86dd, &packet)
}

/// With tags of VLAN 0 and a priority, which the host's stack looks through.
fn priority_tagged(tag: u16, times: usize, frame: &[u8]) -> Vec<u8> {
    let tags = [tag.to_be_bytes(), [0xe0, 0]].concat().repeat(times);
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
fn uplinks_take_only_what_is_for_pods() {
    let Some(bpf) = load("uplink") else { return };
    let parse = |address: &str| address.parse::<IpAddr>().expect("an address");
    let all = [(parse("10.60.1.0"), 24), (parse("fd00:60:1::"), 112), (parse("10.99.0.0"), 16)];
    bpf.0.set_pod_cidrs(&all).expect("CIDRs");
    bpf.0.set_pod_cidrs(&all[..2]).expect("fewer CIDRs");
    let priority = |tag, times| priority_tagged(tag, times, &ipv4_to([10, 60, 1, 7]));
    let tagged = frame(MacAddr([2; 6]), MacAddr([4; 6]), 0x8100, &ipv4_to([10, 60, 1, 7])[12..]);
    let cases = [
        ("pod, no socket", ipv4_to([10, 60, 1, 7]), XDP_DROP),
        ("pod's CIDR, last address", ipv4_to([10, 60, 1, 255]), XDP_DROP),
        ("next CIDR", ipv4_to([10, 60, 2, 0]), XDP_PASS),
        ("CIDR taken back", ipv4_to([10, 99, 0, 1]), XDP_PASS),
        ("IPv6 pod", ipv6_to("fd00:60:1::7"), XDP_DROP),
        ("other IPv6", ipv6_to("fd00:60:2::7"), XDP_PASS),
        ("IPv6 address that looks like the mapped pod", ipv6_to("::10.60.1.7"), XDP_PASS),
        ("tagged", tagged, XDP_PASS),
        ("priority tag", priority(0x8100, 1), XDP_DROP),
        ("802.1ad priority tag", priority(0x88a8, 1), XDP_DROP),
        ("two priority tags", priority(0x8100, 2), XDP_DROP),
        ("more than two priority tags", priority(0x8100, 3), XDP_DROP),
        ("priority tag, next CIDR", priority_tagged(0x8100, 1, &ipv4_to([10, 60, 2, 0])), XDP_PASS),
        ("priority tag, nothing behind", priority(0x8100, 1)[..18].to_vec(), XDP_PASS),
        ("ARP", frame(MacAddr::BROADCAST, MacAddr([4; 6]), 0x0806, &[0; 28]), XDP_PASS),
        ("short IPv4", ipv4_to([10, 60, 1, 7])[..30].to_vec(), XDP_PASS),
        ("short IPv6", ipv6_to("fd00:60:1::7")[..50].to_vec(), XDP_PASS),
        ("only Ethernet", ipv4_to([10, 60, 1, 7])[..14].to_vec(), XDP_PASS),
    ];
    for (name, packet, verdict) in cases {
        let (got, after) = bpf.run(Hook::UplinkXdp, &packet);
        assert_eq!(got, verdict, "{name}");
        assert_eq!(after, packet, "{name}");
    }
    let (got, _) = bpf.run(Hook::HubXdp, &ipv4_to([10, 60, 1, 7]));
    assert_eq!(got, XDP_DROP, "the hub has no socket");
    let losses = bpf.0.losses().expect("counters");
    assert_eq!(losses[Loss::UplinkSocket as usize], (Loss::UplinkSocket, 7));
    assert_eq!(losses[Loss::HubSocket as usize], (Loss::HubSocket, 1));
}

#[test]
fn marks_are_those_of_the_wire_crate() {
    let Some(bpf) = load("marks") else { return };
    let (gateway, pod) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 9]));
    let ip = &ipv4_to([10, 60, 1, 7])[14..];
    assert_eq!(bpf.run(Hook::PodIngress, &frame(gateway, pod, 0x0800, ip)).0, TC_SHOT, "not configured");
    let config = Config { hub: 1, workers: 3, gateway_mac: gateway.0, offload: false };
    bpf.0.configure(&config).expect("configuration");
    assert!(bpf.0.configure(&Config { workers: 0, ..config }).is_err());
    // A test run takes place on the loopback device.
    let ifindex = 1;
    let steered = [
        (Hook::PodIngress, gateway, Origin::Pod { ifindex, to: LinkDestination::Gateway }),
        (Hook::PodIngress, MacAddr::BROADCAST, Origin::Pod { ifindex, to: LinkDestination::Group }),
        (Hook::PodIngress, MacAddr([2, 0, 0, 0, 0, 2]), Origin::Pod { ifindex, to: LinkDestination::Other }),
        (Hook::PodEgress, pod, Origin::HostToPod { ifindex }),
    ];
    for (hook, dst, origin) in steered {
        let (verdict, after) = bpf.run(hook, &frame(dst, pod, 0x0800, ip));
        assert_eq!((verdict, after), (TC_REDIRECT, frame(origin.encode(), pod, 0x0800, ip)), "{origin:?}");
    }
    let host = |dst| frame(dst, wire::hub::HOST_MAC, 0x0800, ip);
    let forwarded = |link| host(Origin::Forwarded { link }.encode());
    let own = host(Origin::Host.encode());
    let steered_already = host(steered[0].2.encode());
    assert_eq!(bpf.run(Hook::HubEgress, &own), (TC_OK, own.clone()));
    assert_eq!(bpf.run_forwarded(Hook::HubEgress, &own, 1), (TC_OK, forwarded(None)));
    assert_eq!(bpf.run_forwarded(Hook::HubEgress, &steered_already, 1), (TC_OK, steered_already.clone()));
    let to_pod = bpf.run_forwarded(Hook::PodEgress, &host(pod), 1);
    assert_eq!(to_pod, (TC_REDIRECT, forwarded(NonZeroU32::new(ifindex))));
    let deliver = |src| bpf.run(Hook::HubIngress, &frame(pod, src, 0x0800, ip));
    assert_eq!(deliver(wire::hub::deliver_to_pod(77)), (TC_REDIRECT, frame(pod, gateway, 0x0800, ip)));
    assert_eq!(deliver(wire::hub::HOST_MAC).0, TC_OK);
    for refused in [pod, steered[1].2.encode(), steered[3].2.encode(), wire::hub::deliver_to_pod(0)] {
        assert_eq!(deliver(refused).0, TC_SHOT, "{refused}");
    }
    let losses = bpf.0.losses().expect("counters");
    assert_eq!(losses[Loss::Unmarked as usize].1, 4);
    assert_eq!(losses[Loss::Unconfigured as usize].1, 1);
}
