//! How long an entry lives after its last packet, see `cilium-interop` 6.5.

use crate::{Seconds, State};
use wire::Protocol;

/// TCP as long as only SYNs were seen.
pub(crate) const TCP_SYN: Seconds = 60;
/// TCP from the first segment without SYN on.
pub(crate) const TCP_ESTABLISHED: Seconds = 8000;
/// TCP once both sides have closed, counted from then.
pub(crate) const TCP_CLOSED: Seconds = 10;
/// Everything else.
pub(crate) const OTHER: Seconds = 60;

/// Time to live from the last packet that counts. A service entry follows its flow, so it needs
/// no times of its own.
pub(crate) fn lifetime(proto: Protocol, state: State) -> Seconds {
    match proto {
        Protocol::TCP if state.closed() => TCP_CLOSED,
        Protocol::TCP if state.seen_non_syn => TCP_ESTABLISHED,
        Protocol::TCP => TCP_SYN,
        _ => OTHER,
    }
}

/// Seconds from `then` to `now`; 0 if `then` lies ahead, as it may by a tick when another worker
/// has read its clock later. Right across the wrap of the clock for up to 2³¹ s.
pub(crate) fn age(then: Seconds, now: Seconds) -> Seconds {
    let age = now.wrapping_sub(then);
    if age > Seconds::MAX / 2 { 0 } else { age }
}
