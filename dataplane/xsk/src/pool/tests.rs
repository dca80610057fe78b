use super::*;
use crate::{Mode, Socket, assembly::Assembly};

/// `None`, said loudly, where AF_XDP sockets cannot be opened.
fn pool(frames: u32, mtu: u32) -> Option<Pool> {
    match Pool::new(frames, mtu) {
        Err(Error::Umem { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
            eprintln!("SKIPPED: AF_XDP needs root");
            None
        }
        result => Some(result.unwrap()),
    }
}

fn new(pool: &mut Pool, bytes: &[u8]) -> Option<Frame> {
    pool.gather([bytes])
}

fn read(pool: &Pool, frame: &Frame) -> Vec<u8> {
    pool.parts(frame).collect::<Vec<_>>().concat()
}

#[test]
fn frames_go_round_and_keep_their_bytes() {
    let Some(mut small) = pool(4, 1500) else { return };
    let mut large = pool(1, 1779).unwrap();
    let long = new(&mut large, &[7; 1793]).unwrap();
    assert!(large.alloc().is_none(), "the only frame is in use");
    assert!(small.copy_from(&mut large, long).is_none(), "it does not fit a smaller frame");
    assert_eq!((small.available(), large.available()), (4, 1));

    let mut frames: Vec<_> = (0..4).map(|n| new(&mut small, &[n; 1514]).unwrap()).collect();
    assert!(new(&mut small, &[9]).is_none());
    let mut copy = large.copy_from(&mut small, frames.remove(2)).unwrap();
    let range = copy.head..copy.head + copy.len;
    assert_eq!(large.buffer(&mut copy)[range], [2; 1514]);
    for (mut frame, n) in frames.into_iter().zip([0, 1, 3]) {
        let range = frame.head..frame.head + frame.len;
        assert_eq!(small.buffer(&mut frame)[range], [n; 1514]);
        small.free(frame);
    }
    large.free(copy);
    assert_eq!((small.available(), large.available()), (4, 1));
}

/// What is sent is what was written, cut to its length, in descriptors that say so.
#[test]
fn a_jumbo_frame_takes_several_chunks() {
    let Some(mut pool) = pool(6, 9000) else { return };
    let bytes: Vec<u8> = (0..9014).map(|n| (n % 251) as u8).collect();
    let mut descs = [FrameDesc::default(); 8];
    for tail in [9014 - 3840, 5000, 3841, 3840, 100, 1, 0] {
        let mut frame = pool.gather(bytes.chunks(1000)).unwrap();
        assert_eq!((read(&pool, &frame), frame.len, pool.available()), (bytes.clone(), 3840, 3));
        let copy = pool.gather(read(&pool, &frame).chunks(4001)).unwrap();
        assert_eq!((read(&pool, &copy), pool.available()), (bytes.clone(), 0));
        assert!(new(&mut pool, &[1]).is_none());
        pool.free(copy);
        frame.tail = tail;
        assert_eq!(read(&pool, &frame), bytes[..3840 + tail]);
        let n = pool.lend_tx(frame, &mut descs).unwrap();
        let lengths = descs[..n].iter().map(|desc| (desc.lengths().data(), desc.has_more_frames()));
        let expected: &[(usize, bool)] = match tail {
            5174 | 5000 => &[(3840, true), (3840, true), (tail - 3840, false)],
            3841 => &[(3840, true), (3840, true), (1, false)],
            1.. => &[(3840, true), (tail, false)],
            0 => &[(3840, false)],
        };
        assert_eq!(lengths.collect::<Vec<_>>(), expected);
        assert_eq!(pool.available(), 6 - n, "what was cut off is free");
        assert!(descs[..n].iter().all(|desc| pool.completed(desc)) && !pool.completed(&descs[0]));
    }
    assert_eq!(pool.available(), 6);
}

#[test]
fn more_than_there_is_is_not_sent() {
    let Some(mut pool) = pool(4, 9000) else { return };
    let mut descs = [FrameDesc::default(); 8];
    let one_more = |pool: &mut Pool, length: usize| {
        let mut frame = new(pool, &vec![3; length]).unwrap();
        frame.tail += 1;
        frame
    };
    let outside = |pool: &mut Pool, head, len| Frame { head, len, ..pool.alloc().unwrap() };
    let mut wrong = vec![one_more(&mut pool, 100), one_more(&mut pool, 5000), outside(&mut pool, 4000, 97)];
    for frame in wrong.drain(..) {
        let frame = pool.lend_tx(frame, &mut descs).unwrap_err();
        pool.free(frame);
    }
    let frame = outside(&mut pool, 0, 3841);
    let frame = pool.lend_tx(frame, &mut descs).unwrap_err();
    pool.free(frame);
    assert!(new(&mut pool, &[0; 3 * 3840 + 1]).is_none());
    assert_eq!(pool.available(), 4);
}

/// Entries as the kernel writes them, with foreign ones in between.
#[test]
fn packets_are_put_together_or_freed() {
    let Some(mut pool) = pool(8, 9000) else { return };
    let mut assembly = Assembly::default();
    let mut lent = [FrameDesc::default(); 8];
    for (parts, whole) in [
        (&[true][..], true),
        (&[true, true, true], true),
        (&[true, false, true], false),
        (&[false, true], false),
        (&[true, false], false),
        (&[false], false),
        (&[true, true], true),
    ] {
        pool.lend_fill(&mut lent[..parts.len()]);
        let mut packets = Vec::new();
        for (at, (&good, desc)) in parts.iter().zip(&lent).enumerate() {
            let mut part = pool.received(desc);
            part.as_mut().unwrap().len = 10 + at;
            let part = if good {
                part
            } else {
                part.into_iter().for_each(|part| pool.free(part));
                None
            };
            packets.extend(assembly.add(&mut pool, part, at + 1 < parts.len()));
        }
        assert_eq!(packets.len(), usize::from(whole), "{parts:?}");
        for packet in packets {
            assert_eq!(packet.len + packet.tail, (0..parts.len()).map(|at| 10 + at).sum());
            pool.free(packet);
        }
        assert_eq!(pool.available(), 8, "{parts:?}");
    }
}

#[test]
fn a_frame_of_another_pool_is_refused() {
    let Some(mut one) = pool(1, 1500) else { return };
    let mut other = pool(1, 1500).unwrap();
    let frame = one.alloc().unwrap();
    let mixed_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.free(frame)));
    assert!(mixed_up.is_err());
}

#[test]
fn errors_name_the_thing_and_what_would_be_right() {
    let text = Pool::new(1, 12000).unwrap_err().to_string();
    assert!(text.contains("MTU 12000") && text.contains("at most 11506"), "{text}");
    let Some(mut pool) = pool(64, 1500) else { return };
    let text = Socket::bind("nonesuch0", 3, Mode::Copy, &mut pool).unwrap_err().to_string();
    assert!(text.contains("nonesuch0 queue 3") && text.contains("no such device"), "{text}");
    assert_eq!(pool.available(), 64);
    assert_eq!(crate::queues("nonesuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
}
