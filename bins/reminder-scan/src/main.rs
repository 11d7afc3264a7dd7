//! Reminds of open tasks that are overdue, each once in every window; run by a timer.
//!
//! # Invariants
//! - `--list` and `--dry-run` write nothing but caches.
//!
//! Not here: what is due and that it is reminded of once (`milepost::reminder`).

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result, Timestamp,
    cli::{Output, Verdict},
    clock, identity,
    logs::Logs,
    reminder::{self, Listed, Scanner, TimeBucket, When, Window},
    task,
    units::{DurationArg, Size},
};
use serde::Serialize;

/// Write a reminder for every open task that is overdue, once for each task and window of time.
///
/// Run it from a timer, as often as you like and as many at once as you like: a task is reminded of once in each
/// window. After a pause only the present window counts. milestone-queue and milestone-deliver carry the reminders.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name}\n{command_name} --list --scope chat:42\n{command_name} --window 1d --lead 2h --dry-run\nmilestone-queue --source reminders.jsonl --queue reminder-delivery-queue.jsonl"
)]
struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    logs: Option<PathBuf>,

    /// length of a window, in whole minutes (default: 1h)
    #[argh(option, arg_name = "DUR", default = "Window::HOUR")]
    window: Window,

    /// remind this long before a task is due (default: 0s)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(0)")]
    lead: DurationArg,

    /// what time it is, RFC 3339 (default: the system's clock)
    #[argh(option, arg_name = "TIME", from_str_fn(time_of))]
    now: Option<Timestamp>,

    /// show what is due and what is next, and remind of nothing
    #[argh(switch)]
    list: bool,

    /// with --list: of this scope alone
    #[argh(option, arg_name = "SCOPE", from_str_fn(task::checked_scope))]
    scope: Option<String>,

    /// with --list: show so many of the tasks that are due next (default: 10)
    #[argh(option, short = 'n', arg_name = "N")]
    next: Option<usize>,

    /// show what would be reminded of, and remind of nothing
    #[argh(switch)]
    dry_run: bool,

    /// size at which a journal begins a new file (default: `$MILESTONE_ROTATE_BYTES`, else 64MiB)
    #[argh(option, arg_name = "SIZE")]
    rotate_bytes: Option<Size>,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    quiet: bool,
}

const NEXT_SHOWN: usize = 10;

fn time_of(text: &str) -> std::result::Result<Timestamp, String> {
    task::parse_time(text)
}

milepost::tool_main!("reminder-scan", run);

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    if args.list && args.dry_run {
        return Err(
            Error::new(Kind::Usage, "", "--list and --dry-run show different things").cure("give either")
        );
    }
    if !args.list && (args.scope.is_some() || args.next.is_some()) {
        let what = "--scope and --next say what --list shows";
        return Err(Error::new(Kind::Usage, "", what).cure("give them with --list; a scan takes every scope"));
    }
    let logs = Logs::open(args.logs.as_deref(), "reminder-scan")?.rotate_as(args.rotate_bytes)?;
    let clock = clock::now();
    let when =
        When { now: args.now.unwrap_or(clock), made_at: clock, window: args.window, lead: args.lead.get() };
    let mut scanner = Scanner::new(&logs)?;
    if args.list || args.dry_run {
        return show(&args, &mut scanner, &when, out);
    }
    let done = scanner.scan(&when, &mut |damage| out.error(damage))?;
    out.result(&Report {
        status: "ok",
        time_bucket: when.bucket(),
        reminded: done.reminded,
        already_reminded: done.known,
        rejected: done.rejected,
        next_due_utc: done.next_due,
    });
    Ok(Verdict::Done)
}

fn show(args: &Args, scanner: &mut Scanner, when: &When, out: &mut Output) -> Result<Verdict> {
    let bucket = when.bucket();
    let upcoming = if args.list { args.next.unwrap_or(NEXT_SHOWN) } else { 0 };
    let mut damage = Vec::new();
    let mut shown = |it: Listed| {
        if args.dry_run && it.is_reminded {
            return;
        }
        let key = reminder::key_of(&it.task, bucket);
        let (status, due) = match (it.is_due, args.dry_run) {
            (true, true) => ("would-remind", true),
            (true, false) => ("due", true),
            (false, _) => ("next", false),
        };
        out.result(&Line {
            status,
            scope: &it.task.scope,
            task_id: &it.task.task_id,
            title: &it.task.title,
            due_at: it.task.due_at,
            time_bucket: due.then_some(bucket),
            trace_id: due.then(|| identity::trace_id(&key)),
            reminded: args.list.then_some(it.is_reminded),
        });
    };
    scanner.list(when, args.scope.as_deref(), upcoming, &mut |it| damage.push(it.to_string()), &mut shown)?;
    // A damaged line belongs to no scope that could be known.
    for it in damage.iter().filter(|_| args.scope.is_none()) {
        out.error(it);
    }
    Ok(Verdict::Done)
}

/// The result of a scan.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    status: &'static str,
    time_bucket: TimeBucket,
    reminded: u64,
    already_reminded: u64,
    rejected: u64,
    next_due_utc: Option<Timestamp>,
}

/// A task that is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'l> {
    status: &'static str,
    scope: &'l str,
    task_id: &'l str,
    title: &'l str,
    due_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_bucket: Option<TimeBucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reminded: Option<bool>,
}
