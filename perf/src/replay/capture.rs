//! Packets from capture files: pcap and pcapng, of Ethernet and of Linux' "any" interface.

use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::path::Path;
use wire::hub::LinkDestination;
use wire::{MacAddr, parse::ETHERNET};

/// Bytes read at once: no block of a capture is longer.
const BUFFER: usize = 4 << 20;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Captured {
    /// Position in the file, from 1.
    pub(super) number: u64,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    /// Where it was captured, if the file says so.
    pub(super) place: Place,
    /// What the link said of it, where that is not in the frame.
    pub(super) cooked: Option<Cooked>,
    /// From the Ethernet header on. What the capture has cut off is zero: decisions need headers.
    pub(super) frame: Vec<u8>,
    /// Bytes of the frame that the capture has cut off.
    pub(super) missing: usize,
}

/// The interface that a packet was captured on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Place {
    /// It is not said.
    #[default]
    Unsaid,
    /// By index.
    Index(u32),
    /// By name.
    Name(String),
}

/// What a "cooked" header has instead of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cooked {
    /// It was received, with this kind of destination.
    Received(LinkDestination),
    /// It was sent.
    Sent,
}

/// An interface of a capture.
#[derive(Clone, Debug)]
struct Interface {
    link: Linktype,
    place: Place,
    /// Units of time of a second, and seconds to add.
    resolution: u64,
    offset: i64,
}

/// Hands all packets of a file to `each`, in order.
///
/// # Errors
/// If the file cannot be read, is no capture, is damaged or cut off, or has another link type; and
/// the first that `each` returns.
pub(super) fn read(path: &Path, mut each: impl FnMut(Captured) -> Result<(), String>) -> Result<(), String> {
    let failed = |what: String| format!("capture: {}: {what}", path.display());
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        return Err(failed("is a directory".into()));
    }
    let mut reader = create_reader(BUFFER, file).map_err(|error| failed(explain(&error, 0)))?;
    let mut interfaces = Vec::new();
    let mut number = 0;
    loop {
        match reader.next() {
            Ok((size, block)) => {
                if let Some(captured) = captured(&block, &mut interfaces, number + 1).map_err(failed)? {
                    number += 1;
                    each(captured)?;
                }
                drop(block);
                reader.consume(size);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| failed(explain(&error, number)))?;
            }
            Err(error) => return Err(failed(explain(&error, number))),
        }
    }
}

fn explain<I>(error: &PcapError<I>, packets: u64) -> String {
    match error {
        PcapError::HeaderNotRecognized => "is neither pcap nor pcapng".into(),
        PcapError::Eof => "is empty".into(),
        PcapError::Incomplete(_) | PcapError::UnexpectedEof if packets == 0 => "ends in its header".into(),
        PcapError::Incomplete(_) | PcapError::UnexpectedEof => format!("is cut off after packet {packets}"),
        PcapError::ReadError => "cannot be read".into(),
        _ => format!("is damaged after packet {packets}"),
    }
}

/// The packet of a block, if it is one.
fn captured(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    number: u64,
) -> Result<Option<Captured>, String> {
    let of = |id: u32, interfaces: &[Interface]| {
        let missing = || format!("packet {number}: its interface {id} is not described");
        interfaces.get(id as usize).cloned().ok_or_else(missing)
    };
    let (interface, time, data, length) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { SECOND } else { 1_000_000 };
            interfaces.push(Interface { link: header.network, place: Place::Unsaid, resolution, offset: 0 });
            return Ok(None);
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = of(0, interfaces)?;
            let part = u64::from(packet.ts_usec) * (SECOND / interface.resolution);
            let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            (interface, u64::from(packet.ts_sec) * SECOND + part, data, packet.origlen)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let name = description.if_name().and_then(Result::ok);
            interfaces.push(Interface {
                link: description.linktype,
                place: name.map_or(Place::Unsaid, |name| Place::Name(name.trim_end_matches('\0').into())),
                resolution: description.ts_resolution().unwrap_or(1_000_000),
                offset: description.ts_offset(),
            });
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = of(packet.if_id, interfaces)?;
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let time = nanoseconds(ticks, interface.resolution, interface.offset);
            (interface, time, packet.packet_data(), packet.origlen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            (of(0, interfaces)?, 0, packet.packet_data(), packet.origlen)
        }
        PcapBlockOwned::NG(_) => return Ok(None),
    };
    Captured::new(number, time, &interface, data, length as usize).map(Some)
}

fn nanoseconds(ticks: u64, resolution: u64, offset: i64) -> u64 {
    let nanoseconds = u128::from(ticks) * u128::from(SECOND) / u128::from(resolution.max(1));
    let offset = i128::from(offset) * i128::from(SECOND);
    u64::try_from(nanoseconds as i128 + offset).unwrap_or(0)
}

impl Captured {
    fn new(
        number: u64,
        time: u64,
        interface: &Interface,
        data: &[u8],
        length: usize,
    ) -> Result<Captured, String> {
        let short = || format!("packet {number}: its {} header is cut off", interface.link);
        let mut place = interface.place.clone();
        let (mut frame, cooked) = match interface.link {
            Linktype::ETHERNET => (data.to_vec(), None),
            Linktype::LINUX_SLL => {
                let (header, payload) = data.split_first_chunk::<16>().ok_or_else(short)?;
                let [_, kind, _, _, _, _, a, b, c, d, e, f, _, _, t0, t1] = *header;
                (ethernet([a, b, c, d, e, f], [t0, t1], payload), Some(Cooked::of(kind)))
            }
            Linktype::LINUX_SLL2 => {
                let (header, payload) = data.split_first_chunk::<20>().ok_or_else(short)?;
                let [t0, t1, _, _, i0, i1, i2, i3, _, _, kind, _, a, b, c, d, e, f, _, _] = *header;
                place = Place::Index(u32::from_be_bytes([i0, i1, i2, i3]));
                (ethernet([a, b, c, d, e, f], [t0, t1], payload), Some(Cooked::of(kind)))
            }
            other => {
                return Err(format!(
                    "link type {other}: must be Ethernet (1) or Linux cooked (113, 276): \
                     capture on a pod's interface, an uplink or `any`"
                ));
            }
        };
        let missing = length.saturating_sub(data.len());
        if missing > u16::MAX.into() {
            return Err(format!("packet {number}: {length} bytes are more than a packet has"));
        }
        frame.resize(frame.len() + missing, 0);
        Ok(Captured { number, time, place, cooked, frame, missing })
    }
}

impl Cooked {
    /// The packet type of a cooked header (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>).
    fn of(kind: u8) -> Cooked {
        match kind {
            0 => Cooked::Received(LinkDestination::Gateway),
            1 | 2 => Cooked::Received(LinkDestination::Group),
            4 => Cooked::Sent,
            _ => Cooked::Received(LinkDestination::Other),
        }
    }
}

/// A frame without destination.
fn ethernet(src: [u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend(MacAddr::default().0);
    frame.extend(src);
    frame.extend(ethertype);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests;
