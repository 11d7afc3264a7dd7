//! The refused requests that are shown: the last ones, by time, reason and key.
//!
//! # Invariants
//! - Only authentic requests are here, since only those are kept in `rejected.jsonl`.
//! - At most [`SHOWN_MAX`]; what a request said is not shown.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use milepost::{Result, Timestamp, journal::Journal};
use serde::Serialize;

use crate::{reason::Kept, record::RejectedLine};

/// Refused requests that are shown.
const SHOWN_MAX: usize = 200;
/// Characters of a key that are shown.
const KEY_CHARS_MAX: usize = 300;

/// The last refused requests.
#[derive(Debug, Default)]
pub struct DeadLetters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: VecDeque<DeadLetter>,
    count: u64,
}

/// One refused request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// When it was refused.
    timestamp_utc: Timestamp,
    /// Why: one of the fixed list.
    reason: &'static str,
    /// Its key, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

impl DeadLetters {
    /// Reads the last ones of earlier runs.
    pub fn read(&self, journal: &Journal) -> Result<()> {
        for line in journal.last_lines(SHOWN_MAX)? {
            self.add(&line);
        }
        Ok(())
    }

    /// Adds a line of `rejected.jsonl`; a damaged one is passed over.
    pub fn add(&self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<RejectedLine>(line) else { return };
        let Some(reason) = Kept::from_code(&line.reason) else { return };
        let mut state = self.state();
        state.count = line.seq;
        state.last.push_front(DeadLetter {
            timestamp_utc: line.received_at_utc,
            reason: reason.code(),
            idempotency_key: line.idempotency_key.map(|it| it.chars().take(KEY_CHARS_MAX).collect()),
        });
        state.last.truncate(SHOWN_MAX);
    }

    /// The last ones, newest first, and how many there are in all.
    pub fn last(&self) -> (Vec<DeadLetter>, u64) {
        let state = self.state();
        (state.last.iter().cloned().collect(), state.count)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
