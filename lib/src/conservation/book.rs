//! What is remembered of a journal's records: for each its place and hashes of what it says, some 70 bytes.
//!
//! # Invariants
//! - Entries stand in the order of their offsets, those below the mark first.
//! - Among ten million keys two have the same hash once in 400,000 journals.
//!
//! Not here: what the records of several journals owe each other (`flow`, `walk`).

use std::cell::OnceCell;

use super::{
    finding::{Finding, FindingKind, Findings},
    links::Links,
    parse::{self, Parsed, hash_of},
    scan::{Line, scan},
};
use crate::{
    Result,
    journal::{Digest, Extent, JournalName, digest, keys},
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
    /// What stays of trimmed records, sorted: of a queue the digests of their idempotency keys, else of their look-up
    /// keys.
    trimmed: Vec<Digest>,
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
            trimmed: trimmed(logs, name, contents)?,
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
            Contents::Source => parse::source(text),
            Contents::Queue | Contents::Letters => parse::envelope(text),
            Contents::Feed | Contents::Events | Contents::Rejected => parse::feed(text),
            Contents::Other => parse::other(text),
        }
    }

    /// Whether a trimmed record of this queue has the idempotency key with this hash.
    pub fn had_key(&self, key: u64) -> bool {
        let key = key.to_be_bytes();
        let at = self.trimmed.partition_point(|it| it[..8] < key[..]);
        self.trimmed.get(at).is_some_and(|it| it[..8] == key)
    }

    /// Whether a trimmed record of this source was the event with this idempotency key.
    pub fn had_event(&self, key: &str) -> bool {
        let had = |key: &str| self.trimmed.binary_search(&digest(key.as_bytes())).is_ok();
        // Milestones are looked up by their id.
        had(key) || key.strip_prefix("milestone:").is_some_and(had)
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

/// See [`Book::trimmed`].
fn trimmed(logs: &Logs, name: &JournalName, contents: Contents) -> Result<Vec<Digest>> {
    let mut all = Vec::new();
    keys::each(logs, name, &mut |_, kept| {
        all.push(if contents == Contents::Queue { kept.rest } else { kept.key });
        Ok(())
    })?;
    all.sort_unstable();
    Ok(all)
}

impl std::fmt::Display for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name.file())
    }
}
