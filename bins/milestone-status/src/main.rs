//! The whole pipeline at a glance: what each journal holds, what waits where, and what is wrong.
//!
//! # Invariants
//! - Apart from `--init` and `--metrics` it only reads: no lock is taken, nothing is created, settled or audited.
//! - What a look costs does not grow with history: ends, last records and what waits first, never a count.
//! - The exit code is the answer, as monitoring plugins give it: 0 healthy, 1 warning, 2 critical, 3 unknown.
//!
//! `look` gathers, `show` draws; `metrics` writes for Prometheus, with `chains`.

mod chains;
mod check;
mod config;
mod errors;
mod explain;
mod look;
mod metrics;
mod quarantine;
mod show;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result, cli,
    cli::{Output, Verdict},
    clock,
    conservation::{self, Status},
    logs::Logs,
    text,
    units::DurationArg,
};
use serde::Serialize;

use crate::{
    config::Config,
    look::{Answer, Level, Limits},
    show::Screen,
};

/// Show the whole pipeline at a glance, or create a logs folder.
///
/// A warning is what may pass or what somebody should look at: something that has waited for more than 15 minutes,
/// a dead letter, a breaker that opened because the endpoint does not answer, bytes in quarantine. Critical is what
/// does not pass by itself: damage below a journal's mark, or a breaker that needs an operator; and what is beyond
/// --max-lag or --max-dead.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name}\n{command_name} --json | jq .problems\n{command_name} --watch\n{command_name} --check\n{command_name} --explain nightly.2026-03-01\n{command_name} --metrics\n{command_name} --init --logs /var/lib/milepost/logs",
    error_code(
        0,
        "healthy; --init: the folder is there; --check: it holds; --explain: it is known; --config: all is well; --metrics: they are written"
    ),
    error_code(1, "warning"),
    error_code(2, "critical; --check: it is broken; --explain: no journal knows of it"),
    error_code(3, "unknown: no logs folder, or it cannot be read"),
    error_code(73, "--init cannot create the folder"),
    error_code(74, "--metrics cannot be written"),
    error_code(78, "--config: something is wrong")
)]
struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    logs: Option<PathBuf>,

    /// read every record and check that nothing is lost, nothing is there twice and nothing was changed
    #[argh(switch)]
    check: bool,

    /// tell one event's life, and what its next attempt hangs on: by milestone id, idempotency key or trace id
    #[argh(option, arg_name = "KEY")]
    explain: Option<String>,

    /// show which settings the tools would find, where each comes from, and what is wrong with them
    #[argh(switch)]
    config: bool,

    /// create the logs folder if it is absent (mode 2770: for its owner and group)
    #[argh(switch)]
    init: bool,

    /// what has waited longer is critical (default: a warning after 15m)
    #[argh(option, arg_name = "DUR")]
    max_lag: Option<DurationArg>,

    /// more dead letters than this, neither put back nor discarded, are critical (default: any is a warning)
    #[argh(option, arg_name = "N")]
    max_dead: Option<u64>,

    /// list the last N things that went wrong
    #[argh(option, arg_name = "N", default = "0")]
    errors: usize,

    /// write all of it to metrics/milepost.prom in the logs folder, for the textfile collector of Prometheus
    #[argh(switch)]
    metrics: bool,

    /// with --metrics: write them to standard output
    #[argh(switch)]
    stdout: bool,

    /// stay, and draw the picture again every two seconds; with --json a line each
    #[argh(switch)]
    watch: bool,

    /// answer with one JSON object
    #[argh(switch)]
    json: bool,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// The result of `--init`.
#[derive(Serialize)]
struct Created {
    status: &'static str,
    logs: String,
}

const TOOL: &str = "milestone-status";
/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    cli::run_tool(TOOL, run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let modes = [args.init, args.check, args.explain.is_some(), args.config, args.watch, args.metrics];
    if modes.iter().filter(|it| **it).count() > 1 {
        let what = "--init, --check, --explain, --config, --watch and --metrics are different things: give one of them";
        return Err(Error::new(Kind::Usage, "", what));
    }
    if args.stdout && !args.metrics {
        let what = "--stdout says where --metrics are written";
        return Err(Error::new(Kind::Usage, "", what).cure("give it with --metrics"));
    }
    if args.init {
        let logs = Logs::init(args.logs.as_deref(), TOOL)?;
        out.result(&Created { status: "ok", logs: logs.dir().display().to_string() });
        return Ok(Verdict::Done);
    }
    if args.check {
        return check(&args, out);
    }
    if args.config {
        return Ok(show_config(&args, out));
    }
    if let Some(key) = &args.explain {
        return tell_life(key, &args, out);
    }
    let logs = match Logs::open(args.logs.as_deref(), TOOL) {
        Ok(logs) => logs,
        Err(error) => {
            if args.json {
                out.refusal(&Answer::unknown(&Logs::choose(args.logs.as_deref()), &error));
            }
            out.error(error);
            return Ok(Verdict::Answer(Level::Unknown.exit_code()));
        }
    };
    if args.metrics {
        return write_metrics(&args, &logs, out);
    }
    if args.watch { watch(&args, &logs, out) } else { Ok(look(&args, &logs, out)) }
}

