//! What stays of a trimmed segment: of each record its place and hashes of what it said, so that a duplicate is known
//! for ever.
//!
//! `NAME.<20 digits>.keys` stands for the sealed segment of that name. A line is for one look-up key of one record:
//! logical offset, key, content, content without what a caller may leave out; 20 digits and three times the first 32
//! hex digits of SHA-256, in the order of the offsets. All lines are equally long, so one is found by halving.
//!
//! # Invariants
//! - It is on disk, whole, before its segment is removed, and is never removed itself.
//!
//! Not here: which segments may go (`trim`), what the hashes are of (the tool's records).

use std::{
    collections::{HashMap, HashSet},
    fs,
    hash::{BuildHasherDefault, Hasher},
    io,
    os::unix::fs::FileExt,
};

use sha2::{Digest as _, Sha256};

use super::JournalName;
use crate::{Error, Kind, Result, durable, logs::Logs};

/// The first 16 bytes of a SHA-256.
pub type Digest = [u8; 16];

/// A map by digests, within one batch.
pub type DigestMap<V> = HashMap<Digest, V, BuildHasherDefault<DigestHasher>>;

/// A set of digests, within one batch.
pub type DigestSet = HashSet<Digest, BuildHasherDefault<DigestHasher>>;

/// Takes a digest for its own hash: nothing spreads better. Who makes ids whose digests begin alike, thousands of them,
/// makes the one batch slower that he offers.
#[derive(Debug, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, digest: &[u8]) {
        if let Some(first) = digest.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// A digest has one length.
    fn write_usize(&mut self, _length: usize) {}
}

const HEX: usize = 32;
const OFFSET: usize = 20;
const LINE_BYTES: usize = OFFSET + 3 * (1 + HEX) + 1;

/// What stays of a record, under one of its look-up keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the look-up key.
    pub key: Digest,
    /// Of all that the record says.
    pub content: Digest,
    /// Of what it says, without what a caller may leave out; of an envelope, of its idempotency key.
    pub rest: Digest,
}

/// The first 16 bytes of SHA-256.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut first = [0; 16];
    first.copy_from_slice(&Sha256::digest(bytes)[..16]);
    first
}

/// Writes what stays of the segment that begins at `base`; it is on disk when this returns.
pub(crate) fn write(logs: &Logs, name: &JournalName, base: u64, kept: &[(u64, Kept)]) -> Result<()> {
    let mut text = String::with_capacity(kept.len() * LINE_BYTES);
    for (offset, Kept { key, content, rest }) in kept {
        use std::fmt::Write as _;
        let [key, content, rest] = [key, content, rest].map(|it| data_encoding::HEXLOWER.encode(it));
        let _ = writeln!(text, "{offset:020} {key} {content} {rest}");
    }
    let path = logs.place(&name.keys(base))?;
    durable::replace(logs.disk(), &path, text.as_bytes())
        .map_err(|it| Error::io("cannot keep the keys of the segment", &path, it))
}

/// Every key of every trimmed segment, in order, with its record's logical offset.
pub(crate) fn each(
    logs: &Logs,
    name: &JournalName,
    take: &mut dyn FnMut(u64, Kept) -> Result<()>,
) -> Result<()> {
    for base in super::extent::trimmed(logs, name)? {
        let path = logs.dir().join(name.keys(base));
        let text = fs::read(&path).map_err(|it| Error::io("cannot read", &path, it))?;
        for line in text.chunks(LINE_BYTES) {
            let (offset, kept) = parse(line).ok_or_else(|| damaged(&path))?;
            take(offset, kept)?;
        }
    }
    Ok(())
}

/// What stays of the record at `offset` under `key`; `None` when no trimmed record was there under it.
pub(crate) fn find(logs: &Logs, name: &JournalName, offset: u64, key: &str) -> Result<Option<Kept>> {
    let Some(base) = super::extent::trimmed(logs, name)?.into_iter().rfind(|it| *it <= offset) else {
        return Ok(None);
    };
    let path = logs.dir().join(name.keys(base));
    let failed = |it| Error::io("cannot read", &path, it);
    let file = match fs::File::open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let lines = file.metadata().map_err(failed)?.len() / LINE_BYTES as u64;
    let line = |number: u64| -> Result<(u64, Kept)> {
        let mut bytes = [0; LINE_BYTES];
        file.read_exact_at(&mut bytes, number * LINE_BYTES as u64).map_err(failed)?;
        parse(&bytes).ok_or_else(|| damaged(&path))
    };
    let (mut from, mut to) = (0, lines);
    while from < to {
        let middle = from + (to - from) / 2;
        if line(middle)?.0 < offset { from = middle + 1 } else { to = middle }
    }
    let key = digest(key.as_bytes());
    while from < lines {
        let (at, kept) = line(from)?;
        if at != offset {
            break;
        }
        if kept.key == key {
            return Ok(Some(kept));
        }
        from += 1;
    }
    Ok(None)
}

fn parse(line: &[u8]) -> Option<(u64, Kept)> {
    let mut words = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split(' ');
    let offset = words.next().filter(|it| it.len() == OFFSET)?.parse().ok()?;
    let mut next = || -> Option<Digest> {
        data_encoding::HEXLOWER.decode(words.next()?.as_bytes()).ok()?.try_into().ok()
    };
    Some((offset, Kept { key: next()?, content: next()?, rest: next()? }))
}

fn damaged(path: &std::path::Path) -> Error {
    Error::new(Kind::BadData, path.display(), "a line of it is none of trimmed keys")
        .cure("restore the file from a backup: without it old duplicates are not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let kept = Kept { key: digest(b"a"), content: digest(b"b"), rest: digest(b"c") };
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap();
        let name = JournalName::internal("a");
        let all: Vec<_> = (0..9_u64)
            .map(|it| (100 + it / 2 * 7, Kept { key: [u8::try_from(it).unwrap(); 16], ..kept }))
            .collect();
        write(&logs, &name, 0, &all).unwrap();
        let mut read = Vec::new();
        each(&logs, &name, &mut |offset, it| {
            read.push((offset, it));
            Ok(())
        })
        .unwrap();
        assert_eq!(read, all);
        write(&logs, &name, 200, &[(207, Kept { key: digest(b"k"), ..kept })]).unwrap();
        assert!(find(&logs, &name, 207, "k").unwrap().is_some());
        assert_eq!(find(&logs, &name, 207, "x").unwrap(), None);
        assert_eq!(find(&logs, &name, 99, "k").unwrap(), None);
        assert_eq!(find(&logs, &name, 208, "k").unwrap(), None);
    }
}
