//! Milestones into their journal: each id once, for ever.
//!
//! # Invariants
//! - What [`Emitter::commit`] calls appended is on disk and audited; a duplicate is there already.
//! - An id names one content: the same id with another content is a conflict, and nothing is written.
//! - The lock is held for one batch at a time, never while input is waited for.
//!
//! Not here: reading and judging the input (`event`, `evidence`), printing (`milestone-emit`).

use std::ops::Range;

use serde::Deserialize;
use serde_json::json;

use crate::{
    Error, Kind, Result, Timestamp,
    audit::{Action, Detail, Draft, Outcome},
    event::{LeftOut, MilestoneEvent, Source},
    identity,
    index::Index,
    journal::{
        Batch, Described, Digest, DigestMap, Journal, JournalName, Kept, Lines, digest, push_fingerprint,
    },
    logs::Logs,
    schema::FieldError,
};

/// The journal that is the source of record.
pub const SOURCE: &str = "milestones";

/// The journal of milestones.
pub fn milestones(logs: &Logs) -> Journal {
    Journal::new(logs, JournalName::internal(SOURCE), describe)
}

/// What settling must know of a milestone.
fn describe(line: &[u8]) -> Option<Described> {
    let event = MilestoneEvent::from_line(line).ok()?;
    Some(Described { key: identity::milestone_key(&event.milestone_id), scope: Some(event.scope) })
}

/// The index is by milestone id.
fn keys_of(line: &[u8], each: &mut dyn FnMut(&str)) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Id<'l> {
        #[serde(borrow)]
        milestone_id: std::borrow::Cow<'l, str>,
    }
    // A run with one event does this for every line that the index does not know yet.
    if let Some(id) = id_that_comes_first(line) {
        each(id);
    } else if let Ok(Id { milestone_id }) = serde_json::from_slice(line) {
        each(&milestone_id);
    }
}

/// The id in a line as it is written here: in the first field, and most often without an escape.
fn id_that_comes_first(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(b"{\"milestoneId\":\"")?;
    let id = &rest[..rest.iter().position(|it| matches!(it, b'"' | b'\\'))?];
    if rest[id.len()] == b'"' { std::str::from_utf8(id).ok() } else { None }
}

/// One piece of input, judged.
#[derive(Debug)]
pub enum Offer {
    /// A valid event.
    Event {
        /// Where it stood in the input, such as `stdin:3`.
        place: String,
        /// The event, normalised.
        event: MilestoneEvent,
        /// Which of its fields the input left out.
        left_out: LeftOut,
    },
    /// Input that was refused.
    Refused {
        /// Where it stood in the input.
        place: String,
        /// The id that it names, if it names one.
        id: Option<String>,
        /// Why.
        errors: Vec<FieldError>,
    },
}

/// What became of an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitted {
    /// It is in the journal at this logical offset.
    Appended(u64),
    /// It was there, with the same content, at this logical offset.
    Duplicate(u64),
    /// The id is there with another content, at this logical offset.
    Conflict(u64),
    /// Its input was refused.
    Refused,
    /// Nothing is wrong with it, but something else in a batch of all or nothing was refused.
    HeldBack,
}

/// What journal and audit will say of a batch of offers, as far as it can be told before the journal is locked; so that
/// one thread can tell it while another has the lock.
#[derive(Debug, Default)]
pub struct Records {
    /// The lines of the journal, one behind the other.
    lines: Vec<u8>,
    /// Keys, traces and fingerprints, in one piece for all: thousands of small ones that live as long as a batch are what
    /// the allocator is slowest with.
    texts: String,
    /// Of each offer; `None` for what was refused.
    each: Vec<Option<Record>>,
}

#[derive(Debug)]
struct Record {
    line: Range<usize>,
    /// Where in the texts.
    key: Range<usize>,
    trace_id: Range<usize>,
    fingerprint: Range<usize>,
    /// What the index calls it.
    digest: Digest,
}

impl Records {
    /// The records of `offers`.
    ///
    /// # Errors
    /// When one of the events takes more than [`crate::event::RECORD_BYTES_MAX`], which a valid one does not.
    pub fn of(offers: &[Offer]) -> Result<Records> {
        let mut records = Records::default();
        for offer in offers {
            let record = match offer {
                Offer::Refused { .. } => None,
                Offer::Event { event, .. } => Some(records.write(event)?),
            };
            records.each.push(record);
        }
        Ok(records)
    }

    fn write(&mut self, event: &MilestoneEvent) -> Result<Record> {
        let start = self.lines.len();
        event.write_line(&mut self.lines).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
        let line = start..self.lines.len();
        let key = identity::milestone_key(&event.milestone_id);
        let from = self.texts.len();
        push_fingerprint(&self.lines[start..line.end - 1], &mut self.texts);
        Ok(Record {
            fingerprint: from..self.texts.len(),
            trace_id: self.keep(&identity::trace_id(&key)),
            digest: digest(event.milestone_id.as_bytes()),
            key: self.keep(&key),
            line,
        })
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.texts.len();
        self.texts.push_str(text);
        start..self.texts.len()
    }

