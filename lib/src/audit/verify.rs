//! Does the audit hold, and does everything agree with it?
//!
//! One walk over the chain from its first record. On the way it looks into every journal that a record tells of:
//! the line must be there and be the one that is told of, and no line may be there that nobody tells of.
//!
//! # Invariants
//! - Only reads; takes no lock. Memory does not grow with history.
//! - No false alarm while others write: journals are measured first, the audit after them, and a record is audited
//!   before its journal's mark covers it. What lies behind a mark belongs to a writer that is at work or has died;
//!   it may be missing, torn or not audited.
//! - After a break the walk goes on from what stands there, so that one break is one problem.
//!
//! Not here: reading a line (`line`), the journals of others (`journals`, `receipts`).

mod journals;
mod receipts;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::journals::Journals;
use super::{line::RawLine, seal::Sealer};
use crate::{
    Result,
    chain::Chain,
    journal::{self, Item, JournalName, Reader},
    logs::Logs,
};

/// Problems that are told one by one; the rest is counted.
const PROBLEMS_TOLD: usize = 20;
/// How often progress is told, in records.
const PROGRESS_EVERY: u64 = 4096;

/// A place in a chain: what `--expect` names and `--head` prints, `SEQ:HASH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Number of the record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Head, String> {
        let form = || "is not SEQ:HASH, a number and 64 lower-case hex digits".to_owned();
        let (seq, hash) = text.split_once(':').ok_or_else(form)?;
        let seq: u64 = seq.parse().map_err(|_| form())?;
        let is_hash =
            hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
        if is_hash && seq > 0 { Ok(Head { seq, hash: hash.to_owned() }) } else { Err(form()) }
    }
}

/// What to verify beside the chain itself.
#[derive(Debug, Default)]
pub struct Options {
    /// Heads that must be in the chain.
    pub expect: Vec<Head>,
    /// Keys whose seals are checked.
    pub keys: Vec<Sealer>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// File and line, or what it is about.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

/// Up to where the chain is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// The last record under the seal.
    pub seq: u64,
    /// When it was sealed, by the sealer's clock.
    pub at: String,
    /// The name of the key.
    pub key: String,
    /// Whether the key was at hand and the seal holds.
    pub checked: bool,
}

/// A journal that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Its name.
    pub journal: String,
    /// Lines that are there and told of.
    pub records: u64,
}

/// What a verification came to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Records of the chain.
    pub records: u64,
    /// The last record; none in an empty chain.
    pub head: Option<Head>,
    /// The last seal.
    pub sealed: Option<Sealed>,
    /// The last seal that was checked and holds.
    pub proven: Option<Sealed>,
    /// How often the sealing key changed.
    pub key_changes: u64,
    /// Receipts of deliveries that are in this folder's own feed.
    pub receipts: u64,
    /// The journals that were compared.
    pub journals: Vec<Compared>,
    /// What is wrong, the first first.
    pub problems: Vec<Problem>,
    /// How many more things are wrong.
    pub more_problems: u64,
}

impl Report {
    fn problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS_TOLD {
            self.problems.push(Problem { place: place.into(), what: what.into() });
        } else {
            self.more_problems += 1;
        }
    }
}

/// The last record of the chain, as its mark has it; `None` when there is none.
///
/// # Errors
/// When it cannot be read.
pub fn head(logs: &Logs) -> Result<Option<Head>> {
    let name = JournalName::audit();
    let reach = journal::reach(logs, &name)?;
    let Some(line) = journal::line_before(logs, &name, reach.believed)? else { return Ok(None) };
    let chain = Chain::after(&line).ok_or_else(|| {
        crate::Error::new(crate::Kind::BadData, name.file(), "the last line is no audit record")
            .cure("see what --verify says")
    })?;
    Ok(Some(Head { seq: chain.seq, hash: chain.head }))
}

/// A reader of the audit from its first record, up to where it is believed; without a mark, all that is there.
///
/// # Errors
/// When it cannot be read.
pub fn reader(logs: &Logs) -> Result<Reader> {
    let name = JournalName::audit();
    let reach = journal::reach(logs, &name)?;
    let mut reader = Reader::open_at(logs, &name, reach.first)?;
    reader.read_until(if reach.has_mark { reach.believed } else { reach.written });
    Ok(reader)
}

