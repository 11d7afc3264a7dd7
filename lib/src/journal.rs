//! A journal: an append-only sequence of JSON lines, and the source of truth.
//!
//! | file | what it is | kept by |
//! | --- | --- | --- |
//! | `NAME.jsonl` | the active segment: the only file that grows | `active` |
//! | `NAME.<20 digits>.jsonl` | a sealed segment, named by the logical offset of its first byte | `active` |
//! | `NAME.<20 digits>.keys` | what stays of a sealed segment that was trimmed | `keys` |
//! | `.lock/NAME.lock` | the lock, and in it the synced mark | `mark` |
//! | `quarantine/NAME.<20 digits>.<hash>` | bytes that were no valid record, as they were | `quarantine` |
//!
//! # Invariants
//! Other modules name these rules by their numbers.
//! - J1 After any crash and one ordinary run, every line is one whole JSON object ending in `\n`.
//! - J2 An append is acknowledged when its bytes and its audit records are on disk, never before.
//! - J3 What a dead writer left beyond the mark is settled before anything builds on it.
//! - J4 An offset is logical: the number of bytes since the journal began, across rotations.
//! - J5 A stored position carries a fingerprint of the line before it; where the line is another one, the journal was
//!   replaced, truncated or rewritten, and its reader stops.
//! - J6 A reader believes what lies below the mark and needs no lock for it.
//! - J7 A queue's last record says where its source goes on, so enqueueing exactly once needs no second file.
//! - J8 Whether a key is there costs the same however long the journal is; same content is a duplicate, another one a
//!   conflict, and what the caller left out is not compared.
//! - J9 States and indexes are replaced whole or rebuilt; every one of them may be deleted.
//! - Locks are taken in one order: instance, journal, audit. Nothing is taken while audit is held, and
//!   nobody holds two journals.
//!
//! `docs/FORMAT.md` has the bytes.

pub(crate) mod active;
pub(crate) mod extent;
pub(crate) mod keys;
mod mark;
mod name;
mod position;
mod quarantine;
mod reader;
mod scan;
mod writer;

pub use active::BATCH_BYTES_MAX;
pub use extent::{Extent, Segment, open_segment};
pub use keys::{Digest, DigestMap, DigestSet, Kept, digest};
pub use name::JournalName;
pub use position::{Position, Resync, fingerprint, push_fingerprint};
pub use quarantine::keep as keep_in_quarantine;
pub use reader::{Item, LINE_BYTES_MAX, Lines, Reader};
pub(crate) use reader::{line_before, place, reach};
pub use scan::{Found, Whole, lines_from, scan};
pub use writer::{Batch, Described, Journal, Writer};

/// The most records of one batch: enough that its sync costs each of them little.
pub const BATCH_RECORDS_MAX: usize = 4096;
