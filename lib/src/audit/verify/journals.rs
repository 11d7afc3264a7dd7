//! The journals that the audit tells of, each read once beside it.
//!
//! A journal's records are audited in their order, so one reader a journal is enough: it goes to the line that a
//! record tells of, and whatever it passes on the way is told of by nobody.
//!
//! # Invariants
//! - Lines behind what a journal's mark covered when it was measured are not looked at, only that they are there.
//! - A journal that is a chain of its own (`receive/…`) is verified as one.
//! - A line is compared by its place and its key; what else it says is for `conservation`
//!   to compare. The receiver's
//!   journals are chains, and theirs is checked whole.
//! - A folder without locks is a copy of an audit; there nothing is compared.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
};

use memchr::memmem::{self, Finder};
use serde::{Deserialize, de::IgnoredAny};

use super::{Compared, Report, place_of};
use crate::{
    Error, Result,
    audit::line::{RawLine, raw},
    chain::Chain,
    identity,
    journal::{self, Item, JournalName, Reader},
    logs::Logs,
    task::{TASKS, Task},
};

/// How many lines of the feed are remembered for the receipts that come soon after them.
const RECENT_MAX: usize = 1 << 14;
const FEED: &str = "receive/feed";

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
    /// Where it was believed to end when it was measured.
    limit: u64,
    records: u64,
    /// The furthest record that was told of behind the limit.
    ahead: Option<u64>,
    /// Lines that nobody tells of: the first one's place, and how many.
    untold: Option<(String, u64)>,
    /// Of a journal that is a chain.
    chain: Option<Chain>,
    /// Of the feed: number, key and hash of its last lines.
    recent: VecDeque<Received>,
    has_failed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    seq: u64,
    idempotency_key: String,
    hash: String,
}

