//! A place in a journal that can be recognised again (J5).
//!
//! # Invariants
//! - An offset is 0 or just after a newline, never inside a record.
//! - The fingerprint is of the line before the offset, by content: inodes are reused, contents are not.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A logical offset, with the fingerprint of the line that ends there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Bytes since the journal began.
    pub offset: u64,
    /// [`fingerprint`] of the line before; empty at offset 0.
    pub fingerprint: String,
}

impl Position {
    /// The place after `line`, which ends at `offset`.
    pub fn after(offset: u64, line: &[u8]) -> Position {
        Position { offset, fingerprint: fingerprint(line) }
    }
}

/// The first 16 hex digits of SHA-256 of a line without its newline.
pub fn fingerprint(line: &[u8]) -> String {
    let mut text = String::with_capacity(16);
    push_fingerprint(line, &mut text);
    text
}

/// Appends the [`fingerprint`] of a line to `text`.
pub fn push_fingerprint(line: &[u8], text: &mut String) {
    HEXLOWER.encode_append(&Sha256::digest(line)[..8], text);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.offset)
    }
}

/// Where a consumer is set to (`--resync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resync {
    /// The beginning of the journal: everything is read again.
    Start,
    /// Its end: what waits is passed over.
    End,
    /// The start of a line, in bytes since the journal began.
    Offset(u64),
}

impl FromStr for Resync {
    type Err = String;

    fn from_str(text: &str) -> Result<Resync, String> {
        match text {
            "start" => Ok(Resync::Start),
            "end" => Ok(Resync::End),
            _ => match text.parse() {
                Ok(offset) => Ok(Resync::Offset(offset)),
                Err(_) => Err("is neither start nor end nor an offset in bytes".to_owned()),
            },
        }
    }
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resync::Start => f.write_str("start"),
            Resync::End => f.write_str("end"),
            Resync::Offset(offset) => write!(f, "{offset}"),
        }
    }
}
