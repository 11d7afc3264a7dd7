//! The flow: journals in, queue out, once.
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Command,
};

use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

use crate::bench::{QUEUE, TOOL, append, emit, emit_rotating, ids, keys, outcomes};

#[test]
fn every_event_gets_one_envelope_however_often_it_runs() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    let end = fs::metadata(scratch.log("milestones.jsonl")).unwrap().len();
    let run = scratch.run(TOOL, &[]).exits(0);
    assert_eq!(run.stdout, format!("{{\"status\":\"ok\",\"queued\":3,\"rejected\":0,\"cursor\":{end}}}\n"));
    for _ in 0..3 {
        assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [0]);
    }
    let records = scratch.records(QUEUE);
    assert_eq!(records.len(), 3);
    let first = &records[0];
    assert_eq!(first["event_type"], "milestone.emitted");
    assert_eq!(first["schema_version"], "1.0.0");
    assert_eq!(first["idempotency_key"], "milestone:m0");
    assert_eq!(first["payload"], milestone("m0"));
    assert_eq!(records[2]["resume"]["offset"], end);
    assert_eq!(outcomes(&scratch, "enqueue"), ["queued"], "one audit record a batch, none for idle runs");
    emit(&scratch, ids(3..5));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [2]);
}

#[test]
fn a_damaged_line_is_kept_told_of_once_and_passed_over() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    let path = scratch.log("milestones.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    let line = bytes.len() / 3;
    bytes[line + 20] = 0;
    let damaged = bytes[line..2 * line].to_vec();
    fs::write(&path, bytes).unwrap();
    let run = scratch.run(TOOL, &[]).exits(0);
    assert_eq!((run.all("queued"), run.all("rejected")), (vec![json!(2)], vec![json!(1)]));
    assert!(run.stderr.contains(&format!("milestones.jsonl at offset {line}")), "{}", run.stderr);
    let kept: Vec<_> =
        fs::read_dir(scratch.log("quarantine")).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(fs::read(&kept[0]).unwrap(), damaged[..damaged.len() - 1]);
    let again = scratch.run(TOOL, &[]).exits(0);
    assert_eq!((again.all("rejected"), again.stderr.as_str()), (vec![json!(0)], ""));
}

#[test]
fn a_damaged_last_line_is_told_of_once() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..1));
    let path = scratch.log("milestones.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5] = b'"';
    fs::write(&path, bytes).unwrap();
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("rejected"), [1]);
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("rejected"), [0]);
    emit(&scratch, ids(1..2));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [1]);
    fs::remove_dir_all(scratch.log(".index")).unwrap();
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [0], "what remembers it is disposable");
}

#[test]
fn an_id_that_is_there_twice_is_enqueued_once_and_audited() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..1));
    scratch.run(TOOL, &[]).exits(0);
    let line = fs::read(scratch.log("milestones.jsonl")).unwrap();
    append(&scratch, "milestones.jsonl", &line);
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [0]);
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [0]);
    assert_eq!(keys(&scratch), ["milestone:m0"]);
    assert_eq!(outcomes(&scratch, "enqueue"), ["queued", "duplicate"]);
}

#[test]
fn a_torn_tail_of_the_source_is_settled_first() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..2));
    append(&scratch, "milestones.jsonl", format!("{}\n{{\"milestoneId\":\"to", milestone("kept")).as_bytes());
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [3]);
    assert_eq!(keys(&scratch), ["milestone:m0", "milestone:m1", "milestone:kept"]);
    assert_eq!(outcomes(&scratch, "settle"), ["recovered", "quarantined"]);
}

#[test]
fn audit_and_tasks_are_no_sources() {
    let scratch = Scratch::new();
    scratch.write("logs/tasks.jsonl", "{}\n");
    for file in ["audit.jsonl", "tasks.jsonl"] {
        let run = scratch.run(TOOL, &["--source", file, "--queue", "x-queue.jsonl"]).exits(64);
        assert!(run.stderr.contains("is no source"), "{}", run.stderr);
    }
    assert_eq!(fs::read_to_string(scratch.log("tasks.jsonl")).unwrap(), "{}\n");
}

#[test]
fn a_truncated_source_stops_it_until_it_is_told_where_to_go_on() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    scratch.run(TOOL, &[]).exits(0);
    fs::write(scratch.log("milestones.jsonl"), "").unwrap();
    let run = scratch.run(TOOL, &[]).exits(65);
    assert!(run.stderr.contains("copytruncate") && run.stderr.contains("--resync"), "{}", run.stderr);
    assert_eq!(run.stderr, scratch.run(TOOL, &[]).exits(65).stderr);
    scratch.run(TOOL, &["--resync", "start"]).exits(0);
    emit(&scratch, ids(3..5));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [2]);
    // One says that the journal was taken as it was found, one where the queue goes on.
    assert_eq!(outcomes(&scratch, "resync"), ["done", "done"]);
}