/// Verifies everything. `progress` is told how many bytes of how many are done.
///
/// # Errors
/// When something cannot be read at all; what is wrong is in the report.
pub fn verify(logs: &Logs, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    let name = JournalName::audit();
    let mut journals = Journals::measure(logs)?;
    let reach = journal::reach(logs, &name)?;
    let mut walk = Walk {
        logs,
        options,
        report: Report::default(),
        chain: Some(Chain::default()),
        expected: options.expect.iter().cloned().collect(),
        has_mark: reach.has_mark,
        vouched: BTreeSet::new(),
        offset: reach.first,
    };
    if reach.first > 0 {
        let what = format!("the chain begins at offset {}: the files before it are gone", reach.first);
        walk.report.problem(name.file(), what);
        walk.chain = None;
    }
    walk.expected.make_contiguous().sort_by_key(|it| it.seq);
    let mut reader = Reader::open_at(logs, &name, reach.first)?;
    // Up to the mark in any case: a file that is shorter says so.
    reader.read_until(reach.written.max(reach.believed));
    let mut is_whole = true;
    loop {
        match reader.next_item() {
            Ok(None) => break,
            // A torn end belongs to a writer at work, or to one that died.
            Ok(Some(Item::Line { offset, end, text }))
                if offset >= reach.believed && end - offset == text.len() as u64 =>
            {
                break;
            }
            Ok(Some(Item::Line { offset, text, .. })) => {
                if !walk.line(offset, text, offset >= reach.believed, &mut journals)? {
                    break;
                }
            }
            Ok(Some(Item::Overlong { offset, .. })) => walk.broken(offset, "is longer than any record"),
            Err(error) => {
                walk.report.problem(name.file(), error.to_string());
                is_whole = false;
                break;
            }
        }
        if walk.report.records.is_multiple_of(PROGRESS_EVERY) {
            progress(reader.offset() - reach.first, reach.written - reach.first);
        }
    }
    let Walk { mut report, chain, expected, .. } = walk;
    if let Some(chain) = chain.filter(|it| it.seq > 0) {
        report.head = Some(Head { seq: chain.seq, hash: chain.head });
    }
    for it in expected {
        let end = report.head.as_ref().map_or(0, |it| it.seq);
        let what = format!(
            "the expected record {} is not in the chain, which ends at {end}: a tail was cut off",
            it.seq
        );
        report.problem(name.file(), what);
    }
    journals.finish(is_whole, &mut report)?;
    report.ok = report.problems.is_empty();
    Ok(report)
}

struct Walk<'v> {
    logs: &'v Logs,
    options: &'v Options,
    report: Report,
    /// Where the chain stands; none behind a line that says nothing of it.
    chain: Option<Chain>,
    /// What is expected and did not come yet, in order.
    expected: VecDeque<Head>,
    /// Whether the audit has a mark.
    has_mark: bool,
    /// Names of keys that a key at hand has vouched for.
    vouched: BTreeSet<String>,
    /// Offset of the line that is looked at.
    offset: u64,
}

