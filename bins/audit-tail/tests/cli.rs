//! audit-tail as a process: what it shows, follows and verifies.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use milepost::{
    audit::{
        self, Action, Draft, Outcome,
        seal::{Sealer, seal},
    },
    logs::Logs,
    secret::{Origin, Secret},
};
use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

const TOOL: &str = "audit-tail";

/// A folder in which milestones were emitted and queued, in several files.
fn worked() -> Scratch {
    let scratch = Scratch::new();
    for round in 0..4 {
        let events: Vec<String> =
            (0..10).map(|it| milestone(&format!("m{round}-{it}")).to_string()).collect();
        let rotate = ["-q", "--rotate-bytes", "3000"];
        scratch.feed("milestone-emit", &rotate, events.join("\n").as_bytes()).exits(0);
        scratch.run("milestone-queue", &rotate).exits(0);
    }
    // One that is audited without a record.
    scratch.feed("milestone-emit", &["-q"], b"nope\n").exits(65);
    scratch
}

fn logs(scratch: &Scratch) -> Logs {
    Logs::open(Some(&scratch.log("")), "test").unwrap()
}

fn text_of(scratch: &Scratch) -> String {
    scratch.records("audit").len().to_string();
    let mut files: Vec<_> = fs::read_dir(scratch.log(""))
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| it.file_name().unwrap().to_str().unwrap().starts_with("audit."))
        .collect();
    files.sort_by_key(|it| (it.file_name().unwrap() == "audit.jsonl", it.clone()));
    files.iter().map(|it| fs::read_to_string(it).unwrap()).collect()
}

#[test]
fn records_are_shown_as_they_lie_there_over_all_files() {
    let scratch = worked();
    let run = scratch.run(TOOL, &[]).exits(0);
    assert_eq!(run.stdout, text_of(&scratch));
    assert_eq!(run.stderr, "");
    assert!(fs::read_dir(scratch.log("")).unwrap().count() > 8, "there are several files");
    let all: Vec<&str> = run.stdout.lines().collect();
    for lines in [0, 1, 7, 45, 1000] {
        let last = scratch.run(TOOL, &["-n", &lines.to_string()]).exits(0);
        let shown: Vec<&str> = last.stdout.lines().collect();
        assert_eq!(shown, all[all.len() - lines.min(all.len())..], "{lines}");
    }
    scratch.run(TOOL, &["--logs", "nowhere"]).exits(66);
    assert_eq!(Scratch::new().run(TOOL, &[]).exits(0).stdout, "");
}

#[test]
fn filters_hold_together_on_every_field() {
    let scratch = worked();
    let records = scratch.records("audit");
    let shown = |args: &[&str]| scratch.run(TOOL, args).exits(0).results();
    let expected =
        |is: &dyn Fn(&Value) -> bool| -> Vec<Value> { records.iter().filter(|it| is(it)).cloned().collect() };
    assert_eq!(shown(&["--tool", "milestone-queue"]), expected(&|it| it["tool"] == "milestone-queue"));
    assert_eq!(shown(&["--action=emit"]), expected(&|it| it["action"] == "emit"));
    assert_eq!(shown(&["--outcome", "rejected"]), expected(&|it| it["outcome"] == "rejected"));
    assert_eq!(shown(&["--scope", "runtime"]), expected(&|it| it["scope"] == "runtime"));
    assert_eq!(shown(&["--id", "milestone:m2-3"]), expected(&|it| it["idempotency_key"] == "milestone:m2-3"));
    assert_eq!(shown(&["--id", "m2-3"]), expected(&|it| it["idempotency_key"] == "milestone:m2-3"));
    let trace = records[3]["trace_id"].as_str().unwrap();
    assert_eq!(shown(&["--trace", trace]), [records[3].clone()]);
    assert_eq!(shown(&["--trace", trace, "--outcome", "queued"]), Vec::<Value>::new());
    assert_eq!(shown(&["--action", "emit", "--outcome", "appended", "-n", "3"]), {
        let all = expected(&|it| it["action"] == "emit" && it["outcome"] == "appended");
        all[all.len() - 3..].to_vec()
    });
    let (first, last) =
        (records[0]["timestamp"].as_str().unwrap(), records[40]["timestamp"].as_str().unwrap());
    assert_eq!(shown(&["--since", last]), expected(&|it| it["timestamp"].as_str().unwrap() >= last));
    assert_eq!(shown(&["--until", last]), expected(&|it| it["timestamp"].as_str().unwrap() < last));
    assert_eq!(shown(&["--since", "2h"]).len(), records.len());
    assert_eq!(shown(&["--until", "2h"]).len(), 0);
    assert_eq!(shown(&["--since", &first[..10], "--until", &last[..10]]).len(), records.len());
    let run = scratch.run(TOOL, &["--action", "emitt"]).exits(64);
    assert!(run.stderr.contains("did you mean emit?"), "{}", run.stderr);
    for bad in [
        &["--since", "yesterday"][..],
        &["--local"],
        &["--json"],
        &["--verify", "--tool", "x"],
        &["--head", "-f"],
    ] {
        scratch.run(TOOL, bad).exits(64);
    }
}

