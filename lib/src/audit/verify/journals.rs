//! The journals that the audit tells of, each read once beside it.
//!
//! A journal's records are audited in their order, so one reader a journal is enough: it goes to the line that a
//! record tells of, and whatever it passes on the way is told of by nobody.
//!
//! # Invariants
//! - Lines behind what a journal's mark covered when it was measured are not looked at, only that they are there.
//! - A journal that is a chain of its own (`receive/…`) is verified as one.
//! - A line is compared by its place, its key and its fingerprint. The receiver's journals are chains, and theirs is
//!   checked whole.
//! - What the audit told of a journal that was replaced, before `--resync` accepted it as it is, is void.
//! - A folder without locks is a copy of an audit; there nothing is compared.

use std::collections::BTreeMap;

use memchr::memmem::{self, Finder};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Compared, PROBLEMS_TOLD, Report, place_of,
    receipts::{FEED, Receipts},
};
use crate::{
    Result,
    audit::line::{RawLine, looks_whole, raw},
    chain::Chain,
    identity, inventory,
    journal::{self, Item, JournalName, Reader},
    logs::Logs,
    task::{TASKS, Task},
};

/// All journals of a folder but the audit.
pub struct Journals<'v> {
    logs: &'v Logs,
    all: BTreeMap<String, Followed>,
    /// Whether there is anything to compare with.
    is_live: bool,
    has_feed: bool,
    journal_word: Finder<'static>,
}

struct Followed {
    name: JournalName,
    reader: Reader,
    /// Where it begins.
    first: u64,
    /// Where it was believed to end when it was measured.
    limit: u64,
    records: u64,
    /// The furthest record that was told of behind the limit.
    ahead: Option<u64>,
    /// Lines that nobody tells of: the first one's place, and how many.
    untold: Option<(String, u64)>,
    /// The first one's offset.
    untold_at: u64,
    /// Of a journal that is a chain.
    chain: Option<Chain>,
    /// Of the feed.
    receipts: Receipts,
    /// What is wrong with it and where, as long as it may become void.
    found: Found,
    has_failed: bool,
}

/// See [`Followed::found`].
#[derive(Default)]
struct Found {
    /// Offset, place and words.
    problems: Vec<(u64, String, String)>,
    /// Receipts that were looked up.
    receipts: u64,
    more: u64,
}

impl Found {
    fn problem(&mut self, offset: u64, place: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS_TOLD {
            self.problems.push((offset, place.into(), what.into()));
        } else {
            self.more += 1;
        }
    }

    fn count(&self) -> u64 {
        self.problems.len() as u64 + self.more
    }
}

/// What a `detail` tells of a journal.
#[derive(Deserialize)]
struct Told<'l> {
    journal: Option<&'l str>,
    offset: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    fingerprint: Option<&'l str>,
    quarantine: Option<&'l str>,
    replaced: Option<&'l str>,
    #[serde(borrow)]
    receipt: Option<ToldReceipt<'l>>,
}

#[derive(Deserialize)]
struct ToldReceipt<'l> {
    seq: u64,
    head: &'l str,
}

