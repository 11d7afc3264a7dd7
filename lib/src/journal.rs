//! A journal: an append-only sequence of JSON lines, and the source of truth.
//!
//! | file | what it is | kept by |
//! | --- | --- | --- |
//! | `NAME.jsonl` | the active segment: the only file that grows | `active` |
//! | `NAME.<20 digits>.jsonl` | a sealed segment, named by the logical offset of its first byte | `active` |
//! | `.lock/NAME.lock` | the lock, and in it the synced mark | `mark` |
//! | `quarantine/NAME.<20 digits>.<hash>` | bytes that were no valid record, as they were | `quarantine` |
//!
//! # Invariants
//! - J1 After any crash and one ordinary run, every line is one whole JSON object ending in `\n`.
//! - J2 An append is acknowledged when its bytes and its audit records are on disk, never before.
//! - J3 What a dead writer left beyond the mark is settled before anything builds on it.
//! - J4 An offset is logical: the number of bytes since the journal began, across rotations.
//! - J6 A reader believes what lies below the mark and needs no lock for it.
//! - Locks are taken in one order: instance, journal, audit. Nothing is taken while audit is held, and
//!   nobody holds two journals.
//!
//! `docs/FORMAT.md` has the bytes.

pub(crate) mod active;
mod extent;
mod mark;
mod name;
mod position;
mod quarantine;
mod reader;
mod scan;
mod writer;

pub use active::BATCH_BYTES_MAX;
pub use extent::{Extent, Segment, open_segment};
pub use name::JournalName;
pub use position::{Position, Resync, fingerprint};
pub use quarantine::keep as keep_in_quarantine;
pub(crate) use reader::line_before;
pub use reader::{Item, LINE_BYTES_MAX, Lines, Reader};
pub use scan::{Found, Whole, scan};
pub use writer::{Batch, Described, Journal, Writer};

/// The most records of one batch: enough that its sync costs each of them little.
pub const BATCH_RECORDS_MAX: usize = 4096;
