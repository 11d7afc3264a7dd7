//! The whole pipeline at a glance: what each journal holds, what waits where, and what is wrong.
//!
//! # Invariants
//! - Apart from `--init` it only reads: no lock is taken, nothing is created, settled or audited.
//! - What a look costs does not grow with history: ends, last records and what waits first, never a count.
//! - The exit code is the answer, as monitoring plugins give it: 0 healthy, 1 warning, 2 critical, 3 unknown.
//!
//! `look` gathers, `show` draws.

mod check;
mod explain;
mod look;
mod show;

use std::{path::PathBuf, process::ExitCode};

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result, cli,
    cli::{Output, Verdict},
    clock,
    conservation::{self, Status},
    logs::Logs,
    text,
};
use serde::Serialize;

use crate::look::{Answer, Level};

/// Show the whole pipeline at a glance, or create a logs folder.
///
/// A warning is what may pass or what somebody should look at: something that has waited for more than 15 minutes,
/// a breaker that opened because the endpoint does not answer, bytes in quarantine. Critical is what does not pass
/// by itself: damage, or a breaker that needs an operator.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name}\n{command_name} --json | jq .problems\n{command_name} --init --logs /var/lib/milepost/logs",
    note = "$MILESTONE_LOGS: the logs folder, where --logs is not given",
    error_code(0, "healthy; with --init: the folder is there"),
    error_code(1, "warning"),
    error_code(2, "critical"),
    error_code(3, "unknown: no logs folder, or it cannot be read"),
    error_code(73, "--init cannot create the folder")
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

    /// create the logs folder if it is absent (mode 2770: for its owner and group)
    #[argh(switch)]
    init: bool,

    /// answer with one JSON object
    #[argh(switch)]
    json: bool,

    /// say nothing when all is well; the exit code tells
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

fn main() -> ExitCode {
    cli::run_tool(TOOL, run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    if usize::from(args.init) + usize::from(args.check) + usize::from(args.explain.is_some()) > 1 {
        let what = "--init, --check and --explain are different things: give one of them";
        return Err(Error::new(Kind::Usage, "", what));
    }
    if args.init {
        let logs = Logs::init(args.logs.as_deref(), TOOL)?;
        out.result(&Created { status: "ok", logs: logs.dir().display().to_string() });
        return Ok(Verdict::Done);
    }
    if args.check {
        return check(&args, out);
    }
    if let Some(key) = &args.explain {
        return tell_life(key, &args, out);
    }
    let logs = match Logs::open(args.logs.as_deref(), TOOL) {
        Ok(logs) => logs,
        Err(error) if error.kind() == Kind::Configuration => return Err(error),
        Err(error) => {
            out.error(error);
            return Ok(Verdict::Answer(Level::Unknown.exit_code()));
        }
    };
    let answer = Answer::of(&logs);
    if args.quiet && answer.status == Level::Healthy {
        // Dropped, as every result of success.
    } else if args.json {
        out.refusal(&answer);
    } else {
        out.raw(show::text(&answer, clock::now()).as_bytes());
    }
    Ok(Verdict::Answer(answer.status.exit_code()))
}

/// The conservation check: exit 0 when it holds, 2 when it is broken.
fn check(args: &Args, out: &mut Output) -> Result<Verdict> {
    let report = conservation::check(&Logs::open(args.logs.as_deref(), TOOL)?)?;
    let holds = report.status == Status::Holds;
    if args.quiet && holds {
        // Dropped, as every result of success.
    } else if args.json {
        out.refusal(&report);
    } else {
        out.raw(check::text(&report).as_bytes());
    }
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
        out.raw(explain::text(&life, now).as_bytes());
    }
    Ok(Verdict::Done)
}
