//! From a source journal to a delivery queue: one record for each new event, once.
//!
//! # Invariants
//! - One instance a queue; a second one says so and leaves. What came while the lock was let go is looked for
//!   once more, so that no wake-up falls between.
//!
//! Parts: `args` (the command line), `verbs` (what an operator asks for beside it). How stands in the library
//! (`milepost::enqueue`).

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

mod args;
mod verbs;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use args::Args;
use milepost::{
    Error, Kind, Result, cli,
    cli::{Output, Verdict},
    clock, emit,
    enqueue::{self, Enqueuer, Passed},
    journal::{Journal, JournalName},
    lock::Lock,
    logs::Logs,
    queue, task, text,
    trim::{self, Trimmed, Wanted},
    units::DurationArg,
    watch::Watch,
};
use serde::Serialize;

/// How long `--watch` sleeps when no hint comes: a lost hint costs this much.
const SCAN_EVERY: Duration = Duration::from_secs(5);

milepost::tool_main!("milestone-queue", run);

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    args.check()?;
    let logs = Logs::open(args.logs.as_deref(), "milestone-queue")?.rotate_as(args.rotate_bytes)?;
    let source_name = source_name(&args.source)?;
    // What a source's lines are is told by themselves; settling must know both kinds.
    let source = if source_name.as_str() == emit::SOURCE {
        emit::milestones(&logs)
    } else {
        Journal::new(&logs, source_name, queue::describe)
    };
    let queue = queue::open(&logs, JournalName::from_queue_file(&args.queue)?);
    if args.trim {
        return trim(&args, &source, &queue, out);
    }
    if let Some(verb) = verbs::asked_for(&args)? {
        return verbs::run(&verb, &args, &queue, source.name(), out);
    }
    let stop = cli::shutdown_flag()?;
    let instance = format!("{}@queue", queue.name());
    let mut is_first = true;
    loop {
        let Some(lock) = Lock::try_acquire(&logs, &instance)? else {
            out.note(format_args!("another milestone-queue is at work on {}; nothing to do", args.queue));
            return Ok(Verdict::Done);
        };
        if std::mem::take(&mut is_first) {
            position(&args, &source, &queue, out)?;
        }
        let mut enqueuer = Enqueuer::new(source.clone(), queue.clone());
        let passed = if args.watch {
            watch(&logs, &mut enqueuer, &stop, out)?
        } else {
            pass(&mut enqueuer, &stop, out)?
        };
        drop(lock);
        if stop.load(Ordering::SeqCst) || source.end()? <= passed.cursor {
            if !args.watch {
                report(&passed, out);
            }
            return Ok(Verdict::Done);
        }
    }
}

/// The journal that `--source` names. Settling one of another kind would move what it holds, since none of it is a
/// record of a source.
fn source_name(file: &str) -> Result<JournalName> {
    let name = JournalName::from_file(file)?;
    let what = if name == JournalName::audit() {
        "tells of what is queued, and is no source: it would never be read to its end"
    } else if name.as_str() == task::TASKS {
        "holds tasks, and is no source: reminder-scan makes reminders of them"
    } else {
        return Ok(name);
    };
    Err(Error::new(Kind::Usage, text::quoted(file), what)
        .cure("name a journal of milestones or of event envelopes"))
}

/// `--from-now` and `--resync`: where to begin.
fn position(args: &Args, source: &Journal, queue: &Journal, out: &mut Output) -> Result<()> {
    if let Some(to) = args.resync {
        return enqueue::resync(source, queue, source.resync_position(to)?);
    }
    if args.from_now {
        source.settle_if_needed()?;
        if queue.end()? > 0 {
            out.note(format_args!("{} has records already; --from-now changes nothing", args.queue));
        } else if !queue::has_start(queue) {
            return enqueue::resync(source, queue, source.position_chosen(source.end()?)?);
        }
    }
    Ok(())
}

fn pass(enqueuer: &mut Enqueuer, stop: &Arc<AtomicBool>, out: &mut Output) -> Result<Passed> {
    enqueuer.pass(&mut |damage| out.error(damage), &|| stop.load(Ordering::SeqCst))
}

fn watch(logs: &Logs, enqueuer: &mut Enqueuer, stop: &Arc<AtomicBool>, out: &mut Output) -> Result<Passed> {
    let watch = Watch::start(logs)?;
    loop {
        let passed = pass(enqueuer, stop, out)?;
        if passed.queued + passed.rejected > 0 {
            report(&passed, out);
            out.flush();
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(passed);
        }
        watch.wait(SCAN_EVERY, stop);
    }
}

/// What became of one journal.
#[derive(Serialize)]
struct TrimReport<'r> {
    status: &'static str,
    journal: String,
    segments: u64,
    bytes: u64,
    begins: u64,
    passed: u64,
    by: Option<&'r str>,
}

/// `--trim`: the source first, since its consumer is the queue.
fn trim(args: &Args, source: &Journal, queue: &Journal, out: &mut Output) -> Result<Verdict> {
    let wanted = Wanted { older: args.older.map(DurationArg::get), dry_run: args.dry_run };
    let mut tell = |journal: &Journal, trimmed: &Trimmed| {
        out.result(&TrimReport {
            status: if args.dry_run { "valid" } else { "ok" },
            journal: journal.name().file(),
            segments: trimmed.segments,
            bytes: trimmed.bytes,
            begins: trimmed.begins,
            passed: trimmed.passed,
            by: trimmed.by.as_deref(),
        });
    };
    tell(source, &trim::source(source, wanted, clock::now())?);
    tell(queue, &trim::queue(queue, wanted, clock::now())?);
    Ok(Verdict::Done)
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    queued: u64,
    rejected: u64,
    cursor: u64,
}

fn report(passed: &Passed, out: &mut Output) {
    let Passed { queued, rejected, cursor, .. } = *passed;
    out.result(&Report { status: "ok", queued, rejected, cursor });
}
