//! ICMP errors to the sender of a packet that cannot go on (RFC 792, RFC 1191, RFC 4443).

use crate::frame::{Frame, Link};
use crate::report::Report;
use crate::{Context, Port, Sink, Verdict, admit::Sender};
use flow::Seconds;
use wire::parse::{ETHERNET, IPV4, IPV6};
use wire::{Address, L4, Protocol, checksum};

/// Errors a worker sends per second at most; the kernel's `icmp_msgs_per_sec`.
const RATE: u16 = 1000;
/// Length of an ICMP header in bytes.
const ICMP: usize = 8;
/// Length of an IPv4 error in bytes at most (RFC 1812 §4.3.2.3).
const MAX_V4: usize = 576;
/// Length of an IPv6 error in bytes at most: what every link takes (RFC 4443 §2.4 c).
const MAX_V6: usize = 1280;
const HOPS: u8 = 64;

/// What to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// TTL or hop limit ran out.
    TimeExceeded,
    /// Larger than the next link takes.
    TooBig { mtu: u16 },
}

/// An ICMP error to be built in the frame of the packet it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    message: Message,
    link: Link,
    src: Address,
    dst: Address,
    /// Bytes of the packet that can be quoted.
    length: usize,
}

/// Limits errors to [`RATE`]; a bucket that is full again each second.
#[derive(Debug)]
pub(crate) struct Budget {
    second: Seconds,
    left: u16,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Budget { second: 0, left: RATE }
    }

    fn take(&mut self, now: Seconds) -> bool {
        if self.second != now {
            *self = Budget { second: now, left: RATE };
        }
        let some_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some_left
    }
}

/// Decides whether the sender of the reported packet is told: not about ICMP errors, not for
/// every fragment, not too often, not where the buffer is too small.
pub(crate) fn answer<S: Sink>(
    budget: &mut Budget,
    report: &Report<'_, S>,
    message: Message,
) -> Option<Answer> {
    let (ctx, packet, sender) = (report.ctx, report.packet?, report.sender?);
    if packet.is_later_fragment() || packet.l4 == L4::IcmpError {
        return None;
    }
    let node = &ctx.tables.node;
    let dst = packet.tuple.src;
    let src = if dst.is_v4() { node.gateway_v4 } else { node.gateway_v6 }?;
    let link = back_to(ctx, &sender)?;
    let length = packet.l3_len().min(report.frame.len() - ETHERNET);
    let answer = Answer { message, link, src, dst, length };
    (answer.frame_len() <= report.room && budget.take(ctx.now)).then_some(answer)
}

fn back_to(ctx: &Context<'_>, sender: &Sender<'_>) -> Option<Link> {
    match *sender {
        Sender::Pod { endpoint, .. } => Some(Link::to_pod(endpoint)),
        Sender::Host { .. } => Some(Link::TO_HOST),
        Sender::Uplink { index, mac } => {
            let uplink = ctx.tables.node.uplinks.get(usize::from(index))?;
            Some(Link { port: Port::Uplink(index), to: mac, from: uplink.mac })
        }
    }
}

impl Answer {
    fn headers(&self) -> usize {
        ICMP + if self.dst.is_v4() { IPV4 } else { IPV6 }
    }

    /// Length of the error's frame in bytes.
    fn frame_len(&self) -> usize {
        let max = if self.dst.is_v4() { MAX_V4 } else { MAX_V6 };
        ETHERNET + max.min(self.headers() + self.length)
    }

    /// Turns the frame into the error.
    pub(crate) fn build(&self, frame: &mut Frame<'_>) -> Verdict {
        let (headers, end) = (self.headers(), self.frame_len());
        let room = frame.room();
        room.copy_within(ETHERNET..end - headers, ETHERNET + headers);
        self.link.write(room);
        let (header, icmp) = room[ETHERNET..end].split_at_mut(headers - ICMP);
        self.write_icmp(icmp);
        if self.dst.is_v4() {
            self.write_ipv4(header, icmp.len());
        } else {
            self.write_ipv6(header, icmp.len());
        }
        frame.replace(end);
        Verdict::Transmit(self.link.port)
    }

    fn write_icmp(&self, icmp: &mut [u8]) {
        let v4 = self.dst.is_v4();
        let (kind, code, word) = match (self.message, v4) {
            (Message::TimeExceeded, true) => (11, 0, 0),
            (Message::TimeExceeded, false) => (3, 0, 0),
            (Message::TooBig { mtu }, true) => (3, 4, u32::from(mtu)),
            (Message::TooBig { mtu }, false) => (2, 0, u32::from(mtu)),
        };
        icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
        icmp[4..8].copy_from_slice(&word.to_be_bytes());
        let pseudo_header = match v4 {
            true => 0,
            false => checksum::pseudo_header(self.src, self.dst, Protocol::ICMPV6, icmp.len() as u32),
        };
        let sum = checksum::finish(&[pseudo_header, checksum::sum(icmp)]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }

    fn write_ipv4(&self, header: &mut [u8], payload: usize) {
        header.fill(0);
        header[0] = 0x45;
        // Precedence of internetwork control (RFC 1812 §4.3.2.5).
        header[1] = 0xc0;
        header[2..4].copy_from_slice(&((IPV4 + payload) as u16).to_be_bytes());
        header[8] = HOPS;
        header[9] = Protocol::ICMP.0;
        header[12..16].copy_from_slice(&(self.src.0 as u32).to_be_bytes());
        header[16..20].copy_from_slice(&(self.dst.0 as u32).to_be_bytes());
        let sum = checksum::finish(&[checksum::sum(header)]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn write_ipv6(&self, header: &mut [u8], payload: usize) {
        header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        header[6] = Protocol::ICMPV6.0;
        header[7] = HOPS;
        header[8..24].copy_from_slice(&self.src.0.to_be_bytes());
        header[24..40].copy_from_slice(&self.dst.0.to_be_bytes());
    }
}
