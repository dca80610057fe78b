//! The way out: updates leave in the order in which they were put in, whoever sends them on, and
//! a task that is stopped half-way loses none.

use super::lock;
use crate::update::Update;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::mpsc;

/// Room that is kept for updates to come.
const KEPT: usize = 64;

pub(super) struct Outbox {
    queue: Mutex<VecDeque<Update>>,
    sender: mpsc::Sender<Update>,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Update>) -> Outbox {
        Outbox { queue: Mutex::default(), sender }
    }

    pub(super) fn push(&self, updates: impl IntoIterator<Item = Update>) {
        lock(&self.queue).extend(updates);
    }

    /// Sends what is queued; waits while the receiver is busy. Without a receiver nothing is left
    /// to do, and this waits for the end.
    pub(super) async fn flush(&self) {
        loop {
            {
                let mut queue = lock(&self.queue);
                if queue.is_empty() {
                    queue.shrink_to(KEPT);
                    return;
                }
            }
            let Ok(permit) = self.sender.reserve().await else {
                return std::future::pending().await;
            };
            if let Some(update) = lock(&self.queue).pop_front() {
                permit.send(update);
            }
        }
    }
}