impl<'v> Journals<'v> {
    /// Finds the journals and how far each goes. The audit is measured after this.
    pub fn measure(logs: &'v Logs) -> Result<Journals<'v>> {
        let is_live = logs.dir().join(".lock/audit.lock").exists();
        let mut journals = Journals {
            logs,
            all: BTreeMap::new(),
            is_live,
            has_feed: false,
            journal_word: Finder::new(b"\"journal\":"),
        };
        if !is_live {
            return Ok(journals);
        }
        for name in inventory::journals(logs)? {
            journals.follow(name)?;
        }
        journals.has_feed = journals.all.contains_key(FEED);
        Ok(journals)
    }

    fn follow(&mut self, journal: JournalName) -> Result<()> {
        let name = journal.to_string();
        let reach = journal::reach(self.logs, &journal)?;
        let mut reader = Reader::open_at(self.logs, &journal, reach.first)?;
        reader.read_until(reach.believed);
        let followed = Followed {
            reader,
            first: reach.first,
            limit: reach.believed,
            records: 0,
            ahead: None,
            untold: None,
            untold_at: 0,
            chain: name.starts_with("receive/").then(|| beginning_at(reach.first)),
            receipts: Receipts::default(),
            found: Found::default(),
            has_failed: false,
            name: journal,
        };
        self.all.insert(name, followed);
        Ok(())
    }

    /// Compares what a record tells of.
    pub fn told(&mut self, record: &RawLine<'_>, report: &mut Report) -> Result<()> {
        if !self.is_live {
            return Ok(());
        }
        // Duplicates point at the first one.
        let names_journal = record.outcome != b"duplicate" && self.journal_word.find(record.detail).is_some();
        let has_receipt = self.has_feed && record.action == b"deliver" && record.outcome == b"acknowledged";
        if !names_journal && !has_receipt && record.action != b"resync" {
            return Ok(());
        }
        let Ok(told) = serde_json::from_slice::<Told<'_>>(record.detail) else { return Ok(()) };
        if let Some(followed) = told.replaced.and_then(|it| self.all.get_mut(it)) {
            followed.begin_anew(self.logs, told.from.unwrap_or(0))?;
        }
        if let Some(receipt) = told.receipt.filter(|_| has_receipt) {
            self.receipt(record, &receipt)?;
        }
        let (Some(name), None) = (told.journal, told.quarantine) else { return Ok(()) };
        if name == "audit" {
            return Ok(());
        }
        let Some(followed) = self.all.get_mut(name) else {
            let what = format!("record {} tells of this journal, which is not there", record.seq);
            report.problem(format!("{name}.jsonl"), what);
            return Ok(());
        };
        let range = match (told.from, told.to, told.offset) {
            (Some(from), Some(to), _) => (from, to),
            (_, _, Some(offset)) => (offset, offset + 1),
            _ => return Ok(()),
        };
        followed.told(self.logs, record, range, told.fingerprint);
        Ok(())
    }

    /// A receipt for a line of this folder's own feed must be that line's.
    fn receipt(&mut self, record: &RawLine<'_>, receipt: &ToldReceipt<'_>) -> Result<()> {
        let Some(feed) = self.all.get_mut(FEED) else { return Ok(()) };
        let Some(key) = record.key else { return Ok(()) };
        let line = feed.receipts.find(self.logs, receipt.seq)?;
        // Another receiver's feed has the same numbers for other keys.
        let Some(line) = line.filter(|it| raw(&it.idempotency_key) == key) else { return Ok(()) };
        feed.found.receipts += 1;
        if line.hash != receipt.head {
            let what = format!(
                "record {} has the receipt {}:{}, but line {} of the feed has the hash {}",
                record.seq, receipt.seq, receipt.head, receipt.seq, line.hash
            );
            feed.found.problem(0, feed.name.file(), what);
        }
        Ok(())
    }

    /// Tells of what nobody told of, and what is missing. Without the whole audit, nobody knows what it tells of.
    pub fn finish(self, is_whole: bool, report: &mut Report) -> Result<()> {
        for (name, mut followed) in self.all {
            if is_whole {
                followed.pass_until(self.logs, followed.limit);
            }
            report.receipts += followed.found.receipts;
            for (_, place, what) in std::mem::take(&mut followed.found.problems) {
                report.problem(place, what);
            }
            report.more_problems += followed.found.more;
            if let Some((place, count)) = followed.untold.take() {
                let more =
                    if count > 1 { format!(", and {} more like it", count - 1) } else { String::new() };
                report.problem(place, format!("the audit does not tell of this record{more}"));
            }
            if let Some(ahead) = followed.ahead {
                // Measured again: its writer audits what it has written, so by now it is there.
                let written = journal::reach(self.logs, &followed.name)?.written;
                if written <= ahead {
                    let what = format!(
                        "the audit tells of a record at offset {ahead}, but the journal ends at {written}: a tail was cut off"
                    );
                    report.problem(followed.name.file(), what);
                }
            }
            report.journals.push(Compared { journal: name, records: followed.records });
        }
        Ok(())
    }
}

impl Followed {
    /// Forgets what was told of it from an offset on: that is void.
    fn begin_anew(&mut self, logs: &Logs, from: u64) -> Result<()> {
        let from = from.max(self.first);
        self.ahead = None;
        self.found.problems.retain(|(offset, ..)| *offset < from);
        if self.untold_at >= from {
            self.untold = None;
        }
        if self.reader.offset() > from || self.has_failed {
            self.records = 0;
            let mut before = Reader::open_at(logs, &self.name, self.first)?;
            while before.offset() < from && before.next_item()?.is_some() {
                self.records += 1;
            }
            self.reader.seek(from);
            self.has_failed = false;
            self.chain = self.chain.is_some().then(|| beginning_at(from));
            self.receipts = Receipts::default();
        }
        Ok(())
    }