impl Walk<'_> {
    /// Takes one line in; false when the walk ends before it.
    fn line(&mut self, offset: u64, text: &[u8], is_open: bool, journals: &mut Journals<'_>) -> Result<bool> {
        self.offset = offset;
        if let Some(record) = RawLine::read(text)
            && self.step(&record)
        {
            self.record(&record, journals)?;
            return Ok(true);
        }
        // Not the next record, or one that only a parser can judge.
        let mut chain = self.chain.clone().or_else(|| before(text)).unwrap_or_default();
        match chain.step(text) {
            Ok(()) => {
                self.chain = Some(chain);
                self.report.records += 1;
            }
            // A crash leaves no whole record that is not the next one; a writer that takes its batch back may.
            Err(_) if is_open && (self.has_mark || Chain::after(text).is_none()) => return Ok(false),
            Err(why) => {
                self.broken(offset, &why);
                self.chain = Chain::after(text);
                self.report.records += u64::from(self.chain.is_some());
                if let Some(record) = RawLine::read(text) {
                    journals.told(&record, &mut self.report)?;
                }
                return Ok(true);
            }
        }
        // Rare enough to be brought into the form that is understood below.
        if let Some(canonical) = serde_json::from_slice(text).ok().map(|it| crate::canonical::to_vec(&it))
            && let Some(record) = RawLine::read(&canonical)
        {
            self.record(&record, journals)?;
        }
        Ok(true)
    }

    /// Steps over a canonical record if it is the next one and its hash is right.
    fn step(&mut self, record: &RawLine<'_>) -> bool {
        let Some(chain) = &mut self.chain else { return false };
        if record.seq != chain.seq + 1 || record.prev != chain.prev().as_bytes() {
            return false;
        }
        let [before, after] = record.hashed;
        let hash =
            Sha256::new().chain_update(record.prev).chain_update(before).chain_update(after).finalize();
        let mut text = [0; 64];
        data_encoding::HEXLOWER.encode_mut(&hash, &mut text);
        if text != record.hash {
            return false;
        }
        chain.seq = record.seq;
        chain.head.clear();
        chain.head.push_str(std::str::from_utf8(&text).unwrap_or_default());
        self.report.records += 1;
        true
    }

    /// A record in its place: what it tells of.
    fn record(&mut self, record: &RawLine<'_>, journals: &mut Journals<'_>) -> Result<()> {
        while let Some(expected) = self.expected.front().filter(|it| it.seq <= record.seq) {
            if expected.seq == record.seq && expected.hash.as_bytes() == record.hash {
                self.expected.pop_front();
                continue;
            }
            let what = if expected.seq == record.seq {
                format!("record {} has another hash than the expected one", record.seq)
            } else {
                format!("the expected record {} is not in the chain", expected.seq)
            };
            self.expected.pop_front();
            self.problem(self.offset, &what);
        }
        if record.action == b"seal" {
            self.seal(record);
        }
        journals.told(record, &mut self.report)
    }

    fn seal(&mut self, record: &RawLine<'_>) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Made {
            key: String,
            seal: String,
            previous_key: Option<String>,
            previous_seal: Option<String>,
        }
        let Ok(seal) = serde_json::from_slice::<Made>(record.detail) else {
            return self.problem(self.offset, "the seal has no key and seal");
        };
        let prev = String::from_utf8_lossy(record.prev);
        let holds = |name: &str, seal: &str| {
            let key = self.options.keys.iter().find(|it| it.name() == name);
            key.map(|it| it.is_sealed(record.seq, &prev, seal))
        };
        let verdict = holds(&seal.key, &seal.seal);
        let endorsed = seal
            .previous_key
            .as_deref()
            .zip(seal.previous_seal.as_deref())
            .and_then(|(name, seal)| holds(name, seal));
        self.report.key_changes += u64::from(seal.previous_key.is_some());
        if endorsed == Some(true) {
            self.vouched.insert(seal.key.clone());
        }
        let sealed = Sealed {
            seq: record.seq - 1,
            at: String::from_utf8_lossy(record.timestamp).into_owned(),
            key: seal.key,
            checked: verdict == Some(true),
        };
        let is_known = verdict.is_some() || self.vouched.contains(&sealed.key);
        if verdict == Some(false) || endorsed == Some(false) {
            self.problem(self.offset, "the seal is not of the key that it names: the chain was written anew");
        } else if !is_known && self.report.proven.is_some() {
            let what = format!("the seal is of the key {}, which no seal before it names", sealed.key);
            self.problem(self.offset, &what);
        } else if verdict == Some(true) {
            self.report.proven = Some(sealed.clone());
        }
        self.report.sealed = Some(sealed);
    }

    fn broken(&mut self, offset: u64, why: &str) {
        self.problem(offset, &format!("the chain is broken: the record {why}"));
    }

    fn problem(&mut self, offset: u64, what: &str) {
        let place = place_of(self.logs, &JournalName::audit(), offset);
        self.report.problem(place, what);
    }
}

/// The place of a line for people: file and line.
fn place_of(logs: &Logs, name: &JournalName, offset: u64) -> String {
    match journal::place(logs, name, offset) {
        Ok((file, line)) => format!("{file}:{line}"),
        Err(_) => format!("{} at offset {offset}", name.file()),
    }
}

/// Where a chain stood before `line`, believing it.
fn before(line: &[u8]) -> Option<Chain> {
    #[derive(Deserialize)]
    struct Link {
        seq: u64,
        prev: String,
    }
    let Link { seq, prev } = serde_json::from_slice(line).ok()?;
    Some(Chain { seq: seq.checked_sub(1)?, head: prev })
}
