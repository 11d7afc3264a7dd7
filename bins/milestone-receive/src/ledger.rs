//! A journal of the receiver: who is in it already, and appending those who are not, many with one sync.
//!
//! # Invariants
//! - An identity is decided under the journal's lock, against the journal and the batch itself.
//! - A decision is returned when everything it tells of is on disk and audited, the whole batch or nothing.
//! - After an error the index is opened again: what it believes may be ahead of the journal.
//!
//! Not here: who waits for the decisions (`store`), what a line says (`record`).

use std::iter::once;

use milepost::{
    Error, Kind, Result,
    audit::{Action, Detail, Draft, Outcome},
    chain::Chain,
    clock,
    index::{Index, KeysOf},
    ingest::Receipt,
    journal::{Batch, Digest, DigestMap, Journal, Lines, Writer},
};
use serde_json::json;

use crate::record::{Entry, Refused};

/// A journal, and who is in it.
pub struct Ledger {
    journal: Journal,
    names_of: KeysOf,
    index: Option<Index>,
    /// The logical offset up to which the index knows the journal.
    end: u64,
}

/// What was decided about an entry.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It was appended.
    New(Receipt),
    /// The first one, with the same content, is there.
    Known(Receipt),
    /// The one with this seq has the same identity and another content.
    Conflict(u64),
}

/// Lines that were appended, one behind the other.
#[derive(Debug, Default)]
pub struct Appended {
    /// What each of them is.
    pub entries: Vec<AppendedEntry>,
    /// All of them.
    pub lines: Vec<u8>,
    /// The hash of the last.
    pub head: String,
}

/// A line that was appended.
#[derive(Debug)]
pub struct AppendedEntry {
    /// Which of the offered entries it is.
    pub at: usize,
    /// Its logical offset.
    pub offset: u64,
    /// The logical offset behind it.
    pub end: u64,
    /// Its number.
    pub seq: u64,
}

/// Where an identity was found.
struct Found {
    same: bool,
    offset: u64,
    receipt: Receipt,
}

