//! The lines of this folder's own feed, for the receipts that its own deliveries brought back.
//!
//! A receipt mostly names a line that was read a moment ago, but a resend brings the receipt of the first time. So the
//! last lines are kept, and of those before them every [`STRIDE`]th place: the piece that a receipt names is read again.
//!
//! # Invariants
//! - Any line of the feed is found, however far back. What is kept grows by 16 bytes for each [`STRIDE`] of them.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::{
    Result,
    journal::{Item, JournalName, Reader},
    logs::Logs,
};

/// The journal of the feed.
pub(super) const FEED: &str = "receive/feed";
/// Lines between two places that are kept, and lines that are read again at once.
const STRIDE: usize = 4096;

/// A line of the feed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Received {
    pub seq: u64,
    pub idempotency_key: String,
    pub hash: String,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    last: VecDeque<Received>,
    /// Number and offset of every so many lines.
    places: Vec<(u64, u64)>,
    /// Lines since the last of these.
    since: usize,
    /// The piece that was read again last.
    again: Vec<Received>,
}

impl Receipts {
    /// Takes the next line in.
    pub fn read(&mut self, offset: u64, line: &[u8]) {
        let Ok(received) = serde_json::from_slice::<Received>(line) else { return };
        if self.places.is_empty() || self.since == STRIDE {
            self.places.push((received.seq, offset));
            self.since = 0;
        }
        self.since += 1;
        self.last.push_back(received);
        if self.last.len() > STRIDE {
            self.last.pop_front();
        }
    }

    /// The line with this number, if it was read.
    pub fn find(&mut self, logs: &Logs, seq: u64) -> Result<Option<&Received>> {
        if self.last.front().is_none_or(|first| seq < first.seq) {
            if !self.again.iter().any(|it| it.seq == seq) {
                self.read_again(logs, seq)?;
            }
            return Ok(self.again.iter().find(|it| it.seq == seq));
        }
        Ok(self.last.iter().rev().find(|it| it.seq == seq))
    }

    fn read_again(&mut self, logs: &Logs, seq: u64) -> Result<()> {
        self.again.clear();
        let at = self.places.partition_point(|(first, _)| *first <= seq);
        let Some((_, offset)) = at.checked_sub(1).and_then(|it| self.places.get(it)) else { return Ok(()) };
        let mut reader = Reader::open_at(logs, &JournalName::internal(FEED), *offset)?;
        for _ in 0..STRIDE {
            let Some(item) = reader.next_item()? else { break };
            if let Item::Line { text, .. } = item {
                self.again.extend(serde_json::from_slice::<Received>(text));
            }
        }
        Ok(())
    }
}
