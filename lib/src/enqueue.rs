//! From a source journal to a queue: what is new, once.
//!
//! # Invariants
//! - The queue's own last record says where to go on, so no state can disagree with it (J7).
//! - Every key is looked up under the queue's lock before its record is appended (J8).
//! - A line that gives no record is kept in quarantine if it is damaged, audited, and passed over; it is told
//!   of once. What remembers that is disposable: without it the line is told of again, never skipped wrongly.
//!
//! Not here: the records of a queue (`queue`), waking up (`watch`).

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Error, Kind, Result,
    audit::{self, Action, Draft, Outcome},
    clock,
    envelope::{EventEnvelope, Resume},
    index::Index,
    journal::{
        BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Item, Journal, JournalName, Lines, Position, Reader,
        keep_in_quarantine,
    },
    logs::Logs,
    queue,
    state_file::{self, Loaded},
};

/// What one pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Records that were appended to the queue.
    pub queued: u64,
    /// Lines that gave none because they are damaged.
    pub rejected: u64,
    /// Lines that gave none because their key is there already.
    pub known: u64,
    /// The logical offset in the source up to which all is done.
    pub cursor: u64,
}

/// Carries events from one journal to one queue. The holder has the queue's instance lock.
#[derive(Debug)]
pub struct Enqueuer {
    source: Journal,
    queue: Journal,
    lines: Lines,
    index: Option<Index>,
}

/// What is remembered of lines that gave no record, in a file that may be deleted.
#[derive(Debug, Serialize, Deserialize)]
struct Passage {
    /// The `resume` of the queue when these lines were passed.
    after: Position,
    /// The position behind them.
    to: Position,
}

/// A line of the source on its way into the queue.
struct Arrival {
    /// Logical offset of the line in the source.
    offset: u64,
    /// The position behind it.
    behind: Position,
    content: Content,
}

enum Content {
    Event(Box<EventEnvelope>),
    /// Why it is no event, and its bytes.
    Damaged(String, Vec<u8>),
}

impl Enqueuer {
    /// Carries from `source` to `queue`.
    pub fn new(source: Journal, queue: Journal) -> Enqueuer {
        Enqueuer { lines: queue.lines(), source, queue, index: None }
    }

    /// Enqueues all that is in the source by now. `tell` is told of each damaged line: its place and fault.
    /// `stop` ends the pass after a batch.
    pub fn pass(&mut self, tell: &mut dyn FnMut(&Error), stop: &dyn Fn() -> bool) -> Result<Passed> {
        self.source.settle_if_needed()?;
        self.queue.settle_if_needed()?;
        let resume = queue::resume(&self.queue, self.source.name())?;
        let from = self.passed_after(&resume)?.unwrap_or_else(|| resume.clone());
        // Either file may be the wrong one, so the message names both.
        let says = |it: Error| it.within(format_args!("going on where {} says", self.queue.name().file()));
        let mut reader = self.source.read_from(&from).map_err(says)?;
        let mut passed = Passed { cursor: from.offset, ..Passed::default() };
        let mut last = from;
        while !stop() {
            let arrivals = self.arrivals(&mut reader)?;
            let Some(behind) = arrivals.last().map(|it| it.behind.clone()) else { break };
            let is_recorded = self.take(&arrivals, tell, &mut passed)?;
            passed.cursor = behind.offset;
            last = behind;
            if !is_recorded {
                let after = queue::resume(&self.queue, self.source.name())?;
                state_file::save(
                    self.queue.logs(),
                    &passage_file(self.queue.name()),
                    &Passage { after, to: last.clone() },
                )?;
            }
        }
        if self.index.as_ref().is_some_and(Index::is_long) {
            self.hand_over_index()?;
        }
        passed.cursor = last.offset;
        Ok(passed)
    }

    /// The next lines of the source, at most a batch of them.
    fn arrivals(&self, reader: &mut Reader) -> Result<Vec<Arrival>> {
        let now = clock::now();
        let mut arrivals = Vec::new();
        let mut bytes = 0;
        while arrivals.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX / 2 {
            arrivals.push(match reader.next_item()? {
                None => break,
                Some(Item::Line { offset, end, text }) => {
                    bytes += text.len();
                    let content = match queue::event_of(text, now) {
                        Ok(event) => Content::Event(Box::new(event)),
                        Err(why) => Content::Damaged(why, text.to_vec()),
                    };
                    Arrival { offset, behind: Position::after(end, text), content }
                }
                Some(Item::Overlong { offset, end }) => {
                    let why = "it is longer than any record".to_owned();
                    let content = Content::Damaged(why, self.source.bytes(offset, end)?);
                    Arrival { offset, behind: self.source.position_at(end)?, content }
                }
            });
        }
        Ok(arrivals)
    }

