//! The index on disk: a linear hash table of (hash of key, logical offset) pairs in pages of 4 KiB.
//!
//! Page 0 is the header; page 1+n is bucket n. The table grows by one bucket at a time (linear hashing:
//! Litwin 1980), so no call ever pauses to rewrite it all.
//!
//! # Invariants
//! - A bucket that is split keeps its entries; those that moved are overwritten only after the header that
//!   knows of the new bucket was synced.
//! - The header, with the position, is written after the pages it covers were synced, and then synced.
//! - A page or header whose checksum fails makes the whole table worthless, and the caller rebuilds it.
//! - The hash is SHA-256 under a seed that each table draws: nobody can choose keys that fill one bucket.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Error, Result, beside, durable,
    journal::{self, Digest, Position},
    logs::Logs,
};

const PAGE_BYTES: usize = 4096;
const SLOT_BYTES: usize = 16;
/// The first slot of a page holds its checksum and number.
const PAGE_SLOTS: usize = PAGE_BYTES / SLOT_BYTES - 1;
/// Mean entries a bucket at which the table grows. A bucket that waits for its split holds twice as many,
/// 160 with a standard deviation of 13, of 255: a full one will not be seen, and would mean a rebuild.
const MEAN_ENTRIES: u64 = 80;
/// Far more than any disk holds: 2^52 bytes.
const BUCKETS_MAX: u64 = 1 << 40;
/// So many entries change most pages of a small table and as many pages of a large one: many times what a thread costs.
const ENTRIES_BESIDE: usize = 1 << 12;
/// Pages that are written at once take up to this much memory.
const RUN_BYTES: usize = 64 * PAGE_BYTES;
const MAGIC: &[u8; 8] = b"mileidx2";

type Page = Box<[u8; PAGE_BYTES]>;

/// Pages that lie one behind the other, to be written at once: a long call changes nearly all of them.
#[derive(Default)]
struct Run {
    first: u64,
    pages: Vec<u8>,
}

impl Run {
    fn holds(&self, number: u64) -> bool {
        (self.first..self.next()).contains(&number)
    }

    /// Whether the page belongs behind those that are there, and has room.
    fn takes(&self, number: u64) -> bool {
        number == self.next() && self.pages.len() < RUN_BYTES
    }

    fn next(&self) -> u64 {
        self.first + (self.pages.len() / PAGE_BYTES) as u64
    }
}

/// What looking for a hash gave.
pub enum Lookup {
    /// Logical offsets of records whose key has this hash.
    Offsets(Vec<u64>),
    /// The page cannot be believed: the table must be rebuilt.
    Damaged,
}

/// The table of one journal.
#[derive(Debug)]
pub struct Table {
    logs: Logs,
    path: PathBuf,
    file: File,
    header: Header,
    looked_at: Option<Page>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    seed: u64,
    buckets: u64,
    entries: u64,
    position: Position,
}

impl Table {
    /// Opens the table, or begins an empty one where there is none that can be believed.
    pub fn open(logs: &Logs, path: PathBuf) -> Result<Table> {
        let (file, _) = durable::open_or_create(logs.disk(), &path)
            .map_err(|it| Error::io("cannot open the index", &path, it))?;
        let mut table = Table { logs: logs.clone(), path, file, header: Header::empty(), looked_at: None };
        match table.read_header()? {
            Some(it) if table.bytes()? >= (it.buckets + 1) * PAGE_BYTES as u64 => table.header = it,
            // Shorter than its header says: pages that a power cut took.
            _ => table.clear()?,
        }
        Ok(table)
    }

