//! Appending to a journal so that it is believed: lock, settle, write, sync, audit, mark.
//!
//! # Invariants
//! - [`Writer::append`] returns `Ok` when the batch and its audit records are on disk. On `Err` before the
//!   audit is durable nothing of the batch stays; after that nothing is cut, and a retry finds a duplicate.
//! - One sync of the journal and one of the audit serve a whole batch.
//! - What a dead writer left is settled before a [`Writer`] is handed out, and audited as `recovered` or
//!   `quarantined`, once.
//!
//! Not here: which records belong into the journal (its tool), the bytes of the mark (`mark`).

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    Extent, JournalName, Lines, Position, Reader, Resync, active::Active, fingerprint, push_fingerprint,
    reader,
};
use crate::{
    Error, Kind, Result,
    audit::{self, Action, Detail, Draft, Outcome},
    chain::Chain,
    lines,
    logs::Logs,
};

/// What settling must know of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The idempotency key that the record is audited under.
    pub key: String,
    /// The scope that it belongs to.
    pub scope: Option<String>,
}

/// A journal in a logs folder, and how its records are recognised.
#[derive(Clone, Debug)]
pub struct Journal {
    logs: Logs,
    name: JournalName,
    describe: fn(&[u8]) -> Option<Described>,
}

impl Journal {
    /// The journal `name`; `describe` answers `None` for a line that is no valid record of it.
    pub fn new(logs: &Logs, name: JournalName, describe: fn(&[u8]) -> Option<Described>) -> Journal {
        Journal { logs: logs.clone(), name, describe }
    }

    /// The journal's name.
    pub fn name(&self) -> &JournalName {
        &self.name
    }

    /// The folder it is in.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Locks the journal for appending; whatever a dead writer left is settled.
    pub fn write(&self) -> Result<Writer> {
        self.writer(Active::open(&self.logs, &self.name)?)
    }

    fn writer(&self, mut active: Active) -> Result<Writer> {
        if active.is_unsettled() {
            self.settle(&mut active)?;
        }
        Ok(Writer { active })
    }

    /// Settles what lies beyond the mark, if anything does, waiting for a writer that is finishing (J6).
    pub fn settle_if_needed(&self) -> Result<()> {
        if reader::is_unsettled(&self.logs, &self.name)? { self.write().map(drop) } else { Ok(()) }
    }

    /// Takes the journal as it is now, although it is shorter than what was synced (`--resync`). That is audited
    /// first, so that a crash cannot keep it from being known: what the audit told of the journal before is void.
    pub fn accept_as_it_is(&self) -> Result<()> {
        let extent = Extent::of(&self.logs, &self.name)?;
        // Sealed segments are as they were.
        let (from, end) = (extent.active.base, extent.physical_end());
        let detail = json!({ "replaced": self.name.as_str(), "from": from, "end": end });
        let draft = Draft::new(Action::Resync, Outcome::Done, detail);
        audit::append(&self.logs, &[draft]).map_err(|it| it.error)?;
        self.writer(Active::open_replaced(&self.logs, &self.name)?).map(drop)
    }

    /// A reader that begins at `from`; see [`Reader::open`].
    pub fn read_from(&self, from: &Position) -> Result<Reader> {
        Reader::open(&self.logs, &self.name, from)
    }

    /// The position after the last line below the mark, and that line; `None` in an empty journal.
    pub fn last_line(&self) -> Result<Option<(Position, Vec<u8>)>> {
        reader::last_line(&self.logs, &self.name)
    }

    /// The last lines below the mark, at most `count`, in order. Their cost is theirs, not the journal's.
    pub fn last_lines(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        reader::last_lines(&self.logs, &self.name, count)
    }

    /// Look-ups of single lines by their offset.
    pub fn lines(&self) -> Lines {
        Lines::new(&self.logs, &self.name)
    }

    /// The logical offset up to which the journal may be read by now.
    pub fn end(&self) -> Result<u64> {
        Ok(Reader::open_at(&self.logs, &self.name, 0)?.end())
    }

    /// The bytes between two offsets below the mark, for what is no record.
    pub fn bytes(&self, from: u64, to: u64) -> Result<Vec<u8>> {
        reader::bytes(&self.logs, &self.name, from, to)
    }

