//! A journal of the receiver: who is in it already, and appending those who are not, many with one sync.
//!
//! # Invariants
//! - An identity is decided under the journal's lock, against the journal and the batch itself.
//! - A decision is returned when everything it tells of is on disk and audited, the whole batch or nothing.
//! - After an error the index is opened again: what it believes may be ahead of the journal.
//!
//! Not here: who waits for the decisions (`store`), what a line says (`record`).

use std::collections::HashMap;

use milepost::{
    Error, Kind, Result,
    audit::{Action, Draft, Outcome},
    chain::Chain,
    clock,
    index::{Index, KeysOf},
    ingest::Receipt,
    journal::{Batch, Journal, Lines},
};
use serde_json::{Value, json};

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

/// A line that was appended, with its newline.
#[derive(Debug)]
pub struct Appended {
    /// Its logical offset.
    pub offset: u64,
    /// The logical offset behind it.
    pub end: u64,
    /// The line.
    pub line: Vec<u8>,
}

/// An entry of the batch that is being made.
struct Pending<'a, T> {
    entry: &'a T,
    offset: u64,
    receipt: Receipt,
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

    /// The logical offset behind the last line that was appended here.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends the entries that are new. Decisions are in the order of `offered`.
    pub fn append<T: Entry>(&mut self, offered: &[T]) -> Result<(Vec<Decision>, Vec<Appended>)> {
        let mut writer = self.journal.write()?;
        // Taken out, and put back at the end: whatever fails in between leaves none.
        let mut index = match self.index.take() {
            // Only a batch that failed after it was on disk makes the journal longer than we know.
            Some(it) if self.end == writer.end() => it,
            _ => Index::open(&self.journal, self.names_of)?,
        };
        self.end = writer.end();
        let mut chain = writer.chain()?;
        let now = clock::now();
        let mut lines = self.journal.lines();
        let mut batch = Batch::default();
        let mut pending: Vec<Pending<'_, T>> = Vec::new();
        let mut pending_names: HashMap<String, usize> = HashMap::new();
        let mut decisions = Vec::with_capacity(offered.len());
        let mut appended = Vec::new();

        for entry in offered {
            let names = entry.names();
            let found = match names.iter().find_map(|it| pending_names.get(it)) {
                Some(at) => {
                    let Pending { entry: first, offset, receipt } = &pending[*at];
                    Some(Found { same: first.is_same(entry), offset: *offset, receipt: receipt.clone() })
                }
                None => find(&mut lines, &mut index, entry, &names)?,
            };
            decisions.push(match found {
                Some(Found { same: true, offset, receipt }) => {
                    batch.audit(draft(entry, Outcome::Duplicate, self.detail(offset, receipt.seq)));
                    Decision::Known(receipt)
                }
                Some(Found { same: false, receipt, .. }) => Decision::Conflict(receipt.seq),
                None => {
                    let seq = chain.seq + 1;
                    let offset = self.end + batch.bytes();
                    let (line, head) =
                        entry.to_line(seq, now, chain.prev()).map_err(|it| self.cannot_write(it))?;
                    batch.push(&line);
                    batch.audit(draft(entry, Outcome::Appended, self.detail(offset, seq)));
                    chain = Chain { seq, head: head.clone() };
                    let receipt = Receipt { seq, head };
                    pending_names.extend(names.into_iter().map(|it| (it, pending.len())));
                    pending.push(Pending { entry, offset, receipt: receipt.clone() });
                    appended.push(Appended { offset, end: offset + line.len() as u64, line });
                    Decision::New(receipt)
                }
            });
        }

        batch.chain_ends(chain);
        if !batch.is_empty() {
            writer.append(&batch)?;
        }
        for it in &appended {
            index.add(it.offset, it.end, &it.line);
            self.end = it.end;
        }
        // Everything is on disk and is answered so; an index that fails is opened again.
        if index.settle().is_ok() {
            self.index = Some(index);
        }
        Ok((decisions, appended))
    }

    /// Appends refused requests, which have no identity; returns their lines.
    pub fn keep(&mut self, refused: &[(&Refused, Outcome)]) -> Result<Vec<Vec<u8>>> {
        let mut writer = self.journal.write()?;
        let mut chain = writer.chain()?;
        let mut batch = Batch::default();
        let mut lines = Vec::with_capacity(refused.len());
        let now = clock::now();
        for (refused, outcome) in refused {
            let seq = chain.seq + 1;
            let mut detail = self.detail(writer.end() + batch.bytes(), seq);
            detail["reason"] = refused.reason.code().into();
            let (line, head) = refused.to_line(seq, now, chain.prev()).map_err(|it| self.cannot_write(it))?;
            batch.push(&line);
            batch.audit(Draft { key: refused.key.clone(), ..Draft::new(Action::Receive, *outcome, detail) });
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

    /// Where a record is, for its audit.
    fn detail(&self, offset: u64, seq: u64) -> Value {
        json!({ "journal": self.journal.name().as_str(), "offset": offset, "seq": seq })
    }

    fn cannot_write(&self, cause: serde_json::Error) -> Error {
        Error::new(Kind::Io, self.journal.name(), "cannot write the record as JSON").because(cause)
    }
}

fn draft<T: Entry>(entry: &T, outcome: Outcome, detail: Value) -> Draft {
    Draft {
        key: Some(entry.key().to_owned()),
        scope: entry.scope().map(str::to_owned),
        ..Draft::new(Action::Receive, outcome, detail)
    }
}

/// Looks an identity up in the journal: by key first, then by the other names.
fn find<T: Entry>(
    lines: &mut Lines,
    index: &mut Index,
    entry: &T,
    names: &[String],
) -> Result<Option<Found>> {
    for name in names {
        for offset in index.find(name)? {
            // A hit is a hint: only the record itself is believed.
            let Some(line) = lines.get(offset)? else { continue };
            let Some((stored, receipt)) = T::from_line(&line) else { continue };
            if stored.names().contains(name) {
                return Ok(Some(Found { same: stored.is_same(entry), offset, receipt }));
            }
        }
    }
    Ok(None)
}