    /// The table to look something up in, without the journal's lock: nothing is written or begun again. `None` when
    /// there is none that can be believed.
    pub fn open_to_read(logs: &Logs, path: PathBuf) -> Result<Option<Table>> {
        let file = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|it| Error::io("cannot open the index", &path, it))?,
        };
        let mut table = Table { logs: logs.clone(), path, file, header: Header::empty(), looked_at: None };
        let Some(header) = table.read_header()? else { return Ok(None) };
        table.header = header;
        Ok(Some(table))
    }

    /// Whether the file is still as this table left it.
    pub fn is_current(&self) -> Result<bool> {
        Ok(self.read_header()?.as_ref() == Some(&self.header))
    }

    fn read_header(&self) -> Result<Option<Header>> {
        let mut page = Page::new([0; PAGE_BYTES]);
        match self.file.read_exact_at(&mut page[..], 0) {
            Ok(()) => Ok(Header::decode(&page)),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(cause) => Err(self.failed("cannot read", cause)),
        }
    }

    /// Up to where the table knows the journal.
    pub fn position(&self) -> &Position {
        &self.header.position
    }

    /// The hash of a key in this table.
    pub fn hash(&self, key: &str) -> u64 {
        self.hash_of(&journal::digest(key.as_bytes()))
    }

    /// The hash of a key of which only the digest is known: its record was trimmed.
    pub fn hash_of(&self, key: &Digest) -> u64 {
        let digest = Sha256::new().chain_update(self.header.seed.to_le_bytes()).chain_update(key).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Zero marks an empty slot.
        u64::from_le_bytes(first).max(1)
    }

    /// Empties the table and draws another seed.
    pub fn clear(&mut self) -> Result<()> {
        self.header = Header::empty();
        let disk = self.logs.disk();
        disk.set_len(&self.file, 0).map_err(|it| self.failed("cannot empty", it))?;
        self.write_page(1, &mut Page::new([0; PAGE_BYTES]))?;
        self.write_header()
    }

    /// The offsets under a hash.
    pub fn find(&mut self, hash: u64) -> Result<Lookup> {
        // Nothing that the header does not know of counts, so the page need not be looked at.
        if self.header.entries == 0 {
            return Ok(Lookup::Offsets(Vec::new()));
        }
        // Kept from look-up to look-up, so that none has to make a page.
        let mut page = self.looked_at.take().unwrap_or_else(|| Page::new([0; PAGE_BYTES]));
        let is_whole = self.read_page_into(&mut page, 1 + bucket_of(hash, self.header.buckets));
        let offsets = || slots(&page).filter(|it| it.0 == hash).map(|it| it.1).collect();
        let found = is_whole.map(|it| match it {
            // Most keys are new.
            true if !holds(&page, hash) => Lookup::Offsets(Vec::new()),
            true => Lookup::Offsets(offsets()),
            false => Lookup::Damaged,
        });
        self.looked_at = Some(page);
        found
    }

    /// How many pages hold entries.
    pub fn pages(&self) -> u64 {
        self.header.buckets
    }

    /// Hands every hash in the table to `each`, those that wait to be overwritten too. False when a page cannot be
    /// believed: the table must be rebuilt.
    pub fn each_hash(&self, each: &mut dyn FnMut(u64)) -> Result<bool> {
        let mut page = Page::new([0; PAGE_BYTES]);
        for bucket in 0..self.header.buckets {
            if !self.read_page_into(&mut page, 1 + bucket)? {
                return Ok(false);
            }
            slots(&page).for_each(|it| each(it.0));
        }
        Ok(true)
    }

    /// Inserts entries, which it sorts, after which the table knows the journal up to `position`. False when it must
    /// be rebuilt instead.
    pub fn insert(&mut self, entries: &mut [(u64, u64)], position: Position) -> Result<bool> {
        let synced_buckets = self.header.buckets;
        let mut header = self.header.clone();
        header.entries += entries.len() as u64;
        header.position = position;
        let mut run = Run::default();
        while header.entries > header.buckets * MEAN_ENTRIES {
            // A bucket may be split from one that this insertion has made.
            if run.holds(1 + parent_of(header.buckets)) {
                self.write_run(&mut run)?;
            }
            let Some(mut page) = self.split(header.buckets)? else { return Ok(false) };
            self.put_page(&mut run, 1 + header.buckets, &mut page)?;
            header.buckets += 1;
        }
        self.write_run(&mut run)?;
        let bucket = |it: &(u64, u64)| bucket_of(it.0, header.buckets);
        entries.sort_unstable_by_key(bucket);
        // Each bucket has a page of its own, so halves of them can be filled side by side.
        let middle = entries.get(entries.len() / 2).map_or(0, bucket);
        let (low, high) = entries.split_at(entries.partition_point(|it| bucket(it) < middle));
        let filled = |half| self.fill_all(half, synced_buckets, header.buckets);
        let (low, high) = beside::both(entries.len() >= ENTRIES_BESIDE, || filled(low), || filled(high));
        if !low? || !high? {
            return Ok(false);
        }
        self.sync()?;
        self.header = header;
        self.write_header()?;
        self.sync()?;
        Ok(true)
    }

    /// Puts entries, in the order of their buckets, into the pages of those. False when there is no room in one, or it
    /// cannot be believed.
    fn fill_all(&self, entries: &[(u64, u64)], synced: u64, buckets: u64) -> Result<bool> {
        let bucket = |it: &(u64, u64)| bucket_of(it.0, buckets);
        let (mut run, mut page) = (Run::default(), Page::new([0; PAGE_BYTES]));
        for entries in entries.chunk_by(|left, right| bucket(left) == bucket(right)) {
            let bucket = bucket(&entries[0]);
            if !self.read_page_into(&mut page, 1 + bucket)?
                || !fill(&mut page, bucket, synced, buckets, entries)
            {
                return Ok(false);
            }
            self.put_page(&mut run, 1 + bucket, &mut page)?;
        }
        self.write_run(&mut run)?;
        Ok(true)
    }

    /// The page of bucket number `buckets`, out of the one it splits from, which stays as it is.
    fn split(&self, buckets: u64) -> Result<Option<Page>> {
        let from = parent_of(buckets);
        let Some(old) = self.read_page(1 + from)? else { return Ok(None) };
        let mut new = Page::new([0; PAGE_BYTES]);
        let moved = slots(&old).filter(|it| bucket_of(it.0, buckets + 1) == buckets);
        for (slot, entry) in (1..).zip(moved) {
            put(&mut new, slot, entry);
        }
        Ok(Some(new))
    }

    fn read_page(&self, number: u64) -> Result<Option<Page>> {
        let mut page = Page::new([0; PAGE_BYTES]);
        Ok(self.read_page_into(&mut page, number)?.then_some(page))
    }

    /// Whether the page is there and can be believed.
    fn read_page_into(&self, page: &mut Page, number: u64) -> Result<bool> {
        match self.file.read_exact_at(&mut page[..], number * PAGE_BYTES as u64) {
            Ok(()) => Ok(page[..8] == seal_of(page, number)),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(cause) => Err(self.failed("cannot read", cause)),
        }
    }

    fn write_page(&self, number: u64, page: &mut Page) -> Result<()> {
        let mut run = Run::default();
        self.put_page(&mut run, number, page)?;
        self.write_run(&mut run)
    }

    /// Seals a page and puts it into the run, which is written first when the page does not belong behind it.
    fn put_page(&self, run: &mut Run, number: u64, page: &mut Page) -> Result<()> {
        if !run.takes(number) {
            self.write_run(run)?;
            run.first = number;
        }
        let seal = seal_of(page, number);
        page[..8].copy_from_slice(&seal);
        run.pages.extend_from_slice(&page[..]);
        Ok(())
    }

    /// Writes the run, and leaves it empty.
    fn write_run(&self, run: &mut Run) -> Result<()> {
        let written =
            durable::write_all_at(self.logs.disk(), &self.file, &run.pages, run.first * PAGE_BYTES as u64);
        run.pages.clear();
        written.map_err(|it| self.failed("cannot write", it))
    }

    fn write_header(&self) -> Result<()> {
        durable::write_all_at(self.logs.disk(), &self.file, &self.header.encode()[..], 0)
            .map_err(|it| self.failed("cannot write", it))
    }

    fn sync(&self) -> Result<()> {
        self.logs.disk().sync_data(&self.file).map_err(|it| self.failed("cannot sync", it))
    }

    fn bytes(&self) -> Result<u64> {
        self.file.metadata().map(|it| it.len()).map_err(|it| self.failed("cannot look at", it))
    }

    fn failed(&self, what: &str, cause: io::Error) -> Error {
        Error::io(format!("{what} the index"), &self.path, cause)
    }
}

