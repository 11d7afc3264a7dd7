//! The active segment of a journal, under its lock: the only code that lengthens a journal.
//!
//! # Invariants
//! - The lock is taken first and the file opened after, since a rotation may rename it in between.
//! - [`Active::append`] returns when the bytes are synced; the mark moves only by [`Active::move_mark`],
//!   after the audit. In between the bytes are there, but nobody believes them yet.
//! - After a failure the segment is cut back to the mark, and this handle refuses all further work.
//!
//! Not here: what is audited (`writer`), which records are valid (`settle`'s caller).

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{JournalName, mark::Mark, quarantine, reader};
use crate::{Error, Kind, Result, durable, lock::Lock, logs::Logs};

/// The most bytes of one batch, so that no writer holds the lock for long.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The active segment, locked.
#[derive(Debug)]
pub(crate) struct Active {
    logs: Logs,
    name: JournalName,
    path: PathBuf,
    lock: Lock,
    mark: Mark,
    file: File,
    /// Bytes in the file, those beyond the mark included.
    length: u64,
    failed: bool,
}

/// What settling found beyond the mark.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Valid records that stay, with their logical offsets.
    pub kept: Vec<(u64, Vec<u8>)>,
    /// The damage: its logical offset and the file in quarantine.
    pub quarantined: Option<(u64, String)>,
}

impl Active {
    /// Locks and opens the active segment; the file is created when it is absent.
    ///
    /// # Errors
    /// [`Kind::BadData`] when the file is shorter than what was synced (J5).
    pub fn open(logs: &Logs, name: &JournalName) -> Result<Active> {
        Active::open_as(logs, name, false)
    }

    /// As [`Active::open`], but takes a file shorter than its mark as it is: for `--resync`.
    pub fn open_replaced(logs: &Logs, name: &JournalName) -> Result<Active> {
        Active::open_as(logs, name, true)
    }

    fn open_as(logs: &Logs, name: &JournalName, accept_shorter: bool) -> Result<Active> {
        let lock = Lock::acquire(logs, name.as_str())?;
        let path = logs.place(&name.file())?;
        let mark =
            Mark::read(lock.file()).map_err(|it| Error::io("cannot read the mark", lock.path(), it))?;
        let believed = mark.clone();
        let mark = match mark {
            Some(it) if !logs.dir().join(name.sealed(it.base)).exists() => it,
            // Missing, or from before a rotation that a crash cut short: the active segment begins where
            // the last sealed one ends, and nothing in it is known to be settled.
            other => {
                let base = reader::sealed_end(logs, name)?;
                if base > 0 {
                    // A rotation may have died before it synced its rename; see `make_room`.
                    sync_parent(logs, &path)?;
                }
                Mark { base, audit_offset: other.map_or(0, |it| it.audit_offset), ..Mark::default() }
            }
        };
        let (mut file, created) =
            durable::open_or_create(logs.disk(), &path).map_err(|it| cannot_open(&path, it))?;
        let length = file.metadata().map_err(|it| Error::io("cannot look at the journal", &path, it))?.len();
        if created || believed.is_none() {
            file = named(logs, &path, file, created)?;
        }
        let mut active =
            Active { logs: logs.clone(), name: name.clone(), path, lock, mark, file, length, failed: false };
        if active.length < active.mark.length {
            if !accept_shorter {
                return Err(reader::shorter(&active.path, active.length, active.mark.length));
            }
            active.mark = Mark { length: 0, seq: 0, head: String::new(), ..active.mark };
            active.write_mark()?;
        }
        if active.mark.undo {
            active.undo()?;
        }
        // Nothing has to be settled, but readers must not go by a mark that is not believed.
        if !active.is_unsettled() && believed.as_ref() != Some(&active.mark) {
            active.write_mark()?;
        }
        Ok(active)
    }

    /// Where the journal stands by its mark.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The logical offset at which the next record will begin.
    pub fn end(&self) -> u64 {
        self.mark.base + self.length
    }

    /// The journal's name.
    pub fn name(&self) -> &JournalName {
        &self.name
    }

    /// The folder it is in.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Whether something lies beyond the mark, which only a writer that died can have left.
    pub fn is_unsettled(&self) -> bool {
        self.length > self.mark.length
    }

