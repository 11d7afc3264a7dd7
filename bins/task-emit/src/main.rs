//! Tasks from flags, files or standard input into the journal; each result is printed once it is durable.
//!
//! # Invariants
//! - A result is printed after the batch that it was in was committed, in the order of the input.
//! - One bad line stops nothing else.
//!
//! Not here: what a task is and how it gets into the journal (`milepost::task`).

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

mod args;

use args::Args;
use milepost::{
    Kind, Result,
    cli::{Output, Verdict},
    clock, identity,
    intake::{self, Intake, Judge},
    logs::Logs,
    schema::FieldError,
    task::{Offer, Task, TaskEmitted, TaskEmitter},
};
use serde::Serialize;
use serde_json::Value;

milepost::tool_main!("task-emit", run);

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let by_flags = args.task()?;
    let emitter = if args.dry_run {
        None
    } else {
        let logs = Logs::open(args.logs.as_deref(), "task-emit")?.rotate_as(args.rotate_bytes)?;
        Some(TaskEmitter::new(&logs)?)
    };
    let messages = out.messages();
    let mut emission = Emission { emitter, verdict: Verdict::Done, out };
    if let Some(document) = by_flags {
        emission.take(&[judged(intake::COMMAND_LINE.to_owned(), document)])?;
    } else {
        Intake { judge: TaskJudge, messages, what: "tasks", is_whole: false }.run(args.files, |taken| {
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
    emitter: Option<TaskEmitter>,
    verdict: Verdict,
    out: &'o mut Output,
}

impl Emission<'_> {
    fn take(&mut self, offers: &[Offer]) -> Result<()> {
        let emitted = match &mut self.emitter {
            Some(emitter) if !offers.is_empty() => Some(emitter.commit(offers)?),
            _ => None,
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
                    self.out.error(intake::fault(place, error, &args::FIELDS));
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

    fn end(self) -> Result<Verdict> {
        if let Some(emitter) = self.emitter {
            emitter.finish()?;
        }
        Ok(self.verdict)
    }
}

/// Judges lines of input.
struct TaskJudge;

impl Judge for TaskJudge {
    type Offer = Offer;
    type Batch = Vec<Offer>;

    fn line(&mut self, input: &str, line: usize, text: &[u8]) -> Offer {
        match intake::parse(input, line, text) {
            Ok(document) => judged(format!("{input}:{line}"), document),
            Err((place, fault)) => self.refused(place, fault),
        }
    }

    fn refused(&mut self, place: String, fault: FieldError) -> Offer {
        Offer::Refused { place, errors: vec![fault] }
    }

    fn batch(&mut self, offers: Vec<Offer>) -> Result<Vec<Offer>> {
        Ok(offers)
    }
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
