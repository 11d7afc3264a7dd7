//! The one piece that every tool's command line goes through: arguments in, results, messages, exit code out.
//!
//! A tool is `fn main() -> ExitCode { cli::run_tool("its-name", run) }`, or `tool_main!("its-name", run)` where its
//! start counts, and a function `fn run(args: Args, out: &mut Output) -> Result<Verdict>`, where `Args` derives argh's
//! `FromArgs` and `ArgsInfo`. Each tool declares `--logs` and `--quiet` itself (argh cannot share fields); `--help`
//! and `--version` are answered here.
//!
//! # Invariants
//! - The exit code says what happened (`Kind::exit_code`); results that could not be written are 74.
//! - Nothing is done when standard output was closed at start: nobody could get the acknowledgement.
//! - Nothing panics on what comes from outside; a panic is a bug, said in one line, exit 70 (`EX_SOFTWARE`).
//!
//! Parts: `entry` (C's `main`), `arguments` (what people write), `definition` (what there is to write), `help`,
//! `output` (results), `messages` (words for people), `streams` (closed descriptors, whole writes), `signals`,
//! `verdict` (which exit code wins).

mod arguments;
mod definition;
mod entry;
mod help;
mod messages;
mod output;
mod progress;
mod signals;
mod streams;
mod verdict;

use std::{
    any::Any,
    env,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    process::ExitCode,
};

use argh::{ArgsInfo, TopLevelCommand};

use self::{arguments::Request, definition::Definition, help::Page};
pub use self::{
    entry::run_from_c,
    messages::{Messages, colours_on_stdout},
    output::Output,
    progress::Progress,
    signals::{reload_flag, shutdown_flag},
    streams::{columns_on_stdout, stdin_is_closed},
    verdict::Verdict,
};
use crate::{Error, Kind, Result};

/// `EX_SOFTWARE` of sysexits: a bug of ours.
const EXIT_BUG: u8 = 70;

/// Runs a tool: reads its arguments, calls `run`, reports what went wrong, and makes the exit code.
///
/// `run` says each failure that it can go on after (with [`Output::error`]) and counts it in its
/// [`Verdict`]; the one that stops it, it returns.
pub fn run_tool<A>(tool: &'static str, run: impl FnOnce(A, &mut Output) -> Result<Verdict>) -> ExitCode
where
    A: TopLevelCommand + ArgsInfo,
{
    ExitCode::from(exit_code(tool, run))
}

fn exit_code<A>(tool: &'static str, run: impl FnOnce(A, &mut Output) -> Result<Verdict>) -> u8
where
    A: TopLevelCommand + ArgsInfo,
{
    let messages = Messages::new(tool);
    report_bugs(messages);
    let mut out = Output::new(messages);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| start(tool, run, &mut out)));

    match outcome {
        Ok(Ok(verdict)) => finished(out, verdict, messages),
        Ok(Err(error)) => {
            let failed = Verdict::Failed(error.kind());
            out.error(error);
            finished(out, failed, messages)
        }
        Err(_bug) => {
            // What was acknowledged before it is still true, and the caller should know.
            out.flush();
            EXIT_BUG
        }
    }
}

fn start<A>(
    tool: &'static str,
    run: impl FnOnce(A, &mut Output) -> Result<Verdict>,
    out: &mut Output,
) -> Result<Verdict>
where
    A: TopLevelCommand + ArgsInfo,
{
    if streams::stdout_is_closed() {
        let error =
            Error::new(Kind::Io, "stdout", "is closed, so results cannot be written and nothing was done");
        return Err(error.cure("to drop results, send them to /dev/null"));
    }
    signals::survive_file_size_limit()?;
    // Files are for the owner and the group from the moment they are made; `durable` widens what is narrower.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o007));
    let definition = || Definition::of(tool, &A::get_args_info());
    match arguments::parse(tool, env::args_os().skip(1))? {
        Request::Run(args) => {
            // What only the tool can see of its command line.
            let see_help = |it: Error| match it.kind() {
                Kind::Usage => it.cure_also(&format!("see {tool} --help")),
                _ => it,
            };
            return run(args, out).map_err(see_help);
        }
        Request::Help(length) => {
            let page = Page::new(columns_on_stdout(), colours_on_stdout(), streams::terminals_show_utf8());
            out.raw(page.help(&definition(), length, |name| env::var_os(name)).as_bytes());
        }
        Request::Definition => out.refusal(&definition()),
        Request::Version => out.raw(definition::version(tool).as_bytes()),
    }
    Ok(Verdict::Done)
}

fn finished(out: Output, mut verdict: Verdict, messages: Messages) -> u8 {
    if let Err(error) = out.finish() {
        messages.error(&error);
        verdict.add(error.kind());
    }
    verdict.exit_code()
}

/// Makes a panic one line like every other message. `RUST_BACKTRACE` adds what a developer wants.
fn report_bugs(messages: Messages) {
    let with_backtrace = panic::take_hook();
    panic::set_hook(Box::new(move |bug: &PanicHookInfo<'_>| {
        let place = bug.location().map_or_else(String::new, |it| format!(" at {}:{}", it.file(), it.line()));
        let what = text_of(bug.payload());
        messages.error(format!("a bug in this program{place}: {what}; please report it"));
        if env::var_os("RUST_BACKTRACE").is_some_and(|it| it != "0") {
            with_backtrace(bug);
        }
    }));
}

fn text_of(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no description")
}
