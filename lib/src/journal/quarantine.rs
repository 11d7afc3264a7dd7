//! Bytes that were no valid record, kept as they were.
//!
//! # Invariants
//! - The copy is on disk, with its name, before the original may be cut.
//! - The name says journal, offset and hash, so keeping the same bytes twice is keeping them once.

use sha2::{Digest, Sha256};

use super::JournalName;
use crate::{Error, Result, durable, identity::hex, logs::Logs};

/// Keeps `bytes` found at `offset` of a journal; returns the file's name relative to the logs folder.
pub fn keep(logs: &Logs, name: &JournalName, offset: u64, bytes: &[u8]) -> Result<String> {
    let relative = name.quarantined(offset, &hex(&Sha256::digest(bytes)[..8]));
    let path = logs.place(&relative)?;
    // Replaced even when it is there: the one that is there may be half of what a crash left.
    durable::replace(logs.disk(), &path, bytes)
        .map_err(|it| Error::io("cannot keep damaged bytes in quarantine", &path, it))?;
    Ok(relative)
}
