//! Is this key in the journal? The answer costs the same at a thousand and at ten million records (J8).
//!
//! The index is a cache over a journal: a table on disk (`table`) for the records up to a position, and
//! in memory the few that came after it. A hit is a candidate offset; the caller reads the record there
//! before it believes it. The table takes over what is in memory when that has grown, so most one-shot
//! calls only read it; and a long call soon knows without the table that a key is new (`filter`).
//!
//! # Invariants
//! - Used only under the journal's lock: one user at a time, and what it has seen stays true.
//! - The table's position is written after what it covers was synced. A power cut can make it old, not wrong.
//! - Whatever is damaged, missing or belongs to another journal is rebuilt from the journal.
//! - Memory is bounded by `TAIL_ENTRIES_MAX` and the size of a filter, whatever the journal's length.
//!
//! - A record whose segment was trimmed is found as before; what stays of it says whether it is the one.
//!
//! Not here: what is compared when a record with the same key is found (the tool).

mod filter;
mod table;
mod tail;

use crate::{
    Error, Kind, Result,
    journal::{self, Digest, Item, Journal, JournalName, Position, Reader, keys},
};

use filter::Filter;
use table::{Lookup, Table};
use tail::Tail;

/// A one-shot call reads up to this many records behind the table rather than write to it: a lookup in the
/// last 64 records costs microseconds, the syncs of a write most of a millisecond.
const TAIL_ENTRIES_LAZY: usize = 64;
/// A long call keeps up to this many entries (about 4 MB) in memory before it writes them to the table, which then
/// touches most of its pages: with half as many, an event costs a tenth more at ten million.
const TAIL_ENTRIES_MAX: usize = 1 << 17;
/// After so many look-ups in the table a call is a long one and makes itself a filter; but not before it has looked at
/// as many pages as the table has, since all of them are read for that.
const FILTER_AFTER: u64 = 4096;

/// Gives the keys of a line to its callback; a line that is no valid record has none.
pub type KeysOf = fn(line: &[u8], each: &mut dyn FnMut(&str));

/// The look-up index of one journal.
#[derive(Debug)]
pub struct Index {
    journal: Journal,
    keys_of: KeysOf,
    table: Table,
    /// Hashes and offsets of the records from the table's position on.
    tail: Tail,
    /// Says which keys are neither in the table nor in the tail; only long calls have one.
    filter: Option<Filter>,
    /// How many pages of the table were looked at without a filter.
    looked_at: u64,
    /// The logical offset up to which table and tail know the journal.
    known: u64,
    /// Whether the table was begun again by this call: a second time means that the disk fails.
    is_rebuilt: bool,
}

impl Index {
    /// Opens the index of `journal`, whose lock the caller holds, and catches up with its mark.
    pub fn open(journal: &Journal, keys_of: KeysOf) -> Result<Index> {
        let logs = journal.logs();
        let path = logs.place(&file_name(journal.name()))?;
        let table = Table::open(logs, path)?;
        let known = table.position().offset;
        let mut index = Index {
            journal: journal.clone(),
            keys_of,
            table,
            tail: Tail::default(),
            filter: None,
            looked_at: 0,
            known,
            is_rebuilt: false,
        };
        if index.catch_up().is_err() {
            // The position is not one of this journal: it was restored from elsewhere, or replaced.
            index.start_again()?;
        }
        if index.is_long() {
            index.fold()?;
        }
        Ok(index)
    }

    /// Offsets at which a record with this key may be, and up to where in the journal none is missing among them: a
    /// look without the lock, for who only reads. `None` when there is no index that can be believed at the moment.
    ///
    /// A split leaves the old bucket as it is until the header knows of the new one, so what was found between two
    /// looks at the same header is whole.
    pub fn peek(journal: &Journal, key: &str) -> Result<Option<(Vec<u64>, u64)>> {
        let path = journal.logs().dir().join(file_name(journal.name()));
        let Some(mut table) = Table::open_to_read(journal.logs(), path)? else { return Ok(None) };
        let position = table.position().clone();
        if journal.read_from(&position).is_err() {
            return Ok(None);
        }
        match table.find(table.hash(key))? {
            Lookup::Offsets(found) if table.is_current()? => Ok(Some((found, position.offset))),
            Lookup::Offsets(_) | Lookup::Damaged => Ok(None),
        }
    }

    /// Catches up after the lock was released and taken again, as if opened anew.
    pub fn refresh(&mut self) -> Result<()> {
        if self.table.is_current()? {
            let mut reader = Reader::open_at(self.journal.logs(), self.journal.name(), self.known)?;
            if self.read_on(&mut reader).is_ok() {
                return Ok(());
            }
            // While the lock was let go so much came, and was trimmed, that what is known ends before it.
        }
        *self = Index::open(&self.journal, self.keys_of)?;
        Ok(())
    }

    /// Offsets at which a record with this key may be, in the order of the journal. Records appended by
    /// this call's own batches are found after [`Index::add`].
    pub fn find(&mut self, key: &str) -> Result<Vec<u64>> {
        self.find_digest(&journal::digest(key.as_bytes()))
    }

