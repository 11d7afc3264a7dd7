//! What is remembered of a journal's records: for each its place and hashes of what it says, some 50 bytes.
//!
//! # Invariants
//! - Entries stand in the order of their offsets, those below the mark first.
//! - Keys are the first 64 bits of SHA-256, as in `trace_id`: among ten million two are the same once in 400,000
//!   journals, and then what is said about them is still looked up in the journal.
//!
//! Not here: what the records of several journals owe each other (`flow`, `walk`).

use std::{borrow::Cow, cell::OnceCell};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use super::{
    finding::{Finding, FindingKind, Findings},
    scan::{Line, scan},
};
use crate::{
    Result, canonical,
    chain::Chain,
    identity,
    journal::{Extent, JournalName},
    logs::Logs,
};

/// Which records a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Milestones, or events in their envelopes, each id once.
    Source,
    /// Envelopes on their way.
    Queue,
    /// Envelopes given up on.
    Letters,
    /// The receiver's chains.
    Feed,
    Events,
    Rejected,
    /// Whatever else: tasks, commands.
    Other,
}

impl Contents {
    pub fn of(name: &JournalName) -> Contents {
        match name.as_str() {
            "receive/feed" => Contents::Feed,
            "receive/events" => Contents::Events,
            "receive/rejected" => Contents::Rejected,
            "tasks" => Contents::Other,
            it if name.stem().is_some() => {
                debug_assert!(it.ends_with("-queue"), "a stem is a queue's");
                Contents::Queue
            }
            it if it.contains("-deadletter") => Contents::Letters,
            it if it.contains("-control") => Contents::Other,
            _ => Contents::Source,
        }
    }

    fn is_chain(self) -> bool {
        matches!(self, Contents::Feed | Contents::Events | Contents::Rejected)
    }
}

/// One record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// Logical offset of its first byte.
    pub offset: u64,
    /// Of its idempotency key; 0 when it has none.
    pub key: u64,
    /// Of the event in it, as it was emitted.
    pub content: u64,
    /// Of the line.
    pub line: u64,
    /// Bytes of the line, its newline included.
    pub length: u32,
    /// How many audit records tell of it.
    pub told: u8,
    /// Whether one of them says that it was left by a dead writer.
    pub is_recovered: bool,
    /// Whether it is no record, which was said already.
    pub is_damaged: bool,
}

impl Entry {
    /// Logical offset behind it.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// A queue record that is meant for one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Addressed {
    /// Its place in the book.
    pub at: usize,
    pub endpoint: String,
    /// The dead letter that it puts back; none when it was resent.
    pub redrive_of: Option<u64>,
}

/// One journal.
#[derive(Debug)]
pub(super) struct Book {
    pub name: JournalName,
    pub contents: Contents,
    pub extent: Extent,
    pub entries: Vec<Entry>,
    /// How many of them lie below the mark.
    pub believed: usize,
    /// Two numbers more for each entry. Of a queue: offset and fingerprint in its source where it goes on. Of dead
    /// letters: the offset in the queue. Of a chain: `seq` and hash.
    pub extra: Vec<(u64, u64)>,
    /// Queue records that are meant for one endpoint, in order.
    pub addressed: Vec<Addressed>,
    /// Logical offset of the first byte that a trim has left.
    pub begins: u64,
    /// Where the last search ended: the audit tells of records in their order.
    hint: usize,
    by_key: OnceCell<Vec<(u64, u32)>>,
}

impl Book {
    /// Reads a journal up to its extent.
    pub fn read(logs: &Logs, name: &JournalName, extent: Extent) -> Result<(Book, Findings)> {
        let contents = Contents::of(name);
        let mut findings = Findings::default();
        let mut book = Book {
            name: name.clone(),
            contents,
            extent,
            entries: Vec::new(),
            believed: 0,
            extra: Vec::new(),
            addressed: Vec::new(),
            begins: 0,
            hint: 0,
            by_key: OnceCell::new(),
        };
        let extent = book.extent.clone();
        let mut chain = Links::new(&extent);
        book.begins = scan(logs, name, &extent, &mut findings, &mut |line, findings| {
            let parsed = match line.fault {
                Some(fault) => Err(fault.to_owned()),
                None => book.parse(line.text),
            };
            if let Err(fault) = &parsed {
                // What a dead writer left, or one that is at work, ends with the first damage.
                if !line.is_believed {
                    return false;
                }
                let what = format!("the line {fault}");
                findings.add(Finding::at(FindingKind::LineDamaged, name, line.offset, what));
            } else if contents.is_chain() && !chain.take(&line, name, findings) {
                return false;
            }
            book.add(&line, parsed.ok());
            true
        })?;
        if contents.is_chain() {
            chain.check_mark(name, &mut findings);
        }
        Ok((book, findings))
    }

