//! The synced mark: up to where a journal is surely on disk and audited.
//!
//! One line of JSON, padded to a fixed size, at the start of the journal's lock file; one `pwrite`
//! replaces it. It is not synced: after a power cut it may lag, it never leads.
//!
//! # Invariants
//! - Only the holder of the journal's lock writes it, after what it stands for is on disk.
//! - A mark whose checksum fails is a missing mark: the whole active segment is then settled.
//! - `undo` says that a batch of all or nothing is being written: whoever finds it cuts back to the mark.

use std::{fs::File, io, os::unix::fs::FileExt};

use serde::{Deserialize, Serialize};

use crate::durable::{self, Disk};

/// Room for every number at its longest, well within the 512 bytes that a disk writes whole.
const MARK_BYTES: usize = 320;

/// Where a journal stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mark {
    /// Of this form; a mark of another one is not believed.
    pub version: u32,
    /// The logical offset of the active segment's first byte.
    pub base: u64,
    /// The bytes of the active segment that are on disk and audited.
    pub length: u64,
    /// The logical end of the audit journal after the audit of these bytes.
    pub audit_offset: u64,
    /// Whether what lies beyond `length` is part of a batch that counts wholly or not at all.
    pub undo: bool,
    /// Of a hash chain: the `seq` of its last record, 0 when it is empty.
    pub seq: u64,
    /// Of a hash chain: the `hash` of its last record.
    pub head: String,
}

const VERSION: u32 = 1;

impl Default for Mark {
    fn default() -> Mark {
        Mark {
            version: VERSION,
            base: 0,
            length: 0,
            audit_offset: 0,
            undo: false,
            seq: 0,
            head: String::new(),
        }
    }
}

impl Mark {
    /// The logical offset up to which readers may read.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.length)
    }

    /// Whether a file can be this long and a chain have so many records. What a check fits to and no disk can hold
    /// was not written by us, and sums with it would overflow.
    fn is_possible(&self) -> bool {
        let end = self.base.checked_add(self.length);
        end.is_some_and(|it| it.max(self.seq) <= i64::MAX.unsigned_abs())
    }

    /// Reads the mark; `None` when there is none that can be believed.
    pub fn read(file: &File) -> io::Result<Option<Mark>> {
        let mut bytes = [0; MARK_BYTES];
        let mut filled = 0;
        while filled < MARK_BYTES {
            match file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(decode(&bytes[..filled]))
    }

    /// Writes the mark in place.
    pub fn write(&self, disk: &dyn Disk, file: &File) -> io::Result<()> {
        durable::write_all_at(disk, file, &encode(self)?, 0)
    }
}

const CHECK: &str = ",\"check\":\"";

fn encode(mark: &Mark) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(mark)?;
    line.pop();
    let check = crc32fast::hash(&line);
    line.extend_from_slice(format!("{CHECK}{check:08x}\"}}").as_bytes());
    line.resize(MARK_BYTES - 1, b' ');
    line.push(b'\n');
    Ok(line)
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, rest) = text.rsplit_once(CHECK)?;
    let check = rest.trim_end().strip_suffix("\"}")?;
    if text.len() != MARK_BYTES || u32::from_str_radix(check, 16).ok()? != crc32fast::hash(body.as_bytes()) {
        return None;
    }
    let mark: Mark = serde_json::from_str(&format!("{body}}}")).ok()?;
    (mark.version == VERSION && mark.is_possible()).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mark_fits_and_comes_back() {
        let longest = u64::MAX / 4;
        let head = "f".repeat(64);
        let mark = Mark {
            base: longest,
            length: longest,
            audit_offset: u64::MAX,
            seq: longest,
            head,
            ..Mark::default()
        };
        let bytes = encode(&mark).unwrap();
        assert_eq!(bytes.len(), MARK_BYTES);
        assert_eq!(decode(&bytes), Some(mark));
    }

    #[test]
    fn a_mark_that_no_file_can_reach_is_missing() {
        let far = u64::MAX / 2;
        for mark in [
            Mark { base: u64::MAX, length: 1, ..Mark::default() },
            Mark { base: far, length: 1, ..Mark::default() },
            Mark { seq: u64::MAX, ..Mark::default() },
        ] {
            assert_eq!(decode(&encode(&mark).unwrap()), None, "{mark:?}");
        }
    }

    #[test]
    fn any_changed_byte_makes_the_mark_missing() {
        let mark = Mark { base: 7, length: 12345, ..Mark::default() };
        let bytes = encode(&mark).unwrap();
        for at in 0..MARK_BYTES {
            let mut torn = bytes.clone();
            torn[at] = 0;
            assert!(decode(&torn).is_none_or(|it| it == mark), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
        }
        assert_eq!(decode(&[]), None);
        let next = encode(&Mark { version: 2, ..mark }).unwrap();
        assert_eq!(decode(&next), None, "another version is not believed");
    }
}
