//! What there is of a journal: its files, how long each is, and how much of the last one is believed.
//!
//! For who looks at a journal as a whole and goes on where a reader must stop: the conservation check.
//!
//! # Invariants
//! - Without a lock, and consistent all the same: what is believed by one look was on disk and audited then.
//! - A rotation that goes on meanwhile is seen as before or as after it, never as a journal that was cut.
//!
//! Not here: the lines (`reader`), what is wrong with an extent (`conservation`).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{JournalName, mark::Mark};
use crate::{Error, Result, logs::Logs};

/// One file of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Logical offset of its first byte.
    pub base: u64,
    /// Bytes in the file.
    pub length: u64,
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The sealed segments, in order.
    pub sealed: Vec<Segment>,
    /// The active segment; its length is 0 when there is no file.
    pub active: Segment,
    /// Bytes of the active segment that are on disk and audited, by the mark.
    pub believed: u64,
    /// Whether there is a mark that can be believed.
    pub has_mark: bool,
    /// Whether what lies beyond the mark counts for nothing: a batch of all or nothing is being written.
    pub undo: bool,
    /// The logical end of the audit after the last believed record was audited.
    pub audit_offset: u64,
    /// Of a hash chain: `seq` and `hash` of the last believed record; 0 and empty when the mark does not say.
    pub chain: (u64, String),
    /// What a trim leaves of segments that it takes (`.keys`): the offsets of their first bytes.
    pub trimmed: Vec<u64>,
}

impl Extent {
    /// Looks at the journal.
    pub fn of(logs: &Logs, name: &JournalName) -> Result<Extent> {
        loop {
            let mark = read_mark(logs, name)?;
            let (sealed, trimmed) = files(logs, name)?;
            let active = logs.dir().join(name.file());
            let length = length_of(&active)?;
            let is_stale = |mark: &Mark| sealed.iter().any(|it| it.base == mark.base);
            let has_mark = mark.as_ref().is_some_and(|it| !is_stale(it));
            let sealed_end = sealed.last().map_or(0, |it| it.base + it.length);
            let mark = match mark {
                Some(it) if has_mark => it,
                other => Mark {
                    base: sealed_end,
                    audit_offset: other.map_or(0, |it| it.audit_offset),
                    ..Mark::default()
                },
            };
            // If it was sealed while we looked, the length may be that of the next one.
            if logs.dir().join(name.sealed(mark.base)).exists() {
                continue;
            }
            return Ok(Extent {
                sealed,
                active: Segment { base: mark.base, length },
                believed: mark.length,
                has_mark,
                undo: mark.undo,
                audit_offset: mark.audit_offset,
                chain: (mark.seq, mark.head),
                trimmed,
            });
        }
    }

    /// Whether there is anything of it.
    pub fn is_absent(&self) -> bool {
        self.sealed.is_empty() && self.active.length == 0 && self.believed == 0
    }

    /// The logical offset up to which readers may read.
    pub fn end(&self) -> u64 {
        self.active.base + self.believed
    }

    /// The logical offset behind the last byte that is there.
    pub fn physical_end(&self) -> u64 {
        self.active.base + self.active.length
    }

    /// The file that holds this logical offset, relative to the logs folder, and its base.
    pub fn file_of(&self, name: &JournalName, offset: u64) -> (String, u64) {
        match self.sealed.iter().rfind(|it| it.base <= offset) {
            Some(it) if offset < self.active.base => (name.sealed(it.base), it.base),
            _ => (name.file(), self.active.base),
        }
    }
}

/// Opens the file of a segment, which may have been sealed since it was found.
pub fn open_segment(logs: &Logs, name: &JournalName, segment: Segment) -> Result<File> {
    let sealed = logs.dir().join(name.sealed(segment.base));
    let active = logs.dir().join(name.file());
    let opened = match File::open(&sealed) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let opened = File::open(&active);
            // After opening: if a rotation came first, what was opened may be the next segment.
            if sealed.exists() { File::open(&sealed) } else { opened }
        }
        other => other,
    };
    opened.map_err(|it| Error::io("cannot open", &active, it))
}

fn read_mark(logs: &Logs, name: &JournalName) -> Result<Option<Mark>> {
    let path = logs.dir().join(format!(".lock/{name}.lock"));
    let file = match File::open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|it| Error::io("cannot open the lock file", &path, it))?,
    };
    // A mark that is being written may be read half; it is there a moment later.
    for _ in 0..super::reader::MARK_TRIES {
        if let Some(mark) = Mark::read(&file).map_err(|it| Error::io("cannot read the mark", &path, it))? {
            return Ok(Some(mark));
        }
        std::thread::yield_now();
    }
    Ok(None)
}

fn length_of(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(it) => Ok(it.len()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(Error::io("cannot look at the journal", path, cause)),
    }
}

/// The offsets of the first bytes of trimmed segments, in order.
pub(crate) fn trimmed(logs: &Logs, name: &JournalName) -> Result<Vec<u64>> {
    // The first one is always among them; whether there is one is a question for one file.
    if !logs.dir().join(name.keys(0)).exists() {
        return Ok(Vec::new());
    }
    Ok(files(logs, name)?.1)
}

/// The sealed segments and what trims left, each in order.
fn files(logs: &Logs, name: &JournalName) -> Result<(Vec<Segment>, Vec<u64>)> {
    let active: PathBuf = logs.dir().join(name.file());
    let dir = active.parent().unwrap_or(logs.dir());
    let failed = |it| Error::io("cannot list the folder", dir, it);
    let (mut sealed, mut trimmed) = (Vec::new(), Vec::new());
    let entries = match crate::logs::entries(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok((sealed, trimmed)),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Some(file) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if let Some(base) = name.base_of(&file) {
            sealed.push(Segment { base, length: length_of(&entry.path())? });
        } else if let Some(keys) = file.strip_suffix(".keys") {
            trimmed.extend(name.base_of(&format!("{keys}.jsonl")));
        }
    }
    sealed.sort_by_key(|it| it.base);
    trimmed.sort_unstable();
    Ok((sealed, trimmed))
}
