//! A verification in words or as JSON.

use milepost::{
    Kind, Result,
    audit::{
        seal::{AUDIT_KEY, AUDIT_KEY_PREVIOUS, Sealer},
        verify::{self, Options, Report, Sealed},
    },
    cli::{Output, Progress, Verdict},
    logs::Logs,
};

use crate::args::Args;

/// `--head`.
pub fn head(args: &Args, logs: &Logs, out: &mut Output) -> Result<Verdict> {
    let Some(head) = verify::head(logs)? else {
        out.error("audit.jsonl has no record");
        return Ok(Verdict::Failed(Kind::No));
    };
    if args.json {
        out.refusal(&head);
    } else {
        out.raw(format!("{}:{}\n", head.seq, head.hash).as_bytes());
    }
    Ok(Verdict::Done)
}

/// `--verify`.
pub fn verify(args: &Args, logs: &Logs, out: &mut Output) -> Result<Verdict> {
    let mut keys = Vec::new();
    for (source, file) in [(&AUDIT_KEY, &args.key_file), (&AUDIT_KEY_PREVIOUS, &args.previous_key_file)] {
        if let Some(key) = source.load_optional(file.as_deref(), args.allow_readable_secret)? {
            keys.push(Sealer::new(&key)?);
        }
    }
    let has_keys = !keys.is_empty();
    let options = Options { expect: args.expect.clone(), keys };
    let mut progress: Option<Progress> = None;
    let report = verify::verify(logs, &options, &mut |done, total| {
        progress.get_or_insert_with(|| out.progress(Some(total))).show(done);
    });
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let report = report?;
    for problem in &report.problems {
        out.error(format_args!("{}: {}", problem.place, problem.what));
    }
    if report.more_problems > 0 {
        out.error(format_args!("and {} more things are wrong", report.more_problems));
    }
    out.answer(report.ok, args.json.then_some(&report), || words(&report, has_keys));
    Ok(if report.ok { Verdict::Done } else { Verdict::Failed(Kind::No) })
}

fn words(report: &Report, has_keys: bool) -> String {
    let mut lines = Vec::new();
    let verdict = if report.ok { "holds" } else { "does not hold" };
    lines.push(format!("the audit {verdict}: {} records", report.records));
    if let Some(head) = &report.head {
        lines.push(format!("head     {}:{}", head.seq, head.hash));
    }
    let sealed = |it: &Sealed| format!("up to {}, at {}, with the key {}", it.seq, it.at, it.key);
    lines.push(match (&report.proven, &report.sealed) {
        (Some(it), _) => format!("sealed   {}; the seal holds", sealed(it)),
        (None, Some(it)) if has_keys => format!("sealed   {}; not by the key given", sealed(it)),
        (None, Some(it)) => format!("sealed   {}; not checked, since no key was given", sealed(it)),
        (None, None) => "sealed   nothing".to_owned(),
    });
    if report.key_changes > 0 {
        let times =
            if report.key_changes == 1 { "once".to_owned() } else { format!("{} times", report.key_changes) };
        lines.push(format!("keys     changed {times}"));
    }
    for it in &report.journals {
        lines.push(format!("compared {}: {} records", it.journal, it.records));
    }
    if report.receipts > 0 {
        lines.push(format!("receipts {} are in the feed here", report.receipts));
    }
    lines.push(String::new());
    lines.join("\n")
}
