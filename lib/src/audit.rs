//! The audit journal: one hash-chained record for every outcome, from every tool.
//!
//! # Invariants
//! - A record is appended under the lock of the journal whose effect it tells, after that effect is synced,
//!   and both are on disk before the tool reports success.
//! - Lines are stored in canonical form; `seq` and `prev` make them one chain (`chain`).
//! - Nothing is locked while the audit is held.
//! - `detail` names the journal and the offsets that a record tells of, so that settling can find out which
//!   records beyond a mark were audited.
//!
//! Parts: `line` (a record as it lies there), `verify` (does all of it agree?), `seal` (keyed hashes over the head).
//! Not here: reading for people (`audit-tail`).

pub mod line;
pub mod seal;
pub mod verify;
mod when;

pub use when::appended_at;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Value, json};

use crate::{
    Error, Kind, Result, beside, canonical,
    chain::{self, Chain},
    clock, identity,
    journal::{Item, JournalName, Reader, active::Active, fingerprint, line_before},
    logs::Logs,
    schema::FieldError,
};

/// Names of an enumeration as they stand in the records.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All words.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word in the record.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The variant that a record's word names.
            pub fn from_word(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What was done.
    Action {
        /// A milestone was offered to the source journal.
        Emit = "emit",
        /// A record was offered to a queue.
        Enqueue = "enqueue",
        /// An attempt on the wire.
        Deliver = "deliver",
        /// An authenticated request reached the receiver.
        Receive = "receive",
        /// A reminder was due.
        Remind = "remind",
        /// A task record was offered.
        Task = "task",
        /// A dead letter was put back.
        Redrive = "redrive",
        /// A settled item was sent again.
        Resend = "resend",
        /// A dead letter was closed.
        Discard = "discard",
        /// Deliveries were held.
        Hold = "hold",
        /// Deliveries were released.
        Release = "release",
        /// The circuit breaker moved.
        Breaker = "breaker",
        /// What a dead writer left was settled.
        Settle = "settle",
        /// A consumer was set to another position.
        Resync = "resync",
        /// The chain was sealed by a keyed hash.
        Seal = "seal",
        /// What was of a journal is trimmed; what must stay of it is on disk.
        Checkpoint = "checkpoint",
    }
}

words! {
    /// How it ended.
    Outcome {
        /// It is in the journal.
        Appended = "appended",
        /// It was there before, with the same content.
        Duplicate = "duplicate",
        /// It was there before, with other content.
        Conflict = "conflict",
        /// It was refused.
        Rejected = "rejected",
        /// It waits for delivery.
        Queued = "queued",
        /// The receiver has it.
        Acknowledged = "acknowledged",
        /// It will be tried again.
        Retried = "retried",
        /// It was given up.
        DeadLettered = "dead-lettered",
        /// It was no valid record and is kept aside.
        Quarantined = "quarantined",
        /// A dead writer's record that was never acknowledged, but is whole and stays.
        Recovered = "recovered",
        /// A reminder was written.
        Reminded = "reminded",
        /// Nothing was to be done.
        Skipped = "skipped",
        /// The breaker opened.
        Opened = "opened",
        /// The breaker closed.
        Closed = "closed",
        /// It was done.
        Done = "done",
    }
}

/// More than most records have: room for all of a batch is made at once.
const RECORD_BYTES: usize = 768;
/// As many records are made in about 0.15 ms, a multiple of what a thread costs.
const DRAFTS_BESIDE: usize = 256;

/// An audit record before it has its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft<'d> {
    /// What was done.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// The idempotency key of the event, if it is about one.
    pub key: Option<Cow<'d, str>>,
    /// The scope of the event, if it is about one.
    pub scope: Option<Cow<'d, str>>,
    /// What a rebuild of state needs.
    pub detail: Detail<'d>,
    /// The trace of `key`, from those who know it; else it is made.
    pub trace_id: Option<Cow<'d, str>>,
}