    /// The position that `--resync` asks for; a journal that is not the one that was written is taken as it is.
    pub fn resync_position(&self, to: Resync) -> Result<Position> {
        if let Err(error) = self.write() {
            if error.kind() != Kind::BadData {
                return Err(error);
            }
            self.accept_as_it_is()?;
        }
        match to {
            Resync::Start => self.position_chosen(0),
            Resync::End => self.position_chosen(self.end()?),
            Resync::Offset(offset) => self.position_chosen(offset),
        }
    }

    /// The position at `offset` of a person's choice.
    ///
    /// # Errors
    /// [`Kind::Usage`] when no line begins there.
    pub fn position_chosen(&self, offset: u64) -> Result<Position> {
        let end = self.end()?;
        if offset == 0 || offset <= end && self.bytes(offset - 1, offset)? == b"\n" {
            return self.position_at(offset);
        }
        let what = format!("no line of {} begins at offset {offset}; it ends at {end}", self.name.file());
        Err(Error::new(Kind::Usage, "", what).cure("give start, end or the offset of a line"))
    }

    /// The position at `offset`, which must be the end of a line below the mark.
    pub fn position_at(&self, offset: u64) -> Result<Position> {
        let line = reader::line_before(&self.logs, &self.name, offset)?;
        Ok(line.map_or_else(Position::default, |it| Position::after(offset, &it)))
    }

    fn settle(&self, active: &mut Active) -> Result<()> {
        audit::settle(&self.logs)?;
        let settled = active.settle(|line| (self.describe)(line).is_some())?;
        let known = audit::Covered::read(&self.logs, &self.name, active.mark().audit_offset)?;
        let mut drafts = Vec::new();
        for (offset, line) in settled.kept.iter().filter(|(offset, _)| !known.holds(*offset)) {
            let Some(Described { key, scope }) = (self.describe)(line) else { continue };
            let detail = json!({
                "journal": self.name.as_str(),
                "offset": offset,
                "fingerprint": fingerprint(line),
            });
            drafts.push(Draft {
                key: Some(key.into()),
                scope: scope.map(Into::into),
                ..Draft::new(Action::Settle, Outcome::Recovered, detail)
            });
        }
        if let Some((offset, file)) =
            settled.quarantined.as_ref().filter(|(_, file)| !known.holds_quarantine(file))
        {
            let detail = json!({ "journal": self.name.as_str(), "offset": offset, "quarantine": file });
            drafts.push(Draft::new(Action::Settle, Outcome::Quarantined, detail));
        }
        let audited = audit::append(&self.logs, &drafts).map_err(|it| it.error)?;
        active.finish_settling(&settled, audited, 0, "")
    }
}

/// Lines and audit records that are appended together, under one sync each.
#[derive(Debug, Default)]
pub struct Batch<'d> {
    lines: Vec<u8>,
    records: usize,
    drafts: Vec<Draft<'d>>,
    chain: Option<Chain>,
}

