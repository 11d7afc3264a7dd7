//! A tool that only shows what `milepost::cli` does; `tests/cli.rs` drives it as a process.
//!
//! It is also the shortest example of a tool: arguments, a one-line `main`, `run`.

use std::{
    fs::File, io::Write, path::PathBuf, process::ExitCode, sync::atomic::Ordering::Relaxed, thread,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result,
    cli::{self, Output, Verdict},
    units::{DurationArg, Size},
};
use serde::Serialize;

/// Show how a tool of this workspace deals with its command line, its output and its end.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --scope ops -n5 notes.txt\n{command_name} --act flood | head -n 1",
    note = "This is a probe for tests; it reads and writes no journal.",
    error_code(2, "the answer is no")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    logs: Option<PathBuf>,

    /// say nothing about success; errors and refusals stay
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// whom it concerns
    #[argh(option, arg_name = "TEXT")]
    scope: Option<String>,

    /// where to look; may be given several times, and has a description that is so long that it has to go on
    /// in the next line
    #[argh(option, arg_name = "type=…,path=…")]
    evidence: Vec<String>,

    /// how many lines
    #[argh(option, short = 'n', arg_name = "N")]
    lines: Option<u32>,

    /// wait for more
    #[argh(switch, short = 'f')]
    follow: bool,

    /// how long to wait
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(5)")]
    timeout: DurationArg,

    /// size at which a journal begins a new file
    #[argh(option, arg_name = "SIZE", default = "Size::from_bytes(64 << 20)")]
    rotate_bytes: Size,

    /// what to try
    #[argh(option, arg_name = "WHAT")]
    act: Option<String>,

    /// input files, or - for standard input
    #[argh(positional, arg_name = "FILE")]
    files: Vec<String>,
}

#[derive(Serialize)]
struct Seen {
    logs: Option<PathBuf>,
    scope: Option<String>,
    evidence: Vec<String>,
    lines: Option<u32>,
    follow: bool,
    timeout: String,
    rotate_bytes: String,
    files: Vec<String>,
}

fn main() -> ExitCode {
    cli::run_tool("cli-probe", run)
}

/// Does what `--act` says.
///
/// # Panics
/// When it says so.
pub fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    match args.act.as_deref() {
        None => {
            out.result(&Seen {
                logs: args.logs,
                scope: args.scope,
                evidence: args.evidence,
                lines: args.lines,
                follow: args.follow,
                timeout: args.timeout.to_string(),
                rotate_bytes: args.rotate_bytes.to_string(),
                files: args.files,
            });
            Ok(Verdict::Done)
        }
        Some("stdin") => {
            if cli::stdin_is_closed() {
                return Err(Error::new(Kind::NoInput, "stdin", "is closed"));
            }
            Ok(Verdict::Done)
        }
        Some("flood") => {
            for number in 0..args.lines.unwrap_or(100_000) {
                out.result(&number);
            }
            out.flush();
            // The work goes on whether or not somebody reads; a person sees that here.
            out.note(format!("finished, closed: {}", out.is_closed()));
            Ok(Verdict::Done)
        }
        Some("messages") => {
            out.result(&"result");
            out.note("note");
            out.warn("warning \u{202e}\n");
            out.refusal(&"refusal");
            out.error("error \u{1b}[31m");
            let mut verdict = Verdict::Done;
            verdict.add(Kind::BadData);
            verdict.add(Kind::No);
            Ok(verdict)
        }
        Some("panic") => {
            out.result(&"acknowledged");
            #[expect(clippy::panic, reason = "the probe shows what a bug looks like")]
            {
                panic!("it\nbroke")
            }
        }
        Some("grow") => {
            let path = PathBuf::from(args.files.first().map_or("", String::as_str));
            let mut file = File::create(&path).map_err(|it| Error::io("cannot create", &path, it))?;
            file.write_all(&[b'x'; 4096]).map_err(|it| Error::io("cannot append", &path, it))?;
            Ok(Verdict::Done)
        }
        Some("wait") => {
            let asked = cli::shutdown_flag()?;
            out.result(&"ready");
            out.flush();
            while !asked.load(Relaxed) {
                thread::park_timeout(Duration::from_millis(5));
            }
            out.result(&"asked");
            out.flush();
            // With --follow it does not end, as a tool that hangs would not.
            if args.follow {
                loop {
                    thread::park();
                }
            }
            Ok(Verdict::Done)
        }
        Some(other) => Err(Error::new(Kind::Usage, "--act", format!("knows no {other:?}"))),
    }
}
