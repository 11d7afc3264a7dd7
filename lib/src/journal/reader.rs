//! Reading a journal from a position on, without a lock.
//!
//! # Invariants
//! - Nothing beyond the synced mark is shown: what a reader has seen is durable and will not go away.
//! - A rotation between two reads is invisible; only a journal that was truncated, replaced or
//!   rewritten stops the reader (J5). It never skips or repeats in silence.
//! - Memory is bounded by one line of [`LINE_BYTES_MAX`].
//!
//! Not here: what a line says (the caller), settling (`writer`).

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{JournalName, Position, fingerprint, mark::Mark};
use crate::{Error, Kind, Result, lines, logs::Logs};

/// The longest line that is read as a record: an event of 256 KiB in its widest wrapping.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// How often a mark is read before it counts as missing.
pub(super) const MARK_TRIES: usize = 3;
const CHUNK_BYTES: usize = 256 << 10;
/// The first chunk after a jump: often one line is all that is wanted there.
const FIRST_CHUNK_BYTES: usize = 8 << 10;
/// Enough for most lines, so that finding the line before an offset is one read.
const BACK_BYTES: u64 = 4096;

/// What a reader comes upon.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'r> {
    /// A line without its newline; not yet known to be a valid record.
    Line {
        /// Logical offset of its first byte.
        offset: u64,
        /// Logical offset after its newline.
        end: u64,
        /// The bytes between.
        text: &'r [u8],
    },
    /// More than [`LINE_BYTES_MAX`] bytes without a newline: no record, passed over.
    Overlong {
        /// Logical offset of its first byte.
        offset: u64,
        /// Logical offset after it.
        end: u64,
    },
}

/// A position in a journal that moves forward.
#[derive(Debug)]
pub struct Reader {
    segments: Segments,
    /// Logical offset of the next line.
    at: u64,
    /// Logical offset up to which may be read.
    end: u64,
    segment: Option<Segment>,
    /// Keeps its length, so that no room is made twice; what was read ends at `filled`.
    buffer: Vec<u8>,
    /// Index in `buffer` of the next line; `at` is its logical offset.
    next: usize,
    filled: usize,
    /// How much is read next; it grows while reading goes on.
    chunk: usize,
}

impl Reader {
    /// A reader that begins at `from`, whose fingerprint is checked.
    ///
    /// # Errors
    /// [`Kind::BadData`] when the journal is not the one that `from` was taken in.
    pub fn open(logs: &Logs, name: &JournalName, from: &Position) -> Result<Reader> {
        let mut segments = Segments::new(logs, name);
        let end = segments.refresh()?;
        if from.offset > end {
            return Err(segments.replaced(&format!("it ends at offset {end}, before offset {}", from.offset)));
        }
        let mut reader = Reader::new(segments, from.offset, end);
        if from.offset > 0 {
            let segment = reader.segments.open(from.offset - 1)?;
            if fingerprint(&reader.segments.line_in(&segment, from.offset)?) != from.fingerprint {
                let what = format!("the line before offset {} is another one", from.offset);
                return Err(reader.segments.replaced(&what));
            }
            // Most often what follows is there too.
            reader.segment = Some(segment);
        }
        Ok(reader)
    }

    /// A reader that begins at `offset`, which must be the start of a line.
    pub fn open_at(logs: &Logs, name: &JournalName, offset: u64) -> Result<Reader> {
        let mut segments = Segments::new(logs, name);
        let end = segments.refresh()?;
        Ok(Reader::new(segments, offset, end))
    }

    fn new(segments: Segments, at: u64, end: u64) -> Reader {
        Reader {
            segments,
            at,
            end,
            segment: None,
            buffer: Vec::new(),
            next: 0,
            filled: 0,
            chunk: FIRST_CHUNK_BYTES,
        }
    }

    /// Looks how far may be read by now; returns that logical offset.
    pub fn refresh(&mut self) -> Result<u64> {
        self.end = self.segments.refresh()?;
        Ok(self.end)
    }