/// What a `detail` tells of a journal.
#[derive(Deserialize)]
struct Told<'l> {
    journal: Option<&'l str>,
    offset: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    quarantine: Option<&'l str>,
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
        for folder in ["", "receive/"] {
            let locks = logs.dir().join(".lock").join(folder);
            let entries = match fs::read_dir(&locks) {
                Ok(entries) => entries,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(Error::io("cannot list the folder", &locks, cause)),
            };
            for entry in entries {
                let file = entry.map_err(|it| Error::io("cannot list the folder", &locks, it))?.file_name();
                let name = file.to_str().and_then(|it| it.strip_suffix(".lock"));
                // Locks of instances and of folders are of no journal.
                if let Some(name) =
                    name.filter(|it| !(it.contains('@') || folder.is_empty() && *it == "audit"))
                {
                    journals.follow(&format!("{folder}{name}"))?;
                }
            }
        }
        journals.has_feed = journals.all.contains_key(FEED);
        Ok(journals)
    }

    fn follow(&mut self, name: &str) -> Result<()> {
        let journal = JournalName::internal(name);
        let reach = journal::reach(self.logs, &journal)?;
        let mut reader = Reader::open_at(self.logs, &journal, reach.first)?;
        reader.read_until(reach.believed);
        let followed = Followed {
            reader,
            limit: reach.believed,
            records: 0,
            ahead: None,
            untold: None,
            chain: name.starts_with("receive/").then(|| {
                if reach.first == 0 { Chain::default() } else { Chain { seq: u64::MAX, head: String::new() } }
            }),
            recent: VecDeque::new(),
            has_failed: false,
            name: journal,
        };
        self.all.insert(name.to_owned(), followed);
        Ok(())
    }

    /// Compares what a record tells of.
    pub fn told(&mut self, record: &RawLine<'_>, report: &mut Report) {
        if !self.is_live {
            return;
        }
        // Duplicates point at the first one.
        let names_journal = record.outcome != b"duplicate" && self.journal_word.find(record.detail).is_some();
        let has_receipt = self.has_feed && record.action == b"deliver" && record.outcome == b"acknowledged";
        if !names_journal && !has_receipt {
            return;
        }
        let Ok(told) = serde_json::from_slice::<Told<'_>>(record.detail) else { return };
        if let Some(receipt) = told.receipt.filter(|_| has_receipt) {
            self.receipt(record, &receipt, report);
        }
        let (Some(name), None) = (told.journal, told.quarantine) else { return };
        if name == "audit" {
            return;
        }
        let Some(followed) = self.all.get_mut(name) else {
            let what = format!("record {} tells of this journal, which is not there", record.seq);
            return report.problem(format!("{name}.jsonl"), what);
        };
        let range = match (told.from, told.to, told.offset) {
            (Some(from), Some(to), _) => (from, to),
            (_, _, Some(offset)) => (offset, offset + 1),
            _ => return,
        };
        followed.told(self.logs, record, range, report);
    }

    /// A receipt for a line of this folder's own feed must be that line's.
    fn receipt(&mut self, record: &RawLine<'_>, receipt: &ToldReceipt<'_>, report: &mut Report) {
        let Some(feed) = self.all.get_mut(FEED) else { return };
        let Some(key) = record.key else { return };
        let line = feed.recent.iter().rev().find(|it| it.seq == receipt.seq);
        // Another receiver's feed has the same numbers for other keys.
        let Some(line) = line.filter(|it| raw(&it.idempotency_key) == key) else { return };
        report.receipts += 1;
        if line.hash != receipt.head {
            let what = format!(
                "record {} has the receipt {}:{}, but line {} of the feed has the hash {}",
                record.seq, receipt.seq, receipt.head, receipt.seq, line.hash
            );
            report.problem(feed.name.file(), what);
        }
    }

    /// Tells of what nobody told of, and what is missing. Without the whole audit, nobody knows what it tells of.
    pub fn finish(self, is_whole: bool, report: &mut Report) -> Result<()> {
        for (name, mut followed) in self.all {
            if is_whole {
                followed.pass_until(self.logs, followed.limit, report);
            }
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
    fn told(&mut self, logs: &Logs, record: &RawLine<'_>, (from, to): (u64, u64), report: &mut Report) {
        if from >= self.limit {
            self.ahead = self.ahead.max(Some(from));
            return;
        }
        self.pass_until(logs, from, report);
        while self.reader.offset() >= from && self.reader.offset() < to && !self.has_failed {
            self.next(logs, Some(record), report);
        }
    }

    /// Reads up to an offset; what lies before it is told of by nobody.
    fn pass_until(&mut self, logs: &Logs, offset: u64, report: &mut Report) {
        while self.reader.offset() < offset && !self.has_failed {
            let at = self.reader.offset();
            self.next(logs, None, report);
            if self.has_failed {
                return;
            }
            match &mut self.untold {
                Some((_, count)) => *count += 1,
                None => self.untold = Some((place_of(logs, &self.name, at), 1)),
            }
        }
    }

    /// Reads a line; `told` is the record that tells of it.
    fn next(&mut self, logs: &Logs, told: Option<&RawLine<'_>>, report: &mut Report) {
        let (offset, text) = match self.reader.next_item() {
            Ok(Some(Item::Line { offset, text, .. })) => (offset, text),
            Ok(Some(Item::Overlong { offset, .. })) => {
                return report.problem(place_of(logs, &self.name, offset), "is longer than any record");
            }
            Ok(None) => {
                self.has_failed = true;
                return;
            }
            Err(error) => {
                self.has_failed = true;
                return report.problem(self.name.file(), error.to_string());
            }
        };
        if let Some(chain) = &mut self.chain {
            if chain.seq == u64::MAX {
                *chain = super::before(text).unwrap_or_default();
            }
            if let Err(why) = chain.step(text) {
                report.problem(
                    place_of(logs, &self.name, offset),
                    format!("the journal's own chain is broken: the record {why}"),
                );
                *chain = Chain::after(text).unwrap_or(Chain { seq: u64::MAX, head: String::new() });
            }
        }
        if self.name.as_str() == FEED
            && let Ok(received) = serde_json::from_slice(text)
        {
            self.recent.push_back(received);
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        let Some(record) = told else { return };
        self.records += 1;
        let is_it = match record.key {
            Some(key) => is_about(self.name.as_str(), text, key),
            // One record tells of a whole batch: that each is one must do.
            None => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
        };
        if !is_it {
            let what = format!("is not the record that the audit's record {} tells of", record.seq);
            report.problem(place_of(logs, &self.name, offset), what);
        }
    }
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
