//! Milestones from flags, files or standard input into the journal; each result is printed once it is durable.
//!
//! # Invariants
//! - A result is printed after the batch that it was in was committed, in the order of the input.
//! - One bad line stops nothing else, unless `--all-or-nothing` was asked for.
//!
//! Parts: `args` (the command line), `judge` (input to offers). What an event is and how it gets into the
//! journal stands in the library (`event`, `evidence`, `emit`).

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

mod args;
mod judge;

use args::Args;
use judge::{EventJudge, Judged};
use milepost::{
    Kind, Result,
    cli::{Output, Verdict},
    emit::{Emitted, Emitter, Offer},
    evidence::Warnings,
    identity,
    intake::{self, Intake, Judge as _},
    logs::Logs,
    schema::FieldError,
    text,
};
use serde::Serialize;

milepost::tool_main!("milestone-emit", run);

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let from_flags = args.event()?;
    let emitter = if args.dry_run {
        None
    } else {
        Some(Emitter::new(&Logs::open(args.logs.as_deref(), "milestone-emit")?.rotate_as(args.rotate_bytes)?))
    };
    let mut judge = EventJudge::new(&args)?;
    let (messages, is_whole) = (out.messages(), args.all_or_nothing);
    let mut emission =
        Emission { emitter, is_whole, warnings: Warnings::default(), verdict: Verdict::Done, out };
    if let Some(event) = from_flags {
        emission.take(&judge.batch(vec![EventJudge::flags(event)])?)?;
    } else {
        Intake { judge, messages, what: "milestones", is_whole }.run(args.files, |taken| {
            emission.take(&taken.batch)?;
            taken.tell(emission.out, &mut emission.verdict);
            Ok(())
        })?;
    }
    emission.end()
}

/// One run.
struct Emission<'o> {
    /// None when nothing is to be written.
    emitter: Option<Emitter>,
    /// All or nothing.
    is_whole: bool,
    warnings: Warnings,
    verdict: Verdict,
    out: &'o mut Output,
}

impl Emission<'_> {
    fn take(&mut self, judged: &Judged) -> Result<()> {
        let Judged { offers, records, doubts } = judged;
        for doubt in doubts {
            self.warnings.add(doubt);
        }
        let emitted = match &mut self.emitter {
            _ if offers.is_empty() => None,
            Some(emitter) if self.is_whole => Some(emitter.commit_all_or_nothing(offers, records)?),
            Some(emitter) => Some(emitter.commit_records(offers, records)?),
            None => None,
        };
        for (at, offer) in offers.iter().enumerate() {
            self.report(offer, records.trace_id(at), emitted.as_ref().map(|it| it[at]));
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

    fn report(&mut self, offer: &Offer, trace_id: Option<&str>, emitted: Option<Emitted>) {
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
                    self.out.error(intake::fault(place, error, &args::FIELDS));
                }
                self.verdict.add(Kind::BadData);
            }
            Offer::Event { place, event, .. } => {
                let id = event.milestone_id.as_str();
                let report = |status, offset| Report {
                    status,
                    milestone_id: Some(id),
                    offset,
                    trace_id,
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
                        self.out.error(intake::fault(place, &errors[0], &args::FIELDS));
                        self.verdict.add(Kind::No);
                    }
                    Some(Emitted::Refused | Emitted::HeldBack) | None => {
                        self.out.result(&report("valid", None));
                    }
                }
            }
        }
    }

    fn end(self) -> Result<Verdict> {
        for warning in self.warnings.lines() {
            self.out.warn(warning);
        }
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
