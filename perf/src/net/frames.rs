//! Frames made by the kernel at the node's end of the client's link, as if the client had sent
//! them: `BPF_PROG_TEST_RUN` with live frames costs little, so that what is measured is the way.

use super::arena::{Arena, Target};
use super::traffic::programs;
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use wire::MacAddr;

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of `linux/bpf.h`.
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames per system call: some milliseconds.
const REPEAT: u32 = 1 << 13;
/// First source port, by target: a flow to the service and one to its backend may not look alike
/// once the destination is translated.
const FIRST_PORT: [u16; 2] = [20_000, 30_000];
const HEADERS: usize = 42;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: u8 = 17;

/// What is to be sent where.
pub(super) struct Run {
    template: [u8; HEADERS + 6],
    size: usize,
    interface: u32,
}

impl Run {
    pub(super) fn new(arena: &Arena, target: Target, size: usize, flows: u16) -> Result<Run, String> {
        let client = &arena.client;
        let SocketAddr::V4(to) = arena.address(target) else {
            return Err(format!("live frames are IPv4: none can be made for {target:?}"));
        };
        let from = (client.ipv4, FIRST_PORT[usize::from(target == Target::Service)]);
        let headers = headers(client.gateway, client.mac, from, (*to.ip(), to.port()), size.max(HEADERS));
        let mut template = [0; HEADERS + 6];
        template[..HEADERS].copy_from_slice(&headers);
        template[HEADERS..HEADERS + 2].copy_from_slice(&flows.to_ne_bytes());
        template[HEADERS + 2..].copy_from_slice(&udp_sum(&headers).to_ne_bytes());
        Ok(Run { template, size: size.max(HEADERS), interface: client.link })
    }

    /// Sends until told to stop; in the node's namespace.
    pub(super) fn until(&self, stop: &AtomicBool) -> Result<(), String> {
        let object = programs()?;
        let map = object.maps().find(|map| map.name() == "templates").ok_or("no BPF map templates")?;
        let written = map.update(&0u32.to_ne_bytes(), &self.template, MapFlags::ANY);
        written.map_err(|error| format!("templates: {error:#}"))?;
        let generate = object.progs_mut().find(|program| program.name() == "generate");
        let generate = generate.ok_or("no BPF program generate")?;
        let frame = vec![0; self.size];
        while !stop.load(Ordering::Relaxed) {
            let mut context = self.context();
            let input = ProgramInput {
                context_in: Some(&mut context),
                data_in: Some(&frame),
                flags: LIVE_FRAMES,
                repeat: REPEAT,
                ..ProgramInput::default()
            };
            generate.test_run(input).map_err(|error| {
                format!(
                    "BPF_PROG_TEST_RUN with live frames (Linux 5.18) on interface {}: {error:#}",
                    self.interface
                )
            })?;
        }
        Ok(())
    }

    /// `struct xdp_md`: the data's end, and the interface that the frames come from.
    fn context(&self) -> [u8; 24] {
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(self.size as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.interface.to_ne_bytes());
        context
    }
}

fn headers(
    gateway: MacAddr,
    client: MacAddr,
    (src, sport): (Ipv4Addr, u16),
    (dst, dport): (Ipv4Addr, u16),
    size: usize,
) -> [u8; HEADERS] {
    let mut frame = [0; HEADERS];
    let (total, datagram) = ((size - ETHERNET) as u16, (size - ETHERNET - IPV4) as u16);
    frame[..6].copy_from_slice(&gateway.0);
    frame[6..12].copy_from_slice(&client.0);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[ETHERNET..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = 64;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..20].copy_from_slice(&dst.octets());
    let check = !fold(sum(&ip[..IPV4]));
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    let udp = &mut frame[ETHERNET + IPV4..];
    udp[..2].copy_from_slice(&sport.to_be_bytes());
    udp[2..4].copy_from_slice(&dport.to_be_bytes());
    udp[4..6].copy_from_slice(&datagram.to_be_bytes());
    frame
}

/// Sum over the pseudo header and the UDP header without source port; the payload is zeros.
fn udp_sum(frame: &[u8; HEADERS]) -> u32 {
    let (ip, udp) = frame[ETHERNET..].split_at(IPV4);
    sum(&ip[12..20]) + sum(&[0, UDP]) + sum(&udp[4..6]) + sum(&udp[2..6])
}

/// Of 16-bit words in the machine's order, as the program adds them up.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_makes_of_the_headers_is_a_right_packet() {
        let (gateway, client) = (MacAddr([2; 6]), MacAddr([4; 6]));
        let (src, dst) = (Ipv4Addr::new(10, 61, 1, 1), Ipv4Addr::new(10, 96, 0, 1));
        for size in [64, 512, 1514] {
            let headers = headers(gateway, client, (src, 20_000), (dst, 80), size);
            let port = u32::from(u16::from_ne_bytes([headers[34], headers[35]]));
            let mut frame = headers.to_vec();
            frame[40..42].copy_from_slice(&(!fold(udp_sum(&headers) + port)).to_ne_bytes());
            frame.resize(size, 0);
            let parsed = wire::parse(&frame).unwrap_or_else(|error| panic!("{size}: {error:?}"));
            let udp = &frame[34..];
            let pseudo = sum(&frame[26..34]) + sum(&[0, UDP]) + sum(&udp[4..6]);
            assert_eq!(fold(sum(udp) + pseudo), 0xffff, "{parsed:?}");
        }
    }
}