impl<'d> Batch<'d> {
    /// An empty one with room for records of so many bytes, which then need not be copied while it grows.
    pub fn with_room(bytes: usize) -> Batch<'d> {
        Batch { lines: Vec::with_capacity(bytes), ..Batch::default() }
    }

    /// Adds a record; `line` ends in its newline.
    pub fn push(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.records += 1;
    }

    /// Adds an audit record, of a record in this batch or of something that left none.
    pub fn audit(&mut self, draft: Draft<'d>) {
        self.drafts.push(draft);
    }

    /// For a journal that is a hash chain: where the chain stands after this batch.
    pub fn chain_ends(&mut self, chain: Chain) {
        self.chain = Some(chain);
    }

    /// Whether the next record should begin another batch.
    pub fn is_full(&self) -> bool {
        self.records >= super::BATCH_RECORDS_MAX
            || self.drafts.len() >= super::BATCH_RECORDS_MAX
            || self.lines.len() >= super::BATCH_BYTES_MAX
    }

    /// Whether there is nothing to append and nothing to audit.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.drafts.is_empty()
    }

    /// Bytes of the records so far.
    pub fn bytes(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The records, for who shows what was appended.
    pub fn into_lines(self) -> Vec<u8> {
        self.lines
    }

    /// Records so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The audit records, with fingerprints of the records that they tell of, which begin at `base` of the journal
    /// `name`: so the audit's chain says what was in the journal, not only where. A detail tells of one record by
    /// `offset`, or of a range by `from` and `to`, as an operator's command does. Whoever gives a detail as text, as
    /// the queue does for its long ranges, has put the fingerprint into it.
    fn attested(&self, name: &JournalName, base: u64) -> Cow<'_, [Draft<'d>]> {
        let tells =
            |it: &Detail<'_>| matches!(it, Detail::Value(detail) if detail["journal"] == name.as_str());
        if !self.drafts.iter().any(|it| tells(&it.detail)) {
            return Cow::Borrowed(&self.drafts);
        }
        let mut drafts = self.drafts.clone();
        for draft in drafts.iter_mut().filter(|it| tells(&it.detail)) {
            let Detail::Value(detail) = &mut draft.detail else { continue };
            let at = |field: &str| {
                let offset = detail[field].as_u64()?.checked_sub(base)?;
                usize::try_from(offset).ok().filter(|it| *it <= self.lines.len())
            };
            let fingerprint = match (at("offset"), at("from"), at("to")) {
                (Some(offset), ..) => {
                    let line = &self.lines[offset..];
                    lines::newline(line).map(|newline| fingerprint(&line[..newline]))
                }
                (None, Some(from), Some(to)) if from < to => Some(fingerprint_of_all(&self.lines[from..to])),
                _ => None,
            };
            if let (Some(fingerprint), Value::Object(detail)) = (fingerprint, detail) {
                detail.insert("fingerprint".to_owned(), fingerprint.into());
            }
        }
        Cow::Owned(drafts)
    }
}

/// The fingerprint of several records: that of their fingerprints, one behind the other.
fn fingerprint_of_all(lines: &[u8]) -> String {
    let mut all = String::new();
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', lines) {
        push_fingerprint(&lines[start..newline], &mut all);
        start = newline + 1;
    }
    fingerprint(all.as_bytes())
}

/// A journal locked for appending.
#[derive(Debug)]
pub struct Writer {
    active: Active,
}

impl Writer {
    /// The logical offset at which the next record will begin, also across a rotation.
    pub fn end(&self) -> u64 {
        self.active.end()
    }

    /// Where a journal that is a hash chain stands.
    pub fn chain(&self) -> Result<Chain> {
        let mark = self.active.mark();
        if mark.seq > 0 || mark.end() == 0 {
            return Ok(Chain { seq: mark.seq, head: mark.head.clone() });
        }
        let (logs, name) = (self.active.logs(), self.active.name());
        let line = reader::line_before(logs, name, mark.end())?.unwrap_or_default();
        Chain::after(&line).ok_or_else(|| {
            Error::new(Kind::BadData, name.file(), "the last record has no seq and hash to go on from")
                .cure("restore the file from a copy")
        })
    }

    /// Appends a batch; it is on disk and audited when this returns.
    pub fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.append_as(batch, false)
    }

    /// Appends a batch wholly or not at all, also through a crash.
    pub fn append_all_or_nothing(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.append_as(batch, true)
    }

    fn append_as(&mut self, batch: &Batch<'_>, all_or_nothing: bool) -> Result<()> {
        let logs = self.active.logs().clone();
        if batch.lines.is_empty() {
            return audit::append(&logs, &batch.drafts).map(drop).map_err(|it| it.error);
        }
        self.active.make_room(batch.bytes())?;
        if all_or_nothing {
            self.active.begin_undoable()?;
        }
        let Writer { active } = self;
        let drafts = batch.attested(active.name(), active.end());
        let audited = audit::append_after(&logs, &drafts, || {
            active.append(&batch.lines)?;
            if all_or_nothing { active.end_undoable() } else { Ok(()) }
        });
        match audited {
            Ok(audited) => {
                let (seq, head) = batch.chain.as_ref().map_or((0, ""), |it| (it.seq, it.head.as_str()));
                self.active.move_mark(audited, seq, head)
            }
            Err(failure) => {
                if !failure.is_durable {
                    self.active.roll_back();
                }
                Err(failure.error)
            }
        }
    }
}
