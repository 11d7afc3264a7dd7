//! reminder-scan as a process: tasks in; reminders, results, messages and exit code out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
};

use milepost_testing::{Run, Scratch};
use serde_json::{Value, json};

const TOOL: &str = "reminder-scan";

fn task(id: &str, scope: &str, due: &str) -> Value {
    json!({ "task_id": id, "scope": scope, "title": format!("{id} of {scope}"), "due_at": due })
}

fn emit(scratch: &Scratch, tasks: &[Value]) {
    let input: Vec<String> = tasks.iter().map(Value::to_string).collect();
    scratch.feed("task-emit", &["-q"], input.join("\n").as_bytes()).exits(0);
}

fn keys(scratch: &Scratch) -> Vec<String> {
    scratch.records("reminders").iter().map(|it| it["idempotency_key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_overdue_task_is_reminded_of_once_in_each_window() {
    let scratch = Scratch::new();
    emit(
        &scratch,
        &[task("pay", "chat:42", "2026-03-01T09:00:00Z"), task("call", "user:7", "2026-03-01T12:00Z")],
    );
    let scan = |now: &str| scratch.run(TOOL, &["--now", now]).exits(0);
    assert_eq!(
        scan("2026-03-01T09:30:00Z").stdout,
        "{\"status\":\"ok\",\"timeBucket\":\"2026-03-01T09:00Z\",\"reminded\":1,\"alreadyReminded\":0,\"rejected\":0,\
         \"nextDueUtc\":\"2026-03-01T12:00:00.000Z\"}\n"
    );
    assert_eq!(scan("2026-03-01T10:59:59+01:00").all("alreadyReminded"), [1]);
    assert_eq!(scan("2026-03-01T12:00:00Z").all("reminded"), [2]);
    assert_eq!(
        keys(&scratch),
        [
            "rem:chat:42:pay:2026-03-01T09:00Z",
            "rem:chat:42:pay:2026-03-01T12:00Z",
            "rem:user:7:call:2026-03-01T12:00Z"
        ]
    );
    let reminder = &scratch.records("reminders")[0];
    assert_eq!(
        reminder["payload"],
        json!({ "task_id": "pay", "scope": "chat:42", "title": "pay of chat:42",
            "due_at": "2026-03-01T09:00:00.000Z", "time_bucket": "2026-03-01T09:00Z" })
    );
    assert_eq!(
        (&reminder["event_type"], &reminder["source"]),
        (&json!("reminder.due"), &json!("reminder-scan"))
    );
    let audited: Vec<Value> =
        scratch.records("audit").into_iter().filter(|it| it["action"] == "remind").collect();
    assert_eq!(audited.len(), 3);
    assert_eq!(audited[0]["trace_id"], reminder["trace_id"]);
}

#[test]
fn window_and_lead_say_when() {
    let scratch = Scratch::new();
    emit(&scratch, &[task("pay", "chat:42", "2026-03-01T09:00:00Z")]);
    let scan = |args: &[&str]| scratch.run(TOOL, args).exits(0).all("reminded")[0].as_u64().unwrap();
    assert_eq!(scan(&["--now", "2026-03-01T07:59:59Z", "--lead=1h"]), 0);
    assert_eq!(scan(&["--now", "2026-03-01T08:00:00Z", "--lead=1h"]), 1);
    assert_eq!(scan(&["--now", "2026-03-01T09:01:00Z", "--window=1d"]), 1);
    assert_eq!(scan(&["--now", "2026-03-01T23:59:59Z", "--window", "1d"]), 0);
    for bad in ["90s", "0m", "1", "soon"] {
        let run = scratch.run(TOOL, &["--window", bad]).exits(64);
        assert!(run.stderr.contains("--window"), "{}", run.stderr);
    }
    scratch.run(TOOL, &["--now", "2026-03-01"]).exits(64);
    scratch.run(TOOL, &["--scope", "chat:42"]).exits(64);
    scratch.run(TOOL, &["--list", "--dry-run"]).exits(64);
    scratch.run(TOOL, &["--list", "--scope", "everybody"]).exits(64);
    scratch.run(TOOL, &["--logs", "nowhere"]).exits(66);
}

#[test]
fn looking_shows_and_writes_nothing() {
    let scratch = Scratch::new();
    let now = ["--now", "2026-03-01T10:00:00Z"];
    assert_eq!(
        scratch.run(TOOL, &[&now[..], &["--list"]].concat()).exits(0).stdout,
        "",
        "nothing there at all"
    );
    let tasks = [
        task("a", "chat:42", "2026-03-01T09:00:00Z"),
        task("b", "chat:42", "2026-03-02T09:00:00Z"),
        task("a", "user:7", "2026-03-01T08:00:00Z"),
    ];
    emit(&scratch, &tasks);
    let audit = scratch.records("audit").len();
    let rehearsal = scratch.run(TOOL, &[&now[..], &["--dry-run"]].concat()).exits(0);
    assert_eq!(rehearsal.all("status"), ["would-remind", "would-remind"]);
    assert_eq!(rehearsal.all("scope"), ["user:7", "chat:42"], "in the order of the due dates");
    assert_eq!(rehearsal.results()[1]["timeBucket"], "2026-03-01T10:00Z");
    let list = scratch.run(TOOL, &[&now[..], &["--list", "--scope", "chat:42"]].concat()).exits(0);
    assert_eq!(list.all("status"), ["due", "next"]);
    assert_eq!(list.all("taskId"), ["a", "b"]);
    assert_eq!(list.all("reminded"), [false, false]);
    assert!(!list.stdout.contains("user:7") && !list.stderr.contains("user:7"));
    assert!(scratch.records("reminders").is_empty());
    assert_eq!(scratch.records("audit").len(), audit);
    scratch.run(TOOL, &now).exits(0);
    let list = scratch.run(TOOL, &[&now[..], &["--list", "-n0"]].concat()).exits(0);
    assert_eq!(list.all("reminded"), [true, true]);
    assert_eq!(scratch.run(TOOL, &[&now[..], &["--dry-run"]].concat()).exits(0).stdout, "");
}

fn start(scratch: &Scratch) -> Child {
    scratch
        .command(TOOL)
        .args(["--now", "2026-03-01T10:00:00Z"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn many_scans_at_once_remind_once() {
    let scratch = Scratch::new();
    let tasks: Vec<Value> = (0..300)
        .map(|it| task(&format!("t{it}"), &format!("chat:{}", it % 5), "2026-03-01T09:00:00Z"))
        .collect();
    emit(&scratch, &tasks);
    let running: Vec<Child> = (0..12).map(|_| start(&scratch)).collect();
    let reminded: u64 =
        running.into_iter().map(|it| Run::of(it).exits(0).all("reminded")[0].as_u64().unwrap()).sum();
    assert_eq!(reminded, 300);
    let keys = keys(&scratch);
    assert_eq!(keys.len(), 300);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 300);
}

#[test]
fn kills_lose_and_double_nothing() {
    let scratch = Scratch::new();
    let tasks: Vec<Value> =
        (0..3000).map(|it| task(&format!("t{it}"), "user:7", "2026-03-01T09:00:00Z")).collect();
    emit(&scratch, &tasks);
    for round in 0..12 {
        let mut victims: Vec<Child> = (0..3).map(|_| start(&scratch)).collect();
        // Killed at no time in particular: after more and more turns of the scheduler.
        for _ in 0..round * 100 {
            std::thread::yield_now();
        }
        for victim in &mut victims {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
    }
    scratch.run(TOOL, &["--now", "2026-03-01T10:00:00Z"]).exits(0);
    let keys = keys(&scratch);
    assert_eq!(keys.len(), 3000);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 3000);
    let audited: Vec<String> = scratch
        .records("audit")
        .iter()
        .filter(|it| it["detail"]["journal"] == "reminders" && it["idempotency_key"].is_string())
        .map(|it| it["idempotency_key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(audited.len(), 3000);
    assert_eq!(audited.iter().collect::<BTreeSet<_>>().len(), 3000);
}

#[test]
fn a_damaged_task_is_told_of_once_and_stops_nothing() {
    let scratch = Scratch::new();
    emit(&scratch, &[task("a", "chat:1", "2026-03-01T09:00Z"), task("b", "chat:1", "2026-03-01T09:00Z")]);
    let text = std::fs::read_to_string(scratch.log("tasks.jsonl")).unwrap();
    scratch.write("logs/tasks.jsonl", text.replacen("chat:1", "team:1", 1));
    let run = scratch.run(TOOL, &["--now", "2026-03-01T10:00:00Z"]).exits(0);
    assert_eq!((run.all("reminded"), run.all("rejected")), (vec![json!(1)], vec![json!(1)]));
    assert!(
        run.stderr.contains("tasks.jsonl at offset 0: is no valid task: /scope: must be chat:…"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("a copy is in quarantine/tasks."), "{}", run.stderr);
    let again = scratch.run(TOOL, &["--now", "2026-03-01T10:00:00Z"]).exits(0);
    assert_eq!((again.all("rejected"), again.stderr.as_str()), (vec![json!(0)], ""));
}

#[test]
fn a_list_of_tasks_that_was_cut_stops_all_and_the_cure_is_one() {
    let scratch = Scratch::new();
    emit(&scratch, &[task("a", "chat:1", "2026-03-01T09:00Z"), task("b", "chat:1", "2026-03-01T09:00Z")]);
    let text = std::fs::read_to_string(scratch.log("tasks.jsonl")).unwrap();
    let (first, _) = text.split_once('\n').unwrap();
    scratch.write("logs/tasks.jsonl", format!("{first}\n"));
    let run = scratch.run(TOOL, &["--now", "2026-03-01T10:00:00Z"]).exits(65);
    assert!(
        run.stderr
            .ends_with("; restore the file, or move .lock/tasks.lock away to go on from what is left\n"),
        "{}",
        run.stderr
    );
    let help = scratch.run(TOOL, &["--help"]).exits(0).stdout;
    assert!(help.contains("\n  65  a journal was truncated, replaced or rewritten\n"), "{help}");
    std::fs::remove_file(scratch.log(".lock/tasks.lock")).unwrap();
    emit(&scratch, &[task("c", "chat:1", "2026-03-01T09:00Z")]);
    assert_eq!(scratch.run(TOOL, &["--now", "2026-03-01T10:00:00Z"]).exits(0).all("reminded"), [2]);
}