/// The detail of a record: a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail<'d> {
    /// As a value.
    Value(Value),
    /// As its canonical text, from those who write very many.
    Canonical(Cow<'d, str>),
}

impl Detail<'static> {
    /// One that has all its fingerprints already.
    pub fn canonical(value: &Value) -> Detail<'static> {
        Detail::Canonical(String::from_utf8_lossy(&canonical::to_vec(value)).into_owned().into())
    }

    /// Where a record is: its journal, its logical offset, and in a journal that is a chain its number. Of a record
    /// that is written with this one also what it says: `line`, with or without its newline, by its fingerprint.
    pub fn of_record(
        journal: &JournalName,
        offset: u64,
        seq: Option<u64>,
        line: Option<&[u8]>,
    ) -> Detail<'static> {
        let fingerprint = line.map(|it| fingerprint(it.strip_suffix(b"\n").unwrap_or(it)));
        Detail::of_fingerprint(journal, offset, seq, fingerprint.as_deref())
    }

    /// As [`Detail::of_record`], when the fingerprint is known.
    pub fn of_fingerprint(
        journal: &JournalName,
        offset: u64,
        seq: Option<u64>,
        fingerprint: Option<&str>,
    ) -> Detail<'static> {
        // Written piece by piece: a receiver makes one for each event. The journal's name needs no escaping.
        let mut text = String::with_capacity(128);
        text.push('{');
        if let Some(it) = fingerprint {
            text.extend(["\"fingerprint\":\"", it, "\","]);
        }
        text.extend(["\"journal\":\"", journal.as_str(), "\",\"offset\":", &offset.to_string()]);
        if let Some(it) = seq {
            text.extend([",\"seq\":", &it.to_string()]);
        }
        text.push('}');
        Detail::Canonical(text.into())
    }
}

impl From<Value> for Detail<'_> {
    fn from(value: Value) -> Self {
        Detail::Value(value)
    }
}

impl<'d> Draft<'d> {
    /// A record about no single event.
    pub fn new(action: Action, outcome: Outcome, detail: impl Into<Detail<'d>>) -> Draft<'d> {
        Draft { action, outcome, key: None, scope: None, detail: detail.into(), trace_id: None }
    }

    /// A record about the event with this key and scope.
    pub fn of(
        action: Action,
        outcome: Outcome,
        key: impl Into<Cow<'d, str>>,
        scope: impl Into<Cow<'d, str>>,
        detail: impl Into<Detail<'d>>,
    ) -> Draft<'d> {
        Draft { key: Some(key.into()), scope: Some(scope.into()), ..Draft::new(action, outcome, detail) }
    }

    /// The same with the trace of its key ([`identity::trace_id`]), which then need not be made again.
    #[must_use]
    pub fn traced(mut self, trace_id: &'d str) -> Draft<'d> {
        self.trace_id = Some(trace_id.into());
        self
    }

    /// A record about refused input: where it stood and which fields were wrong, never the input itself.
    pub fn refused(action: Action, place: &str, errors: &[FieldError]) -> Draft<'d> {
        const ERRORS_KEPT: usize = 5;
        let shown = |it: &FieldError| json!({ "path": it.path, "message": it.message });
        let errors: Vec<_> = errors.iter().take(ERRORS_KEPT).map(shown).collect();
        Draft::new(action, Outcome::Rejected, json!({ "input": place, "errors": errors }))
    }
}

/// An append that failed, and whether its records are on disk all the same.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// True when only what follows the sync failed: nothing may be taken back then.
    pub is_durable: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, is_durable: false }
    }
}