    fn told(&mut self, logs: &Logs, record: &RawLine<'_>, (from, to): (u64, u64), fingerprint: Option<&str>) {
        if from >= self.limit {
            self.ahead = self.ahead.max(Some(from));
            return;
        }
        // What was trimmed can no longer be compared; that it was trimmed by right, the conservation check says.
        if from < self.first {
            return;
        }
        self.pass_until(logs, from);
        let is_one = to == from + 1;
        // Else it was trimmed, or told of before.
        let is_here = self.reader.offset() == from;
        let (problems, mut read) = (self.found.count(), String::new());
        while self.reader.offset() >= from && self.reader.offset() < to && !self.has_failed {
            self.next(logs, Some(record), fingerprint.map(|_| &mut read));
        }
        // Of several records, the fingerprint is that of their fingerprints.
        let actual = if is_one { read } else { journal::fingerprint(read.as_bytes()) };
        let is_whole =
            is_here && self.reader.offset() >= to && !self.has_failed && self.found.count() == problems;
        if is_whole && fingerprint.is_some_and(|it| *it != *actual) {
            let which = if is_one { "the record" } else { "one of the records from here on" };
            let what = format!("{which} was changed since the audit's record {} told of it", record.seq);
            self.found.problem(from, place_of(logs, &self.name, from), what);
        }
    }

    /// Reads up to an offset; what lies before it is told of by nobody.
    fn pass_until(&mut self, logs: &Logs, offset: u64) {
        while self.reader.offset() < offset && !self.has_failed {
            let at = self.reader.offset();
            self.next(logs, None, None);
            if self.has_failed {
                return;
            }
            if let Some((_, count)) = &mut self.untold {
                *count += 1;
            } else {
                (self.untold, self.untold_at) = (Some((place_of(logs, &self.name, at), 1)), at);
            }
        }
    }

    /// Reads a line; `told` is the record that tells of it, and what is there goes into `fingerprints`.
    fn next(&mut self, logs: &Logs, told: Option<&RawLine<'_>>, fingerprints: Option<&mut String>) {
        let report = &mut self.found;
        let (offset, text) = match self.reader.next_item() {
            Ok(Some(Item::Line { offset, text, .. })) => (offset, text),
            Ok(Some(Item::Overlong { offset, .. })) => {
                let place = place_of(logs, &self.name, offset);
                return report.problem(offset, place, "is longer than any record");
            }
            Ok(None) => {
                self.has_failed = true;
                return;
            }
            Err(error) => {
                self.has_failed = true;
                return report.problem(self.reader.offset(), self.name.file(), error.to_string());
            }
        };
        if let Some(chain) = &mut self.chain {
            if chain.seq == u64::MAX {
                *chain = super::before(text).unwrap_or_default();
            }
            if let Err(why) = chain.step(text) {
                report.problem(
                    offset,
                    place_of(logs, &self.name, offset),
                    format!("the journal's own chain is broken: the record {why}"),
                );
                *chain = Chain::after(text).unwrap_or(Chain { seq: u64::MAX, head: String::new() });
            }
        }
        if self.name.as_str() == FEED {
            self.receipts.read(offset, text);
        }
        let has_fingerprint = fingerprints.is_some();
        if let Some(fingerprints) = fingerprints {
            journal::push_fingerprint(text, fingerprints);
        }
        let Some(record) = told else { return };
        self.records += 1;
        let is_it = match record.key {
            Some(key) => is_about(self.name.as_str(), text, key),
            // One record tells of a whole batch: that each is one must do. Where there is a fingerprint, it shows every
            // change, and this only names the line of those that are common.
            None if has_fingerprint => looks_whole(text),
            None => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
        };
        if !is_it {
            let what = format!("is not the record that the audit's record {} tells of", record.seq);
            report.problem(offset, place_of(logs, &self.name, offset), what);
        }
    }
}

/// Where a chain stands before its first line; what was trimmed is not known.
fn beginning_at(first: u64) -> Chain {
    if first == 0 { Chain::default() } else { Chain { seq: u64::MAX, head: String::new() } }
}

/// Whether a line is the record of the event with this key, as it lies in the audit.
fn is_about(journal: &str, line: &[u8], key: &[u8]) -> bool {
    // The escapes of journals and of the audit are the same, so their bytes can be compared.
    let has =
        |before: &str, text: &[u8]| memmem::find(line, &[before.as_bytes(), text, b"\""].concat()).is_some();
    if journal == TASKS {
        return Task::from_line(line).is_ok_and(|it| raw(&identity::task_key(&it.scope, &it.task_id)) == key);
    }
    match (key.strip_prefix(b"milestone:"), line.strip_prefix(b"{\"milestoneId\":\"")) {
        (Some(id), Some(rest)) => rest.strip_prefix(id).is_some_and(|it| it.starts_with(b"\"")),
        // What settling kept may have been written by another hand.
        (Some(id), None) if has("\"milestoneId\":\"", id) => true,
        // Commands, and refused requests without a key, are of no event.
        _ if key == b"control" || key.is_empty() => true,
        _ => has("\"idempotency_key\":\"", key) || has("\"idempotencyKey\":\"", key),
    }
}