    /// The logical offset of the next line.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The logical offset up to which this reader reads before it must [`Reader::refresh`].
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Reads up to `end` from now on, whatever the mark says: for those who judge for themselves what lies there.
    pub(crate) fn read_until(&mut self, end: u64) {
        self.end = end;
    }

    /// Goes on at another offset, which must be the start of a line.
    pub fn seek(&mut self, offset: u64) {
        self.at = offset;
        self.segment = None;
        (self.next, self.filled) = (0, 0);
        self.chunk = FIRST_CHUNK_BYTES;
    }

    /// The next line below the mark; `None` when there is none yet.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.next..self.filled];
            if let Some(found) = lines::newline(&unread[searched..]) {
                let length = searched + found;
                let (offset, start) = (self.at, self.next);
                self.at += length as u64 + 1;
                self.next += length + 1;
                let text = &self.buffer[start..start + length];
                return Ok(Some(Item::Line { offset, end: self.at, text }));
            }
            searched = unread.len();
            if searched > LINE_BYTES_MAX {
                return self.pass_overlong().map(Some);
            }
            if !self.fill()? {
                return Ok(self.unterminated());
            }
        }
    }

    /// Bytes below the mark without a newline: the newline itself was damaged.
    fn unterminated(&mut self) -> Option<Item<'_>> {
        let start = self.next;
        if start == self.filled {
            return None;
        }
        let offset = self.at;
        self.next = self.filled;
        self.at += (self.filled - start) as u64;
        Some(Item::Line { offset, end: self.at, text: &self.buffer[start..self.filled] })
    }

    fn pass_overlong(&mut self) -> Result<Item<'_>> {
        let offset = self.at;
        loop {
            if let Some(found) = lines::newline(&self.buffer[self.next..self.filled]) {
                self.next += found + 1;
                self.at += found as u64 + 1;
                break;
            }
            self.at += (self.filled - self.next) as u64;
            self.next = self.filled;
            if !self.fill()? {
                break;
            }
        }
        Ok(Item::Overlong { offset, end: self.at })
    }

    /// Reads one more chunk behind what is unread; false when the end or a segment's end was reached
    /// with something unread, or the end with nothing.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.next..self.filled, 0);
        (self.next, self.filled) = (0, self.filled - self.next);
        let from = self.at + self.filled as u64;
        if from >= self.end {
            return Ok(false);
        }
        let segment = match &self.segment {
            Some(it) if it.holds(from) => it,
            // A line never spans two segments.
            Some(_) if self.filled > 0 => return Ok(false),
            _ => {
                // A trimmed journal begins later, and its beginning is where it begins.
                if from == 0
                    && let Some(first) = self.segments.begins_later()?
                {
                    self.at = first;
                    return self.fill();
                }
                self.segment.insert(self.segments.open(from)?)
            }
        };
        let room =
            usize::try_from(segment.end.unwrap_or(self.end).min(self.end) - from).unwrap_or(CHUNK_BYTES);
        let until = self.filled + room.min(self.chunk);
        if self.buffer.len() < until {
            self.buffer.resize(until, 0);
        }
        self.chunk = CHUNK_BYTES.min(self.chunk * 4);
        match read_at(&segment.file, &mut self.buffer[self.filled..until], from - segment.base) {
            Ok(0) => self.at_file_end(from),
            Ok(read) => {
                self.filled += read;
                Ok(true)
            }
            Err(cause) => Err(Error::io("cannot read", &self.segments.path(segment), cause)),
        }
    }

    /// The file ends before the mark: it was sealed meanwhile, or it was cut.
    fn at_file_end(&mut self, from: u64) -> Result<bool> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        if segment.end.is_some() {
            return Err(self.segments.cut(segment.base, from));
        }
        if self.segments.sealed_path(segment.base).exists() {
            segment.end = Some(from);
            return self.fill();
        }
        let length = from - segment.base;
        Err(shorter(&self.segments.active_path(), length, self.end - segment.base))
    }
}