    fn add(&mut self, line: &Line<'_>, parsed: Option<Parsed>) {
        let is_damaged = parsed.is_none();
        let Parsed { key, content, extra, addressed } = parsed.unwrap_or_default();
        if let Some((endpoint, redrive_of)) = addressed {
            self.addressed.push(Addressed { at: self.entries.len(), endpoint, redrive_of });
        }
        let hash = hash_of(line.text);
        self.entries.push(Entry {
            offset: line.offset,
            key,
            content: content.unwrap_or(hash),
            line: hash,
            length: u32::try_from(line.end - line.offset).unwrap_or(u32::MAX),
            is_damaged,
            ..Entry::default()
        });
        if !matches!(self.contents, Contents::Source | Contents::Other) {
            self.extra.push(extra);
        }
        self.believed += usize::from(line.is_believed);
    }

    fn parse(&self, text: &[u8]) -> Result<Parsed, String> {
        match self.contents {
            Contents::Source => parse_source(text),
            Contents::Queue | Contents::Letters => parse_envelope(text),
            Contents::Feed | Contents::Events | Contents::Rejected => parse_feed(text),
            Contents::Other => parse_other(text),
        }
    }

    /// The entry that begins at `offset`.
    pub fn find(&mut self, offset: u64) -> Option<usize> {
        let is_there = |at: usize| self.entries.get(at).is_some_and(|it| it.offset == offset);
        if !is_there(self.hint) {
            self.hint = self.entries.partition_point(|it| it.offset < offset);
        }
        let at = self.hint;
        is_there(at).then(|| {
            self.hint += 1;
            at
        })
    }

    /// The entry whose record ends at `offset`.
    pub fn ending_at(&self, offset: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|it| it.offset < offset);
        self.entries.get(at.checked_sub(1)?).filter(|it| it.end() == offset)
    }

    /// Keys with their places, sorted; without those that have none.
    pub fn by_key(&self) -> &[(u64, u32)] {
        self.by_key.get_or_init(|| {
            let entries = self.entries.iter().zip(0_u32..).filter(|(it, _)| it.key != 0 && !it.is_damaged);
            let mut keys: Vec<_> = entries.map(|(it, at)| (it.key, at)).collect();
            keys.sort_unstable();
            keys
        })
    }

    /// The places of the records with this key.
    pub fn with_key(&self, key: u64) -> impl Iterator<Item = usize> {
        let keys = self.by_key();
        let from = keys.partition_point(|it| it.0 < key);
        keys[from..].iter().take_while(move |it| it.0 == key).map(|it| it.1 as usize)
    }

    /// To whom the record at this place is addressed; none when it is for all.
    pub fn addressed_at(&self, at: usize) -> Option<&Addressed> {
        let found = self.addressed.binary_search_by_key(&at, |it| it.at).ok()?;
        Some(&self.addressed[found])
    }

    /// The offset behind the last record that was read, beyond the mark too.
    pub fn read_end(&self) -> u64 {
        self.entries.last().map_or(self.begins, Entry::end)
    }
}

/// A hash chain on its way.
#[derive(Debug)]
pub(super) struct Links {
    chain: Chain,
    /// Where it must stand when the mark is reached, if the mark says so.
    expected: Option<(u64, String)>,
    at_mark: Option<Chain>,
    is_broken: bool,
    is_first: bool,
}

impl Links {
    pub fn new(extent: &Extent) -> Links {
        let expected = (extent.chain.0 > 0).then(|| extent.chain.clone());
        let begins_later = extent.trimmed.first() == Some(&0);
        Links { chain: Chain::default(), expected, at_mark: None, is_broken: false, is_first: begins_later }
    }

    /// Steps over a record; false when nothing behind it is to be believed: a tail that does not fit.
    pub fn take(&mut self, line: &Line<'_>, name: &JournalName, findings: &mut Findings) -> bool {
        if std::mem::take(&mut self.is_first)
            && let Some(it) = Chain::before(line.text)
        {
            self.chain = it;
        }
        match self.chain.step(line.text) {
            Ok(()) => {}
            Err(_) if !line.is_believed => return false,
            Err(why) => {
                self.is_broken = true;
                let what = format!("the record {why}");
                findings.add(Finding::at(FindingKind::ChainBroken, name, line.offset, what));
                if let Some(it) = Chain::after(line.text) {
                    self.chain = it;
                }
            }
        }
        if line.is_believed {
            self.at_mark = Some(self.chain.clone());
        }
        true
    }

    /// Compares where the chain stood at the mark with what the mark says.
    pub fn check_mark(&self, name: &JournalName, findings: &mut Findings) {
        let (Some(expected), false) = (&self.expected, self.is_broken) else { return };
        let stood = self.at_mark.as_ref().map_or((0, ""), |it| (it.seq, it.head.as_str()));
        if stood != (expected.0, expected.1.as_str()) {
            let what =
                format!("the last record has seq {}, its writer had come to seq {}", stood.0, expected.0);
            findings.add(Finding::in_journal(FindingKind::ChainBroken, name, what));
        }
    }
}

/// What a line says.
#[derive(Debug, Default)]
struct Parsed {
    key: u64,
    /// None when it is the line itself.
    content: Option<u64>,
    extra: (u64, u64),
    addressed: Option<(String, Option<u64>)>,
}