impl Ledger {
    /// The journal, whose index is opened with the first append.
    pub fn new(journal: Journal, names_of: KeysOf) -> Ledger {
        Ledger { journal, names_of, index: None, end: 0 }
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Appends the entries that are new, as many as make one batch. Decisions are about the first of `offered`,
    /// in order; whoever has more comes again.
    pub fn append<T: Entry>(&mut self, offered: &[T]) -> Result<(Vec<Decision>, Appended)> {
        let mut writer = self.journal.write()?;
        // Taken out, and put back at the end: whatever fails in between leaves none.
        let mut index = self.index_behind(&writer)?;
        self.end = writer.end();
        let mut chain = writer.chain()?;
        let now = clock::now().to_string();
        let mut lines = self.journal.lines();
        let mut batch = Batch::default();
        let mut appended: Vec<AppendedEntry> = Vec::with_capacity(offered.len());
        // By name, which of `appended`: nearly always one.
        let mut pending: DigestMap<(usize, Vec<usize>)> = DigestMap::default();
        pending.reserve(offered.len());
        let mut decisions = Vec::with_capacity(offered.len());
        let mut line = Vec::new();

        for (at, entry) in offered.iter().enumerate() {
            if batch.is_full() {
                break;
            }
            let names = entry.names();
            let of_name =
                |it| pending.get(it).into_iter().flat_map(|(first, others)| once(first).chain(others));
            let of_batch = names.iter().flat_map(of_name).find_map(|it| {
                let AppendedEntry { at, offset, .. } = &appended[*it];
                let (first, Decision::New(receipt)) = (&offered[*at], &decisions[*at]) else { return None };
                let found = Found { same: first.is_same(entry), offset: *offset, receipt: receipt.clone() };
                first.is_kin(entry).then_some(found)
            });
            let found = match of_batch {
                Some(found) => Some(found),
                None => find(&mut lines, &mut index, entry, &names)?,
            };
            decisions.push(match found {
                Some(Found { same: true, offset, receipt }) => {
                    let first = Detail::of_record(self.journal.name(), offset, Some(receipt.seq), None);
                    batch.audit(draft(entry, Outcome::Duplicate, first));
                    Decision::Known(receipt)
                }
                Some(Found { same: false, receipt, .. }) => Decision::Conflict(receipt.seq),
                None => {
                    let seq = chain.seq + 1;
                    let offset = self.end + batch.bytes();
                    let head = entry
                        .write_line(seq, &now, chain.prev(), &mut line)
                        .map_err(|it| self.cannot_write(it))?;
                    batch.push(&line);
                    let detail = Detail::of_record(self.journal.name(), offset, Some(seq), Some(&line));
                    batch.audit(draft(entry, Outcome::Appended, detail));
                    chain = Chain { seq, head: head.clone() };
                    for name in names.iter() {
                        let others = |it: &mut (usize, Vec<usize>)| it.1.push(appended.len());
                        pending.entry(*name).and_modify(others).or_insert((appended.len(), Vec::new()));
                    }
                    appended.push(AppendedEntry { at, offset, end: offset + line.len() as u64, seq });
                    Decision::New(Receipt { seq, head })
                }
            });
        }

        let head = chain.head.clone();
        batch.chain_ends(chain);
        if !batch.is_empty() {
            writer.append(&batch)?;
        }
        for (name, (first, others)) in &pending {
            for it in once(first).chain(others) {
                index.add_digest(name, appended[*it].offset, self.end);
            }
        }
        if let Some(last) = appended.last() {
            self.end = last.end;
            index.knows(self.end);
        }
        // Everything is on disk and is answered so; an index that fails is opened again.
        if index.settle().is_ok() {
            self.index = Some(index);
        }
        Ok((decisions, Appended { entries: appended, lines: batch.into_lines(), head }))
    }

    /// Where the record is that `is_it` and has this name, if there is one.
    pub fn find(&mut self, name: &str, is_it: impl Fn(&[u8]) -> bool) -> Result<Option<u64>> {
        if self.index.is_none() {
            let writer = self.journal.write()?;
            self.index = Some(self.index_behind(&writer)?);
            self.end = writer.end();
        }
        let Some(index) = &mut self.index else { return Ok(None) };
        let mut lines = self.journal.lines();
        for offset in index.find(name)? {
            if lines.get(offset)?.is_some_and(|it| is_it(&it)) {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// The index, which knows everything that `writer` found.
    fn index_behind(&mut self, writer: &Writer) -> Result<Index> {
        match self.index.take() {
            // Only a batch that failed after it was on disk makes the journal longer than we know.
            Some(it) if self.end == writer.end() => Ok(it),
            _ => Index::open(&self.journal, self.names_of),
        }
    }

    /// Appends refused requests, which have no identity, as many as make one batch; returns their lines.
    pub fn keep(&mut self, refused: &[(&Refused, Outcome)]) -> Result<Vec<Vec<u8>>> {
        let mut writer = self.journal.write()?;
        let mut chain = writer.chain()?;
        let mut batch = Batch::default();
        let mut lines = Vec::with_capacity(refused.len());
        let now = clock::now();
        for (refused, outcome) in refused {
            if batch.is_full() {
                break;
            }
            let seq = chain.seq + 1;
            let detail = json!({
                "journal": self.journal.name().as_str(),
                "offset": writer.end() + batch.bytes(),
                "seq": seq,
                "reason": refused.reason.code(),
            });
            let (line, head) = refused.to_line(seq, now, chain.prev()).map_err(|it| self.cannot_write(it))?;
            batch.push(&line);
            batch.audit(Draft {
                key: refused.key.as_deref().map(Into::into),
                scope: refused.scope.as_deref().map(Into::into),
                ..Draft::new(Action::Receive, *outcome, detail)
            });
            chain = Chain { seq, head };
            lines.push(line);
        }
        batch.chain_ends(chain);
        writer.append(&batch)?;
        Ok(lines)
    }

    /// Saves the next start from reading what only memory knows. The index is a cache: nothing hangs on it.
    pub fn finish(&mut self) -> Result<()> {
        let Some(index) = self.index.take() else { return Ok(()) };
        let _locked = self.journal.write()?;
        index.finish()
    }

    fn cannot_write(&self, cause: serde_json::Error) -> Error {
        Error::new(Kind::Io, self.journal.name(), "cannot write the record as JSON").because(cause)
    }
}

fn draft<'e, T: Entry>(entry: &'e T, outcome: Outcome, detail: Detail<'e>) -> Draft<'e> {
    Draft {
        key: Some(entry.key().into()),
        scope: entry.scope(),
        trace_id: entry.trace_id().map(Into::into),
        ..Draft::new(Action::Receive, outcome, detail)
    }
}

/// Looks an identity up in the journal: by key first, then by the other names.
fn find<T: Entry>(
    lines: &mut Lines,
    index: &mut Index,
    entry: &T,
    names: &[Digest],
) -> Result<Option<Found>> {
    for name in names {
        for offset in index.find_digest(name)? {
            // A hit is a hint: only the record itself is believed.
            let Some(line) = lines.get(offset)? else { continue };
            let Some((stored, receipt)) = T::from_line(&line) else { continue };
            if stored.is_kin(entry) {
                return Ok(Some(Found { same: stored.is_same(entry), offset, receipt }));
            }
        }
    }
    Ok(None)
}