    /// Appends what is new of `arrivals`; says whether the last of them left a record.
    fn take(
        &mut self,
        arrivals: &[Arrival],
        tell: &mut dyn FnMut(&Error),
        passed: &mut Passed,
    ) -> Result<bool> {
        let mut batch = Batch::default();
        self.quarantine(arrivals, &mut batch, tell, passed)?;
        let mut writer = self.queue.write()?;
        match &mut self.index {
            Some(index) => index.refresh()?,
            None => self.index = Some(Index::open(&self.queue, queue::keys_of)?),
        }
        let base = writer.end();
        let mut appended: Vec<(String, u64, u64)> = Vec::new();
        let mut fresh = std::collections::HashSet::new();
        let mut is_recorded = false;
        for arrival in arrivals {
            is_recorded = false;
            let Content::Event(event) = &arrival.content else { continue };
            let key = event.idempotency_key.as_str();
            if !fresh.insert(key) || self.is_known(key)? {
                let scope = queue::scope_of(event).unwrap_or_default();
                let detail = json!({ "source": self.source.name().as_str(), "sourceOffset": arrival.offset });
                batch.audit(Draft::of(Action::Enqueue, Outcome::Duplicate, key, &scope, detail));
                passed.known += 1;
                continue;
            }
            let Position { offset, fingerprint } = arrival.behind.clone();
            let record = EventEnvelope { resume: Some(Resume { offset, fingerprint }), ..(**event).clone() };
            let mut line = Vec::with_capacity(1024);
            record.write_line(&mut line).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
            let start = base + batch.bytes();
            batch.push(&line);
            appended.push((queue::event_key(key), start, base + batch.bytes()));
            is_recorded = true;
        }
        if batch.records() > 0 {
            let detail = json!({
                "journal": self.queue.name().as_str(),
                "from": base,
                "to": base + batch.bytes(),
                "records": batch.records(),
                "source": self.source.name().as_str(),
            });
            batch.audit(Draft::new(Action::Enqueue, Outcome::Queued, detail));
        }
        writer.append(&batch)?;
        passed.queued += appended.len() as u64;
        if let Some(index) = &mut self.index {
            for (key, offset, end) in appended {
                index.add_key(&key, offset, end);
            }
            index.settle()?;
        }
        Ok(is_recorded)
    }

    /// Keeps copies of damaged lines, before anything of the queue is locked.
    fn quarantine(
        &self,
        arrivals: &[Arrival],
        batch: &mut Batch,
        tell: &mut dyn FnMut(&Error),
        passed: &mut Passed,
    ) -> Result<()> {
        for arrival in arrivals {
            let Content::Damaged(why, bytes) = &arrival.content else { continue };
            let file = keep_in_quarantine(self.source.logs(), self.source.name(), arrival.offset, bytes)?;
            let place = format!("{} at offset {}", self.source.name().file(), arrival.offset);
            tell(
                &Error::new(Kind::BadData, place, format!("is no valid record: {why}"))
                    .cure(format!("it is passed over; a copy is in {file}")),
            );
            let detail = json!({
                "source": self.source.name().as_str(),
                "sourceOffset": arrival.offset,
                "quarantine": file,
                "reason": why,
            });
            batch.audit(Draft::new(Action::Enqueue, Outcome::Quarantined, detail));
            passed.rejected += 1;
        }
        Ok(())
    }

    /// Whether an event with this key is in the queue.
    fn is_known(&mut self, key: &str) -> Result<bool> {
        let Some(index) = &mut self.index else { return Ok(false) };
        for offset in index.find(&queue::event_key(key))? {
            // A hit is a candidate: another key may have the same hash.
            let is_it = match self.lines.get(offset)? {
                Some(line) => EventEnvelope::from_line(&line)
                    .is_ok_and(|it| it.idempotency_key == key && it.endpoint.is_none()),
                None => self.lines.kept(offset, &queue::event_key(key))?.is_some(),
            };
            if is_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hand_over_index(&mut self) -> Result<()> {
        let Some(mut index) = self.index.take() else { return Ok(()) };
        let _lock = self.queue.write()?;
        index.refresh()?;
        index.finish()
    }

    /// Behind the lines after `resume` that gave no record, if that is remembered.
    fn passed_after(&self, resume: &Position) -> Result<Option<Position>> {
        let passed = passage(self.queue.logs(), self.queue.name())?;
        Ok(passed.filter(|(after, _)| after == resume).map(|(_, to)| to))
    }
}

fn passage_file(queue: &JournalName) -> String {
    format!(".index/{queue}.passed.json")
}

/// Which lines gave no record although the queue went beyond them: from one position of its source to another.
pub fn passage(logs: &Logs, queue: &JournalName) -> Result<Option<(Position, Position)>> {
    Ok(match state_file::load::<Passage>(logs, &passage_file(queue))? {
        Loaded::Found(it) => Some((it.after, it.to)),
        Loaded::Missing | Loaded::Damaged(_) => None,
    })
}

/// Sets the queue's writer to `position` of the source, audited.
pub fn resync(source: &Journal, queue: &Journal, position: Position) -> Result<()> {
    let detail = json!({
        "queue": queue.name().as_str(),
        "source": source.name().as_str(),
        "sourceOffset": position.offset,
    });
    // It may tell of lines behind the very position that is chosen now, in a journal that is another one since.
    state_file::remove(queue.logs(), &passage_file(queue.name()))?;
    queue::begin_at(queue, source.name(), position)?;
    audit::append(queue.logs(), &[Draft::new(Action::Resync, Outcome::Done, detail)])
        .map(drop)
        .map_err(|it| it.error)
}