/// The bucket of a hash in a table of this many.
fn bucket_of(hash: u64, buckets: u64) -> u64 {
    let round = buckets.next_power_of_two();
    let bucket = hash & (round - 1);
    if bucket < buckets { bucket } else { bucket - round / 2 }
}

/// The bucket that bucket number `new` is split from.
fn parent_of(new: u64) -> u64 {
    new - (new + 1).next_power_of_two() / 2
}

fn slots(page: &Page) -> impl Iterator<Item = (u64, u64)> {
    (1..=PAGE_SLOTS).map(|slot| get(page, slot)).filter(|it| it.0 != 0)
}

/// Whether a hash is in one of the slots: all are compared, which takes less time than to stop at the right one.
fn holds(page: &Page, hash: u64) -> bool {
    let (slots, _) = page.as_chunks::<SLOT_BYTES>();
    slots.iter().skip(1).fold(false, |found, slot| found | (slot[..8] == hash.to_le_bytes()))
}

fn get(page: &Page, slot: usize) -> (u64, u64) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&page[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (number(slot * SLOT_BYTES), number(slot * SLOT_BYTES + 8))
}

fn put(page: &mut Page, slot: usize, entry: (u64, u64)) {
    let at = slot * SLOT_BYTES;
    page[at..at + 8].copy_from_slice(&entry.0.to_le_bytes());
    page[at + 8..at + 16].copy_from_slice(&entry.1.to_le_bytes());
}

