//! A person sends again what an endpoint had: single events, or all that it acknowledged in a span of time.
//!
//! # Invariants
//! - Only what is settled is sent again. An event of which any record is still pending for the endpoint, the
//!   first one or one that was resent or redriven, is on its way already: asking again adds nothing.
//! - What is settled is read from the files (`delivery::Settled`) before the queue is locked. What changes in
//!   between only makes an event look pending that is not any more, never the reverse.
//! - A dead letter that is sent again is put back by it, as redriving does: its record says which one it was.
//!   One that was discarded stays closed, and the event is sent all the same.
//! - Order is that of the queue, so that within a scope it is the first one's again.
//!
//! Not here: appending (`requeue`), which records are settled (`delivery`).

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    Result, Timestamp,
    audit::Action,
    delivery::{self, Consumer, Settled},
    discard::Discarded,
    envelope::EventEnvelope,
    identity,
    journal::{BATCH_RECORDS_MAX, Journal, JournalName},
    redrive::{self, Selection},
    requeue::{Origin, Requeue, Turn},
};

/// Which events are meant.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Those with one of these idempotency keys, or the milestone ids in them.
    Keys(Vec<String>),
    /// Those that the endpoint acknowledged from `since` on and before `until`, by the clock of the sender.
    Acknowledged {
        /// Not before this time.
        since: Timestamp,
        /// Before this time; without it, up to now.
        until: Option<Timestamp>,
    },
}

/// What resending came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Events that are put in once more.
    pub queued: u64,
    /// Events that are still pending for the endpoint, and so are not.
    pub pending: u64,
    /// The keys of those, where events were asked for by name.
    pub pending_keys: Vec<String>,
    /// Keys that no event of the queue has.
    pub missing: Vec<String>,
}

/// Puts settled events into the queue once more, for the consumer's endpoint.
pub fn resend(consumer: &Consumer, source: &JournalName, wanted: &Wanted) -> Result<Resent> {
    let queue = consumer.queue();
    queue.settle_if_needed()?;
    let mut resent = Resent::default();
    if queue.end()? == 0 {
        if let Wanted::Keys(keys) = wanted {
            resent.missing.clone_from(keys);
        }
        return Ok(resent);
    }
    // In this order: what is settled by a dead letter, or was acknowledged, is in what is read after it.
    let settled = Settled::read(consumer)?;
    let dead = Dead::read(consumer, &queue)?;
    let mut resending = Resending { settled, dead, resent };
    let mut requeue = Requeue::new(&queue, source, consumer.endpoint());
    match wanted {
        Wanted::Keys(keys) => resending.keys(&mut requeue, keys)?,
        Wanted::Acknowledged { since, until } => {
            let mut window = Vec::new();
            delivery::acknowledged_between(consumer, *since, *until, &mut |offset, key| {
                window.push((offset, hash(key)));
            })?;
            window.sort_unstable();
            window.dedup();
            resending.acknowledged(&mut requeue, &window)?;
        }
    }
    Ok(resending.resent)
}

struct Resending {
    settled: Settled,
    dead: Dead,
    resent: Resent,
}

impl Resending {
    fn keys(&mut self, requeue: &mut Requeue<'_>, keys: &[String]) -> Result<()> {
        let mut turn = self.turn(requeue)?;
        // In the order of the queue, each once.
        let mut found = BTreeSet::new();
        for given in keys {
            let mut key = given.clone();
            let mut records = turn.records_of(&key)?;
            if records.is_empty() {
                key = identity::milestone_key(given);
                records = turn.records_of(&key)?;
            }
            match records.first() {
                Some((offset, _)) => drop(found.insert((*offset, key))),
                None => self.resent.missing.push(given.clone()),
            }
        }
        for (_, key) in found {
            let records = turn.records_of(&key)?;
            if !self.put(&mut turn, &records)? {
                self.resent.pending_keys.push(key);
            }
            if turn.is_full() {
                self.resent.queued += turn.finish()?;
                turn = self.turn(requeue)?;
            }
        }
        self.resent.queued += turn.finish()?;
        Ok(())
    }

    /// Of `window`, what was acknowledged: each record's offset and the hash of its key, sorted.
    fn acknowledged(&mut self, requeue: &mut Requeue<'_>, window: &[(u64, u64)]) -> Result<()> {
        let is_in = |offset: u64, key: &str| window.binary_search(&(offset, hash(key))).is_ok();
        let mut rest = window.iter().peekable();
        while rest.peek().is_some() {
            let mut turn = self.turn(requeue)?;
            // Not for ever under one lock, also where hardly anything is to be put.
            for (offset, _) in rest.by_ref().take(BATCH_RECORDS_MAX) {
                let Ok(record) = EventEnvelope::from_line(&turn.line(*offset)?) else { continue };
                let key = record.idempotency_key.as_str();
                let records = turn.records_of(key)?;
                // Several records of one event may have been acknowledged in the span: the first one counts.
                // The key too: a queue that was moved away and began anew has the old offsets again.
                if records.iter().map(|(it, _)| *it).find(|it| is_in(*it, key)) == Some(*offset) {
                    self.put(&mut turn, &records)?;
                }
                if turn.is_full() {
                    break;
                }
            }
            self.resent.queued += turn.finish()?;
        }
        Ok(())
    }

    fn turn<'r, 'q>(&mut self, requeue: &'r mut Requeue<'q>) -> Result<Turn<'r, 'q>> {
        // Without dead letters none was discarded, and the audit need not be read.
        if self.dead.letters.is_empty() {
            return requeue.turn();
        }
        self.dead.discarded.read_on()?;
        let turn = requeue.turn()?;
        self.dead.discarded.catch_up()?;
        Ok(turn)
    }

    /// Puts the event with these records in once more, unless one of them is pending. Says whether it did.
    fn put(&mut self, turn: &mut Turn<'_, '_>, records: &[(u64, Vec<u8>)]) -> Result<bool> {
        let last =
            records.last().and_then(|(offset, line)| Some((*offset, EventEnvelope::from_line(line).ok()?)));
        let is_settled = records.iter().all(|(offset, line)| self.settled.holds(*offset, line));
        let Some((offset, record)) = last.filter(|_| is_settled) else {
            self.resent.pending += 1;
            return Ok(false);
        };
        let dead_letter = self.dead.open_letter(offset, &record.idempotency_key);
        turn.put(&Origin { action: Action::Resend, record: &record, dead_letter, of: Some(offset) })?;
        Ok(true)
    }
}

/// Enough to tell keys apart, and much smaller.
fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The dead letters of the endpoint by the records that they were made of.
struct Dead {
    /// Offset of the record in the queue, offset of the dead letter; sorted.
    letters: Vec<(u64, u64)>,
    discarded: Discarded,
}

impl Dead {
    fn read(consumer: &Consumer, queue: &Journal) -> Result<Dead> {
        let dead = consumer.dead_letters();
        let mut letters = Vec::new();
        redrive::each_letter(&dead, &Selection::All, &mut |offset, letter| {
            letters.push((letter.queue_offset, offset));
            Ok(())
        })?;
        letters.sort_unstable();
        let discarded = Discarded::unread(consumer.logs(), queue.name(), consumer.endpoint());
        Ok(Dead { letters, discarded })
    }

    /// The dead letter that the record at `offset` became, unless it was discarded.
    fn open_letter(&self, offset: u64, key: &str) -> Option<u64> {
        let found = self.letters.binary_search_by_key(&offset, |(queue_offset, _)| *queue_offset).ok()?;
        let (_, letter) = self.letters[found];
        let is_closed = self.discarded.holds(letter, key);
        (!is_closed).then_some(letter)
    }
}