    /// The `trace_id` of an offer, by its place in the batch; `None` of what was refused.
    pub fn trace_id(&self, at: usize) -> Option<&str> {
        self.each.get(at)?.as_ref().map(|it| &self.texts[it.trace_id.clone()])
    }
}

/// Takes offers into the journal, batch by batch.
#[derive(Debug)]
pub struct Emitter {
    journal: Journal,
    lines: Lines,
    index: Option<Index>,
}

impl Emitter {
    /// An emitter into the milestones of a logs folder.
    pub fn new(logs: &Logs) -> Emitter {
        let journal = milestones(logs);
        Emitter { lines: journal.lines(), journal, index: None }
    }

    /// Takes a batch, of at most [`crate::journal::BATCH_RECORDS_MAX`] offers; what it answers is in their order.
    pub fn commit(&mut self, offers: &[Offer]) -> Result<Vec<Emitted>> {
        self.commit_records(offers, &Records::of(offers)?)
    }

    /// As [`Emitter::commit`], with the [`Records`] of the offers; an event that has none is held back.
    pub fn commit_records(&mut self, offers: &[Offer], records: &Records) -> Result<Vec<Emitted>> {
        self.take(offers, records, false)
    }

    /// Takes all of the offers or, when one of them is refused or a conflict, none; through any crash.
    pub fn commit_all_or_nothing(&mut self, offers: &[Offer], records: &Records) -> Result<Vec<Emitted>> {
        self.take(offers, records, true)
    }

    /// Ends the work; the next call of anybody finds its look-ups quickly.
    pub fn finish(self) -> Result<()> {
        let Some(mut index) = self.index else { return Ok(()) };
        if !index.is_long() {
            return Ok(());
        }
        let _lock = self.journal.write()?;
        index.refresh()?;
        index.finish()
    }

    fn take(&mut self, offers: &[Offer], records: &Records, all_or_nothing: bool) -> Result<Vec<Emitted>> {
        let mut writer = self.journal.write()?;
        match &mut self.index {
            Some(index) => index.refresh()?,
            None => self.index = Some(Index::open(&self.journal, keys_of)?),
        }
        let mut batch = Batch::with_room(records.lines.len());
        let mut taken = Taken::default();
        for (offer, record) in offers.iter().zip(&records.each) {
            let emitted = match (offer, record) {
                (Offer::Event { event, left_out, .. }, Some(record)) => {
                    let offered = Offered { event, left_out, record, records };
                    self.place(&offered, writer.end(), &mut batch, &mut taken)?
                }
                (Offer::Refused { place, id, errors }, _) => {
                    batch.audit(refusal(place, id.as_deref(), errors));
                    Emitted::Refused
                }
                // The records of other offers.
                (Offer::Event { .. }, None) => Emitted::HeldBack,
            };
            taken.emitted.push(emitted);
        }
        let refuses = |it: &Emitted| matches!(it, Emitted::Refused | Emitted::Conflict(_));
        if all_or_nothing && taken.emitted.iter().any(refuses) {
            let mut only_audit = Batch::default();
            offers
                .iter()
                .zip(&mut taken.emitted)
                .for_each(|(offer, emitted)| hold_back(offer, emitted, writer.end(), &mut only_audit));
            writer.append(&only_audit)?;
            return Ok(taken.emitted);
        }
        if all_or_nothing {
            writer.append_all_or_nothing(&batch)?;
        } else {
            writer.append(&batch)?;
        }
        if let Some(index) = &mut self.index {
            for (digest, offset, end) in taken.appended {
                index.add_digest(digest, offset, end);
            }
            // Still under the lock, which is what the index is used under.
            index.settle()?;
        }
        Ok(taken.emitted)
    }

    /// Decides about one event, against the journal and against what is before it in the batch.
    fn place<'o>(
        &mut self,
        offered: &Offered<'o>,
        base: u64,
        batch: &mut Batch<'o>,
        taken: &mut Taken<'o>,
    ) -> Result<Emitted> {
        let Offered { event, left_out, record, records } = *offered;
        let text = |range: &Range<usize>| &records.texts[range.clone()];
        let draft = |outcome, detail| {
            Draft::of(Action::Emit, outcome, text(&record.key), &event.scope, detail)
                .traced(text(&record.trace_id))
        };
        let known = match taken.by_id.get(&record.digest) {
            Some((first, offset)) => Some((event.same_content(first, left_out), *offset)),
            None => self.stored(event, left_out, &record.digest)?,
        };
        if let Some((is_same, offset)) = known {
            let detail = json!({ "of": offset }).into();
            return Ok(if is_same {
                batch.audit(draft(Outcome::Duplicate, detail));
                Emitted::Duplicate(offset)
            } else {
                batch.audit(draft(Outcome::Conflict, detail));
                Emitted::Conflict(offset)
            });
        }
        let offset = base + batch.bytes();
        batch.push(&records.lines[record.line.clone()]);
        let detail =
            Detail::of_fingerprint(self.journal.name(), offset, None, Some(text(&record.fingerprint)));
        batch.audit(draft(Outcome::Appended, detail));
        taken.by_id.insert(record.digest, (event, offset));
        taken.appended.push((&record.digest, offset, base + batch.bytes()));
        Ok(Emitted::Appended(offset))
    }

    /// Whether the event with this id in the journal, if there is one, is the same, and its offset.
    fn stored(
        &mut self,
        event: &MilestoneEvent,
        left_out: &LeftOut,
        digest: &Digest,
    ) -> Result<Option<(bool, u64)>> {
        let Some(index) = &mut self.index else { return Ok(None) };
        let id = &event.milestone_id;
        for offset in index.find_digest(digest)? {
            // A hit is a candidate: another id may have the same hash.
            let Some(line) = self.lines.get(offset)? else {
                if let Some(kept) = self.lines.kept(offset, id)? {
                    return Ok(Some((is_same_as_kept(event, left_out, &kept), offset)));
                }
                continue;
            };
            if let Ok(stored) = MilestoneEvent::from_line(&line)
                && stored.milestone_id == *id
            {
                return Ok(Some((event.same_content(&stored, left_out), offset)));
            }
        }
        Ok(None)
    }
}