/// Puts entries into free slots of a bucket's page; false when there are too few. A slot is free when it is
/// empty, or when its entry has moved to a bucket that was there, synced, before this insertion began.
fn fill(page: &mut Page, bucket: u64, synced: u64, buckets: u64, entries: &[(u64, u64)]) -> bool {
    let mut free = 1..=PAGE_SLOTS;
    for entry in entries.iter().filter(|it| bucket_of(it.0, buckets) == bucket) {
        // Inserting again what is there is how an insertion goes on that a kill cut short.
        if holds(page, entry.0) && slots(page).any(|it| it == *entry) {
            continue;
        }
        let slot = free.find(|slot| {
            let (hash, _) = get(page, *slot);
            hash == 0 || bucket_of(hash, synced) != bucket && bucket < synced
        });
        match slot {
            Some(slot) => put(page, slot, *entry),
            None => return false,
        }
    }
    true
}

/// Checksum and number of a page, as its first 8 bytes hold them.
fn seal_of(page: &Page, number: u64) -> [u8; 8] {
    let check = crc32fast::hash(&page[8..]);
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let mut seal = [0; 8];
    seal[..4].copy_from_slice(&check.to_le_bytes());
    seal[4..].copy_from_slice(&low.to_le_bytes());
    seal
}

impl Header {
    fn empty() -> Header {
        // RandomState draws its keys from the system's randomness.
        Header { seed: RandomState::new().hash_one(0), buckets: 1, entries: 0, position: Position::default() }
    }

    fn encode(&self) -> Page {
        let mut page = Page::new([0; PAGE_BYTES]);
        page[8..16].copy_from_slice(MAGIC);
        for (at, number) in
            (16..).step_by(8).zip([self.seed, self.buckets, self.entries, self.position.offset])
        {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let fingerprint = self.position.fingerprint.as_bytes();
        page[48..48 + fingerprint.len()].copy_from_slice(fingerprint);
        let seal = seal_of(&page, 0);
        page[..8].copy_from_slice(&seal);
        page
    }

    fn decode(page: &Page) -> Option<Header> {
        if page[..8] != seal_of(page, 0) || page[8..16] != MAGIC[..] {
            return None;
        }
        let number = |at| get(page, at / SLOT_BYTES);
        let ((seed, buckets), (entries, offset)) = (number(16), number(32));
        let fingerprint = page[48..64].iter().take_while(|it| **it != 0).map(|it| char::from(*it)).collect();
        // What `insert` keeps to. Others' numbers could make it grow the file for ever, or overflow.
        let is_possible = (1..=BUCKETS_MAX).contains(&buckets) && entries <= buckets * MEAN_ENTRIES;
        is_possible.then_some(Header { seed, buckets, entries, position: Position { offset, fingerprint } })
    }
}
