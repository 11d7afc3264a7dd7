//! What an operator asks for beside the flow: `--redrive`, `--resend`, `--discard`.

use std::{collections::BTreeMap, fs, process::Child};

use milepost::{
    Timestamp, audit,
    audit::Outcome,
    clock,
    delivery::{Detail, Event},
    envelope::{DeadLetter, EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, Item, JournalName, Position, Reader},
    logs::Logs,
    queue, redrive,
};
use milepost_testing::{Run, Scratch, wait_until};
use serde_json::{Value, json};

use crate::bench::{QUEUE, TOOL, emit, ids, keys, outcomes};

fn logs(scratch: &Scratch) -> Logs {
    // The deliverer is played by the test, since this crate has only its own program.
    Logs::open(Some(&scratch.log("")), "milestone-deliver").unwrap()
}

/// The records of the queue as they stand there: offset, end, line.
fn lines(scratch: &Scratch) -> Vec<(u64, u64, Vec<u8>)> {
    let mut reader = Reader::open_at(&logs(scratch), &JournalName::internal(QUEUE), 0).unwrap();
    let mut lines = Vec::new();
    while let Some(Item::Line { offset, end, text }) = reader.next_item().unwrap() {
        lines.push((offset, end, text.to_vec()));
    }
    lines
}

/// All records of the queue from this number on are acknowledged at this time.
fn acknowledge(scratch: &Scratch, from: usize, at: Timestamp) {
    let events: Vec<_> = lines(scratch)[from..]
        .iter()
        .map(|(queue_offset, cursor, line)| {
            let record = EventEnvelope::from_line(line).unwrap();
            let detail = Detail {
                queue: QUEUE.into(),
                queue_offset: *queue_offset,
                cursor: *cursor,
                at,
                ..Detail::default()
            };
            let (key, detail) = (Some(record.idempotency_key), Box::new(detail));
            Event::Item { outcome: Outcome::Acknowledged, key, scope: None, detail }
        })
        .collect();
    let drafts: Vec<_> = events.iter().map(Event::draft).collect();
    audit::append(&logs(scratch), &drafts).unwrap();
}

/// Makes every queue record a dead letter, as a deliverer that died before its audit was written.
fn bury(scratch: &Scratch) {
    let mut batch = Batch::default();
    for (offset, _, line) in lines(scratch) {
        let record = EventEnvelope::from_line(&line).unwrap();
        let mut line = Vec::new();
        DeadLetter::new(record, "", "refused".into(), vec![], clock::now(), offset)
            .write_line(&mut line)
            .unwrap();
        batch.push(&line);
    }
    let name = JournalName::internal(QUEUE);
    redrive::dead_letters(&logs(scratch), &name, "").write().unwrap().append(&batch).unwrap();
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_utc(text).unwrap()
}

#[test]
fn dead_letters_are_put_back_each_once() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..4));
    scratch.run(TOOL, &[]).exits(0);
    bury(&scratch);
    assert_eq!(scratch.run(TOOL, &["--redrive", "milestone:m1"]).exits(0).all("queued"), [1]);
    assert_eq!(scratch.run(TOOL, &["--redrive", "m1"]).exits(0).all("queued"), [0]);
    let dead = fs::read_to_string(scratch.log("milestone-delivery-deadletter.jsonl")).unwrap();
    let letter: Value = serde_json::from_str(dead.lines().nth(2).unwrap()).unwrap();
    let pretty = serde_json::to_vec_pretty(&letter).unwrap();
    assert_eq!(scratch.feed(TOOL, &["--redrive", "-"], &pretty).exits(0).all("queued"), [1]);
    assert_eq!(scratch.run(TOOL, &["--redrive-all"]).exits(0).all("queued"), [2]);
    assert_eq!(scratch.run(TOOL, &["--redrive-all"]).exits(0).all("queued"), [0]);
    let records = scratch.records(QUEUE);
    assert_eq!(records.len(), 8);
    for again in &records[4..] {
        let first = records.iter().find(|it| it["idempotency_key"] == again["idempotency_key"]).unwrap();
        assert_eq!(again["timestamp"], first["timestamp"], "every attempt of a key has the same body");
        assert_eq!(again["payload"], first["payload"]);
        assert_eq!(again["endpoint"], "");
        assert_eq!(again["resume"], records[3]["resume"]);
    }
    assert_eq!(outcomes(&scratch, "redrive"), ["queued"; 4]);
    emit(&scratch, ids(4..5));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [1], "the source goes on where it was");
    let missing = scratch.run(TOOL, &["--redrive", "milestone:nobody"]).exits(2);
    assert!(missing.stderr.contains("milestone:nobody"), "{}", missing.stderr);
    scratch.feed(TOOL, &["--redrive", "-"], b"{\"a\":1}").exits(65);
}

