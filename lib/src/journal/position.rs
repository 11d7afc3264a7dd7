//! A place in a journal that can be recognised again (J5).
//!
//! # Invariants
//! - An offset is 0 or just after a newline, never inside a record.
//! - The fingerprint is of the line before the offset, by content: inodes are reused, contents are not.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::hex;

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
    hex(&Sha256::digest(line)[..8])
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.offset)
    }
}
