//! Lines of people's input: from files or standard input, numbered, bounded, as they come.
//!
//! # Invariants
//! - A line longer than [`LINE_BYTES_MAX`] is passed over, in constant memory, and said to be too long.
//! - Whoever reads from a pipe can tell when the next line may be long in coming, and act on what it has.
//!
//! Not here: what a line says.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{Error, Kind, Result, cli, lines};

/// The longest input line: four times the largest record, room for white space and escapes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// The first read asks for little: most calls bring one event, and room costs a page fault for every 4 KiB. Each one
/// after it asks for twice as much, up to the second bound.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=256 << 10;

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine<'i> {
    /// Its number, from 1, and its bytes without the newline.
    Text(usize, &'i [u8]),
    /// Its number; it was longer than [`LINE_BYTES_MAX`] and is passed over.
    TooLong(usize),
}

/// An open input.
pub struct Input {
    name: String,
    source: Source,
    buffer: Vec<u8>,
    /// For how many bytes the next read asks.
    chunk: usize,
    next: usize,
    line: usize,
    /// Bytes read so far.
    read: u64,
    at_end: bool,
}

enum Source {
    File(File),
    Stdin(io::Stdin),
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`Kind::NoInput`] when there is nothing to read from.
    pub fn open(name: &str) -> Result<Input> {
        let source = if name == "-" {
            if cli::stdin_is_closed() {
                return Err(
                    Error::new(Kind::NoInput, "stdin", "is closed").cure("pipe something in, or name a file")
                );
            }
            Source::Stdin(io::stdin())
        } else {
            let path = Path::new(name);
            let file = File::open(path).map_err(|it| Error::io("cannot open", path, it))?;
            if file.metadata().is_ok_and(|it| it.is_dir()) {
                return Err(Error::new(Kind::NoInput, name, "is a folder, not a file"));
            }
            Source::File(file)
        };
        let name = if name == "-" { "stdin" } else { name };
        Ok(Input {
            name: name.to_owned(),
            source,
            buffer: Vec::new(),
            chunk: *CHUNK_BYTES.start(),
            next: 0,
            line: 0,
            read: 0,
            at_end: false,
        })
    }

    /// What messages call it: the path, or `stdin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a person types it.
    pub fn is_terminal(&self) -> bool {
        match &self.source {
            Source::File(file) => file.is_terminal(),
            Source::Stdin(stdin) => stdin.is_terminal(),
        }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The size of a file in bytes; `None` for what has none.
    pub fn bytes_total(&self) -> Option<u64> {
        match &self.source {
            Source::File(file) => file.metadata().ok().filter(std::fs::Metadata::is_file).map(|it| it.len()),
            Source::Stdin(_) => None,
        }
    }

    /// The next line; `None` at the end. A last line without a newline counts.
    pub fn next_line(&mut self) -> Result<Option<InputLine<'_>>> {
        let mut searched = 0;
        let mut too_long = false;
        loop {
            let found = lines::newline(&self.buffer[self.next + searched..]);
            searched = found.map_or(self.buffer.len() - self.next, |it| searched + it);
            too_long |= searched > LINE_BYTES_MAX;
            if let Some(start) = found.map(|_| self.next).or_else(|| self.at_end.then_some(self.next)) {
                if found.is_none() && searched == 0 && !too_long {
                    return Ok(None);
                }
                self.next = (start + searched + 1).min(self.buffer.len());
                self.line += 1;
                return Ok(Some(if too_long {
                    InputLine::TooLong(self.line)
                } else {
                    InputLine::Text(self.line, &self.buffer[start..start + searched])
                }));
            }
            if too_long {
                // Its bytes are of no use any more.
                self.next = self.buffer.len();
                searched = 0;
            }
            self.fill()?;
        }
    }

    /// Whether reading on may have to wait: no whole line is here, and none is about to come.
    pub fn may_wait(&self) -> bool {
        if self.at_end || lines::newline(&self.buffer[self.next..]).is_some() {
            return false;
        }
        let ready = |fd: BorrowedFd<'_>| {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            matches!(poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
        };
        match &self.source {
            Source::File(file) => !ready(file.as_fd()),
            Source::Stdin(stdin) => !ready(stdin.as_fd()),
        }
    }

    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.next);
        self.next = 0;
        let start = self.buffer.len();
        self.buffer.resize(start + self.chunk, 0);
        self.chunk = (self.chunk * 2).min(*CHUNK_BYTES.end());
        let read = loop {
            let into = &mut self.buffer[start..];
            let read = match &mut self.source {
                Source::File(file) => file.read(into),
                // Unbuffered, so that what was read and what is still to come can be told apart.
                Source::Stdin(stdin) => rustix::io::read(stdin.as_fd(), into).map_err(io::Error::from),
            };
            match read {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.at_end = true,
            Ok(read) => self.read += read as u64,
            Err(cause) => return Err(Error::io("cannot read", Path::new(&self.name), cause)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test makes its input itself")]
    fn lines(bytes: &[u8]) -> Vec<Result<String, usize>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, bytes).unwrap();
        let mut input = Input::open(path.to_str().unwrap()).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = input.next_line().unwrap() {
            lines.push(match line {
                InputLine::Text(_, text) => Ok(String::from_utf8_lossy(text).into_owned()),
                InputLine::TooLong(number) => Err(number),
            });
        }
        lines
    }

    #[test]
    fn every_line_comes_once_also_the_last_without_a_newline() {
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"a\nb\n"), [Ok("a".into()), Ok("b".into())]);
        assert_eq!(lines(b"a\n\nb"), [Ok("a".into()), Ok(String::new()), Ok("b".into())]);
        assert_eq!(lines(b"\n"), [Ok(String::new())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut bytes = b"a\n".to_vec();
        bytes.extend(vec![b'x'; 3 * LINE_BYTES_MAX]);
        bytes.extend(b"\nb\n");
        assert_eq!(lines(&bytes), [Ok("a".into()), Err(2), Ok("b".into())]);
        assert_eq!(lines(&vec![b'x'; LINE_BYTES_MAX + 1]), [Err(1)]);
        assert_eq!(lines(&vec![b'x'; LINE_BYTES_MAX]).len(), 1);
    }
}