#[test]
fn a_resync_goes_on_where_it_says_also_the_second_time() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    scratch.run(TOOL, &[]).exits(0);
    // All of it is in the queue, so this pass leaves no record but remembers how far it came.
    scratch.run(TOOL, &["--resync", "start"]).exits(0);
    fs::write(scratch.log("milestones.jsonl"), b"").unwrap();
    scratch.run(TOOL, &[]).exits(65);
    scratch.run(TOOL, &["--resync", "start"]).exits(0);
    emit(&scratch, ids(3..4));
    assert_eq!(scratch.run(TOOL, &[]).exits(0).all("queued"), [1]);
}

#[test]
fn a_rewritten_source_is_noticed_by_its_content() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..2));
    scratch.run(TOOL, &[]).exits(0);
    let path = scratch.log("milestones.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace("\"m1\"", "\"n1\"");
    fs::write(&path, text).unwrap();
    let run = scratch.run(TOOL, &[]).exits(65);
    assert!(run.stderr.contains("another one"), "{}", run.stderr);
    assert_eq!(
        scratch.run(TOOL, &["--resync=start"]).exits(0).all("queued"),
        [1],
        "what is there stays there once"
    );
}

#[test]
fn resync_takes_only_the_start_of_a_line() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    let line = fs::metadata(scratch.log("milestones.jsonl")).unwrap().len() / 3;
    let run = scratch.run(TOOL, &["--resync", "17"]).exits(64);
    assert!(run.stderr.contains("17"), "{}", run.stderr);
    scratch.run(TOOL, &["--resync", "99999"]).exits(64);
    scratch.run(TOOL, &["--resync", "nowhere"]).exits(64);
    assert_eq!(scratch.run(TOOL, &["--resync", &(2 * line).to_string()]).exits(0).all("queued"), [1]);
    assert_eq!(keys(&scratch), ["milestone:m2"]);
    assert_eq!(scratch.run(TOOL, &["--resync", "start"]).exits(0).all("queued"), [2]);
}

#[test]
fn from_now_begins_at_the_end_once() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..3));
    assert_eq!(scratch.run(TOOL, &["--from-now"]).exits(0).all("queued"), [0]);
    emit(&scratch, ids(3..5));
    assert_eq!(scratch.run(TOOL, &["--from-now"]).exits(0).all("queued"), [2]);
    assert_eq!(keys(&scratch), ["milestone:m3", "milestone:m4"]);
}

#[test]
fn the_queue_follows_its_source_through_rotations() {
    let scratch = Scratch::new();
    let rotate = ("MILESTONE_ROTATE_BYTES", "2KiB");
    for number in 0..60 {
        emit_rotating(&scratch, number);
        if number % 7 == 0 {
            Run::of(scratch.command(TOOL).env(rotate.0, rotate.1).spawn().unwrap()).exits(0);
        }
    }
    Run::of(scratch.command(TOOL).env(rotate.0, rotate.1).spawn().unwrap()).exits(0);
    assert_eq!(keys(&scratch), (0..60).map(|it| format!("milestone:m{it}")).collect::<Vec<_>>());
}

#[test]
fn a_second_instance_says_so_and_leaves() {
    let scratch = Scratch::new();
    emit(&scratch, ids(0..1));
    let mut first = scratch.command(TOOL).arg("--watch").spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(first.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["queued"], 1);
    let second = scratch.run(TOOL, &[]).exits(0);
    assert!(second.stderr.contains("another milestone-queue"), "{}", second.stderr);
    emit(&scratch, ids(1..2));
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["queued"], 1, "the watcher was woken");
    let kill = Command::new("kill").arg(first.id().to_string()).status().unwrap();
    assert!(kill.success() && first.wait().unwrap().success());
}

#[test]
fn many_at_once_enqueue_each_event_once() {
    let scratch = Scratch::new();
    for round in 0..5 {
        emit(&scratch, ids(round * 20..round * 20 + 20));
        let children: Vec<_> = (0..6).map(|_| scratch.command(TOOL).spawn().unwrap()).collect();
        for child in children {
            Run::of(child).exits(0);
        }
    }
    assert_eq!(keys(&scratch), (0..100).map(|it| format!("milestone:m{it}")).collect::<Vec<_>>());
}

#[test]
fn names_and_options_are_checked() {
    let scratch = Scratch::new();
    for args in [
        &["--queue", "queue.jsonl"][..],
        &["--queue", "../x-queue.jsonl"],
        &["--source", "a/b.jsonl"],
        &["--source", "milestones.00000000000000000000.jsonl"],
        &["--qeue", "x"],
        &["extra"],
    ] {
        scratch.run(TOOL, args).exits(64);
    }
    scratch.run(TOOL, &["--logs", "elsewhere"]).exits(66);
}
