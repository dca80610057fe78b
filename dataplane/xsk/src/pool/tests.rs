use super::*;
use crate::{Mode, Socket};

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

#[test]
fn frames_go_round_and_keep_their_bytes() {
    let Some(mut small) = pool(4, 1500) else { return };
    let mut large = pool(1, 1779).unwrap();
    let jumbo = large.fill_new(&[7; 1793]).unwrap();
    assert!(large.alloc().is_none(), "the only frame is in use");
    assert!(small.copy_from(&mut large, jumbo).is_none(), "it does not fit a smaller frame");
    assert_eq!((small.available(), large.available()), (4, 1));

    let mut frames: Vec<_> = (0..4).map(|n| small.fill_new(&[n; 1514]).unwrap()).collect();
    assert!(small.fill_new(&[9]).is_none());
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
    let text = Pool::new(1, 9000).unwrap_err().to_string();
    assert!(text.contains("MTU 9000") && text.contains("3826"), "{text}");
    let Some(mut pool) = pool(64, 1500) else { return };
    let text = Socket::bind("nonesuch0", 3, Mode::Copy, &mut pool).unwrap_err().to_string();
    assert!(text.contains("nonesuch0 queue 3") && text.contains("no such device"), "{text}");
    assert_eq!(pool.available(), 64);
    assert_eq!(crate::queues("nonesuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
}
