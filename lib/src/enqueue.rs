//! From a source journal to a queue: what is new, once.
//!
//! # Invariants
//! - The queue's own last record says where to go on, so no state can disagree with it (J7).
//! - Every key is looked up under the queue's lock before its record is appended (J8).
//! - A line that gives no record is kept in quarantine if it is damaged, audited, and passed over; it is told
//!   of once. What remembers that is disposable: without it the line is told of again, never skipped wrongly.
//!
//! Not here: the records of a queue (`queue`), waking up (`watch`).

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Error, Kind, Result, Timestamp,
    audit::{self, Action, Detail, Draft, Outcome},
    beside, clock,
    envelope::EventEnvelope,
    event::MilestoneEvent,
    index::Index,
    journal::{
        self, BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Digest, DigestSet, Item, Journal, JournalName,
        Lines, Position, Reader, digest, keep_in_quarantine,
    },
    logs::Logs,
    queue, stages,
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

/// So many keys take the index about 0.1 ms, a multiple of what a thread costs.
const RECORDS_BESIDE: usize = 256;

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

/// Lines of the source on their way into the queue. What is text of each stands in one place for all of them: thousands
/// of small pieces that live as long as a batch are what the allocator is slowest with.
#[derive(Default)]
struct Arrivals {
    each: Vec<Arrival>,
    /// The position behind the last of them.
    behind: Position,
    /// The records that they would be in the queue, one behind the other.
    records: Vec<u8>,
    /// The keys and fingerprints of those.
    texts: String,
    /// Bytes of the source.
    bytes: usize,
}

struct Arrival {
    /// Logical offset of the line in the source.
    offset: u64,
    content: Content,
}

enum Content {
    /// An event: what the index calls it, where in the records its own is, and where in the texts are its key and the
    /// fingerprint of its record.
    Event { digest: Digest, record: Range<usize>, key: Range<usize>, fingerprint: Range<usize> },
    /// Why it is no event, and its bytes.
    Damaged(String, Vec<u8>),
}

impl Arrivals {
    /// The next lines of the source, at most a batch of them, in the `room` of earlier ones.
    fn read(source: &Journal, reader: &mut Reader, room: Option<Arrivals>) -> Result<Arrivals> {
        let now = clock::now();
        let mut arrivals = room.unwrap_or_default();
        arrivals.each.clear();
        arrivals.records.clear();
        arrivals.texts.clear();
        arrivals.bytes = 0;
        while !arrivals.is_full() {
            let arrival = match reader.next_item()? {
                None => break,
                Some(Item::Line { offset, end, text }) => {
                    arrivals.bytes += text.len();
                    arrivals.behind = Position::after(end, text);
                    let content = arrivals.write(text, now);
                    let content = content.unwrap_or_else(|why| Content::Damaged(why, text.to_vec()));
                    Arrival { offset, content }
                }
                Some(Item::Overlong { offset, end }) => {
                    let why = "it is longer than any record".to_owned();
                    let content = Content::Damaged(why, source.bytes(offset, end)?);
                    arrivals.behind = source.position_at(end)?;
                    Arrival { offset, content }
                }
            };
            arrivals.each.push(arrival);
        }
        Ok(arrivals)
    }

    /// Makes the record of one line, or says why there is none.
    fn write(&mut self, line: &[u8], now: Timestamp) -> Result<Content, String> {
        let start = self.records.len();
        let key = if let Some(event) = MilestoneEvent::borrowed(line) {
            EventEnvelope::write_milestone(&event, now, &self.behind, &mut self.records)
        } else {
            let event = EventEnvelope { resume: Some(self.behind.clone()), ..queue::event_of(line, now)? };
            event.write_line(&mut self.records).map_err(|it| it.to_string())?;
            event.idempotency_key
        };
        let digest = digest(queue::event_key(&key).as_bytes());
        let record = start..self.records.len();
        let key = self.keep(&key);
        let from = self.texts.len();
        journal::push_fingerprint(&self.records[start..record.end - 1], &mut self.texts);
        let fingerprint = from..self.texts.len();
        Ok(Content::Event { digest, record, key, fingerprint })
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.texts.len();
        self.texts.push_str(text);
        start..self.texts.len()
    }