    /// As [`Index::find`], by the digest of the key.
    pub fn find_digest(&mut self, key: &Digest) -> Result<Vec<u64>> {
        if self.filter.is_none() && self.looked_at >= self.table.pages().max(FILTER_AFTER) {
            self.make_filter()?;
        }
        let hash = self.table.hash_of(key);
        if self.filter.as_ref().is_some_and(|it| !it.may_hold(hash)) {
            return Ok(Vec::new());
        }
        self.looked_at += 1;
        let mut offsets = match self.table.find(hash)? {
            Lookup::Offsets(found) => found,
            Lookup::Damaged => {
                self.start_again()?;
                return self.find_digest(key);
            }
        };
        offsets.extend(self.tail.offsets(hash));
        offsets.sort_unstable();
        offsets.dedup();
        Ok(offsets)
    }

    /// Adds the record that was appended at `offset` and ends at `end`.
    pub fn add(&mut self, offset: u64, end: u64, line: &[u8]) {
        let Index { tail, filter, table, keys_of, .. } = self;
        keys_of(line, &mut |key| put(tail, filter.as_mut(), table.hash(key), offset));
        self.known = end;
    }

    /// As [`Index::add`], for a record with this one key.
    pub fn add_key(&mut self, key: &str, offset: u64, end: u64) {
        self.add_digest(&journal::digest(key.as_bytes()), offset, end);
    }

    /// As [`Index::add_key`], by the digest of the key.
    pub fn add_digest(&mut self, key: &Digest, offset: u64, end: u64) {
        put(&mut self.tail, self.filter.as_mut(), self.table.hash_of(key), offset);
        self.known = end;
    }

    /// Everything up to the logical offset `end` was added.
    pub fn knows(&mut self, end: u64) {
        self.known = end;
    }

    /// Whether the next one-shot call would have to read many records, unless [`Index::finish`] is called.
    pub fn is_long(&self) -> bool {
        self.tail.len() > TAIL_ENTRIES_LAZY
    }

    /// Hands what was added to the table once it is much. Call it after the batch is on disk.
    pub fn settle(&mut self) -> Result<()> {
        if self.tail.len() > TAIL_ENTRIES_MAX { self.fold() } else { Ok(()) }
    }

    /// Hands what was added to the table if the next call would otherwise have to read it all again.
    pub fn finish(mut self) -> Result<()> {
        if self.is_long() { self.fold() } else { Ok(()) }
    }

    fn catch_up(&mut self) -> Result<()> {
        if self.table.position().offset == 0 {
            self.read_trimmed()?;
        }
        let mut reader = self.journal.read_from(self.table.position())?;
        self.read_on(&mut reader)
    }

    /// Takes in what stays of trimmed segments. No position stands for it: until the table knows what comes behind it,
    /// it is read again.
    fn read_trimmed(&mut self) -> Result<()> {
        let Index { journal, table, tail, .. } = self;
        let mut is_full = false;
        keys::each(journal.logs(), journal.name(), &mut |offset, kept| {
            tail.insert(table.hash_of(&kept.key), offset);
            if tail.len() > TAIL_ENTRIES_MAX {
                let position = table.position().clone();
                let mut entries = tail.take();
                is_full |= !table.insert(&mut entries, position)?;
                tail.clear(entries);
            }
            Ok(())
        })?;
        if is_full { self.start_again() } else { Ok(()) }
    }

    fn read_on(&mut self, reader: &mut Reader) -> Result<()> {
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Line { offset, end, text } => self.add(offset, end, text),
                Item::Overlong { end, .. } => self.known = end,
            }
            if self.tail.len() > TAIL_ENTRIES_MAX {
                self.fold()?;
            }
        }
        Ok(())
    }

    /// Makes the filter of all that table and tail hold. Nobody else changes them: the journal is locked, and what
    /// changed while it was not is seen by [`Index::refresh`].
    fn make_filter(&mut self) -> Result<()> {
        let mut filter = Filter::new();
        if !self.table.each_hash(&mut |hash| filter.insert(hash))? {
            return self.start_again();
        }
        self.tail.entries().for_each(|(hash, _)| filter.insert(hash));
        self.filter = Some(filter);
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_rebuilt, true) {
            return Err(Error::new(
                Kind::Io,
                file_name(self.journal.name()),
                "the index does not hold what is written to it",
            )
            .cure("check the disk"));
        }
        self.table.clear()?;
        self.tail = Tail::default();
        // The table hashes under another seed now.
        self.filter = None;
        self.looked_at = 0;
        self.known = 0;
        self.catch_up()
    }

    fn fold(&mut self) -> Result<()> {
        let position = self.journal.position_at(self.known)?;
        let mut entries = self.tail.take();
        let inserted = self.table.insert(&mut entries, position);
        if matches!(inserted, Ok(true)) {
            self.tail.clear(entries);
            return Ok(());
        }
        // What the table did not take is still to be found.
        for (hash, offset) in entries {
            self.tail.insert(hash, offset);
        }
        inserted?;
        // A page is damaged, or more keys fell on it than it holds (by chance never; the hash is seeded
        // anew): begin again with an empty table.
        self.start_again()
    }
}

/// Adds an entry.
fn put(tail: &mut Tail, filter: Option<&mut Filter>, hash: u64, offset: u64) {
    tail.insert(hash, offset);
    if let Some(filter) = filter {
        filter.insert(hash);
    }
}

/// The index file of a journal, relative to the logs folder.
fn file_name(name: &JournalName) -> String {
    format!(".index/{}.index", name.as_str().replace('/', "."))
}

impl Index {
    /// Where the table stands; for tests.
    #[doc(hidden)]
    pub fn position(&self) -> &Position {
        self.table.position()
    }
}
