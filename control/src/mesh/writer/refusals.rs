//! What the store refuses to write: it is left alone for a while, and shown.

use super::Stage;
use crate::mesh::store::{REST, Result, StoreError};
use std::collections::BTreeMap;
use std::time::Instant;

/// So many refused keys are shown.
const SHOWN: usize = 10;

#[derive(Default)]
pub(super) struct Refusals {
    /// It took nothing at all when it was last asked.
    full: Option<Refusal>,
    keys: BTreeMap<Stage, BTreeMap<String, Refusal>>,
}

struct Refusal {
    at: Instant,
    why: String,
}

impl Refusal {
    fn rests(&self) -> bool {
        self.at.elapsed() < REST
    }

    /// It was tried again not long ago: it is still wanted.
    fn counts(&self) -> bool {
        self.at.elapsed() < 3 * REST
    }
}

impl Refusals {
    /// A key is not to be written, or deleted, yet.
    pub(super) fn rests(&self, stage: Stage, key: &str, put: bool) -> bool {
        let of_key = self.keys.get(&stage).and_then(|keys| keys.get(key));
        of_key.is_some_and(Refusal::rests) || put && self.full()
    }

    /// The store takes nothing at all.
    pub(super) fn full(&self) -> bool {
        self.full.as_ref().is_some_and(Refusal::rests)
    }

    /// Something of a stage is refused.
    pub(super) fn any(&self, stage: Stage) -> bool {
        self.full() || self.keys.get(&stage).is_some_and(|keys| keys.values().any(Refusal::counts))
    }

    /// Forgets all others of a stage.
    pub(super) fn retain(&mut self, stage: Stage, keep: impl Fn(&str) -> bool) {
        if let Some(keys) = self.keys.get_mut(&stage) {
            keys.retain(|key, _| keep(key));
        }
    }

    /// Takes a refusal out of what became of a key.
    pub(super) fn note(&mut self, stage: Stage, key: String, put: bool, done: Result<bool>) -> Result<bool> {
        let keys = self.keys.entry(stage).or_default();
        let news = |before: Option<&Refusal>, why: &str| before.is_none_or(|before| before.why != why);
        match done {
            Err(StoreError::Refused(why)) => {
                if news(keys.get(&key), &why) {
                    tracing::warn!("{key}: refused by the store: {why}");
                }
                keys.insert(key, Refusal { at: Instant::now(), why });
                Ok(true)
            }
            Err(StoreError::Full(why)) => {
                if news(self.full.as_ref(), &why) {
                    tracing::warn!("the store takes no keys: {why}");
                }
                self.full = Some(Refusal { at: Instant::now(), why });
                Ok(false)
            }
            done => {
                keys.remove(&key);
                if put && done.is_ok() {
                    self.full = None;
                }
                done
            }
        }
    }

    /// In words: the first few of them.
    pub(super) fn shown(&self) -> Vec<String> {
        let full = self.full.iter().filter(|full| full.counts());
        let full = full.map(|Refusal { why, .. }| format!("the own store takes no keys: {why}"));
        let keys = self.keys.values().flatten().filter(|(_, refusal)| refusal.counts());
        let keys = keys.map(|(key, Refusal { why, .. })| format!("{key} is refused by the own store: {why}"));
        full.chain(keys.take(SHOWN)).collect()
    }
}
