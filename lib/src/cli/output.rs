//! Results for programs, on standard output: one JSON object a line.
//!
//! # Invariants
//! - Every result reaches standard output, in order, or the tool exits 74 and says so.
//! - A closed pipe is no failure: the reader has seen enough. The work goes on, nothing more is written.
//! - A message never overtakes a result that came before it.
//! - After a failed write nothing more is written: half a line stays the last thing.
//!
//! Results are collected and written in large pieces, on a terminal at once. Whoever is about to wait,
//! or has promised something, calls [`Output::flush`].
//!
//! Not here: how messages look (`messages`), which exit code wins (`verdict`).

use std::{
    fmt,
    io::{self, IsTerminal},
};

use rustix::stdio;
use serde::Serialize;

use super::{
    messages::Messages,
    progress::Progress,
    streams::{is_left, write_all},
};
use crate::{Error, Kind};

/// Collected results are written when they reach this size.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where a tool puts its results and messages.
#[derive(Debug)]
pub struct Output {
    messages: Messages,
    quiet: bool,
    buffer: Vec<u8>,
    at_once: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The reader went away.
    Left,
    Failed(Error),
}

impl Output {
    pub(super) fn new(messages: Messages) -> Output {
        let at_once = io::stdout().is_terminal();
        Output { messages, quiet: false, buffer: Vec::new(), at_once, state: State::Open }
    }

    /// Whether results of success, warnings and notes are dropped (`--quiet`).
    pub fn quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
        self.messages.quiet(quiet);
    }

    /// Writes a result of success as one line of JSON. Dropped by `--quiet`.
    pub fn result(&mut self, result: &impl Serialize) {
        if !self.quiet {
            self.line(result);
        }
    }

    /// Writes a result that says no (a refused line, a conflict) as one line of JSON. Never dropped.
    pub fn refusal(&mut self, result: &impl Serialize) {
        self.line(result);
    }

    /// Writes the answer to a question: as one line of JSON where that was asked for, else in words. A good one is a
    /// result of success, which `--quiet` drops.
    pub fn answer(&mut self, is_good: bool, json: Option<&impl Serialize>, words: impl FnOnce() -> String) {
        if self.quiet && is_good {
            return;
        }
        match json {
            Some(answer) => self.line(answer),
            None => self.raw(words().as_bytes()),
        }
    }

    /// Writes bytes as they are: records passed through, or text that a person asked for. Never dropped.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.written_if_due();
    }

    /// Writes out all results so far. Call it before waiting for anything.
    pub fn flush(&mut self) {
        if matches!(self.state, State::Open)
            && let Err(cause) = write_all(stdio::stdout(), &self.buffer)
        {
            self.state = match cause.kind() {
                io::ErrorKind::BrokenPipe => State::Left,
                _ => State::Failed(
                    Error::new(Kind::Io, "stdout", "cannot write results")
                        .because(cause)
                        .cure("what was done stays done, run it again to see it"),
                ),
            };
        }
        self.buffer.clear();
    }

    /// Whether nobody reads the results any more. Who only prints (`audit-tail -f`) may then end.
    pub fn is_closed(&self) -> bool {
        !matches!(self.state, State::Open) || is_left(stdio::stdout())
    }

    /// Says what went wrong.
    pub fn error(&mut self, message: impl fmt::Display) {
        self.flush();
        self.messages.error(message);
    }

    /// Says what may be wrong although the work goes on. Dropped by `--quiet`.
    pub fn warn(&mut self, message: impl fmt::Display) {
        self.flush();
        self.messages.warn(message);
    }

    /// Says what a person may like to know. Dropped by `--quiet`.
    pub fn note(&mut self, message: impl fmt::Display) {
        self.flush();
        self.messages.note(message);
    }

    /// Begins work that may take long, of `total` bytes if that is known, and shows how far it has come.
    pub fn progress(&self, total: Option<u64>) -> Progress {
        self.messages.progress(total)
    }

    /// Messages alone, for other threads.
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// When some result could not be written, now or earlier.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.flush();
        match self.state {
            State::Open | State::Left => Ok(()),
            State::Failed(error) => Err(error),
        }
    }

    fn line(&mut self, result: &impl Serialize) {
        let before = self.buffer.len();
        match serde_json::to_writer(&mut self.buffer, result) {
            Ok(()) => self.buffer.push(b'\n'),
            Err(cause) => {
                self.buffer.truncate(before);
                self.flush();
                if matches!(self.state, State::Open) {
                    let error = Error::new(Kind::Io, "stdout", "cannot write a result as JSON");
                    self.state = State::Failed(error.because(cause));
                }
            }
        }
        self.written_if_due();
    }

    fn written_if_due(&mut self) {
        if self.at_once || self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }
}