#[test]
fn people_see_aligned_lines() {
    let scratch = worked();
    let run = scratch.run(TOOL, &["--pretty"]).exits(0);
    assert_eq!(run.stdout.lines().count(), scratch.records("audit").len());
    let columns: Vec<usize> = run.stdout.lines().map(|it| it.find("milestone-").unwrap()).collect();
    assert!(columns.iter().all(|it| *it == columns[0]));
    assert!(!run.stdout.contains('\u{1b}'), "no colour in a pipe");
    let mut command = scratch.command(TOOL);
    let local =
        Run::of(command.args(["--pretty", "--local", "-n1"]).env("TZ", "<+0530>-5:30").spawn().unwrap());
    assert!(local.exits(0).stdout.contains("+05:30  milestone-emit"));
}

#[test]
fn a_damaged_line_is_shown_and_passed() {
    let scratch = worked();
    let path = scratch.log("audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let bad = "\u{1}".repeat(lines[0].len());
    fs::write(&path, text.replacen(lines[0], &bad, 1)).unwrap();
    for args in [&[][..], &["--tool", "milestone-emit"]] {
        let run = scratch.run(TOOL, args).exits(0);
        assert!(run.stdout.lines().all(|it| serde_json::from_str::<Value>(it).is_ok()), "jq reads it all");
        assert!(run.stderr.contains("is no audit record, and is passed over"), "{}", run.stderr);
    }
    assert!(scratch.run(TOOL, &["--pretty"]).exits(0).stdout.contains("damaged: \\u{1}"));
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let scratch = worked();
    for follow in [&[][..], &["-f", "-n", "100"]] {
        let mut child = scratch.command(TOOL).args(follow).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut byte = [0];
        pipe.read_exact(&mut byte).unwrap();
        // What follows finds out although nothing more comes.
        drop(pipe);
        let mut words = String::new();
        child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        assert_eq!((child.wait().unwrap().code(), words.as_str()), (Some(0), ""));
    }
}

#[test]
fn following_misses_and_repeats_nothing_across_rotations() {
    let scratch = Scratch::new();
    // On a busy machine it may begin after they have.
    let mut child = scratch.command(TOOL).args(["-f", "-n", "200"]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let events: Vec<String> =
                (0..50).map(|it| milestone(&format!("m{writer}-{it}")).to_string()).collect();
            let mut command = scratch.command("milestone-emit");
            let mut writer =
                command.args(["-q", "--rotate-bytes", "2000"]).stdin(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut writer.stdin.take().unwrap(), events.join("\n").as_bytes())
                .unwrap();
            writer
        })
        .collect();
    for writer in writers {
        Run::of(writer).exits(0);
    }
    let seqs: Vec<u64> = lines
        .take(200)
        .map(|it| serde_json::from_str::<Value>(&it.unwrap()).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    let _ = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_whole_chain_is_verified_and_its_head_can_be_kept() {
    let scratch = worked();
    let run = scratch.run(TOOL, &["--verify"]).exits(0);
    let records = scratch.records("audit").len();
    assert!(run.stdout.contains(&format!("the audit holds: {records} records")), "{}", run.stdout);
    assert!(run.stdout.contains("compared milestones: 40 records"), "{}", run.stdout);
    assert!(run.stdout.contains("compared milestone-delivery-queue: 40 records"), "{}", run.stdout);
    assert_eq!(run.stderr, "");
    let head = scratch.run(TOOL, &["--head"]).exits(0).stdout;
    assert_eq!(head.trim().split_once(':').unwrap().0, records.to_string());
    scratch.feed("milestone-emit", &["-q"], milestone("more").to_string().as_bytes()).exits(0);
    scratch.run(TOOL, &["--verify", "--expect", head.trim()]).exits(0);
    let json = scratch.run(TOOL, &["--expect", head.trim(), "--json"]).exits(0).results();
    assert_eq!((&json[0]["ok"], &json[0]["records"]), (&json!(true), &json!(records + 1)));
    let wrong = format!("{}:{}", records, "0".repeat(64));
    let run = scratch.run(TOOL, &["--expect", &wrong]).exits(2);
    assert!(run.stderr.contains("has another hash than the expected one"), "{}", run.stderr);
    assert_eq!(scratch.run(TOOL, &["--verify", "-q"]).exits(0).stdout, "");
    scratch.run(TOOL, &["--verify", "--expect", "7"]).exits(64);
    let empty = Scratch::new();
    empty.run(TOOL, &["--head"]).exits(2);
    empty.run(TOOL, &["--verify"]).exits(0);
}

/// Does something to a folder in which all is well, and gives what a verification says.
fn after(change: impl FnOnce(&Scratch)) -> Run {
    let scratch = worked();
    change(&scratch);
    let run = scratch.run(TOOL, &["--verify"]).exits(2);
    let json = scratch.run(TOOL, &["--verify", "--json"]).exits(2).results();
    assert_eq!(json[0]["ok"], false);
    assert_eq!(json[0]["problems"][0]["place"].as_str().map(|it| run.stderr.contains(it)), Some(true));
    run
}

fn edit(scratch: &Scratch, file: &str, from: &str, to: &str) {
    let path = scratch.log(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

/// The sealed files of a journal, in order.
fn sealed(scratch: &Scratch, journal: &str) -> Vec<String> {
    let mut files: Vec<String> = fs::read_dir(scratch.log(""))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.starts_with(&format!("{journal}.0")))
        .collect();
    files.sort();
    files
}

#[test]
fn whatever_was_changed_is_named_by_file_and_line() {
    let changed = after(|it| {
        let file = &sealed(it, "audit")[2];
        let line = fs::read_to_string(it.log(file)).unwrap().lines().nth(1).unwrap().to_owned();
        edit(it, file, &line, &line.replacen("\"outcome\":\"appended\"", "\"outcome\":\"rejected\"", 1));
    });
    assert!(
        changed.stderr.contains(".jsonl:2: the chain is broken: the record hash is"),
        "{}",
        changed.stderr
    );
    assert_eq!(changed.stderr.lines().count(), 1, "one change is one break: {}", changed.stderr);

    let removed = after(|it| {
        let file = &sealed(it, "audit")[2];
        let line = fs::read_to_string(it.log(file)).unwrap().lines().nth(1).unwrap().to_owned();
        edit(it, file, &format!("{line}\n"), "");
    });
    assert!(
        removed.stderr.contains(".jsonl:2: the chain is broken: the record has seq"),
        "{}",
        removed.stderr
    );

    let spaced = after(|it| {
        let line = fs::read_to_string(it.log("audit.jsonl")).unwrap().lines().next().unwrap().to_owned();
        edit(it, "audit.jsonl", &line, &"x".repeat(line.len()));
    });
    assert!(
        spaced.stderr.contains("audit.jsonl:1: the chain is broken: the record is no JSON"),
        "{}",
        spaced.stderr
    );

    let first_gone = after(|it| fs::remove_file(it.log(&sealed(it, "audit")[0])).unwrap());
    assert!(first_gone.stderr.contains("the files before it are gone"), "{}", first_gone.stderr);

    let cut = after(|it| {
        let text = fs::read_to_string(it.log("audit.jsonl")).unwrap();
        fs::write(it.log("audit.jsonl"), &text[..=text[..text.len() - 1].rfind('\n').unwrap()]).unwrap();
    });
    assert!(cut.stderr.contains("truncated, replaced or rewritten"), "{}", cut.stderr);
}

#[test]
fn a_closed_file_that_became_shorter_stops_the_reading_and_is_named() {
    let scratch = worked();
    let file = &sealed(&scratch, "audit")[1];
    let bytes = fs::read(scratch.log(file)).unwrap();
    fs::write(scratch.log(file), &bytes[..bytes.len() - 100]).unwrap();
    for args in [&[][..], &["-n", "1000"], &["-f", "-n", "1000"]] {
        let run = scratch.run(TOOL, args).exits(65);
        let said = run.stderr.lines().last().unwrap();
        assert!(
            said.contains(&format!("{file}: the journal was truncated, replaced or rewritten")),
            "{said}"
        );
        assert!(said.ends_with("or bring the folder back from a backup"), "{said}");
    }
}

#[test]
fn a_journal_that_differs_from_the_audit_is_named() {
    let other = after(|it| edit(it, &sealed(it, "milestones")[0], "m0-1", "m9-1"));
    assert!(
        other.stderr.contains(".jsonl:2: is not the record that the audit's record 2 tells of"),
        "{}",
        other.stderr
    );

    let gone = after(|it| {
        let last = sealed(it, "milestone-delivery-queue").pop().unwrap();
        fs::remove_file(it.log(&last)).unwrap();
    });
    assert!(gone.stderr.contains("milestone-delivery-queue"), "{}", gone.stderr);

    let appended = after(|it| {
        // Behind everybody's back, with a mark that says it is all right.
        let text = fs::read_to_string(it.log("milestones.jsonl")).unwrap();
        fs::write(it.log("milestones.jsonl"), format!("{text}{}\n", milestone("forged"))).unwrap();
        forge_mark(it, "milestones");
    });
    assert!(appended.stderr.contains("the audit does not tell of this record"), "{}", appended.stderr);

    let cut = after(|it| {
        // With a mark to match.
        fs::write(it.log("milestones.jsonl"), "").unwrap();
        fs::write(it.log(".lock/milestones.lock"), "").unwrap();
    });
    assert!(cut.stderr.contains("a tail was cut off"), "{}", cut.stderr);
}

/// Says in a journal's mark that all of its active segment is on disk and audited.
fn forge_mark(scratch: &Scratch, journal: &str) {
    let path = scratch.log(&format!(".lock/{journal}.lock"));
    let raw = fs::read_to_string(&path).unwrap();
    let (body, _) = raw.split_once(",\"check\"").unwrap();
    let (before, rest) = body.split_once("\"length\":").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    let length = fs::metadata(scratch.log(&format!("{journal}.jsonl"))).unwrap().len();
    let body = format!("{before}\"length\":{length},{after}");
    let check = !body.bytes().fold(u32::MAX, |crc, it| {
        (0..8).fold(crc ^ u32::from(it), |crc, _| crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    });
    let line = format!("{body},\"check\":\"{check:08x}\"}}");
    let end = &raw[raw.trim_end_matches('\n').len()..];
    fs::write(path, format!("{line:<width$}{end}", width = raw.len() - end.len())).unwrap();
}

#[test]
fn a_changed_record_shows_by_its_fingerprint() {
    let one = after(|it| edit(it, &sealed(it, "milestones")[0], "\"claim\":\"", "\"claim\":\"X"));
    assert!(one.stderr.contains("was changed since the audit's record"), "{}", one.stderr);
    let of_many = after(|it| {
        edit(it, "milestone-delivery-queue.jsonl", "\"target\":\"", "\"target\":\"X");
    });
    assert!(of_many.stderr.contains("from here on was changed since"), "{}", of_many.stderr);
}

#[test]
fn what_a_power_cut_leaves_without_a_mark_waits_to_be_settled() {
    let scratch = worked();
    for journal in ["audit", "milestones", "milestone-delivery-queue"] {
        fs::write(scratch.log(&format!(".lock/{journal}.lock")), "").unwrap();
        let path = scratch.log(&format!("{journal}.jsonl"));
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"torn\":\0\0\0\0\n");
        fs::write(&path, text).unwrap();
    }
    scratch.run(TOOL, &["--verify"]).exits(0);
    scratch.run("milestone-status", &["--check"]).exits(0);
    // But no crash leaves a whole record in the wrong place.
    let path = scratch.log("audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap().to_owned();
    fs::write(&path, format!("{first}\n{text}")).unwrap();
    let run = scratch.run(TOOL, &["--verify"]).exits(2);
    assert!(run.stderr.contains("the chain is broken"), "{}", run.stderr);
}

#[test]
fn what_was_told_of_a_replaced_journal_is_void_once_it_was_accepted() {
    let scratch = worked();
    // As logrotate's copytruncate does it.
    fs::write(scratch.log("milestones.jsonl"), "").unwrap();
    scratch.run(TOOL, &["--verify"]).exits(2);
    scratch.run("milestone-queue", &["-q"]).exits(65);
    scratch.run("milestone-queue", &["-q", "--resync", "end"]).exits(0);
    scratch.feed("milestone-emit", &["-q"], milestone("next").to_string().as_bytes()).exits(0);
    scratch.run("milestone-queue", &["-q"]).exits(0);
    scratch.run("milestone-status", &["--check"]).exits(0);
    scratch.run(TOOL, &["--verify"]).exits(0);
}

#[test]
fn a_cut_tail_shows_by_a_head_that_was_kept() {
    let scratch = Scratch::new();
    let append = |it: u64| {
        audit::append(&logs(&scratch), &[Draft::new(Action::Hold, Outcome::Done, json!({ "n": it }))])
            .unwrap();
    };
    (0..5).for_each(append);
    let kept =
        (fs::read(scratch.log("audit.jsonl")).unwrap(), fs::read(scratch.log(".lock/audit.lock")).unwrap());
    append(5);
    let head = scratch.run(TOOL, &["--head"]).exits(0).stdout;
    // The chain alone cannot tell.
    fs::write(scratch.log("audit.jsonl"), kept.0).unwrap();
    fs::write(scratch.log(".lock/audit.lock"), kept.1).unwrap();
    scratch.run(TOOL, &["--verify"]).exits(0);
    let run = scratch.run(TOOL, &["--verify", "--expect", head.trim()]).exits(2);
    assert!(
        run.stderr.contains("the expected record 6 is not in the chain, which ends at 5: a tail was cut off"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_torn_end_is_its_writers_and_no_problem() {
    let scratch = worked();
    for journal in ["audit", "milestones"] {
        let path = scratch.log(&format!("{journal}.jsonl"));
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"action\":\"em");
        fs::write(&path, text).unwrap();
    }
    scratch.run(TOOL, &["--verify"]).exits(0);
    scratch.run("milestone-queue", &["-q"]).exits(0);
    scratch.feed("milestone-emit", &["-q"], milestone("next").to_string().as_bytes()).exits(0);
    let run = scratch.run(TOOL, &["--verify"]).exits(0);
    assert!(run.stdout.contains("compared milestones: 41 records"), "{}", run.stdout);
}

#[test]
fn a_live_journal_is_verified_without_false_alarms() {
    let scratch = Scratch::new();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let mut command = scratch.command("milestone-emit");
            let mut child =
                command.args(["-q", "--rotate-bytes", "20000"]).stdin(Stdio::piped()).spawn().unwrap();
            let mut pipe = child.stdin.take().unwrap();
            let feeder = std::thread::spawn(move || {
                for it in 0..150 {
                    let line = format!("{}\n", milestone(&format!("m{writer}-{it}")));
                    std::io::Write::write_all(&mut pipe, line.as_bytes()).unwrap();
                    std::thread::yield_now();
                }
            });
            (child, feeder)
        })
        .collect();
    for _ in 0..15 {
        scratch.run(TOOL, &["--verify"]).exits(0);
        scratch.run("milestone-queue", &["-q"]).exits(0);
    }
    for (child, feeder) in writers {
        feeder.join().unwrap();
        Run::of(child).exits(0);
    }
    let run = scratch.run(TOOL, &["--verify"]).exits(0);
    assert!(
        run.stdout.contains("the audit holds") && run.stdout.contains("milestones: 450 records"),
        "{}",
        run.stdout
    );
}

fn key(scratch: &Scratch, file: &str, text: &str) -> Sealer {
    let path = scratch.write(file, format!("{text}\n"));
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let key = Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("test".into())).unwrap();
    Sealer::new(&key).unwrap()
}

#[test]
fn seals_are_checked_and_a_change_of_the_key_is_a_record() {
    let scratch = Scratch::new();
    let logs = logs(&scratch);
    let append = || {
        audit::append(&logs, &[Draft::new(Action::Hold, Outcome::Done, json!({}))]).unwrap();
    };
    let (old, new) = (key(&scratch, "old", "correct horse"), key(&scratch, "new", "battery staple"));
    assert!(!seal(&logs, &old, None).unwrap(), "there is nothing to seal");
    append();
    append();
    assert!(seal(&logs, &old, None).unwrap());
    assert!(!seal(&logs, &old, None).unwrap(), "nothing was added since");
    append();
    let run = scratch.run(TOOL, &["--verify"]).exits(0);
    assert!(run.stdout.contains("sealed   up to 2, at "), "{}", run.stdout);
    assert!(run.stdout.contains("not checked, since no key was given"), "{}", run.stdout);
    let run = scratch.run(TOOL, &["--verify", "--key-file", "old"]).exits(0);
    assert!(run.stdout.contains("; the seal holds"), "{}", run.stdout);
    assert!(seal(&logs, &new, Some(&old)).unwrap());
    append();
    let last = scratch.records("audit")[4]["detail"].clone();
    assert_eq!((&last["key"], &last["previousKey"]), (&json!(new.name()), &json!(old.name())));
    let both = ["--verify", "--key-file", "new", "--previous-key-file", "old"];
    let json = scratch.run(TOOL, &[&both[..], &["--json"]].concat()).exits(0).results();
    assert_eq!((&json[0]["proven"]["seq"], &json[0]["keyChanges"]), (&json!(4), &json!(1)));
    scratch.run(TOOL, &["--verify", "--key-file", "old"]).exits(0);
    // The old key has vouched for the new one, and so for all that this one seals.
    assert!(seal(&logs, &new, Some(&old)).unwrap());
    let json = scratch.run(TOOL, &["--verify", "--key-file", "old", "--json"]).exits(0).results();
    assert_eq!((&json[0]["proven"]["seq"], &json[0]["sealed"]["seq"]), (&json!(2), &json!(6)));
    assert_eq!(scratch.run(TOOL, &["--verify", "--json", "-q"]).exits(0).stdout, "");

    // Somebody without the key writes the whole chain anew.
    let forged = Scratch::new();
    let details: Vec<Value> = scratch.records("audit").iter().map(|it| it["detail"].clone()).collect();
    for (at, detail) in details.into_iter().enumerate() {
        let action = if at == 2 || at == 4 { Action::Seal } else { Action::Release };
        let logs = Logs::open(Some(&forged.log("")), "test").unwrap();
        audit::append(&logs, &[Draft::new(action, Outcome::Done, detail)]).unwrap();
    }
    key(&forged, "old", "correct horse");
    forged.run(TOOL, &["--verify"]).exits(0);
    let run = forged.run(TOOL, &["--verify", "--key-file", "old"]).exits(2);
    assert!(run.stderr.contains("audit.jsonl:3: the seal is not of the key that it names"), "{}", run.stderr);
    for (records, name) in [(scratch.records("audit"), "own"), (forged.records("audit"), "forged")] {
        let text = serde_json::to_string(&records).unwrap();
        assert!(!text.contains("correct horse") && !text.contains("battery"), "{name}");
    }
}