/// Single lines by their offset, for look-ups.
#[derive(Debug)]
pub struct Lines {
    segments: Segments,
    segment: Option<Segment>,
    end: u64,
}

impl Lines {
    /// Look-ups in a journal.
    pub fn new(logs: &Logs, name: &JournalName) -> Lines {
        Lines { segments: Segments::new(logs, name), segment: None, end: 0 }
    }

    /// The line that begins at `offset`, without its newline; `None` when none lies there below the mark, or when it
    /// was trimmed ([`Lines::kept`] then says what stays of it).
    pub fn get(&mut self, offset: u64) -> Result<Option<Vec<u8>>> {
        if offset >= self.end {
            self.end = self.segments.refresh()?;
            if offset >= self.end {
                return Ok(None);
            }
        }
        let segment = match &self.segment {
            // An active segment may have been sealed since, and then ends somewhere.
            Some(it) if it.holds(offset) && (it.end.is_some() || it.base == self.segments.mark.base) => it,
            _ => match self.segments.open(offset) {
                Ok(it) => self.segment.insert(it),
                Err(_) if self.segments.begins_later()?.is_some_and(|it| offset < it) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut line = Vec::new();
        let mut chunk = BACK_BYTES;
        loop {
            let from = offset + line.len() as u64;
            let start = line.len();
            let room = chunk.min(segment.end.unwrap_or(self.end).min(self.end).saturating_sub(from));
            line.resize(start + usize::try_from(room).unwrap_or_default(), 0);
            let read = read_at(&segment.file, &mut line[start..], from - segment.base)
                .map_err(|it| Error::io("cannot read", &self.segments.path(segment), it))?;
            line.truncate(start + read);
            if let Some(length) = lines::newline(&line[start..]) {
                line.truncate(start + length);
                return Ok(Some(line));
            }
            if read == 0 || line.len() > LINE_BYTES_MAX {
                return Ok(None);
            }
            chunk *= 16;
        }
    }
}

impl Lines {
    /// What stays of the record at `offset`, under this look-up key, after its segment was trimmed.
    pub fn kept(&self, offset: u64, key: &str) -> Result<Option<super::Kept>> {
        super::keys::find(&self.segments.logs, &self.segments.name, offset, key)
    }
}

/// The last whole line below the mark, with its position; `None` in an empty journal.
pub(super) fn last_line(logs: &Logs, name: &JournalName) -> Result<Option<(Position, Vec<u8>)>> {
    let mut segments = Segments::new(logs, name);
    let end = segments.refresh()?;
    Ok(segments.line_before(end)?.map(|line| (Position::after(end, &line), line)))
}

/// The last whole lines below the mark, at most `count`, in order.
pub(super) fn last_lines(logs: &Logs, name: &JournalName, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut segments = Segments::new(logs, name);
    let mut end = segments.refresh()?;
    let mut lines = Vec::new();
    while lines.len() < count
        && let Some(line) = segments.line_before(end)?
    {
        end = end.saturating_sub(line.len() as u64 + 1);
        lines.push(line);
    }
    lines.reverse();
    Ok(lines)
}

/// The line that ends at `offset`, without its newline.
pub(crate) fn line_before(logs: &Logs, name: &JournalName, offset: u64) -> Result<Option<Vec<u8>>> {
    let mut segments = Segments::new(logs, name);
    segments.refresh()?;
    segments.line_before(offset)
}

/// The bytes between two offsets below the mark, of one segment.
pub(super) fn bytes(logs: &Logs, name: &JournalName, from: u64, to: u64) -> Result<Vec<u8>> {
    let mut segments = Segments::new(logs, name);
    segments.refresh()?;
    segments.bytes(from, to)
}

/// Where a line stands for people: the file that holds `offset`, relative to the logs folder, and the number of the
/// line in it.
pub(crate) fn place(logs: &Logs, name: &JournalName, offset: u64) -> Result<(String, u64)> {
    let mut segments = Segments::new(logs, name);
    segments.refresh()?;
    let segment = segments.open(offset)?;
    let file = if segment.end.is_some() { name.sealed(segment.base) } else { name.file() };
    let (mut at, mut line) = (segment.base, 1);
    let mut chunk = vec![0; CHUNK_BYTES];
    while at < offset {
        let room = usize::try_from(offset - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = read_at(&segment.file, &mut chunk[..room], at - segment.base)
            .map_err(|it| Error::io("cannot read", &segments.path(&segment), it))?;
        if read == 0 {
            break;
        }
        line += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64;
        at += read as u64;
    }
    Ok((file, line))
}

/// How far a journal goes, in logical offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The first byte that is still there.
    pub first: u64,
    /// Up to here it is believed: by its mark. Without one the active segment is not settled yet, a power cut has taken
    /// the mark; but of a copy without any locks all that is there is believed.
    pub believed: u64,
    /// Whether there is a mark.
    pub has_mark: bool,
    /// Up to here there are bytes. Those behind `believed` belong to a writer that is at work or has died.
    pub written: u64,
}

/// How far a journal goes, without any lock.
pub(crate) fn reach(logs: &Logs, name: &JournalName) -> Result<Reach> {
    let mut segments = Segments::new(logs, name);
    let path = segments.active_path();
    segments.refresh()?;
    let written = loop {
        let mark = segments.mark.clone();
        let written = match fs::metadata(&path) {
            Ok(it) => mark.base + it.len(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => mark.base,
            Err(cause) => return Err(Error::io("cannot look at the journal", &path, cause)),
        };
        segments.refresh()?;
        // After a rotation in between the length is another file's.
        if segments.mark.base == mark.base {
            break written;
        }
    };
    let base = segments.mark.base;
    let first = segments.sealed_bases()?.into_iter().min().unwrap_or(base).min(base);
    // One from before a rotation is a mark too: what it does not cover, its writer is about to.
    let has_mark = segments.lock.as_ref().is_some_and(|it| Mark::read(it).is_ok_and(|it| it.is_some()));
    let is_copy = !has_mark && !logs.dir().join(".lock").exists();
    let believed = if is_copy { written } else { segments.mark.end() };
    Ok(Reach { first, believed, has_mark, written })
}

/// Whether a writer died here: the active segment has bytes beyond its mark.
pub(super) fn is_unsettled(logs: &Logs, name: &JournalName) -> Result<bool> {
    let mut segments = Segments::new(logs, name);
    segments.refresh()?;
    let path = segments.active_path();
    match fs::metadata(&path) {
        Ok(it) => Ok(it.len() > segments.mark.length),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::io("cannot look at the journal", &path, cause)),
    }
}

/// Where the last sealed segment ends; 0 when there is none.
pub(super) fn sealed_end(logs: &Logs, name: &JournalName) -> Result<u64> {
    let segments = Segments::new(logs, name);
    let Some(base) = segments.last_sealed(u64::MAX)? else { return Ok(0) };
    let path = segments.sealed_path(base);
    let length = fs::metadata(&path).map_err(|it| Error::io("cannot look at the segment", &path, it))?.len();
    Ok(base + length)
}

/// The error for a journal that is shorter than what was synced of it.
pub(super) fn shorter(path: &Path, length: u64, synced: u64) -> Error {
    replaced(path, &format!("it has {length} bytes, but {synced} were written and synced"))
}

fn replaced(path: &Path, what: &str) -> Error {
    let what = format!("the journal was truncated, replaced or rewritten: {what}");
    let file = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
    let is_sealed_of = |name: &str| JournalName::internal(name).base_of(file).is_some();
    let is_sealed = file.split_once('.').is_some_and(|(name, _)| is_sealed_of(name));
    // Hash chains and tasks have no consumer that could go on elsewhere: they begin anew, or with what is left.
    let go_on = if path.parent().is_some_and(|it| it.ends_with("receive")) {
        "move the folders receive and .lock/receive away to begin a new feed"
    } else if path.ends_with("audit.jsonl") {
        "move .lock/audit.lock away to go on from what is left"
    } else if path.ends_with("tasks.jsonl") {
        "move .lock/tasks.lock away to go on from what is left"
    } else if is_sealed_of("audit") || is_sealed_of("tasks") {
        // All of it is read from its beginning, and no lock says how long a sealed file was.
        "bring the folder back from a backup"
    } else if is_sealed {
        // The line before the next file is gone, so no position there could be recognised again.
        "go on with --resync end, which passes over all that waits (milestone-queue, for what it reads)"
    } else {
        "go on with --resync start, end or an offset (milestone-queue, for what it reads)"
    };
    Error::new(Kind::BadData, path.display(), what)
        .cure(format!("logrotate with copytruncate is the usual cause; restore the file, or {go_on}"))
}

/// One segment file, opened.
#[derive(Debug)]
struct Segment {
    file: File,
    base: u64,
    /// Known for sealed segments.
    end: Option<u64>,
}

impl Segment {
    fn holds(&self, offset: u64) -> bool {
        offset >= self.base && self.end.is_none_or(|end| offset < end)
    }
}

/// The files of a journal, found by offset.
#[derive(Debug)]
struct Segments {
    logs: Logs,
    name: JournalName,
    lock: Option<File>,
    mark: Mark,
}

impl Segments {
    fn new(logs: &Logs, name: &JournalName) -> Segments {
        Segments { logs: logs.clone(), name: name.clone(), lock: None, mark: Mark::default() }
    }

    fn active_path(&self) -> std::path::PathBuf {
        self.logs.dir().join(self.name.file())
    }

    fn sealed_path(&self, base: u64) -> std::path::PathBuf {
        self.logs.dir().join(self.name.sealed(base))
    }

    /// The file of a segment.
    fn path(&self, segment: &Segment) -> std::path::PathBuf {
        if segment.end.is_some() { self.sealed_path(segment.base) } else { self.active_path() }
    }

    fn replaced(&self, what: &str) -> Error {
        replaced(&self.active_path(), what)
    }

    /// Reads the mark again; returns the logical offset up to which may be read.
    fn refresh(&mut self) -> Result<u64> {
        let path = self.logs.dir().join(format!(".lock/{}.lock", self.name));
        if self.lock.is_none() {
            match File::open(&path) {
                Ok(it) => self.lock = Some(it),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(Error::io("cannot open the lock file", &path, cause)),
            }
        }
        // A mark that is being written may be read half; it is there a moment later.
        for _ in 0..MARK_TRIES {
            let Some(file) = &self.lock else { break };
            if let Some(mark) = Mark::read(file).map_err(|it| Error::io("cannot read the mark", &path, it))? {
                if self.sealed_path(mark.base).exists() {
                    break;
                }
                self.mark = mark;
                return Ok(self.mark.end());
            }
            std::thread::yield_now();
        }
        // No mark, or one from before a rotation that is going on or died (a power cut may bring an older one
        // back). All that is sealed is on disk and audited; of the active segment nothing is known yet.
        self.mark = Mark { base: sealed_end(&self.logs, &self.name)?, ..Mark::default() };
        Ok(self.mark.end())
    }

    /// Opens the segment that holds `offset`.
    fn open(&self, offset: u64) -> Result<Segment> {
        if offset >= self.mark.base {
            let active = self.active_path();
            let file = File::open(&active);
            // After opening: if a rotation came first, what was opened may be the next segment.
            if !self.sealed_path(self.mark.base).exists() {
                let file = file.map_err(|it| match it.kind() {
                    io::ErrorKind::NotFound => self.replaced("the file is gone"),
                    _ => Error::io("cannot open", &active, it),
                })?;
                return Ok(Segment { file, base: self.mark.base, end: None });
            }
        }
        let base = self.last_sealed(offset)?.ok_or_else(|| self.gone(offset))?;
        let path = self.sealed_path(base);
        let file = File::open(&path).map_err(|it| Error::io("cannot open", &path, it))?;
        let length = file.metadata().map_err(|it| Error::io("cannot look at the segment", &path, it))?.len();
        if offset >= base + length {
            return Err(self.cut(base, base + length));
        }
        Ok(Segment { file, base, end: Some(base + length) })
    }

    /// The error for an offset before all files.
    fn gone(&self, offset: u64) -> Error {
        self.replaced(&format!("no segment holds offset {offset} any more"))
    }

    /// The error for a sealed segment of which something is wanted beyond its `end`: it was longer, or a file behind
    /// it is gone.
    fn cut(&self, base: u64, end: u64) -> Error {
        let bases = match self.sealed_bases() {
            Ok(it) => it,
            Err(error) => return error,
        };
        let next = bases.into_iter().chain([self.mark.base]).filter(|it| *it > end).min();
        let Some(next) = next else { return self.gone(end) };
        let what = format!("it ends at offset {end}, but the next file begins at offset {next}");
        replaced(&self.sealed_path(base), &what)
    }

    /// Where the journal begins, if what was before it was trimmed.
    fn begins_later(&self) -> Result<Option<u64>> {
        if !self.logs.dir().join(self.name.keys(0)).exists() {
            return Ok(None);
        }
        let first = self.sealed_bases()?.into_iter().min().unwrap_or(self.mark.base).min(self.mark.base);
        Ok(Some(first).filter(|it| *it > 0))
    }

    /// The base of the last sealed segment that begins at or before `offset`.
    fn last_sealed(&self, offset: u64) -> Result<Option<u64>> {
        Ok(self.sealed_bases()?.into_iter().filter(|it| *it <= offset).max())
    }

    /// The bases of all sealed segments.
    fn sealed_bases(&self) -> Result<Vec<u64>> {
        let path = self.active_path();
        let dir = path.parent().unwrap_or(self.logs.dir());
        let failed = |it| Error::io("cannot list the folder", dir, it);
        let mut bases = Vec::new();
        match crate::logs::entries(dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(failed(cause)),
            Ok(entries) => {
                for entry in entries {
                    let file = entry.map_err(failed)?.file_name();
                    bases.extend(file.to_str().and_then(|it| self.name.base_of(it)));
                }
            }
        }
        Ok(bases)
    }

    /// The bytes between two offsets of one segment.
    fn bytes(&mut self, from: u64, to: u64) -> Result<Vec<u8>> {
        let segment = self.open(from)?;
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        segment
            .file
            .read_exact_at(&mut bytes, from - segment.base)
            .map_err(|it| Error::io("cannot read", &self.path(&segment), it))?;
        Ok(bytes)
    }

    /// The line that ends at `offset`, without its newline; `None` at the start of the journal.
    fn line_before(&mut self, offset: u64) -> Result<Option<Vec<u8>>> {
        if offset == 0 {
            return Ok(None);
        }
        let segment = self.open(offset - 1)?;
        self.line_in(&segment, offset).map(Some)
    }

    /// The same, of the segment that it is in.
    fn line_in(&self, segment: &Segment, offset: u64) -> Result<Vec<u8>> {
        let end = offset - segment.base;
        let mut length = BACK_BYTES;
        loop {
            let start = end.saturating_sub(length);
            let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
            segment.file.read_exact_at(&mut bytes, start).map_err(|it| match it.kind() {
                io::ErrorKind::UnexpectedEof => {
                    replaced(&self.path(segment), &format!("it ends before offset {offset}"))
                }
                _ => Error::io("cannot read", &self.path(segment), it),
            })?;
            // Without a newline there its place was damaged, and the line ends here all the same.
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            match lines::last_newline(&bytes) {
                Some(newline) => return Ok(bytes.split_off(newline + 1)),
                None if start == 0 => return Ok(bytes),
                // Of what is no record the end is enough to know it again.
                None if bytes.len() > LINE_BYTES_MAX => {
                    return Ok(bytes.split_off(bytes.len() - LINE_BYTES_MAX));
                }
                None => length *= 16,
            }
        }
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
