//! What is settled, for those who ask from outside: an operator's command beside a running instance.
//!
//! # Invariants
//! - Nothing is changed and no instance lock is needed: state, audit and dead letters are read in the order in
//!   which they rest on each other, as a start reads them.
//! - What counts is what is on disk. An answer that the running instance has not made durable yet does not.
//!
//! Not here: what is done with it (`resend`).

use super::{Consumer, event::Event, item::Head, state::State, store::Store};
use crate::{
    Result, Timestamp,
    audit::Outcome,
    journal::{Item as Found, JournalName, Reader},
};

/// Which records of a queue were settled for one consumer when this was read.
#[derive(Debug)]
pub struct Settled {
    state: State,
}

impl Settled {
    /// Reads the consumer's state and brings it up to the audit and the dead letters; without a state file
    /// that is a pass over the whole audit.
    ///
    /// # Errors
    /// [`crate::Kind::BadData`] when the queue is not the one that the state was taken from (J5).
    pub fn read(consumer: &Consumer) -> Result<Settled> {
        let (_, state, _) = Store::open(consumer)?;
        Ok(Settled { state })
    }

    /// Whether the record `line` at this logical offset of the queue is acknowledged, given up or set aside.
    pub fn holds(&self, offset: u64, line: &[u8]) -> bool {
        // What is no record at all was set aside when it was read.
        let Some(head) = Head::read(line) else { return offset < self.state.cursor.offset };
        !self.state.owes(head.scope.as_deref(), &head.key, offset)
    }
}

/// Calls `each` with the logical offset in the queue and the key of every record that the consumer's endpoint
/// acknowledged from `since` on and before `until`, by the sender's clock. Costs a pass over the audit.
pub fn acknowledged_between(
    consumer: &Consumer,
    since: Timestamp,
    until: Option<Timestamp>,
    each: &mut dyn FnMut(u64, &str),
) -> Result<()> {
    let (queue, endpoint) = (consumer.queue_name().as_str(), consumer.endpoint());
    let mut reader = Reader::open_at(consumer.logs(), &JournalName::audit(), 0)?;
    while let Some(found) = reader.next_item()? {
        let Found::Line { text, .. } = found else { continue };
        // Lines are canonical, so this is how such a record begins.
        if !text.starts_with(b"{\"action\":\"deliver\",") {
            continue;
        }
        let Some(Event::Item { outcome: Outcome::Acknowledged, key: Some(key), detail, .. }) =
            Event::read(text, queue, endpoint)
        else {
            continue;
        };
        if detail.at >= since && until.is_none_or(|it| detail.at < it) {
            each(detail.queue_offset, &key);
        }
    }
    Ok(())
}