    /// Settles what lies beyond the mark (J3): keeps the whole valid records up to the first damage, copies
    /// the rest into quarantine, and writes the kept bytes again, because a sync after a failed one proves
    /// nothing. The damage itself is cut off by [`Active::finish_settling`], once the audit knows of it.
    pub fn settle(&mut self, mut is_valid: impl FnMut(&[u8]) -> bool) -> Result<Settled> {
        let start = self.mark.length;
        let mut tail = Vec::new();
        let room = usize::try_from(self.length - start).unwrap_or(usize::MAX);
        tail.resize(room, 0);
        self.file
            .read_exact_at(&mut tail, start)
            .map_err(|it| Error::io("cannot read the unsettled tail", &self.path, it))?;
        let mut settled = Settled::default();
        let mut kept = 0;
        while let Some(newline) = tail[kept..].iter().position(|it| *it == b'\n') {
            let line = &tail[kept..kept + newline];
            if !is_valid(line) {
                break;
            }
            settled.kept.push((self.mark.base + start + kept as u64, line.to_vec()));
            kept += newline + 1;
        }
        if kept < tail.len() {
            let offset = self.mark.base + start + kept as u64;
            let file = quarantine::keep(&self.logs, &self.name, offset, &tail[kept..])?;
            settled.quarantined = Some((offset, file));
        }
        self.write_and_sync(&tail[..kept], start)?;
        self.length = start + kept as u64;
        Ok(settled)
    }

    /// Cuts off what [`Active::settle`] put into quarantine and believes the rest.
    pub fn finish_settling(
        &mut self,
        settled: &Settled,
        audit_offset: u64,
        seq: u64,
        head: &str,
    ) -> Result<()> {
        if settled.quarantined.is_some() {
            self.cut(self.length)?;
        }
        self.move_mark(audit_offset, seq, head)
    }

