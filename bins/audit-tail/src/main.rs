//! Shows the audit: filtered, followed, for people or for jq; and verifies it.
//!
//! # Invariants
//! - Records are shown as they lie there, byte for byte, each once and in order, across rotations.
//! - A damaged line is shown and passed; it is never a reason to stop. With a filter only what shows at a glance.
//! - Nothing is written and no lock is taken.
//!
//! Parts: `args`, `filter` (which records), `pretty` (for people), `verify` (words about a verification). What is
//! verified stands in the library (`milepost::audit::verify`).

mod args;
mod filter;
mod pretty;
mod verify;

use std::{process::ExitCode, time::Duration};

use args::Args;
use filter::{Filter, Kind};
use milepost::{
    Error, Result, audit, cli,
    cli::{Output, Verdict},
    clock,
    journal::{Item, Reader},
    logs::Logs,
    watch::Watch,
};
use pretty::Pretty;
use tz::TimeZone;

/// How long following sleeps when no hint comes: a lost hint costs this much.
const SCAN_EVERY: Duration = Duration::from_secs(2);
/// What `--follow` begins with when nothing is said.
const FOLLOW_LINES: usize = 10;
/// How far back the last records are first looked for; then twice as far, and so on.
const BACK_BYTES: u64 = 64 << 10;
/// How often it is asked whether anybody still reads, in lines: the question takes longer than most lines.
const CLOSED_EVERY: u64 = 1024;

fn main() -> ExitCode {
    cli::run_tool("audit-tail", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    args.check()?;
    let logs = Logs::open(args.logs.as_deref(), "audit-tail")?;
    if args.head {
        return verify::head(&args, &logs, out);
    }
    if args.verify || !args.expect.is_empty() {
        return verify::verify(&args, &logs, out);
    }
    let mut tail = Tail { filter: Filter::new(&args, clock::now()), pretty: pretty_as(&args)?, out };
    let stop = if args.follow { Some(cli::shutdown_flag()?) } else { None };
    // Before the first look, so that nothing falls between the two.
    let watch = if args.follow { Some(Watch::start(&logs)?) } else { None };
    let mut reader = audit::verify::reader(&logs)?;
    match args.lines.or(args.follow.then_some(FOLLOW_LINES)) {
        Some(lines) => tail.begin_with(&mut reader, lines)?,
        None => tail.show_all(&mut reader)?,
    }
    if let (Some(stop), Some(watch)) = (stop, watch) {
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            tail.out.flush();
            if tail.out.is_closed() {
                break;
            }
            watch.wait(SCAN_EVERY, &stop);
            reader.refresh()?;
            tail.show_all(&mut reader)?;
        }
    }
    Ok(Verdict::Done)
}

fn pretty_as(args: &Args) -> Result<Option<Pretty>> {
    if !args.pretty {
        return Ok(None);
    }
    let zone = if args.local {
        let named = std::env::var("TZ").ok().filter(|it| !it.is_empty());
        let zone = named.as_deref().map_or_else(TimeZone::local, TimeZone::from_posix_tz).map_err(|it| {
            Error::new(milepost::Kind::Configuration, "--local", "the local time zone is not known")
                .because(it.to_string())
                .cure("set TZ, for example TZ=Europe/Warsaw, or leave --local out")
        })?;
        Some(zone)
    } else {
        None
    };
    Ok(Some(Pretty::new(zone, cli::colours_on_stdout())))
}

struct Tail<'o> {
    filter: Filter,
    pretty: Option<Pretty>,
    out: &'o mut Output,
}

impl Tail<'_> {
    /// Shows what matches from where the reader is to its end.
    fn show_all(&mut self, reader: &mut Reader) -> Result<()> {
        let mut count = 0_u64;
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Line { offset, text, .. } => self.show(offset, text),
                Item::Overlong { offset, .. } => self.damaged(offset, b"", "is longer than any record"),
            }
            count += 1;
            if count.is_multiple_of(CLOSED_EVERY) && self.out.is_closed() {
                break;
            }
        }
        Ok(())
    }

    fn show(&mut self, offset: u64, text: &[u8]) {
        match self.filter.judge(text) {
            Kind::Passed => {}
            Kind::Damaged => self.damaged(offset, text, "is no audit record"),
            Kind::Shown => {
                if let Some(pretty) = &self.pretty {
                    self.out.raw(pretty.line(text).as_bytes());
                } else {
                    self.out.raw(text);
                    self.out.raw(b"\n");
                }
            }
        }
    }

    /// A damaged line goes to people, in both forms: as JSON it would only stop jq.
    fn damaged(&mut self, offset: u64, text: &[u8], what: &str) {
        if let Some(pretty) = &self.pretty {
            self.out.raw(pretty.damaged(text).as_bytes());
        }
        let shown = milepost::text::quoted(&String::from_utf8_lossy(text));
        self.out.error(format_args!("audit.jsonl at offset {offset}: {what}, and is passed over: {shown}"));
    }

    /// Shows the last `lines` that match: looks back twice as far until there are enough.
    fn begin_with(&mut self, reader: &mut Reader, lines: usize) -> Result<()> {
        let (first, end) = (reader.offset(), reader.end());
        let mut back = BACK_BYTES;
        loop {
            let start = end.saturating_sub(back).max(first);
            reader.seek(start);
            // What begins in the middle of a line ends at its end.
            if start > first {
                reader.next_item()?;
            }
            let from = reader.offset();
            let mut found = std::collections::VecDeque::new();
            while let Some(item) = reader.next_item()? {
                let Item::Line { offset, text, .. } = item else { continue };
                if self.filter.judge(text) != Kind::Passed {
                    found.push_back(offset);
                    if found.len() > lines {
                        found.pop_front();
                    }
                }
            }
            if found.len() >= lines || start == first {
                let first = if lines == 0 { reader.offset() } else { found.front().copied().unwrap_or(from) };
                reader.seek(first);
                return self.show_all(reader);
            }
            back = back.saturating_mul(2);
        }
    }
}
