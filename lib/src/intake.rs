//! From files of lines to batches of judged offers, read ahead of whoever takes them.
//!
//! # Invariants
//! - A batch holds lines in the order of the input, judged and blank ones left out; an input that cannot be read is
//!   told of behind the lines that came before it, and stops no other.
//! - What came is not kept waiting for what may come: a batch ends where the input may pause.
//! - Memory is bounded by two batches, unless the whole input is asked for as one.
//!
//! Not here: lines (`input`), what becomes of a batch (the tools).

use std::{mem, vec};

use serde_json::Value;

use crate::{
    Error, Kind, Result,
    cli::{Messages, Output, Progress, Verdict},
    input::{Input, InputLine, LINE_BYTES_MAX},
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    json,
    schema::FieldError,
    stages,
};

/// Makes offers of lines, and of offers what is taken together.
pub trait Judge: Send + 'static {
    /// One line, judged.
    type Offer: Send + 'static;
    /// Offers, with all that can be made of them before they are taken.
    type Batch: Send + 'static;

    /// Judges line `number`, counted from 1, of the input `name`; without its newline.
    fn line(&mut self, name: &str, number: usize, text: &[u8]) -> Self::Offer;
    /// Makes an offer of a line that cannot be judged: where it stands and why.
    fn refused(&mut self, place: String, fault: FieldError) -> Self::Offer;
    /// Makes a batch.
    ///
    /// # Errors
    /// What ends the work.
    fn batch(&mut self, offers: Vec<Self::Offer>) -> Result<Self::Batch>;
}

/// The JSON document in line `number` of the input `name`.
///
/// # Errors
/// The place of what is no JSON, and the fault.
pub fn parse(name: &str, number: usize, text: &[u8]) -> Result<Value, (String, FieldError)> {
    json::parse(text).map_err(|refusal| {
        let mut what = refusal.what;
        if text.trim_ascii() == b"{" || text.trim_ascii() == b"[" {
            what.push_str("; one document a line is read, jq -c writes them so");
        }
        (format!("{name}:{number}:{}", refusal.column), FieldError::new("", what))
    })
}

/// The place of what came by flags and not in a line.
pub const COMMAND_LINE: &str = "the command line";

/// What is wrong, and where, for people. Of what came by flags the flag is named and not the field, which the caller
/// never wrote: `flags` has the name of each field with its flag.
pub fn fault(place: &str, error: &FieldError, flags: &[(&str, &str)]) -> String {
    let mut parts = error.path.split('/').skip(1);
    let flag = parts.next().and_then(|field| flags.iter().find(|it| it.0 == field));
    let Some((_, flag)) = flag.filter(|_| place == COMMAND_LINE) else { return format!("{place}: {error}") };
    let mut said = (*flag).to_owned();
    for part in parts {
        match part.parse::<usize>() {
            Ok(index) => said.extend([" number ", &(index + 1).to_string()]),
            Err(_) => said.extend([": ", part]),
        }
    }
    said + ": " + &error.message
}

/// What is taken together.
#[derive(Debug)]
pub struct Taken<B> {
    /// The batch; empty when there is only something to be said.
    pub batch: B,
    /// Why an input could not be read, or not to its end.
    unreadable: Option<Error>,
    /// Whether more may be long in coming.
    may_wait: bool,
    is_full: bool,
}

impl<B> Taken<B> {
    /// Says why an input could not be read, and leaves no result unwritten before a pause.
    pub fn tell(&self, out: &mut Output, verdict: &mut Verdict) {
        if let Some(error) = &self.unreadable {
            out.error(error);
            verdict.add(error.kind());
        }
        if self.may_wait {
            out.flush();
        }
    }
}

/// Inputs that are read one after the other.
#[derive(Debug)]
pub struct Intake<J: Judge> {
    /// Who judges the lines.
    pub judge: J,
    /// Where it is said what is waited for, and how far reading has come.
    pub messages: Messages,
    /// What stands in a line, such as `milestones`, for people.
    pub what: &'static str,
    /// Whether everything makes one batch, whatever its size; then what cannot be read ends the work.
    pub is_whole: bool,
}