#[test]
fn settled_events_are_sent_again_and_pending_ones_are_not() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    scratch.run(TOOL, &[]).exits(0);
    let run = scratch.run(TOOL, &["--resend", "m0"]).exits(0);
    assert_eq!((run.all("queued"), run.all("pending")), (vec![json!(0)], vec![json!(1)]));
    assert!(run.stderr.contains("\"milestone:m0\" is pending"), "{}", run.stderr);
    acknowledge(&scratch, 0, time("2026-03-01T10:30:00Z"));
    let end = fs::metadata(scratch.log("milestones.jsonl")).unwrap().len();
    let run = scratch.run(TOOL, &["--resend", "m0", "--resend=milestone:m2", "--resend", "nobody"]).exits(2);
    assert_eq!(
        run.stdout,
        format!("{{\"status\":\"failed\",\"queued\":2,\"rejected\":0,\"cursor\":{end},\"pending\":0}}\n"),
        "not all that was asked for"
    );
    assert!(run.stderr.contains("milestone-delivery-queue.jsonl has no event \"nobody\""), "{}", run.stderr);
    let lines = lines(&scratch);
    for (first, again) in [(0, 3), (2, 4)] {
        let text = |at: usize| String::from_utf8(lines[at].2.clone()).unwrap();
        let sent = |it: String| it.split(",\"resume\"").next().unwrap().to_owned();
        assert_eq!(sent(text(again)), sent(text(first)), "byte for byte");
        assert!(text(again).ends_with(",\"endpoint\":\"\"}"), "{}", text(again));
    }
    assert_eq!(scratch.run(TOOL, &["--resend", "m0"]).exits(0).all("pending"), [1]);
    assert_eq!(outcomes(&scratch, "resend"), ["queued", "queued"]);
    emit(&scratch, ids(3..4));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [1], "the source goes on where it was");
    let state = scratch.log("milestone-delivery-state.json");
    assert!(!state.exists(), "it is the deliverer's");
}

#[test]
fn a_span_of_time_is_sent_again() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..4));
    scratch.run(TOOL, &[]).exits(0);
    acknowledge(&scratch, 0, time("2026-03-01T10:30:00Z"));
    let span = |since: &str, until: &str| {
        let run = scratch.run(TOOL, &["--resend-all", "--since", since, "--until", until]).exits(0);
        (run.all("queued")[0].clone(), run.all("pending")[0].clone())
    };
    assert_eq!(span("2026-03-01T10:30:01Z", "2026-03-01T11:00Z"), (json!(0), json!(0)));
    assert_eq!(span("2026-03-01T10:00:00Z", "2026-03-01T10:30:00Z"), (json!(0), json!(0)));
    assert_eq!(span("2026-03-01T12:30:00+02:00", "2026-03-01T10:30:00.001Z"), (json!(4), json!(0)));
    assert_eq!(span("2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"), (json!(0), json!(4)));
    // As in audit-tail: a whole day, or how long ago.
    assert_eq!(span("2026-02-28", "2026-02-28"), (json!(0), json!(0)));
    assert_eq!(span("2026-03-01", "2026-03-01"), (json!(0), json!(4)));
    assert_eq!(span("30m", "1ms"), (json!(0), json!(0)));
}

