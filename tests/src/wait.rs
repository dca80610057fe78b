//! Waiting for something to become true: by polling with a generous deadline, never by guessing
//! how long it takes.

use std::fmt::Display;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long anything may take before it counts as never going to happen.
pub const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Tries until it succeeds; panics with the last error after [`DEADLINE`].
pub fn eventually<T, E: Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("never happened: {what}: {error}"),
            Err(_) => pause(),
        }
    }
}

/// Polls until it holds; panics after [`DEADLINE`].
pub fn eventually_true(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || if holds() { Ok(()) } else { Err("not so") });
}

/// Lets a little time pass; panics if the user wants to stop, so that everything is removed.
pub fn pause() {
    thread::sleep(PAUSE);
    assert!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
}

/// Returns when the user wants to stop.
pub fn interruption() {
    while !INTERRUPTED.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
    }
}

/// From here on SIGINT and SIGTERM end the next wait with a panic instead of the process at once.
pub fn stop_gracefully_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        thread::spawn(move || {
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
                let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                INTERRUPTED.store(true, Ordering::Relaxed);
            });
        });
    });
}
