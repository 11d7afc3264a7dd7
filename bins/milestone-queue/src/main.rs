//! From a source journal to a delivery queue: one record for each new event, once.
//!
//! # Invariants
//! - One instance a queue; a second one says so and leaves. What came while the lock was let go is looked for
//!   once more, so that no wake-up falls between.
//! - Redriving takes no instance lock and works while `--watch` runs.
//!
//! Not here: how (`milepost::enqueue`, `milepost::redrive`).

mod args;

use std::{
    io::Read,
    process::ExitCode,
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
    emit,
    enqueue::{self, Enqueuer, Passed},
    journal::{Journal, JournalName},
    lock::Lock,
    logs::Logs,
    queue,
    redrive::{self, Selection},
    text,
    watch::Watch,
};
use serde::Serialize;

/// How long `--watch` sleeps when no hint comes: a lost hint costs this much.
const SCAN_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    cli::run_tool("milestone-queue", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    args.check()?;
    let logs = Logs::open(args.logs.as_deref(), "milestone-queue")?.rotate_as(args.rotate_bytes);
    let source_name = JournalName::from_file(&args.source)?;
    // What a source's lines are is told by themselves; settling must know both kinds.
    let source = if source_name.as_str() == emit::SOURCE {
        emit::milestones(&logs)
    } else {
        Journal::new(&logs, source_name, queue::describe)
    };
    let queue = queue::open(&logs, JournalName::from_queue_file(&args.queue)?);
    if let Some(selection) = selection(&args)? {
        return redrive(&args, &queue, &source, &selection, out);
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

/// Which dead letters the command line asks to put back; `None` when it does not.
fn selection(args: &Args) -> Result<Option<Selection>> {
    if args.redrive_all {
        return Ok(Some(Selection::All));
    }
    if args.redrive.is_empty() {
        return Ok(None);
    }
    if args.redrive != ["-"] {
        return Ok(Some(Selection::of_keys(&args.redrive)));
    }
    if cli::stdin_is_closed() {
        return Err(Error::new(Kind::NoInput, "stdin", "is closed").cure("pipe dead letters in"));
    }
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(|it| Error::io("cannot read", "stdin".as_ref(), it))?;
    Selection::of_json(&text).map(Some)
}

fn redrive(
    args: &Args,
    queue: &Journal,
    source: &Journal,
    selection: &Selection,
    out: &mut Output,
) -> Result<Verdict> {
    let endpoint = args.endpoint.as_deref().unwrap_or_default();
    let redriven = redrive::redrive(queue, source.name(), endpoint, selection)?;
    let mut verdict = Verdict::Done;
    for key in &redriven.missing {
        let dead = redrive::dead_letters(queue.logs(), queue.name(), endpoint);
        out.error(format_args!("{} has no dead letter {}", dead.name().file(), text::quoted(key)));
        verdict.add(Kind::No);
    }
    if redriven.known > 0 {
        out.note(format_args!("{} had been put back before", redriven.known));
    }
    let cursor = queue::resume(queue, source.name())?.offset;
    out.result(&Report { status: "ok", queued: redriven.queued, rejected: 0, cursor });
    Ok(verdict)
}
