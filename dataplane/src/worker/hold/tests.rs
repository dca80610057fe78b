use super::*;
use proptest::prelude::*;
use wire::craft::Craft;

const SECOND: Nanoseconds = 1_000_000_000;

#[derive(Clone, Debug)]
enum Op {
    /// A packet of this sender arrives.
    Put(u8),
    /// Time passes, and the tables change or do not.
    Retry { wait: Nanoseconds, newer: bool, answers: Vec<u8> },
}

fn op() -> impl Strategy<Value = Op> {
    let retry = (prop_oneof![Just(0), 0..2 * SECOND], any::<bool>(), prop::collection::vec(0..3u8, SLOTS));
    prop_oneof![
        40 => (0..24u8).prop_map(Op::Put),
        1 => retry.prop_map(|(wait, newer, answers)| Op::Retry { wait, newer, answers }),
    ]
}

/// Senders with even numbers are pods of this node, with another address each time.
fn frame(sender: u8, number: usize) -> (Port, Vec<u8>) {
    let (port, from) = match sender.is_multiple_of(2) {
        true => (Port::Hub, format!("10.2.{}.{}:1000", number / 256, number % 256)),
        false => (Port::Uplink(sender % 3), format!("10.1.0.{sender}:{}", 1000 + number)),
    };
    let to = wire::hub::LinkDestination::Gateway;
    let origin = Origin::Pod { ifindex: sender.into(), to }.encode();
    let packet = Craft::udp(from.parse().unwrap(), "10.1.1.1:53".parse().unwrap()).payload(&[sender; 100]);
    (port, packet.link(wire::MacAddr([2; 6]), origin).build())
}

struct Expected {
    port: Port,
    bytes: Vec<u8>,
    sender: u8,
    until: Nanoseconds,
}

fn totals(counts: &Counts) -> [u64; 4] {
    [&counts.held, &counts.decided, &counts.expired, &counts.refused].map(|count| count.load(Relaxed))
}

proptest! {
    #[test]
    fn holds_what_a_bounded_list_holds(ops in prop::collection::vec(op(), 1..400)) {
        let counts = Arc::<Counts>::default();
        let mut hold = Hold::new(1500, counts.clone());
        let mut model: Vec<Expected> = Vec::new();
        let (mut now, mut generation, mut expected_counts) = (7, 1, [0; 4]);
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Put(sender) => {
                    let (port, bytes) = frame(sender, number);
                    let from_uplinks = model.iter().filter(|held| held.port != Port::Hub).count();
                    let room = model.len() < SLOTS && (port == Port::Hub || from_uplinks < FROM_UPLINKS);
                    prop_assert_eq!(hold.has_room(port), room);
                    let room = room && model.iter().filter(|held| held.sender == sender).count() < SHARE;
                    let parts = bytes.chunks(60);
                    prop_assert_eq!(hold.put(port, parts, generation, now), room);
                    expected_counts[if room { 0 } else { 3 }] += 1;
                    if room {
                        model.push(Expected { port, bytes, sender, until: now + SECOND });
                    }
                }
                Op::Retry { wait, newer, answers } => {
                    now += wait;
                    generation += u32::from(newer);
                    let mut seen = Vec::new();
                    let asked = hold.retry(generation, now, |port, frame, may_hold| {
                        let verdict = match answers[seen.len()] {
                            0 if may_hold => Verdict::Hold,
                            1 if !may_hold => Verdict::Drop(DropReason::UnknownIdentity),
                            _ => Verdict::Transmit(Port::Hub),
                        };
                        seen.push((port, frame.bytes().to_vec(), may_hold, verdict));
                        verdict
                    });
                    prop_assert_eq!(asked, seen.len());
                    let (due, rest): (Vec<_>, Vec<_>) =
                        model.drain(..).partition(|held| newer || held.until <= now);
                    let due_now = due.iter().map(|held| (held.port, held.bytes.clone(), held.until > now));
                    let asked_about = seen.iter().map(|(port, bytes, may, _)| (*port, bytes.clone(), *may));
                    prop_assert!(due_now.eq(asked_about));
                    // All or the oldest are due, so those that wait on come last.
                    model = rest;
                    for (held, (.., verdict)) in due.into_iter().zip(seen) {
                        match verdict {
                            Verdict::Hold => model.push(held),
                            Verdict::Drop(_) => expected_counts[2] += 1,
                            Verdict::Transmit(_) => expected_counts[1] += 1,
                        }
                    }
                }
            }
            prop_assert_eq!(hold.is_empty(), model.is_empty());
            prop_assert_eq!(totals(&counts), expected_counts);
        }
    }
}

#[test]
fn what_is_too_long_or_no_packet_does_not_wait() {
    let mut hold = Hold::new(9000, Arc::default());
    let long = Craft::udp("10.1.0.1:1".parse().unwrap(), "10.1.1.1:53".parse().unwrap()).payload(&[7; 9000]);
    assert!(!hold.put(Port::Hub, long.build().chunks(3800), 1, 0));
    assert!(!hold.put(Port::Hub, [&[0u8; 60][..]].into_iter(), 1, 0));
    assert!(!hold.put(Port::Hub, std::iter::empty(), 1, 0));
    assert!(hold.is_empty());
}