/// One look, and its answer as the exit code.
fn look(args: &Args, logs: &Logs, out: &mut Output) -> Verdict {
    let answer = Answer::of(logs, args.limits());
    let words = || show::text(&answer, clock::now(), Screen::of_stdout());
    out.answer(answer.status == Level::Healthy, args.json.then_some(&answer), words);
    Verdict::Answer(answer.status.exit_code())
}

/// Looks again and again until it is told to end, or nobody reads it any more.
fn watch(args: &Args, logs: &Logs, out: &mut Output) -> Result<Verdict> {
    let stop = cli::shutdown_flag()?;
    let is_terminal = io::stdout().is_terminal();
    while !stop.load(SeqCst) && !out.is_closed() {
        if is_terminal && !args.json {
            // To the corner first, and what is left of the picture before is wiped behind: it does not flicker.
            let picture = show::text(&Answer::of(logs, args.limits()), clock::now(), Screen::of_stdout());
            out.raw(show::redraw(&picture).as_bytes());
        } else {
            look(args, logs, out);
        }
        out.flush();
        let until = Instant::now() + LOOK_EVERY;
        while !stop.load(SeqCst) && Instant::now() < until {
            thread::sleep(GLANCE);
        }
    }
    Ok(Verdict::Done)
}

/// The metrics: whatever they say, exit 0 when they are written.
fn write_metrics(args: &Args, logs: &Logs, out: &mut Output) -> Result<Verdict> {
    if args.stdout {
        out.raw(metrics::print(logs)?.as_bytes());
    } else if let Some(written) = metrics::write(logs)? {
        out.result(&written);
    } else {
        out.note("another process is writing the metrics; nothing was done");
    }
    Ok(Verdict::Done)
}

impl Args {
    fn limits(&self) -> Limits {
        Limits { lag: self.max_lag.map(DurationArg::get), dead: self.max_dead, errors: self.errors }
    }
}

/// The settings: exit 0 when nothing is wrong with them, 78 when something is.
fn show_config(args: &Args, out: &mut Output) -> Verdict {
    let config = Config::found(args.logs.as_deref(), TOOL);
    let is_good = config.status == config::Status::Ok;
    out.answer(is_good, args.json.then_some(&config), || config.text(Screen::of_stdout()));
    if is_good { Verdict::Done } else { Verdict::Failed(Kind::Configuration) }
}

/// The conservation check: exit 0 when it holds, 2 when it is broken.
fn check(args: &Args, out: &mut Output) -> Result<Verdict> {
    let report = conservation::check(&Logs::open(args.logs.as_deref(), TOOL)?)?;
    let holds = report.status == Status::Holds;
    out.answer(holds, args.json.then_some(&report), || check::text(&report, Screen::of_stdout()));
    Ok(if holds { Verdict::Done } else { Verdict::Failed(Kind::No) })
}

/// The result of `--explain` when there is nothing to tell.
#[derive(Serialize)]
struct Unknown<'k> {
    status: &'static str,
    key: &'k str,
}

/// One event's life: exit 0 when it is known, 2 when no journal knows of it.
fn tell_life(key: &str, args: &Args, out: &mut Output) -> Result<Verdict> {
    let logs = Logs::open(args.logs.as_deref(), TOOL)?;
    let now = clock::now();
    let Some(life) = milepost::explain::explain(&logs, key, now)? else {
        if args.json {
            out.refusal(&Unknown { status: "unknown", key });
        }
        let what = format!("no journal knows {}", text::quoted(key));
        out.error(
            Error::new(Kind::No, logs.dir().display(), what)
                .cure("give a milestone id, an idempotency key or a trace id"),
        );
        return Ok(Verdict::Failed(Kind::No));
    };
    if args.json {
        out.result(&life);
    } else {
        out.raw(explain::text(&life, now, Screen::of_stdout()).as_bytes());
    }
    Ok(Verdict::Done)
}