/// Appends records; returns the logical end of the audit journal. With none, nothing is written.
pub fn append(logs: &Logs, drafts: &[Draft<'_>]) -> Result<u64, Failure> {
    let (mut active, mut chain) = open(logs)?;
    if drafts.is_empty() { Ok(active.mark().end()) } else { write(&mut active, &mut chain, drafts) }
}

/// As [`append`], once `effect` has succeeded: it brings to disk what the records tell of. While it does, the lines of
/// many records are made, which takes about as long; none of them is written before it is done.
pub fn append_after(
    logs: &Logs,
    drafts: &[Draft<'_>],
    mut effect: impl FnMut() -> Result<()> + Send,
) -> Result<u64, Failure> {
    if drafts.len() < DRAFTS_BESIDE {
        effect()?;
        return append(logs, drafts);
    }
    let prepare = || {
        let (active, mut chain) = open(logs)?;
        let lines = make(&active, &mut chain, drafts);
        Ok::<_, Failure>((active, chain, lines))
    };
    let (done, prepared) = beside::both(true, effect, prepare);
    done?;
    let (mut active, chain, lines) = prepared?;
    commit(&mut active, &chain, &lines)
}

/// Settles what a dead writer left in the audit journal.
pub fn settle(logs: &Logs) -> Result<()> {
    open(logs).map(drop).map_err(|it| it.error)
}

fn open(logs: &Logs) -> Result<(Active, Chain), Failure> {
    let mut active = Active::open(logs, &JournalName::audit())?;
    let mark = active.mark();
    let mut chain = if mark.seq > 0 || mark.end() == 0 {
        Chain { seq: mark.seq, head: mark.head.clone() }
    } else {
        // A mark that was lost, or is from before a rotation: the chain goes on from the last line.
        let line = line_before(logs, active.name(), mark.end())?.unwrap_or_default();
        Chain::after(&line).ok_or_else(|| {
            Error::new(
                Kind::BadData,
                active.name().file(),
                "the last record has no seq and hash to go on from",
            )
            .cure("restore the file from a copy")
        })?
    };
    if active.is_unsettled() {
        let settled = active.settle(|line| chain.step(line).is_ok())?;
        active.finish_settling(&settled, 0, chain.seq, &chain.head)?;
        if let Some((offset, file)) = settled.quarantined {
            let detail = json!({ "journal": "audit", "offset": offset, "quarantine": file });
            write(&mut active, &mut chain, &[Draft::new(Action::Settle, Outcome::Quarantined, detail)])?;
        }
    }
    Ok((active, chain))
}

/// Appends the next records; returns the logical end of the journal.
fn write(active: &mut Active, chain: &mut Chain, drafts: &[Draft<'_>]) -> Result<u64, Failure> {
    let lines = make(active, chain, drafts);
    commit(active, chain, &lines)
}

/// The lines of the next records, over which the chain steps.
fn make(active: &Active, chain: &mut Chain, drafts: &[Draft<'_>]) -> Vec<u8> {
    let timestamp = clock::now().to_string();
    let mut lines = Vec::with_capacity(drafts.len() * RECORD_BYTES);
    for draft in drafts {
        write_record(&mut lines, draft, active.logs().tool(), &timestamp, chain);
    }
    lines
}

/// Appends what was made, after which the chain stands where it says.
fn commit(active: &mut Active, chain: &Chain, lines: &[u8]) -> Result<u64, Failure> {
    active.make_room(lines.len() as u64)?;
    active.append(lines)?;
    active
        .move_mark(0, chain.seq, &chain.head)
        .map_err(|error| Failure { error: error.kind_is(Kind::Io), is_durable: true })?;
    Ok(active.end())
}

/// Writes the canonical line of the next record and steps the chain over it.
fn write_record(lines: &mut Vec<u8>, draft: &Draft<'_>, tool: &str, timestamp: &str, chain: &mut Chain) {
    let made = if draft.trace_id.is_none() { draft.key.as_deref().map(identity::trace_id) } else { None };
    let trace_id = draft.trace_id.as_deref().or(made.as_deref());
    let text = |value: Option<&str>, out: &mut Vec<u8>| match value {
        Some(it) => canonical::write_string(it, out),
        None => out.extend_from_slice(b"null"),
    };
    let (start, record) = (lines.len(), lines);
    // The fields in canonical order; `hash` has its place, and is put there when all else is known.
    record.extend_from_slice(b"{\"action\":");
    text(Some(draft.action.as_str()), record);
    record.extend_from_slice(b",\"detail\":");
    match &draft.detail {
        Detail::Value(value) => canonical::write(value, record),
        Detail::Canonical(text) => record.extend_from_slice(text.as_bytes()),
    }
    let hash_at = record.len();
    record.extend_from_slice(b",\"hash\":\"");
    let digits_at = record.len();
    record.extend_from_slice(chain::FIRST_PREV.as_bytes());
    record.push(b'"');
    let rest_at = record.len();
    record.extend_from_slice(b",\"idempotency_key\":");
    text(draft.key.as_deref(), record);
    record.extend_from_slice(b",\"outcome\":");
    text(Some(draft.outcome.as_str()), record);
    record.extend_from_slice(b",\"prev\":");
    text(Some(chain.prev()), record);
    record.extend_from_slice(b",\"scope\":");
    text(draft.scope.as_deref(), record);
    record.extend_from_slice(b",\"seq\":");
    record.extend_from_slice((chain.seq + 1).to_string().as_bytes());
    record.extend_from_slice(b",\"timestamp\":");
    text(Some(timestamp), record);
    record.extend_from_slice(b",\"tool\":");
    text(Some(tool), record);
    record.extend_from_slice(b",\"trace_id\":");
    text(trace_id, record);
    record.push(b'}');
    let hash = chain::link_parts(chain.prev(), &[&record[start..hash_at], &record[rest_at..]]);
    record[digits_at..digits_at + hash.len()].copy_from_slice(hash.as_bytes());
    record.push(b'\n');
    *chain = Chain { seq: chain.seq + 1, head: hash };
}

/// Which records of a journal the audit tells of, from some point on.
#[derive(Debug, Default)]
pub struct Covered {
    /// Half-open ranges of logical offsets, by their start.
    ranges: BTreeMap<u64, u64>,
    quarantined: BTreeSet<String>,
}

impl Covered {
    /// Reads the audit from the logical offset `from` on.
    pub fn read(logs: &Logs, name: &JournalName, from: u64) -> Result<Covered> {
        let audit = JournalName::audit();
        let mut covered = Covered::default();
        let mut reader = Reader::open_at(logs, &audit, from)?;
        if from > reader.end() {
            // An audit that was cut or replaced: whatever it holds may tell of this journal.
            reader.seek(0);
        }
        while let Some(item) = reader.next_item()? {
            // Damage below the mark is the disk's, and `audit-tail --verify` names it.
            let Item::Line { text, .. } = item else { continue };
            let Ok(record) = serde_json::from_slice::<Value>(text) else { continue };
            let detail = &record["detail"];
            if detail["journal"] == name.as_str() {
                covered.note(detail);
            }
        }
        Ok(covered)
    }

    fn note(&mut self, detail: &Value) {
        if let Some(file) = detail["quarantine"].as_str() {
            self.quarantined.insert(file.to_owned());
        } else if let (Some(from), Some(to)) = (detail["from"].as_u64(), detail["to"].as_u64()) {
            self.ranges.insert(from, to);
        } else if let Some(offset) = detail["offset"].as_u64() {
            self.ranges.insert(offset, offset.saturating_add(1));
        }
    }

    /// Whether the record at this offset was audited.
    pub fn holds(&self, offset: u64) -> bool {
        self.ranges.range(..=offset).next_back().is_some_and(|(_, to)| offset < *to)
    }

    /// Whether this quarantine file was audited.
    pub fn holds_quarantine(&self, file: &str) -> bool {
        self.quarantined.contains(file)
    }
}
