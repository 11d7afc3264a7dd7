//! Tasks from flags, files or standard input into the journal; each result is printed once it is durable.
//!
//! # Invariants
//! - A result is printed after the batch that it was in was committed, in the order of the input.
//! - One bad line stops nothing else.
//!
//! Not here: what a task is and how it gets into the journal (`milepost::task`).

mod args;

use std::process::ExitCode;

use args::Args;
use milepost::{
    Kind, Result, cli,
    cli::{Output, Verdict},
    clock, identity,
    input::{self, Input, InputLine},
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    json,
    logs::Logs,
    schema::FieldError,
    task::{Offer, Task, TaskEmitted, TaskEmitter},
};
use serde::Serialize;
use serde_json::Value;

fn main() -> ExitCode {
    cli::run_tool("task-emit", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let by_flags = args.task()?;
    let files = match (&by_flags, args.files.is_empty()) {
        (None, true) => vec!["-".to_owned()],
        _ => args.files.clone(),
    };
    let emitter = if args.dry_run {
        None
    } else {
        let logs = Logs::open(args.logs.as_deref(), "task-emit")?.rotate_as(args.rotate_bytes);
        Some(TaskEmitter::new(&logs)?)
    };
    let mut emission = Emission { emitter, offers: Vec::new(), bytes: 0, verdict: Verdict::Done, out };
    if let Some(document) = by_flags {
        emission.offer(judged("the command line".to_owned(), document), 0)?;
    }
    for file in &files {
        emission.file(file)?;
    }
    emission.end()
}

/// One run: what was read and judged, and waits to be committed.
struct Emission<'o> {
    /// None when nothing is to be written.
    emitter: Option<TaskEmitter>,
    offers: Vec<Offer>,
    /// Bytes of input that the offers came from.
    bytes: usize,
    verdict: Verdict,
    out: &'o mut Output,
}

impl Emission<'_> {
    fn file(&mut self, file: &str) -> Result<()> {
        let mut input = match Input::open(file) {
            Ok(input) => input,
            Err(error) => {
                self.unreadable(&error);
                return Ok(());
            }
        };
        if input.is_terminal() {
            self.out.note("reading tasks from the terminal, one JSON document a line; Ctrl-D ends");
        }
        let mut progress = self.out.progress(input.bytes_total());
        loop {
            // What came is not kept waiting for what may come.
            if !self.offers.is_empty() && input.may_wait() {
                self.commit()?;
                self.out.flush();
            }
            let name = input.name().to_owned();
            let (offer, bytes) = match input.next_line() {
                Ok(None) => break,
                Ok(Some(InputLine::TooLong(line))) => (too_long(&name, line), 0),
                Ok(Some(InputLine::Text(_, text))) if text.trim_ascii().is_empty() => continue,
                Ok(Some(InputLine::Text(line, text))) => (read(&name, line, text), text.len()),
                Err(error) => {
                    progress.end();
                    self.unreadable(&error);
                    return Ok(());
                }
            };
            self.offer(offer, bytes)?;
            progress.show(input.bytes_read());
        }
        progress.end();
        Ok(())
    }

    /// Other files are still read.
    fn unreadable(&mut self, error: &milepost::Error) {
        self.out.error(error);
        self.verdict.add(error.kind());
    }

    fn offer(&mut self, offer: Offer, bytes: usize) -> Result<()> {
        self.offers.push(offer);
        self.bytes += bytes;
        let is_full = self.offers.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX / 2;
        if is_full { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<()> {
        let offers = std::mem::take(&mut self.offers);
        self.bytes = 0;
        let emitted = match &mut self.emitter {
            Some(emitter) => Some(emitter.commit(&offers)?),
            None => None,
        };
        for (at, offer) in offers.iter().enumerate() {
            self.report(offer, emitted.as_ref().map(|it| it[at]));
        }
        Ok(())
    }

    fn report(&mut self, offer: &Offer, emitted: Option<TaskEmitted>) {
        match offer {
            Offer::Refused { place, errors } => {
                self.out.refusal(&Report {
                    status: "rejected",
                    input: Some(place),
                    errors,
                    ..Report::default()
                });
                for error in errors {
                    self.out.error(format_args!("{place}: {error}"));
                }
                self.verdict.add(Kind::BadData);
            }
            Offer::Task { task, .. } => {
                let (status, offset) = match emitted {
                    Some(TaskEmitted::Appended(offset)) => ("appended", Some(offset)),
                    Some(TaskEmitted::Duplicate(offset)) => ("duplicate", Some(offset)),
                    Some(TaskEmitted::Refused) | None => ("valid", None),
                };
                let trace_id = identity::trace_id(&identity::task_key(&task.scope, &task.task_id));
                self.out.result(&Report {
                    status,
                    task_id: Some(&task.task_id),
                    scope: Some(&task.scope),
                    offset,
                    trace_id: Some(&trace_id),
                    ..Report::default()
                });
            }
        }
    }

    fn end(mut self) -> Result<Verdict> {
        if !self.offers.is_empty() {
            self.commit()?;
        }
        if let Some(emitter) = self.emitter {
            emitter.finish()?;
        }
        Ok(self.verdict)
    }
}

/// A line of input.
fn read(input: &str, line: usize, text: &[u8]) -> Offer {
    match json::parse(text) {
        Ok(document) => judged(format!("{input}:{line}"), document),
        Err(refusal) => {
            let mut what = refusal.what;
            if text.trim_ascii() == b"{" || text.trim_ascii() == b"[" {
                what.push_str("; one document a line is read, jq -c writes them so");
            }
            let place = format!("{input}:{line}:{}", refusal.column);
            Offer::Refused { place, errors: vec![FieldError::new("", what)] }
        }
    }
}

fn too_long(input: &str, line: usize) -> Offer {
    let what = format!("the line is longer than {} KiB and was passed over", input::LINE_BYTES_MAX >> 10);
    Offer::Refused { place: format!("{input}:{line}"), errors: vec![FieldError::new("", what)] }
}

fn judged(place: String, document: Value) -> Offer {
    match Task::from_value(document, clock::now()) {
        Ok((task, left_out)) => Offer::Task { place, task, left_out },
        Err(errors) => Offer::Refused { place, errors },
    }
}

/// A result line.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'r> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'r str>,
    /// Where what was refused stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'r str>,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'r [FieldError],
}