    fn is_full(&self) -> bool {
        self.each.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX / 2
    }
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
        let source = self.source.clone();
        let read = move |room| {
            let arrivals = Arrivals::read(&source, &mut reader, room)?;
            Ok((!arrivals.each.is_empty()).then_some(arrivals))
        };
        stages::run(read, Arrivals::is_full, |arrivals| {
            if stop() {
                return Ok(false);
            }
            let behind = arrivals.behind.clone();
            let is_recorded = self.take(arrivals, tell, &mut passed)?;
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
            Ok(true)
        })?;
        if self.index.as_ref().is_some_and(Index::is_long) {
            self.hand_over_index()?;
        }
        passed.cursor = last.offset;
        Ok(passed)
    }

    /// Appends what is new of `arrivals`; says whether the last of them left a record.
    fn take(
        &mut self,
        arrivals: &Arrivals,
        tell: &mut dyn FnMut(&Error),
        passed: &mut Passed,
    ) -> Result<bool> {
        let mut batch = Batch::with_room(arrivals.records.len());
        self.quarantine(&arrivals.each, &mut batch, tell, passed)?;
        let mut writer = self.queue.write()?;
        match &mut self.index {
            Some(index) => index.refresh()?,
            None => self.index = Some(Index::open(&self.queue, queue::keys_of)?),
        }
        let base = writer.end();
        let mut appended: Vec<(&Digest, u64, u64)> = Vec::new();
        let mut fresh = DigestSet::default();
        let mut fingerprints = String::new();
        let mut is_recorded = false;
        for arrival in &arrivals.each {
            is_recorded = false;
            let Content::Event { digest, record, key, fingerprint } = &arrival.content else { continue };
            let record = &arrivals.records[record.clone()];
            let key = &arrivals.texts[key.clone()];
            if !fresh.insert(*digest) || self.is_known(key, digest)? {
                let event = EventEnvelope::from_line(record);
                let scope = event.ok().and_then(|it| queue::scope_of(&it)).unwrap_or_default();
                let detail = json!({ "source": self.source.name().as_str(), "sourceOffset": arrival.offset });
                batch.audit(Draft::of(Action::Enqueue, Outcome::Duplicate, key, scope, detail));
                passed.known += 1;
                continue;
            }
            let start = base + batch.bytes();
            batch.push(record);
            fingerprints.push_str(&arrivals.texts[fingerprint.clone()]);
            appended.push((digest, start, base + batch.bytes()));
            is_recorded = true;
        }
        if batch.records() > 0 {
            let detail = Detail::canonical(&json!({
                "journal": self.queue.name().as_str(),
                "from": base,
                "to": base + batch.bytes(),
                "records": batch.records(),
                "source": self.source.name().as_str(),
                "fingerprint": journal::fingerprint(fingerprints.as_bytes()),
            }));
            batch.audit(Draft::new(Action::Enqueue, Outcome::Queued, detail));
        }
        let index = &mut self.index;
        let (done, ()) = beside::both(
            appended.len() >= RECORDS_BESIDE,
            || writer.append(&batch),
            || {
                if let Some(index) = index {
                    for (digest, offset, end) in &appended {
                        index.add_digest(digest, *offset, *end);
                    }
                }
            },
        );
        if let Err(error) = done {
            // It knows records that are not there.
            self.index = None;
            return Err(error);
        }
        passed.queued += appended.len() as u64;
        if let Some(index) = &mut self.index {
            index.settle()?;
        }
        Ok(is_recorded)
    }

    /// Keeps copies of damaged lines, before anything of the queue is locked.
    fn quarantine(
        &self,
        arrivals: &[Arrival],
        batch: &mut Batch<'_>,
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
    fn is_known(&mut self, key: &str, digest: &Digest) -> Result<bool> {
        let Some(index) = &mut self.index else { return Ok(false) };
        for offset in index.find_digest(digest)? {
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