    /// Rotates if `more` bytes would make the segment longer than it may be. Never an empty segment.
    pub fn make_room(&mut self, more: u64) -> Result<()> {
        if self.length == 0 || self.length + more <= self.logs.rotate_bytes() {
            return Ok(());
        }
        self.check_usable()?;
        let disk = self.logs.disk();
        let sealed = self.logs.dir().join(self.name.sealed(self.mark.base));
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |cause| Error::io(what, &path, cause)
        };
        self.failed = true;
        disk.sync_data(&self.file).map_err(failed("cannot sync before rotating", &self.path))?;
        disk.rename(&self.path, &sealed).map_err(failed("cannot rotate", &self.path))?;
        // Before the name is used again: of two unsynced changes of a folder a power cut may keep the second
        // alone, and the new file would stand where the old one had its only name.
        sync_parent(&self.logs, &self.path)?;
        let (file, _) =
            durable::open_or_create(disk, &self.path).map_err(failed("cannot create", &self.path))?;
        sync_parent(&self.logs, &self.path)?;
        self.mark = Mark { base: self.mark.base + self.length, length: 0, ..self.mark.clone() };
        self.write_mark()?;
        // Before the first append: a mark that still names the sealed segment would be taken for stale,
        // and the new one settled from its start.
        disk.sync_data(self.lock.file()).map_err(failed("cannot sync the mark", self.lock.path()))?;
        self.file = file;
        self.length = 0;
        self.failed = false;
        Ok(())
    }

    /// Appends whole lines and syncs them. On failure the segment is cut back to the mark.
    pub fn append(&mut self, lines: &[u8]) -> Result<()> {
        self.check_usable()?;
        debug_assert!(lines.is_empty() || lines.ends_with(b"\n"), "a batch is made of whole lines");
        if let Err(error) = self.write_and_sync(lines, self.length) {
            self.roll_back();
            return Err(error);
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Takes back what was appended since the mark, as far as the disk lets us; the handle is spent.
    pub fn roll_back(&mut self) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let disk = self.logs.disk();
        // If this fails too, the next writer settles what is left: unacknowledged records may stay.
        if disk.set_len(&self.file, self.mark.length).is_ok() {
            self.length = self.mark.length;
            // The audit is cut before its journal, on disk too: after a power cut that kept only the second cut
            // an audit record would tell of nothing.
            drop(disk.sync_data(&self.file));
        }
    }

    /// Believes all that was appended: it is on disk, and audited up to `audit_offset`.
    pub fn move_mark(&mut self, audit_offset: u64, seq: u64, head: &str) -> Result<()> {
        self.check_usable()?;
        self.mark.length = self.length;
        self.mark.audit_offset = audit_offset;
        self.mark.seq = seq;
        head.clone_into(&mut self.mark.head);
        let written = self.write_mark();
        self.failed = written.is_err();
        written
    }

    /// Notes, durably, that what follows counts wholly or not at all.
    pub fn begin_undoable(&mut self) -> Result<()> {
        self.set_undo(true)
    }

    /// Takes that note back, durably: from here on the batch counts.
    pub fn end_undoable(&mut self) -> Result<()> {
        let cleared = self.set_undo(false);
        if cleared.is_err() {
            self.roll_back();
        }
        cleared
    }

    fn set_undo(&mut self, undo: bool) -> Result<()> {
        self.check_usable()?;
        self.mark.undo = undo;
        self.write_mark()?;
        self.logs
            .disk()
            .sync_data(self.lock.file())
            .map_err(|it| Error::io("cannot sync the mark", self.lock.path(), it))
    }

    /// A batch of all or nothing was cut short: nothing.
    fn undo(&mut self) -> Result<()> {
        if self.length > self.mark.length {
            self.cut(self.mark.length)?;
        }
        self.length = self.mark.length;
        self.set_undo(false)
    }

    fn write_and_sync(&self, bytes: &[u8], at: u64) -> Result<()> {
        let disk = self.logs.disk();
        durable::write_all_at(disk, &self.file, bytes, at)
            .map_err(|it| Error::io("cannot append", &self.path, it))?;
        disk.sync_data(&self.file).map_err(|it| Error::io("cannot sync", &self.path, it))
    }

    fn cut(&self, length: u64) -> Result<()> {
        let disk = self.logs.disk();
        disk.set_len(&self.file, length)
            .map_err(|it| Error::io("cannot cut the torn tail", &self.path, it))?;
        disk.sync_data(&self.file).map_err(|it| Error::io("cannot sync", &self.path, it))
    }

    fn write_mark(&self) -> Result<()> {
        self.mark
            .write(self.logs.disk(), self.lock.file())
            .map_err(|it| Error::io("cannot write the mark", self.lock.path(), it))
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                Kind::Io,
                self.path.display(),
                "an earlier write failed; the journal must be opened again",
            ));
        }
        Ok(())
    }
}

/// Brings the name of a journal's file to disk, which nobody may have done before the first mark was written.
///
/// A sync that failed may have covered it, and no later one proves anything then: so an empty file that was found there
/// gets its name anew, and one whose name cannot be synced is taken away again.
fn named(logs: &Logs, path: &Path, mut file: File, created: bool) -> Result<File> {
    let disk = logs.disk();
    // What an operator has put in its place, a link for example, stays.
    let is_ours = fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() == 0);
    if is_ours && !created {
        disk.remove(path).map_err(|it| Error::io("cannot create", path, it))?;
        (file, _) = durable::open_or_create(disk, path).map_err(|it| cannot_open(path, it))?;
    }
    let synced = sync_parent(logs, path);
    if synced.is_err() && is_ours {
        // The failure itself is told.
        drop(disk.remove(path));
    }
    synced.map(|()| file)
}

fn sync_parent(logs: &Logs, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(logs.dir());
    logs.disk().sync_dir(dir).map_err(|it| Error::io("cannot sync the folder", dir, it))
}

fn cannot_open(path: &Path, cause: io::Error) -> Error {
    const EPERM: i32 = 1;
    let append_only = cause.raw_os_error() == Some(EPERM);
    let error = Error::io("cannot open for writing", path, cause);
    if append_only {
        return error
            .cure("if it is append-only (lsattr), take that back with chattr -a: a torn tail must be cut");
    }
    match fs::metadata(path) {
        Ok(it) if !it.is_file() => error.cure("it must be a regular file"),
        _ => error,
    }
}