#[test]
fn a_discarded_dead_letter_is_closed() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    scratch.run(TOOL, &[]).exits(0);
    bury(&scratch);
    let discard =
        |more: &[&str]| scratch.run(TOOL, &[&["--discard", "m1", "--reason", " a typo\n"], more].concat());
    let run = discard(&["--discard", "nobody"]).exits(2);
    assert_eq!((run.all("discarded"), run.all("queued")), (vec![json!(1)], vec![json!(0)]));
    assert!(run.stderr.contains("has no dead letter \"nobody\""), "{}", run.stderr);
    assert_eq!(discard(&[]).exits(0).all("discarded"), [0], "once");
    let audit = scratch.records("audit");
    let [record] = &audit.iter().filter(|it| it["action"] == "discard").collect::<Vec<_>>()[..] else {
        panic!("one record: {audit:?}")
    };
    assert_eq!((&record["outcome"], &record["detail"]["reason"]), (&json!("done"), &json!("a typo")));
    assert_eq!(record["tool"], "milestone-queue");
    let run = scratch.run(TOOL, &["--redrive", "m1"]).exits(2);
    assert!(run.stderr.contains("was discarded") && run.stderr.contains("--resend"), "{}", run.stderr);
    let run = scratch.run(TOOL, &["--redrive-all"]).exits(0);
    assert_eq!(run.all("queued"), [2]);
    assert!(run.stderr.contains("1 are discarded"), "{}", run.stderr);
    let run = scratch.run(TOOL, &["--discard", "m0", "--reason", "x"]).exits(2);
    assert!(run.stderr.contains("was put back"), "{}", run.stderr);
    assert_eq!(scratch.run(TOOL, &["--resend", "m1"]).exits(0).all("queued"), [1], "whoever insists");
}

#[test]
fn an_endpoint_has_dead_letters_and_settled_events_of_its_own() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..2));
    scratch.run(TOOL, &[]).exits(0);
    bury(&scratch);
    for args in [&["--redrive", "m0"][..], &["--discard", "m0", "--reason", "x"]] {
        let run = scratch.run(TOOL, &[args, &["--endpoint", "backup"]].concat()).exits(2);
        assert!(run.stderr.contains("milestone-delivery-deadletter.backup.jsonl"), "{}", run.stderr);
    }
    let resend = ["--resend", "m0", "--endpoint", "backup"];
    assert_eq!(scratch.run(TOOL, &resend).exits(0).all("pending"), [1]);
    assert_eq!(scratch.run(TOOL, &["--resend", "m0"]).exits(0).all("queued"), [1]);
    scratch.run(TOOL, &["--resend", "m0", "--endpoint", "../backup"]).exits(64);
    assert_eq!(keys(&scratch).len(), 3);
}

#[test]
fn the_verbs_work_beside_a_watching_instance() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    let watching = scratch.command(TOOL).arg("--watch").spawn().unwrap();
    wait_until(|| lines(&scratch).len() >= 3);
    acknowledge(&scratch, 0, clock::now());
    assert_eq!(scratch.run(TOOL, &["--resend", "m1"]).exits(0).all("queued"), [1]);
    emit(&scratch, ids(3..4));
    wait_until(|| lines(&scratch).len() >= 5);
    assert_eq!(keys(&scratch)[3..], ["milestone:m1", "milestone:m3"]);
    terminate(&watching);
    Run::of(watching).exits(0);
}

fn terminate(child: &Child) {
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

/// A queue of so many acknowledged events with claims of so many bytes, made at once.
fn long_queue(scratch: &Scratch, count: usize, claim: usize) {
    let mut batch = Batch::default();
    for number in 0..count {
        let payload =
            json!({ "milestoneId": format!("m{number}"), "scope": "s", "claim": "x".repeat(claim) });
        let (key, sent) = (format!("milestone:m{number}"), time("2026-03-01T09:00:00Z"));
        let mut record = EventEnvelope::new(MILESTONE_EMITTED, "t", "feed", key, &payload, sent).unwrap();
        record.resume = Some(Position { offset: 1 + number as u64, fingerprint: "ab".into() });
        let mut line = Vec::new();
        record.write_line(&mut line).unwrap();
        batch.push(&line);
    }
    let queue = queue::open(&logs(scratch), JournalName::internal(QUEUE));
    queue.write().unwrap().append(&batch).unwrap();
    acknowledge(scratch, 0, time("2026-03-01T10:00:00Z"));
}

fn counted(scratch: &Scratch) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for key in keys(scratch) {
        *counted.entry(key).or_default() += 1;
    }
    counted
}