impl<J: Judge> Intake<J> {
    /// Reads `files` (`-` is standard input, and so is none), and hands batch after batch to `take`.
    ///
    /// # Errors
    /// Those of `take`; with `is_whole` also those of reading.
    pub fn run(
        self,
        files: Vec<String>,
        mut take: impl FnMut(&mut Taken<J::Batch>) -> Result<()>,
    ) -> Result<()> {
        let files = if files.is_empty() { vec!["-".to_owned()] } else { files };
        let mut reading =
            Reading { intake: self, files: files.into_iter(), open: None, offers: Vec::new(), bytes: 0 };
        // What was taken goes before more is made: no more than two batches are there at a time.
        let make = move |taken| {
            drop(taken);
            reading.next()
        };
        stages::run(make, |it| it.is_full, |it| take(it).map(|()| true))
    }
}

struct Reading<J: Judge> {
    intake: Intake<J>,
    files: vec::IntoIter<String>,
    open: Option<Open>,
    /// What waits to be taken, and the bytes that it was made of.
    offers: Vec<J::Offer>,
    bytes: usize,
}

struct Open {
    name: String,
    input: Input,
    progress: Progress,
}

impl<J: Judge> Reading<J> {
    fn next(&mut self) -> Result<Option<Taken<J::Batch>>> {
        loop {
            let Some(Open { name, input, progress }) = &mut self.open else {
                let Some(file) = self.files.next() else {
                    return if self.offers.is_empty() { Ok(None) } else { self.taken(false, None).map(Some) };
                };
                match Input::open(&file) {
                    Ok(input) => self.begin(input),
                    Err(error) => return self.unreadable(error).map(Some),
                }
                continue;
            };
            if !self.intake.is_whole && !self.offers.is_empty() && input.may_wait() {
                return self.taken(true, None).map(Some);
            }
            let offer = match input.next_line() {
                Ok(None) => {
                    progress.end();
                    self.open = None;
                    continue;
                }
                Ok(Some(InputLine::Text(_, text))) if text.trim_ascii().is_empty() => continue,
                Ok(Some(InputLine::Text(number, text))) => {
                    self.bytes += text.len();
                    self.intake.judge.line(name, number, text)
                }
                Ok(Some(InputLine::TooLong(number))) => {
                    let what =
                        format!("the line is longer than {} KiB and was passed over", LINE_BYTES_MAX >> 10);
                    self.intake.judge.refused(format!("{name}:{number}"), FieldError::new("", what))
                }
                Err(error) => {
                    progress.end();
                    self.open = None;
                    return self.unreadable(error).map(Some);
                }
            };
            self.offers.push(offer);
            progress.show(input.bytes_read());
            if !self.intake.is_whole && self.is_full() {
                return self.taken(false, None).map(Some);
            }
        }
    }

    fn begin(&mut self, input: Input) {
        let Intake { messages, what, .. } = &self.intake;
        if input.is_terminal() {
            messages.note(format_args!(
                "reading {what} from the terminal, one JSON document a line; Ctrl-D ends"
            ));
        }
        let progress = messages.progress(input.bytes_total());
        self.open = Some(Open { name: input.name().to_owned(), input, progress });
    }

    fn is_full(&self) -> bool {
        self.offers.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX / 2
    }

    fn taken(&mut self, may_wait: bool, unreadable: Option<Error>) -> Result<Taken<J::Batch>> {
        let is_full = self.is_full();
        self.bytes = 0;
        let offers =
            mem::replace(&mut self.offers, Vec::with_capacity(if is_full { BATCH_RECORDS_MAX } else { 0 }));
        Ok(Taken { batch: self.intake.judge.batch(offers)?, unreadable, may_wait, is_full })
    }

    fn unreadable(&mut self, error: Error) -> Result<Taken<J::Batch>> {
        // A folder cannot be opened for reading, and that is no fault of the output.
        let kind = if error.kind() == Kind::CannotCreate { Kind::NoInput } else { error.kind() };
        let error = error.kind_is(kind);
        if self.intake.is_whole { Err(error) } else { self.taken(false, Some(error)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_flag_where_a_flag_was_given() {
        let flags = [("dueAt", "--due"), ("evidence", "--evidence")];
        let said = |place: &str, path: &str| fault(place, &FieldError::new(path, "is empty"), &flags);
        assert_eq!(said(COMMAND_LINE, "/dueAt"), "--due: is empty");
        assert_eq!(said(COMMAND_LINE, "/evidence/1/path"), "--evidence number 2: path: is empty");
        // What no flag gives, and what stands in a line.
        assert_eq!(said(COMMAND_LINE, ""), "the command line: is empty");
        assert_eq!(said(COMMAND_LINE, "/other"), "the command line: /other: is empty");
        assert_eq!(said("in.jsonl:3", "/dueAt"), "in.jsonl:3: /dueAt: is empty");
    }
}