/// What stays of a milestone when its segment is trimmed; `None` for a line that is none.
pub(crate) fn kept(line: &[u8]) -> Option<Kept> {
    let event = MilestoneEvent::from_line(line).ok()?;
    let [content, rest] = digests(&event);
    Some(Kept { key: digest(event.milestone_id.as_bytes()), content, rest })
}

/// Of the whole event, and of it without what a caller may leave out.
fn digests(event: &MilestoneEvent) -> [Digest; 2] {
    let mut rest = event.clone();
    rest.timestamp_utc = Timestamp::default();
    rest.source = Source::Orchestrator;
    rest.evidence.iter_mut().for_each(|it| it.reference = None);
    [event, &rest].map(|it| {
        let mut json = Vec::new();
        it.write_json(&mut json);
        digest(&json)
    })
}

/// As [`MilestoneEvent::same_content`] against a trimmed event: as soon as something was left out, nothing that may be
/// left out is compared.
fn is_same_as_kept(event: &MilestoneEvent, left_out: &LeftOut, kept: &Kept) -> bool {
    let [content, rest] = digests(event);
    let is_partial = left_out.timestamp || left_out.source || left_out.refs.contains(&true);
    content == kept.content || is_partial && rest == kept.rest
}

/// A valid event that is offered.
#[derive(Clone, Copy)]
struct Offered<'o> {
    event: &'o MilestoneEvent,
    left_out: &'o LeftOut,
    record: &'o Record,
    records: &'o Records,
}

/// What one batch has come to so far.
#[derive(Debug, Default)]
struct Taken<'o> {
    emitted: Vec<Emitted>,
    /// By the digest of the id.
    by_id: DigestMap<(&'o MilestoneEvent, u64)>,
    /// The digest of each, its offset and the offset after it.
    appended: Vec<(&'o Digest, u64, u64)>,
}

/// In a batch of which nothing is taken: only what is wrong is audited, the rest is held back. The journal ends at `end`.
fn hold_back<'o>(offer: &'o Offer, emitted: &mut Emitted, end: u64, batch: &mut Batch<'o>) {
    match (offer, &emitted) {
        (Offer::Refused { place, id, errors }, _) => batch.audit(refusal(place, id.as_deref(), errors)),
        (Offer::Event { event, .. }, Emitted::Conflict(offset)) => {
            let key = identity::milestone_key(&event.milestone_id);
            let detail = json!({ "of": offset });
            batch.audit(Draft::of(Action::Emit, Outcome::Conflict, key, &event.scope, detail));
        }
        // Of what is held back itself there is no duplicate.
        (_, Emitted::Duplicate(offset)) if *offset < end => {}
        _ => *emitted = Emitted::HeldBack,
    }
}

/// The audit record of refused input, under the id that it names.
fn refusal(place: &str, id: Option<&str>, errors: &[FieldError]) -> Draft<'static> {
    Draft {
        key: id.map(|it| identity::milestone_key(it).into()),
        ..Draft::refused(Action::Emit, place, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_line_is_found_wherever_it_stands_and_however_it_is_spelt() {
        for (line, expected) in [
            (r#"{"milestoneId":"a.é","scope":"s"}"#, Some("a.é")),
            (r#"{"milestoneId":"a\"b","scope":"s"}"#, Some("a\"b")),
            (r#"{"milestoneId":"\u0061"}"#, Some("a")),
            (r#"{ "milestoneId":"a"}"#, Some("a")),
            (r#"{"scope":"s","milestoneId":"a"}"#, Some("a")),
            (r#"{"milestoneId":"a"#, None),
            (r#"{"milestoneId":7}"#, None),
            ("", None),
        ] {
            let mut found = Vec::new();
            keys_of(line.as_bytes(), &mut |it| found.push(it.to_owned()));
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{line}");
        }
    }
}
