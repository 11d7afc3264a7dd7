//! Every line of a journal, whatever has become of its files: for who looks at it as a whole.
//!
//! # Invariants
//! - What is missing is told of and passed over; the lines behind it keep their logical offsets.
//! - Lines beyond the mark are told apart: nothing may be demanded of them, but what refers to them is right.
//! - Memory is bounded by one line of [`LINE_BYTES_MAX`] and one chunk.
//!
//! Not here: following a journal and stopping where it was replaced (`reader`).

use std::{fs::File, io::Read};

use super::{Extent, JournalName, LINE_BYTES_MAX, Segment, extent::open_segment};
use crate::{Error, Kind, Result, logs::Logs};

const CHUNK_BYTES: usize = 1 << 20;

/// What a scan comes upon.
#[derive(Debug)]
pub enum Found<'t> {
    /// A line, or what is left of one.
    Line(Whole<'t>),
    /// Bytes between two segments, or before the first one, that are in no file.
    Missing {
        /// Logical offset of the first of them.
        from: u64,
        /// Logical offset behind the last of them.
        to: u64,
    },
    /// A sealed segment that is longer than its place; what is beyond is not read.
    TooLong {
        /// The segment.
        segment: Segment,
        /// The bytes that it may have.
        room: u64,
    },
    /// The active segment is shorter than what was synced of it.
    Cut {
        /// The segment.
        segment: Segment,
        /// The bytes that were synced and audited.
        believed: u64,
    },
}

/// One line.
#[derive(Debug)]
pub struct Whole<'t> {
    /// Logical offset of its first byte.
    pub offset: u64,
    /// Logical offset behind its newline.
    pub end: u64,
    /// The bytes between; of what is too long for a record, its beginning.
    pub text: &'t [u8],
    /// Whether it lies below the mark.
    pub is_believed: bool,
    /// Why it cannot be a record, whatever it says.
    pub fault: Option<&'static str>,
}

/// Gives everything that is found to `each`, in order, until it says that it has seen enough. Returns the offset of
/// the first byte that was not taken away by a trim.
pub fn scan(
    logs: &Logs,
    name: &JournalName,
    extent: &Extent,
    each: &mut dyn FnMut(Found<'_>) -> bool,
) -> Result<u64> {
    let mut expected = 0;
    let mut first = None;
    let active = (extent.active.length > 0 || extent.believed > 0).then_some(extent.active);
    let segments: Vec<Segment> = extent.sealed.iter().copied().chain(active).collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_trimmed = at == 0 && extent.trimmed.first() == Some(&0);
        let mut wants = true;
        if segment.base > expected && !is_trimmed {
            wants = each(Found::Missing { from: expected, to: segment.base });
        }
        first.get_or_insert(if is_trimmed { segment.base } else { 0 });
        let is_active = at + 1 == segments.len() && active.is_some();
        let room = segments.get(at + 1).map_or(u64::MAX, |it| it.base - segment.base);
        let believed = if is_active { extent.believed } else { segment.length.min(room) };
        if segment.length > room {
            wants &= each(Found::TooLong { segment: *segment, room });
        }
        if segment.length < believed {
            wants &= each(Found::Cut { segment: *segment, believed });
        }
        let length = if is_active && extent.undo { believed } else { room };
        let length = length.min(segment.length);
        expected = segment.base + length;
        if wants && length > 0 {
            let file = match open_segment(logs, name, *segment) {
                Ok(it) => it,
                // Taken away since we looked at the folder.
                Err(error) if error.kind() == Kind::NoInput => {
                    wants = each(Found::Missing { from: segment.base, to: expected });
                    if !wants {
                        break;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let segment = Segment { base: segment.base, length };
            wants = Piece { file, segment, believed }.lines(logs, name, each)?;
        }
        if !wants {
            break;
        }
    }
    Ok(first.unwrap_or(0))
}

/// One segment to be read.
struct Piece {
    file: File,
    segment: Segment,
    believed: u64,
}

impl Piece {
    /// Says whether more is wanted.
    fn lines(
        &mut self,
        logs: &Logs,
        name: &JournalName,
        each: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> Result<bool> {
        let Segment { base, length } = self.segment;
        let mut source = (&mut self.file).take(length);
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + LINE_BYTES_MAX);
        // Offset in the file of the buffer's first byte, which begins a line; and of the line's beginning when
        // more of it was passed over than is kept.
        let (mut start, mut long_since) = (0_u64, None);
        loop {
            let before = buffer.len();
            let read = (&mut source)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut buffer)
                .map_err(|it| Error::io("cannot read", &logs.dir().join(name.file()), it))?;
            let mut next = 0;
            let mut searched = before;
            while let Some(found) = memchr::memchr(b'\n', &buffer[searched..]) {
                let newline = searched + found;
                let begins = long_since.take().unwrap_or(start + next as u64);
                let ends = start + newline as u64 + 1;
                let is_long = ends - begins > LINE_BYTES_MAX as u64;
                let line = Whole {
                    offset: base + begins,
                    end: base + ends,
                    text: &buffer[next..newline],
                    is_believed: ends <= self.believed,
                    fault: is_long.then_some("is longer than any record"),
                };
                if !each(Found::Line(line)) {
                    return Ok(false);
                }
                next = newline + 1;
                searched = next;
            }
            if read == 0 {
                let begins = long_since.unwrap_or(start + next as u64);
                let ends = start + buffer.len() as u64;
                // Beyond the mark that is what a dead writer left, or one that is at work.
                if ends > begins && begins < self.believed {
                    let line = Whole {
                        offset: base + begins,
                        end: base + ends,
                        text: &buffer[next..],
                        is_believed: true,
                        fault: Some("has no newline at its end"),
                    };
                    return Ok(each(Found::Line(line)));
                }
                return Ok(true);
            }
            start += next as u64;
            buffer.drain(..next);
            if buffer.len() > LINE_BYTES_MAX {
                long_since.get_or_insert(start);
                start += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
}
