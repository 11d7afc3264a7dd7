//! Every line of a journal, whatever has become of its files.
//!
//! # Invariants
//! - What is missing is found and passed over; the lines behind it keep their logical offsets.
//! - Lines beyond the mark are told apart: nothing may be demanded of them, but what refers to them is right.
//! - Memory is bounded by one line of [`LINE_BYTES_MAX`] and one chunk.
//!
//! Not here: what a line says (`book`, `walk`).

use std::{fs::File, io::Read};

use super::finding::{Finding, FindingKind, Findings};
use crate::{
    Error, Kind, Result,
    journal::{Extent, JournalName, LINE_BYTES_MAX, Segment, open_segment},
    logs::Logs,
};

const CHUNK_BYTES: usize = 1 << 20;

/// One line.
#[derive(Debug)]
pub(super) struct Line<'t> {
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

/// Gives every line to `each`, until it says that it has seen enough. Returns the offset of the first byte that was
/// not taken away by a trim.
pub(super) fn scan(
    logs: &Logs,
    name: &JournalName,
    extent: &Extent,
    findings: &mut Findings,
    each: &mut dyn FnMut(Line<'_>, &mut Findings) -> bool,
) -> Result<u64> {
    let mut expected = 0;
    let mut first = None;
    let active = (extent.active.length > 0 || extent.believed > 0).then_some(extent.active);
    let segments: Vec<Segment> = extent.sealed.iter().copied().chain(active).collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_trimmed = at == 0 && extent.trimmed.first() == Some(&0);
        if segment.base > expected && !is_trimmed {
            let what = format!("the bytes {expected} to {} are not there", segment.base);
            findings.add(Finding::at(FindingKind::SegmentMissing, name, expected, what));
        }
        first.get_or_insert(if is_trimmed { segment.base } else { 0 });
        let is_active = at + 1 == segments.len() && active.is_some();
        let room = segments.get(at + 1).map_or(u64::MAX, |it| it.base - segment.base);
        let believed = if is_active { extent.believed } else { segment.length.min(room) };
        if !is_active && segment.length > room {
            let what = format!("the segment has {} bytes and room for {room}", segment.length);
            findings.add(Finding::at(FindingKind::SegmentTooLong, name, segment.base, what));
        }
        if is_active && segment.length < believed {
            let what =
                format!("it has {} bytes, but {believed} were written, synced and audited", segment.length);
            findings.add(Finding::at(FindingKind::Cut, name, segment.base + segment.length, what));
        }
        let length = if is_active && extent.undo { believed } else { segment.length.min(room) };
        let length = length.min(segment.length);
        if length > 0 {
            let file = match open_segment(logs, name, *segment) {
                Ok(it) => it,
                // Taken away since we looked at the folder.
                Err(error) if error.kind() == Kind::NoInput => {
                    let what = format!("the segment at {} is not there any more", segment.base);
                    findings.add(Finding::at(FindingKind::SegmentMissing, name, segment.base, what));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let segment = Segment { base: segment.base, length };
            if !(Piece { file, segment, believed }).lines(logs, name, findings, each)? {
                break;
            }
        }
        expected = segment.base + segment.length.min(room);
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
        findings: &mut Findings,
        each: &mut dyn FnMut(Line<'_>, &mut Findings) -> bool,
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
                let line = Line {
                    offset: base + begins,
                    end: base + ends,
                    text: &buffer[next..newline],
                    is_believed: ends <= self.believed,
                    fault: is_long.then_some("is longer than any record"),
                };
                if !each(line, findings) {
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
                    let line = Line {
                        offset: base + begins,
                        end: base + ends,
                        text: &buffer[next..],
                        is_believed: true,
                        fault: Some("has no newline at its end"),
                    };
                    return Ok(each(line, findings));
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
