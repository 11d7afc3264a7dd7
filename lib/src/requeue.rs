//! Putting a record into its queue once more: what redriving and resending have in common.
//!
//! # Invariants
//! - What is looked up and what is appended lie under one hold of the queue's lock, so that of two who ask for
//!   the same at once only the first puts it back. The lock is let go between batches.
//! - The new record is the old one with its payload, key and time as they were, so every attempt of the key has
//!   the same body. It names its endpoint, and carries the queue's last `resume` on.
//! - The queue's instance lock is not taken: all of this works beside `milestone-queue --watch`.
//!
//! Not here: which records (`redrive`, `resend`), what becomes of them (`delivery`).

use serde_json::json;

use crate::{
    Error, Kind, Result,
    audit::{Action, Draft, Outcome},
    envelope::EventEnvelope,
    index::Index,
    journal::{Batch, Journal, JournalName, Lines, Position, Writer, digest},
    queue,
};

/// A queue into which records are put once more, for one endpoint.
#[derive(Debug)]
pub(crate) struct Requeue<'q> {
    queue: &'q Journal,
    source: &'q JournalName,
    endpoint: &'q str,
    lines: Lines,
    index: Option<Index>,
}

/// One hold of the queue's lock, and the batch that it ends with.
#[derive(Debug)]
pub(crate) struct Turn<'r, 'q> {
    requeue: &'r mut Requeue<'q>,
    writer: Writer,
    index: Index,
    resume: Position,
    batch: Batch<'r>,
}

/// A record that is put in once more, and from where.
#[derive(Debug)]
pub(crate) struct Origin<'r> {
    /// [`Action::Redrive`] or [`Action::Resend`].
    pub action: Action,
    /// The record as it was.
    pub record: &'r EventEnvelope,
    /// The dead letter that is put back by this.
    pub dead_letter: Option<u64>,
    /// The record's logical offset in the queue, where that is what was asked for.
    pub of: Option<u64>,
}

impl<'q> Requeue<'q> {
    /// Puts into `queue`, which is filled from `source`, what is meant for `endpoint` (empty for the one
    /// without a name).
    pub fn new(queue: &'q Journal, source: &'q JournalName, endpoint: &'q str) -> Requeue<'q> {
        Requeue { queue, source, endpoint, lines: queue.lines(), index: None }
    }

    /// Takes the queue's lock.
    pub fn turn(&mut self) -> Result<Turn<'_, 'q>> {
        let writer = self.queue.write()?;
        let index = match self.index.take() {
            Some(mut index) => {
                index.refresh()?;
                index
            }
            None => Index::open(self.queue, queue::keys_of)?,
        };
        let resume = queue::resume(self.queue, self.source)?;
        Ok(Turn { requeue: self, writer, index, resume, batch: Batch::default() })
    }
}

impl Turn<'_, '_> {
    /// Whether the dead letter at this offset, of the event with this key, was put back.
    pub fn is_put_back(&mut self, dead_letter: u64, key: &str) -> Result<bool> {
        is_put_back(&mut self.index, &mut self.requeue.lines, self.requeue.endpoint, dead_letter, key)
    }

    /// All records of the event with this key that are meant for the endpoint: their logical offsets and
    /// lines, in the order of the queue.
    pub fn records_of(&mut self, key: &str) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut candidates = self.index.find(&queue::event_key(key))?;
        candidates.extend(self.index.find(&queue::again_key(self.requeue.endpoint, key))?);
        candidates.sort_unstable();
        candidates.dedup();
        let mut records = Vec::new();
        for offset in candidates {
            // A hit is a candidate: another key may have the same hash.
            let Some(line) = self.requeue.lines.get(offset)? else { continue };
            let Ok(record) = EventEnvelope::from_line(&line) else { continue };
            let is_ours = record.endpoint.as_deref().is_none_or(|it| it == self.requeue.endpoint);
            if record.idempotency_key == key && is_ours {
                records.push((offset, line));
            }
        }
        Ok(records)
    }

    /// The line at this offset of the queue.
    pub fn line(&mut self, offset: u64) -> Result<Vec<u8>> {
        Ok(self.requeue.lines.get(offset)?.unwrap_or_default())
    }

    /// Puts a record in; it is there once [`Turn::finish`] has returned.
    pub fn put(&mut self, origin: &Origin<'_>) -> Result<()> {
        let endpoint = self.requeue.endpoint;
        let record = EventEnvelope {
            resume: Some(self.resume.clone()),
            endpoint: Some(endpoint.to_owned()),
            redrive_of: origin.dead_letter,
            ..origin.record.clone()
        };
        let mut detail = json!({
            "journal": self.requeue.queue.name().as_str(),
            "offset": self.writer.end() + self.batch.bytes(),
            "endpoint": endpoint,
        });
        if let Some(dead_letter) = origin.dead_letter {
            detail["deadLetter"] = json!(dead_letter);
        }
        if let Some(of) = origin.of {
            detail["of"] = json!(of);
        }
        let mut line = Vec::with_capacity(1024);
        record.write_line(&mut line).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
        self.batch.push(&line);
        let scope = queue::scope_of(&record).unwrap_or_default();
        self.batch.audit(Draft::of(origin.action, Outcome::Queued, record.idempotency_key, scope, detail));
        Ok(())
    }

    /// Whether the next record should wait for another turn.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Appends what was put and lets the lock go. Returns how many records that were.
    pub fn finish(mut self) -> Result<u64> {
        if !self.batch.is_empty() {
            self.writer.append(&self.batch)?;
        }
        self.requeue.index = Some(self.index);
        Ok(self.batch.records() as u64)
    }
}

/// Whether the queue has the record that put this dead letter back. The caller holds the queue's lock.
pub(crate) fn is_put_back(
    index: &mut Index,
    lines: &mut Lines,
    endpoint: &str,
    dead_letter: u64,
    key: &str,
) -> Result<bool> {
    let redrive_key = queue::redrive_key(endpoint, dead_letter);
    for candidate in index.find(&redrive_key)? {
        // The key too: dead letters that were moved away and began anew have the old offsets again.
        let is_it = match lines.get(candidate)? {
            Some(line) => EventEnvelope::from_line(&line).is_ok_and(|it| {
                it.redrive_of == Some(dead_letter)
                    && it.endpoint.as_deref() == Some(endpoint)
                    && it.idempotency_key == key
            }),
            None => lines.kept(candidate, &redrive_key)?.is_some_and(|it| it.rest == digest(key.as_bytes())),
        };
        if is_it {
            return Ok(true);
        }
    }
    Ok(false)
}
