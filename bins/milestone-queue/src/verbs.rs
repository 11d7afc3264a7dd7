//! What an operator asks for beside the flow: dead letters back or closed, settled events once more.
//!
//! # Invariants
//! - No instance lock is taken: each works while `--watch` and a deliverer run.
//! - What was asked for by name and cannot be done is said, key by key, the exit code is 2, and the result's status
//!   `failed`; what was done before is done (exit 0), so that asking twice is harmless.
//!
//! Not here: how (`milepost::redrive`, `milepost::resend`, `milepost::discard`).

use std::io::Read;

use milepost::{
    Error, Kind, Result, cli,
    cli::{Output, Verdict},
    clock,
    delivery::Consumer,
    discard,
    journal::{Journal, JournalName},
    queue,
    redrive::{self, Selection},
    resend::{self, Wanted},
    text,
};
use serde::Serialize;

use crate::args::Args;

/// What is asked for.
pub enum Verb {
    Redrive(Selection),
    Resend(Wanted),
    Discard { keys: Vec<String>, reason: String },
}

/// The same fields as an ordinary run reports, and what the verb has to say besides.
#[derive(Serialize)]
struct Report {
    status: &'static str,
    queued: u64,
    rejected: u64,
    cursor: u64,
    /// Of `--resend`: those that are on their way already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<u64>,
    /// Of `--discard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<u64>,
}

/// The verb on the command line; `None` when there is none.
pub fn asked_for(args: &Args) -> Result<Option<Verb>> {
    if let Some(since) = args.since.filter(|_| args.resend_all) {
        let now = clock::now();
        let until = args.until.map(|it| it.until(now));
        return Ok(Some(Verb::Resend(Wanted::Acknowledged { since: since.since(now), until })));
    }
    if !args.resend.is_empty() {
        return Ok(Some(Verb::Resend(Wanted::Keys(args.resend.clone()))));
    }
    if !args.discard.is_empty() {
        let reason = text::trim(args.reason.as_deref().unwrap_or_default()).to_owned();
        return Ok(Some(Verb::Discard { keys: args.discard.clone(), reason }));
    }
    Ok(selection(args)?.map(Verb::Redrive))
}

/// Which dead letters the command line asks to put back.
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

/// Does what is asked for.
pub fn run(
    verb: &Verb,
    args: &Args,
    queue: &Journal,
    source: &JournalName,
    out: &mut Output,
) -> Result<Verdict> {
    let endpoint = args.endpoint.as_deref().unwrap_or_default();
    let consumer = Consumer::new(queue.logs(), queue.name().clone(), endpoint)?;
    let mut report =
        Report { status: "ok", queued: 0, rejected: 0, cursor: 0, pending: None, discarded: None };
    let verdict = match verb {
        Verb::Redrive(selection) => redrive(&consumer, source, selection, &mut report, out)?,
        Verb::Resend(wanted) => resend(&consumer, source, wanted, &mut report, out)?,
        Verb::Discard { keys, reason } => discard(&consumer, keys, reason, &mut report, out)?,
    };
    report.cursor = queue::resume(queue, source)?.offset;
    if verdict == Verdict::Done {
        out.result(&report);
    } else {
        report.status = "failed";
        out.refusal(&report);
    }
    Ok(verdict)
}

fn redrive(
    consumer: &Consumer,
    source: &JournalName,
    selection: &Selection,
    report: &mut Report,
    out: &mut Output,
) -> Result<Verdict> {
    let redriven = redrive::redrive(&consumer.queue(), source, consumer.endpoint(), selection)?;
    let mut verdict = Verdict::Done;
    no_such_letters(consumer, &redriven.missing, &mut verdict, out);
    for key in &redriven.closed {
        out.error(format_args!(
            "{}: the dead letter was discarded; to send the event all the same, use --resend",
            text::quoted(key)
        ));
        verdict.add(Kind::No);
    }
    if redriven.known > 0 {
        out.note(format_args!("{} had been put back before", redriven.known));
    }
    if redriven.discarded > 0 && redriven.closed.is_empty() {
        out.note(format_args!("{} are discarded and stay so", redriven.discarded));
    }
    report.queued = redriven.queued;
    Ok(verdict)
}

fn resend(
    consumer: &Consumer,
    source: &JournalName,
    wanted: &Wanted,
    report: &mut Report,
    out: &mut Output,
) -> Result<Verdict> {
    let resent = resend::resend(consumer, source, wanted)?;
    let mut verdict = Verdict::Done;
    for key in &resent.missing {
        out.error(format_args!("{} has no event {}", consumer.queue_name().file(), text::quoted(key)));
        verdict.add(Kind::No);
    }
    for key in &resent.pending_keys {
        out.note(format_args!("{} is pending for this endpoint, so it is sent anyway", text::quoted(key)));
    }
    if resent.pending > 0 && resent.pending_keys.is_empty() {
        out.note(format_args!("{} are pending for this endpoint, so they are sent anyway", resent.pending));
    }
    report.queued = resent.queued;
    report.pending = Some(resent.pending);
    Ok(verdict)
}

fn discard(
    consumer: &Consumer,
    keys: &[String],
    reason: &str,
    report: &mut Report,
    out: &mut Output,
) -> Result<Verdict> {
    let discards = discard::discard(&consumer.queue(), consumer.endpoint(), keys, reason)?;
    let mut verdict = Verdict::Done;
    no_such_letters(consumer, &discards.missing, &mut verdict, out);
    for key in &discards.put_back {
        out.error(format_args!(
            "{}: the dead letter was put back into the queue, so it cannot be discarded",
            text::quoted(key)
        ));
        verdict.add(Kind::No);
    }
    if discards.known > 0 {
        out.note(format_args!("{} had been discarded before", discards.known));
    }
    report.discarded = Some(discards.discarded);
    Ok(verdict)
}

fn no_such_letters(consumer: &Consumer, missing: &[String], verdict: &mut Verdict, out: &mut Output) {
    let file = consumer.dead_letters().name().file();
    for key in missing {
        out.error(format_args!("{file} has no dead letter {}", text::quoted(key)));
        verdict.add(Kind::No);
    }
}
