//! Milestones from flags, files or standard input into the journal; each result is printed once it is durable.
//!
//! # Invariants
//! - A result is printed after the batch that it was in was committed, in the order of the input.
//! - One bad line stops nothing else, unless `--all-or-nothing` was asked for.
//!
//! Parts: `args` (the command line), `judge` (input to offers). What an event is and how it gets into the
//! journal stands in the library (`event`, `evidence`, `emit`).

mod args;
mod judge;

use std::process::ExitCode;

use args::Args;
use judge::Judge;
use milepost::{
    Kind, Result, cli,
    cli::{Output, Verdict},
    emit::{Emitted, Emitter, Offer},
    identity,
    input::{Input, InputLine},
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    logs::Logs,
    schema::FieldError,
    text,
};
use serde::Serialize;

fn main() -> ExitCode {
    cli::run_tool("milestone-emit", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let from_flags = args.event()?;
    let files = match (&from_flags, args.files.is_empty()) {
        (None, true) => vec!["-".to_owned()],
        _ => args.files.clone(),
    };
    let emitter = if args.dry_run {
        None
    } else {
        Some(Emitter::new(&Logs::open(args.logs.as_deref(), "milestone-emit")?.rotate_as(args.rotate_bytes)))
    };
    let mut emission = Emission {
        emitter,
        judge: Judge::new(&args)?,
        all_or_nothing: args.all_or_nothing,
        offers: Vec::new(),
        bytes: 0,
        verdict: Verdict::Done,
        out,
    };
    if let Some(event) = from_flags {
        let offer = Judge::flags(event);
        emission.offer(offer, 0)?;
    }
    for file in &files {
        emission.file(file)?;
    }
    emission.end()
}

/// One run: what was read and judged, and waits to be committed.
struct Emission<'o> {
    /// None when nothing is to be written.
    emitter: Option<Emitter>,
    judge: Judge,
    all_or_nothing: bool,
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
            Err(error) => return self.unreadable(error),
        };
        if input.is_terminal() {
            self.out.note("reading milestones from the terminal, one JSON document a line; Ctrl-D ends");
        }
        let mut progress = self.out.progress(input.bytes_total());
        loop {
            // What came is not kept waiting for what may come.
            if !self.all_or_nothing && !self.offers.is_empty() && input.may_wait() {
                self.commit()?;
                self.out.flush();
            }
            let name = input.name().to_owned();
            let (offer, bytes) = match input.next_line() {
                Ok(None) => break,
                Ok(Some(InputLine::TooLong(line))) => (Judge::too_long(&name, line), 0),
                Ok(Some(InputLine::Text(_, text))) if text.trim_ascii().is_empty() => continue,
                Ok(Some(InputLine::Text(line, text))) => (Judge::line(&name, line, text), text.len()),
                Err(error) => {
                    progress.end();
                    return self.unreadable(error);
                }
            };
            self.offer(offer, bytes)?;
            progress.show(input.bytes_read());
        }
        progress.end();
        Ok(())
    }

    /// Other files are still read, unless it is all or nothing.
    fn unreadable(&mut self, error: milepost::Error) -> Result<()> {
        // A folder cannot be opened for reading, and that is no fault of the output.
        let kind = if error.kind() == Kind::CannotCreate { Kind::NoInput } else { error.kind() };
        if self.all_or_nothing {
            return Err(error.kind_is(kind));
        }
        self.out.error(&error);
        self.verdict.add(kind);
        Ok(())
    }

    fn offer(&mut self, offer: Offer, bytes: usize) -> Result<()> {
        self.offers.push(offer);
        self.bytes += bytes;
        let is_full = self.offers.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX / 2;
        if is_full && !self.all_or_nothing { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<()> {
        let mut offers = std::mem::take(&mut self.offers);
        self.bytes = 0;
        self.judge.verify(&mut offers);
        let emitted = match &mut self.emitter {
            Some(emitter) if self.all_or_nothing => Some(emitter.commit_all_or_nothing(&offers)?),
            Some(emitter) => Some(emitter.commit(&offers)?),
            None => None,
        };
        for (at, offer) in offers.iter().enumerate() {
            self.report(offer, emitted.as_ref().map(|it| it[at]));
        }
        let is_held_back = |it: &Emitted| *it == Emitted::HeldBack;
        let held_back = emitted.iter().flatten().filter(|it| is_held_back(it)).count();
        if held_back > 0 {
            self.out.error(format_args!(
                "nothing was appended: --all-or-nothing, and not all of the input can be; \
                 {held_back} valid {} held back",
                if held_back == 1 { "milestone was" } else { "milestones were" }
            ));
        }
        Ok(())
    }

    fn report(&mut self, offer: &Offer, emitted: Option<Emitted>) {
        match offer {
            Offer::Refused { place, id, errors } => {
                let trace_id = id.as_deref().map(|it| identity::trace_id(&identity::milestone_key(it)));
                self.out.refusal(&Report {
                    status: "rejected",
                    milestone_id: id.as_deref(),
                    trace_id: trace_id.as_deref(),
                    input: Some(place),
                    errors,
                    ..Report::default()
                });
                for error in errors {
                    self.out.error(format_args!("{place}: {error}"));
                }
                self.verdict.add(Kind::BadData);
            }
            Offer::Event { place, event, .. } => {
                let id = event.milestone_id.as_str();
                let trace_id = identity::trace_id(&identity::milestone_key(id));
                let report = |status, offset| Report {
                    status,
                    milestone_id: Some(id),
                    offset,
                    trace_id: Some(&trace_id),
                    ..Report::default()
                };
                match emitted {
                    Some(Emitted::Appended(offset)) => self.out.result(&report("appended", Some(offset))),
                    Some(Emitted::Duplicate(offset)) => self.out.result(&report("duplicate", Some(offset))),
                    Some(Emitted::Conflict(offset)) => {
                        let what = format!(
                            "{} is at offset {offset} with other content; give this one an id of its own",
                            text::quoted(id)
                        );
                        let errors = [FieldError::new("/milestoneId", what)];
                        self.out.refusal(&Report {
                            input: Some(place),
                            errors: &errors,
                            ..report("conflict", Some(offset))
                        });
                        self.out.error(format_args!("{place}: {}", errors[0]));
                        self.verdict.add(Kind::No);
                    }
                    Some(Emitted::Refused | Emitted::HeldBack) | None => {
                        self.out.result(&report("valid", None));
                    }
                }
            }
        }
    }

    fn end(mut self) -> Result<Verdict> {
        if !self.offers.is_empty() {
            self.commit()?;
        }
        self.judge.warn(self.out);
        if let Some(emitter) = self.emitter {
            emitter.finish()?;
        }
        Ok(self.verdict)
    }
}

/// A result line.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'r> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    milestone_id: Option<&'r str>,
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
