//! How many items lie beyond what was read of the queue: counted once, and then kept up to date.
//!
//! # Invariants
//! - Nothing is counted twice: neither what is settled ahead nor what waits for a retry.
//! - A count costs a look at each record that came since the last one.

use std::collections::BTreeSet;

use crate::{
    Result,
    delivery::{Consumer, State, item::Head},
    journal::{Item as Found, Reader},
};

#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Logical offset up to which was counted.
    to: u64,
    count: u64,
}

impl Unread {
    /// The item at `offset` was read, or settled before it was.
    pub fn was_read(&mut self, offset: u64) {
        self.count -= u64::from(offset < self.to);
    }

    /// Starts anew.
    pub fn forget(&mut self) {
        *self = Unread::default();
    }

    /// The items from where `reader` stands.
    pub fn count(&mut self, consumer: &Consumer, state: &State, reader: &Reader) -> Result<u64> {
        if self.to < reader.offset() {
            *self = Unread { to: reader.offset(), count: 0 };
        }
        let mut reader = Reader::open_at(consumer.logs(), consumer.queue_name(), self.to)?;
        let retrying: BTreeSet<u64> = state
            .retries
            .iter()
            .filter(|(_, it)| it.retry.is_some() && it.offset >= self.to)
            .map(|(_, it)| it.offset)
            .collect();
        while let Some(found) = reader.next_item()? {
            let Found::Line { offset, text, .. } = found else { continue };
            if state.cursor.has_settled(offset) || retrying.contains(&offset) {
                continue;
            }
            // Most records are for every endpoint and need no parsing.
            if Head::may_have_endpoint(text)
                && !Head::read(text).is_some_and(|it| it.is_for(consumer.endpoint()))
            {
                continue;
            }
            self.count += 1;
        }
        self.to = reader.offset();
        Ok(self.count)
    }
}
