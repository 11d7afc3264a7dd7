//! What the audit tells of a record, against the record.
//!
//! # Invariants
//! - Each record below its mark is told of once, at its place, with its key and its fingerprint.
//!
//! Not here: which audit records tell of something (`walk`).

use std::fmt::Write as _;

use super::{
    book::{Book, Contents},
    finding::{Finding, FindingKind, Findings},
    parse::hash_of,
};

/// What an audit record says about records of a journal.
pub(super) struct Said<'l> {
    pub from: u64,
    /// None when it is about one record.
    pub to: Option<u64>,
    pub key: Option<u64>,
    pub id: Option<&'l str>,
    pub records: Option<u64>,
    pub fingerprint: Option<u64>,
    pub is_recovery: bool,
    /// The audit record's own offset.
    pub at: u64,
}

impl Said<'_> {
    /// Compares what is said with what is there: what is wrong, and of a queue where its last record goes on in the
    /// source.
    pub fn check(&self, book: &mut Book) -> (Option<Finding>, Option<u64>) {
        if self.from < book.begins {
            return (None, None);
        }
        let Some(first) = book.find(self.from) else { return (Some(self.not_there(book)), None) };
        let mut last = first;
        let mut digits = String::new();
        if let Some(to) = self.to {
            while book.entries.get(last + 1).is_some_and(|it| it.offset < to) {
                last += 1;
            }
            book.find(book.entries[last].offset);
        }
        for entry in &mut book.entries[first..=last] {
            entry.told = entry.told.saturating_add(1);
            entry.is_recovered |= self.is_recovery;
            if self.to.is_some() {
                // Of several records, the fingerprint is that of their fingerprints.
                let _ = write!(digits, "{:016x}", entry.line);
            }
        }
        let entry = book.entries[first];
        if book.entries[first..=last].iter().any(|it| it.is_damaged) {
            return (None, None);
        }
        let position = (book.contents == Contents::Queue).then(|| book.extra[last].0);
        if self.to.is_none() && entry.key != 0 && self.key.is_some_and(|it| it != entry.key) {
            return (Some(self.not_there(book)), position);
        }
        let actual = if self.to.is_some() { hash_of(digits.as_bytes()) } else { entry.line };
        let count = (last - first + 1) as u64;
        let end = book.entries[last].end();
        let is_whole = self.to.is_none_or(|to| end == to) && self.records.is_none_or(|it| it == count);
        if is_whole && self.fingerprint.is_none_or(|it| it == actual) {
            return (None, position);
        }
        let (record, id) = match self.to {
            Some(to) => (format!("one of the records up to offset {to}"), Some("")),
            None => ("the record".to_owned(), self.id),
        };
        let what = format!("{record} is not what the audit (offset {}) tells of", self.at);
        let finding = Finding::at(FindingKind::RecordChanged, &book.name, self.from, what).about(id);
        (Some(finding), position)
    }

    /// At the place that is told of is no record, or another one.
    fn not_there(&self, book: &Book) -> Finding {
        let elsewhere = self.key.and_then(|it| book.with_key(it).next()).map(|it| book.entries[it].offset);
        let (kind, what) = match elsewhere {
            Some(offset) => (
                FindingKind::RecordMoved,
                format!("the audit (offset {}) tells of it here; it is at offset {offset}", self.at),
            ),
            None => (
                FindingKind::RecordMissing,
                format!("the audit (offset {}) tells of a record that is not there", self.at),
            ),
        };
        // Whatever is here now is another event.
        Finding::at(kind, &book.name, self.from, what).about(self.id.or(Some("")))
    }
}

/// Every record below a mark is told of once.
pub(super) fn check_told(books: &[Book], findings: &mut Findings) {
    for book in books {
        for entry in &book.entries[..book.believed] {
            // Of a dead letter that a killed deliverer left, its recovery and its item's end are told.
            let allowed = 1 + u8::from(entry.is_recovered && book.contents == Contents::Letters);
            if entry.is_damaged || (1..=allowed).contains(&entry.told) {
                continue;
            }
            let (kind, what) = if entry.told == 0 {
                (FindingKind::RecordUnaudited, "no audit record tells of it".to_owned())
            } else {
                (FindingKind::AuditedTwice, format!("{} audit records tell of it", entry.told))
            };
            findings.add(Finding::at(kind, &book.name, entry.offset, what));
        }
    }
}