/// The hash of an idempotency key.
pub(super) fn hash_of_key(key: &str) -> u64 {
    hash_of(key.as_bytes())
}

/// The first 64 bits of SHA-256; as 16 hex digits, a fingerprint.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |hash, it| hash << 8 | u64::from(*it))
}

/// The first 16 digits of a hash in hex.
pub(super) fn hash_of_hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits.get(..16)?, 16).ok()
}

fn in_words(cause: serde_json::Error) -> String {
    format!("is no record of this journal: {cause}")
}

#[derive(Deserialize)]
struct Source<'l> {
    #[serde(borrow, rename = "milestoneId")]
    milestone_id: Option<Cow<'l, str>>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'l, str>>,
    #[serde(borrow)]
    payload: Option<&'l RawValue>,
}

fn parse_source(text: &[u8]) -> Result<Parsed, String> {
    let it: Source = serde_json::from_slice(text).map_err(in_words)?;
    match (it.milestone_id, it.idempotency_key, it.payload) {
        (Some(id), None, None) => {
            let key = hash_of_key(&identity::milestone_key(&id));
            Ok(Parsed { key, ..Parsed::default() })
        }
        (None, Some(key), Some(payload)) => {
            let content = Some(content_of(&key, payload));
            Ok(Parsed { key: hash_of_key(&key), content, ..Parsed::default() })
        }
        // A journal of another kind.
        _ => Ok(Parsed::default()),
    }
}

#[derive(Deserialize)]
struct Envelope<'l> {
    #[serde(borrow)]
    event_id: Cow<'l, str>,
    #[serde(borrow)]
    event_type: Cow<'l, str>,
    #[serde(borrow)]
    trace_id: Cow<'l, str>,
    #[serde(borrow)]
    idempotency_key: Cow<'l, str>,
    #[serde(borrow)]
    payload: &'l RawValue,
    #[serde(borrow)]
    resume: Option<Resume<'l>>,
    #[serde(borrow)]
    endpoint: Option<Cow<'l, str>>,
    redrive_of: Option<u64>,
    queue_offset: Option<u64>,
}

#[derive(Deserialize)]
struct Resume<'l> {
    offset: u64,
    #[serde(borrow)]
    fingerprint: Cow<'l, str>,
}

fn parse_envelope(text: &[u8]) -> Result<Parsed, String> {
    let it: Envelope = serde_json::from_slice(text).map_err(in_words)?;
    let key = hash_of_key(&it.idempotency_key);
    if hash_of_hex(&it.trace_id) != Some(key) || it.trace_id != identity::trace_id(&it.idempotency_key) {
        return Err("has a trace_id that is not its key's".to_owned());
    }
    if it.event_id != identity::event_id(&it.event_type, &it.idempotency_key) {
        return Err("has an event_id that is not its key's".to_owned());
    }
    let resume = it.resume.map_or((0, 0), |it| (it.offset, hash_of_hex(&it.fingerprint).unwrap_or(0)));
    Ok(Parsed {
        key,
        content: Some(content_of(&it.idempotency_key, it.payload)),
        extra: it.queue_offset.map_or(resume, |it| (it, 0)),
        addressed: it.endpoint.map(|endpoint| (endpoint.into_owned(), it.redrive_of)),
    })
}

/// The content of an event. A milestone is written the same way everywhere; what other events hold is sent in
/// canonical form, and so is compared in it.
fn content_of(key: &str, payload: &RawValue) -> u64 {
    if key.starts_with("milestone:") {
        return hash_of(payload.get().as_bytes());
    }
    let value: Value = serde_json::from_str(payload.get()).unwrap_or_default();
    hash_of(&canonical::to_vec(&value))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeedLine<'l> {
    seq: u64,
    #[serde(borrow)]
    hash: Cow<'l, str>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'l, str>>,
    #[serde(borrow)]
    event: Option<&'l RawValue>,
    #[serde(borrow)]
    envelope: Option<Enclosed<'l>>,
}

#[derive(Deserialize)]
struct Enclosed<'l> {
    #[serde(borrow)]
    payload: &'l RawValue,
}

fn parse_feed(text: &[u8]) -> Result<Parsed, String> {
    let it: FeedLine = serde_json::from_slice(text).map_err(in_words)?;
    let head = hash_of_hex(&it.hash).ok_or("has a hash that is none")?;
    let key = it.idempotency_key.unwrap_or_default();
    let payload = it.envelope.map(|it| it.payload);
    Ok(Parsed {
        key: if key.is_empty() { 0 } else { hash_of_key(&key) },
        content: match (it.event, payload) {
            (Some(event), _) => Some(hash_of(event.get().as_bytes())),
            (None, Some(payload)) => Some(content_of(&key, payload)),
            (None, None) => None,
        },
        extra: (it.seq, head),
        addressed: None,
    })
}

fn parse_other(text: &[u8]) -> Result<Parsed, String> {
    #[derive(Deserialize)]
    struct Object {}
    serde_json::from_slice::<Object>(text).map_err(in_words)?;
    Ok(Parsed::default())
}
