//! task-emit as a process: input in; results, messages, exit code and journals out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;

use milepost_testing::Scratch;
use serde_json::{Value, json};

const TOOL: &str = "task-emit";
const FLAGS: [&str; 8] =
    ["--task", "pay", "--scope", "chat:42", "--title", "Pay.", "--due", "2026-03-01T12:00:00+02:00"];

fn outcomes(scratch: &Scratch) -> Vec<String> {
    scratch.records("audit").iter().map(|it| it["outcome"].as_str().unwrap().to_owned()).collect()
}

fn with(flags: &[&'static str]) -> Vec<&'static str> {
    [&FLAGS[..], flags].concat()
}

#[test]
fn flags_make_one_task_in_the_prescribed_order() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &FLAGS).exits(0);
    // printf %s task:chat:42:pay | sha256sum | cut -c1-32
    assert_eq!(
        run.stdout,
        "{\"status\":\"appended\",\"taskId\":\"pay\",\"scope\":\"chat:42\",\"offset\":0,\
         \"traceId\":\"d2f0330fde93569c5cff8cf775653c0b\"}\n"
    );
    let line = fs::read_to_string(scratch.log("tasks.jsonl")).unwrap();
    assert!(
        line.starts_with(
            "{\"task_id\":\"pay\",\"scope\":\"chat:42\",\"title\":\"Pay.\",\"due_at\":\"2026-03-01T10:00:00.000Z\",\
             \"status\":\"open\",\"updated_at\":\"2"
        ),
        "{line}"
    );
    let audit = &scratch.records("audit")[0];
    assert_eq!((&audit["action"], &audit["scope"]), (&json!("task"), &json!("chat:42")));
    assert_eq!((&audit["detail"]["journal"], &audit["detail"]["offset"]), (&json!("tasks"), &json!(0)));
}

#[test]
fn the_same_again_is_a_duplicate_and_another_content_the_next_state() {
    let scratch = Scratch::new();
    scratch.run(TOOL, &FLAGS).exits(0);
    assert_eq!(scratch.run(TOOL, &FLAGS).exits(0).all("status"), ["duplicate"]);
    assert_eq!(scratch.run(TOOL, &with(&["--status", "done"])).exits(0).all("status"), ["appended"]);
    assert_eq!(scratch.run(TOOL, &with(&["--status", "done"])).exits(0).all("status"), ["duplicate"]);
    assert_eq!(scratch.run(TOOL, &FLAGS).exits(0).all("status"), ["appended"], "it is open again");
    assert_eq!(scratch.records("tasks").len(), 3);
    assert_eq!(outcomes(&scratch), ["appended", "duplicate", "appended", "duplicate", "appended"]);
    assert_eq!(scratch.run(TOOL, &with(&["-q"])).exits(0).stdout, "");
}

#[test]
fn one_id_in_two_scopes_is_two_tasks_and_every_spelling_of_a_uuid_one() {
    let scratch = Scratch::new();
    let task = |id: &str, scope: &str| {
        json!({ "task_id": id, "scope": scope, "title": "t", "due_at": "2026-03-01T12:00:00Z" }).to_string()
    };
    let input = [
        task("0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b", "chat:1"),
        task("0192F0C17B7E7D3F9A510D7A5C1F2E3B", "chat:1"),
        task("{0192F0C1-7B7E-7D3F-9A51-0D7A5C1F2E3B}", "user:1"),
        task("urn:uuid:0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b", "user:1"),
    ];
    let run = scratch.feed(TOOL, &[], input.join("\n").as_bytes()).exits(0);
    assert_eq!(run.all("status"), ["appended", "duplicate", "appended", "duplicate"]);
    assert!(run.all("taskId").iter().all(|it| it == "0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b"));
    assert_eq!(scratch.records("tasks").len(), 2);
}

#[test]
fn one_bad_line_is_named_and_stops_nothing_else() {
    let scratch = Scratch::new();
    let good = |id: &str| json!({ "task_id": id, "scope": "user:7", "title": "t", "due_at": "2026-03-01T12:00Z", "status": "open" });
    let mut bad = good("b");
    bad["scope"] = json!("team:7");
    bad["due"] = bad["due_at"].take();
    let input = format!("{}\n{bad}\nnope\n\n{}\n", good("a"), good("c"));
    let run = scratch.feed(TOOL, &["-"], input.as_bytes()).exits(65);
    assert_eq!(run.all("status"), ["appended", "rejected", "rejected", "appended"]);
    assert_eq!(run.results()[1]["input"], "stdin:2");
    assert!(
        run.stderr.contains("stdin:2: /due: unknown field \"due\"; did you mean \"due_at\"?"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("/scope: must be chat:… or user:…, not \"team:7\""), "{}", run.stderr);
    assert_eq!(outcomes(&scratch), ["appended", "rejected", "rejected", "appended"]);
}

#[test]
fn what_is_missing_is_told_and_nothing_is_written_without_a_folder_or_for_a_rehearsal() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &["--task", "a"]).exits(65);
    for field in ["--due: is missing", "--scope: is missing", "--title: is missing"] {
        assert!(run.stderr.contains(field), "{}", run.stderr);
    }
    let scratch = Scratch::new();
    let rehearsal = scratch.run(TOOL, &with(&["--dry-run"])).exits(0);
    assert_eq!(rehearsal.all("status"), ["valid"]);
    assert!(!scratch.log("tasks.jsonl").exists());
    scratch.run(TOOL, &with(&["--logs", "nowhere"])).exits(66);
    scratch.run(TOOL, &with(&["file"])).exits(64);
    let closed: Vec<Value> = scratch.feed(TOOL, &[], b"").exits(0).results();
    assert!(closed.is_empty());
}

#[test]
fn a_task_may_change_any_number_of_times() {
    let scratch = Scratch::new();
    let line = |it: u32| {
        json!({ "task_id": "a", "scope": "chat:1", "title": format!("t{it}"), "due_at": "2026-03-01T12:00Z" })
            .to_string()
    };
    for round in 0..3 {
        let input: Vec<String> = (0..2000).map(|it| line(round * 2000 + it)).collect();
        scratch.feed(TOOL, &["-q"], input.join("\n").as_bytes()).exits(0);
    }
    assert_eq!(scratch.records("tasks").len(), 6000);
    assert_eq!(scratch.feed(TOOL, &[], line(5999).as_bytes()).exits(0).all("status"), ["duplicate"]);
    assert_eq!(scratch.feed(TOOL, &[], line(0).as_bytes()).exits(0).all("status"), ["appended"]);
}
