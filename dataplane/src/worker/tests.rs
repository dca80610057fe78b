mod live;
mod syscalls;

use super::mailbox::Mailbox;
use std::{sync::Arc, thread};
use xsk::Waiter;

fn put(mailbox: &Mailbox, uplink: u8, frame: &[u8]) -> bool {
    mailbox.put(uplink, frame.chunks(1000))
}

/// Every frame arrives once, unchanged, although the owner sleeps without a timeout whenever it
/// finds nothing: a lost wakeup would hang this test.
#[test]
fn a_sleeping_owner_gets_every_frame() {
    const FRAMES: u32 = 20_000;
    let mailbox = Arc::new(Mailbox::new(1500).unwrap());
    let senders: Vec<_> = (0..2u8)
        .map(|uplink| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for n in 0..FRAMES {
                    while !put(&mailbox, uplink, &n.to_be_bytes()) {
                        mailbox.ring();
                        thread::yield_now();
                    }
                    mailbox.ring();
                }
            })
        })
        .collect();
    let mut waiter = Waiter::new([mailbox.door()]);
    let mut next = [0; 2];
    while next != [FRAMES; 2] {
        while let Some(parcel) = mailbox.take() {
            let expected = &mut next[usize::from(parcel.uplink)];
            assert_eq!(parcel.bytes(), expected.to_be_bytes());
            *expected += 1;
            mailbox.recycle(parcel);
        }
        if next != [FRAMES; 2] && mailbox.doze() {
            assert!(waiter.wait(-1).unwrap());
            mailbox.awake();
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn a_full_mailbox_and_a_long_frame_are_refused() {
    let mailbox = Mailbox::new(1500).unwrap();
    assert!(!put(&mailbox, 0, &[0; 1519]));
    let room = (0..10_000).take_while(|_| put(&mailbox, 0, &[7; 1518])).count();
    assert!(room >= 64, "{room}");
    let parcel = mailbox.take().unwrap();
    assert_eq!(parcel.bytes(), [7; 1518]);
    mailbox.recycle(parcel);
    assert!(put(&mailbox, 0, &[8]));
    assert!(!put(&mailbox, 0, &[9]));
}
