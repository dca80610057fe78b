use super::*;
use Side::{Original, Reply};
use proptest::prelude::*;

fn after(segments: &[(Side, u8)]) -> State {
    segments.iter().fold(State::default(), |state, &(side, flags)| state.after_segment(side, flags))
}

const OPENING: [(Side, u8); 2] = [(Original, SYN), (Reply, SYN | ACK)];

#[test]
fn a_handshake_is_over_with_the_clients_first_ack() {
    assert!(!after(&OPENING).seen_non_syn);
    let open = after(&[OPENING[0], OPENING[1], (Original, ACK)]);
    let flags = State { original_flags: SYN | ACK, reply_flags: SYN | ACK, ..State::default() };
    assert_eq!(open, State { replied: true, seen_non_syn: true, ..flags });
}

#[test]
fn each_side_closes_for_itself() {
    let open = after(&[OPENING[0], OPENING[1], (Original, ACK)]);
    let half = open.after_segment(Original, FIN | ACK);
    assert!(half.original_closing && !half.closed());
    assert!(half.after_segment(Reply, FIN | ACK).closed());
    assert!(!open.after_segment(Reply, RST).closed());
}

#[test]
fn a_refusal_before_both_syns_closes_both_sides() {
    assert!(after(&[(Original, SYN), (Reply, RST | ACK)]).closed());
    assert!(after(&[(Original, ACK), (Original, RST)]).closed());
}

#[test]
fn only_a_pure_syn_reopens_and_only_what_is_closing() {
    let closing = after(&[OPENING[0], OPENING[1], (Original, FIN | ACK)]);
    assert!(closing.reopened_by(SYN));
    assert!(![SYN | ACK, ACK, FIN, RST, 0].into_iter().any(|flags| closing.reopened_by(flags)));
    assert!(!after(&OPENING).reopened_by(SYN));
}

proptest! {
    #[test]
    fn nothing_seen_is_forgotten(segments in prop::collection::vec((any::<bool>(), any::<u8>()), 0..20)) {
        let mut state = State::default();
        for (reply, flags) in segments {
            let next = state.after_segment(if reply { Reply } else { Original }, flags);
            prop_assert_eq!(next.original_flags & state.original_flags, state.original_flags);
            prop_assert_eq!(next.reply_flags & state.reply_flags, state.reply_flags);
            prop_assert!(next.replied >= state.replied && next.seen_non_syn >= state.seen_non_syn);
            prop_assert!(next.closed() >= state.closed());
            state = next;
        }
    }
}