#[test]
fn killed_in_the_middle_and_asked_for_again_each_is_sent_once_more() {
    // More than the 4 MiB of a batch.
    const COUNT: usize = 700;
    let scratch = Scratch::new();
    long_queue(&scratch, COUNT, 12_000);
    let span = ["--resend-all", "--since", "2026-03-01T09:59:00Z"];
    let file = scratch.log("milestone-delivery-queue.jsonl");
    let size = || fs::metadata(&file).unwrap().len();
    let before = size();
    for round in 0..6 {
        let mut child = scratch.command(TOOL).args(span).spawn().unwrap();
        let enough = before + before * round / 6;
        wait_until(|| size() > enough || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scratch.run(TOOL, &span).exits(0);
    let counted = counted(&scratch);
    assert_eq!(counted.len(), COUNT);
    assert!(counted.values().all(|it| *it == 2), "{counted:?}");
    let recovered = outcomes(&scratch, "settle").iter().filter(|it| *it == "recovered").count();
    assert_eq!(outcomes(&scratch, "resend").len() + recovered, COUNT, "each is audited once");
}

#[test]
fn asked_for_by_many_at_once_each_is_sent_once_more() {
    let scratch = Scratch::new();
    long_queue(&scratch, 50, 1);
    bury(&scratch);
    let span = &["--resend-all", "--since", "2026-03-01T09:59:00Z"][..];
    let discard = &["--discard", "m7", "--reason", "x"][..];
    let children: Vec<_> = [span, &["--redrive-all"], discard, span, discard, &["--redrive-all"]]
        .iter()
        .map(|args| scratch.command(TOOL).args(*args).spawn().unwrap())
        .collect();
    for child in children {
        let run = Run::of(child);
        assert!(run.code == 0 || run.code == 2, "{}", run.stderr);
    }
    let mut counted = counted(&scratch);
    let discarded = outcomes(&scratch, "discard").len();
    let seven = counted.remove("milestone:m7").unwrap();
    assert!(discarded <= 1 && seven <= 2, "{discarded} {seven}");
    assert!(counted.values().all(|it| *it == 2), "{counted:?}");
}

#[test]
fn what_contradicts_itself_or_says_too_little_is_a_usage_error() {
    let scratch = Scratch::new();
    for args in [
        &["--redrive", "a", "--watch"][..],
        &["--redrive-all", "--redrive", "a"],
        &["--redrive", "-", "--redrive", "a"],
        &["--endpoint", "b"],
        &["--resend", "a", "--redrive", "a"],
        &["--resend", "a", "--resend-all", "--since", "2026-03-01T10:00:00Z"],
        &["--resend", "a", "--from-now"],
        &["--resend", "a", "--since", "2026-03-01T10:00:00Z"],
        &["--resend-all"],
        &["--resend-all", "--until", "2026-03-01T10:00:00Z"],
        &["--resend-all", "--since", "yesterday"],
        &["--resend-all", "--since", "2026-03-01T10:00:00Z", "--until", "2026-03-01T10:00:00Z"],
        &["--discard", "a"],
        &["--discard", "a", "--reason", " \t"],
        &["--reason", "x"],
        &["--discard", "a", "--reason", "x", "--resync", "start"],
    ] {
        let run = scratch.run(TOOL, args).exits(64);
        assert_eq!(run.stdout, "", "{args:?}");
    }
    assert!(fs::read_dir(scratch.log("")).unwrap().next().is_none(), "nothing was done");
}

#[test]
fn nothing_to_do_creates_nothing_of_the_queue() {
    let scratch = Scratch::new();
    for args in [&["--resend", "a"][..], &["--redrive", "a"], &["--discard", "a", "--reason", "x"]] {
        // Its result is none of success, so that --quiet leaves it.
        for args in [args, &[args, &["-q"]].concat()] {
            assert_eq!(scratch.run(TOOL, args).exits(2).all("status"), ["failed"], "{args:?}");
        }
    }
    assert_eq!(scratch.run(TOOL, &["--redrive-all"]).exits(0).all("status"), ["ok"]);
    let since = ["--resend-all", "--since", "2026-03-01T10:00:00Z"];
    let run = scratch.run(TOOL, &since).exits(0);
    assert_eq!(run.results(), [json!({"status":"ok","queued":0,"rejected":0,"cursor":0,"pending":0})]);
    assert!(!scratch.log("milestone-delivery-queue.jsonl").exists());
}
