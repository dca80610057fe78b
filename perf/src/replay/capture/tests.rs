use super::*;
use std::fs;

const FRAME: [u8; 20] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 1, 2, 3, 4, 5, 6];

/// A pcap file with packets of (seconds, parts of a second, captured bytes, length).
fn pcap(magic: u32, link: u32, packets: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut put = |words: &[u32]| words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    put(&[magic, 4 << 16 | 2, 0, 0, 65_535, link]);
    for (seconds, part, data, length) in packets {
        [*seconds, *part, data.len() as u32, *length].iter().for_each(|word| file.extend(word.to_le_bytes()));
        file.extend(*data);
    }
    file
}

/// A pcapng block.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

fn packets(file: &[u8]) -> Result<Vec<Captured>, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(&path, file).unwrap();
    let mut packets = Vec::new();
    read(path.path(), |captured| {
        packets.push(captured);
        Ok(())
    })?;
    Ok(packets)
}

fn refusal(file: &[u8]) -> String {
    let error = packets(file).unwrap_err();
    let (_, what) = error.split_once(": ").unwrap();
    what.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn both_precisions_of_pcap() {
    for (magic, part) in [(0xa1b2_c3d4, 5), (0xa1b2_3c4d, 5000)] {
        let file = pcap(magic, 1, &[(7, part, &FRAME, 20), (8, 0, &FRAME[..16], 20)]);
        let [first, cut] = packets(&file).unwrap().try_into().unwrap();
        let whole = Captured {
            number: 1,
            time: 7_000_005_000,
            place: Place::Unsaid,
            cooked: None,
            frame: FRAME.to_vec(),
            missing: 0,
        };
        assert_eq!(first, whole);
        let zeroed = [&FRAME[..16], &[0; 4]].concat();
        assert_eq!(cut, Captured { number: 2, time: 8_000_000_000, frame: zeroed, missing: 4, ..whole });
    }
}

#[test]
fn pcapng_names_its_interfaces() {
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    // Option 2 is the name, option 9 the resolution: nanoseconds.
    let name = [&[2, 0, 3, 0][..], b"dp9\0", &[9, 0, 1, 0, 9, 0, 0, 0], &[0; 4]].concat();
    let interface = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &name].concat();
    let time = 7_000_005_000_u64;
    let words = [0, (time >> 32) as u32, time as u32, 20, 20];
    let packet = [&words.map(u32::to_le_bytes).concat()[..], &FRAME].concat();
    let file = [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet)].concat();
    let [first] = packets(&file).unwrap().try_into().unwrap();
    assert_eq!((first.time, first.place, &first.frame[..]), (time, Place::Name("dp9".into()), &FRAME[..]));

    let orphan = [block(0x0a0d_0d0a, &section), block(6, &packet)].concat();
    assert_eq!(refusal(&orphan), "packet 1: its interface 0 is not described");
}

#[test]
fn cooked_headers_become_ethernet() {
    let sll2 =
        [&[0x08, 0x00, 0, 0, 0, 0, 0, 9, 0, 1, 2, 6, 2, 0, 0, 0, 0, 2, 0, 0][..], &FRAME[14..]].concat();
    let sll = [&[0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0, 0x08, 0x00][..], &FRAME[14..]].concat();
    let one =
        |link, data: &[u8]| packets(&pcap(0xa1b2_c3d4, link, &[(0, 0, data, data.len() as u32)])).unwrap();
    let [group] = one(276, &sll2).try_into().unwrap();
    assert_eq!(
        (group.place, group.cooked),
        (Place::Index(9), Some(Cooked::Received(LinkDestination::Group)))
    );
    let [sent] = one(113, &sll).try_into().unwrap();
    assert_eq!((sent.place, sent.cooked), (Place::Unsaid, Some(Cooked::Sent)));
    assert_eq!((&group.frame[6..], &sent.frame[6..]), (&FRAME[6..], &FRAME[6..]));
}

#[test]
fn what_cannot_be_read_is_named() {
    let file = pcap(0xa1b2_c3d4, 1, &[(0, 0, &FRAME, 20), (0, 0, &FRAME, 20)]);
    assert_eq!(refusal(&file[..file.len() - 1]), "is cut off after packet 1");
    assert_eq!(refusal(&file[..10]), "ends in its header");
    assert_eq!(refusal(b""), "is empty");
    assert_eq!(refusal(&[b'#'; 100]), "is neither pcap nor pcapng");
    let raw = refusal(&pcap(0xa1b2_c3d4, 101, &[(0, 0, &FRAME, 20)]));
    assert!(raw.starts_with("link type RAW") || raw.contains("101"), "{raw}");
    assert_eq!(
        refusal(&pcap(0xa1b2_c3d4, 276, &[(0, 0, &FRAME[..9], 9)])).split(": ").next(),
        Some("packet 1")
    );
    assert!(refusal(&pcap(0xa1b2_c3d4, 1, &[(0, 0, &FRAME, u32::MAX)])).contains("more than a packet has"));
    let error = read(Path::new("/nonexistent"), |_| Ok(())).unwrap_err();
    assert!(error.starts_with("capture: /nonexistent: No such file"), "{error}");
}

#[test]
fn damage_never_panics() {
    let file = pcap(0xa1b2_c3d4, 1, &[(0, 0, &FRAME, 20), (0, 0, &FRAME, 20)]);
    for position in 0..file.len() {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[position] = value;
            // Refused or read as what it now says; never more packets than there were.
            assert!(packets(&damaged).map_or(0, |packets| packets.len()) <= 2);
        }
    }
}
