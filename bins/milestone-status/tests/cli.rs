//! milestone-status as a process: folders in, an answer and its exit code out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use milepost::{
    clock,
    delivery::{LaneName, LastAck, Retry, State, breaker::Cause},
    emit::{self, Emitter, Offer},
    enqueue::Enqueuer,
    event::{Defaults, MilestoneEvent},
    journal::JournalName,
    logs::Logs,
    queue,
};
use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

const TOOL: &str = "milestone-status";
const STATE: &str = "milestone-delivery-state.json";

fn emit(scratch: &Scratch, id: &str, at: &str) {
    let mut document = milestone(id);
    document["timestampUtc"] = json!(at);
    let (event, left_out) = MilestoneEvent::from_value(document, &Defaults::JSON).unwrap();
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    Emitter::new(&logs).commit(&[Offer::Event { place: id.into(), event, left_out }]).unwrap();
}

fn enqueue(scratch: &Scratch) {
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    let name = JournalName::from_queue_file(queue::MILESTONE_QUEUE).unwrap();
    let queue = queue::open(&logs, name);
    Enqueuer::new(emit::milestones(&logs), queue).pass(&mut |it| panic!("{it}"), &|| false).unwrap();
}

fn bytes(scratch: &Scratch, file: &str) -> u64 {
    fs::metadata(scratch.log(file)).unwrap().len()
}

/// The state that a delivery left behind.
fn deliver(scratch: &Scratch, change: impl FnOnce(&mut State)) {
    let mut state = State::new("");
    state.url = Some("http://127.0.0.1:1/internal/milestones/ingest".into());
    change(&mut state);
    fs::write(scratch.log(STATE), serde_json::to_vec(&state).unwrap()).unwrap();
}

fn answer(scratch: &Scratch, code: i32) -> Value {
    scratch.run(TOOL, &["--json"]).exits(code).results().remove(0)
}

fn problems(answer: &Value) -> Vec<String> {
    answer["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["message"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn init_makes_the_folder_and_leaves_one_that_is_there() {
    let scratch = Scratch::new();
    let run = |args: &[&str]| -> Run { scratch.run(TOOL, args) };
    let made = run(&["--init", "--logs", "new"]).exits(0);
    assert_eq!((made.stdout.as_str(), made.stderr.as_str()), ("{\"status\":\"ok\",\"logs\":\"new\"}\n", ""));
    let permissions = || fs::metadata(scratch.dir().join("new")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(permissions(), 0o2770, "whatever the umask");
    fs::write(scratch.dir().join("new/kept"), "").unwrap();
    assert_eq!(run(&["--init", "--logs", "new"]).exits(0).stdout, made.stdout);
    assert!(scratch.dir().join("new/kept").exists());

    let absent = run(&["--init", "--logs", "no/such"]).exits(73);
    assert_eq!(
        absent.stderr,
        "milestone-status: no/such: cannot create the logs folder: the folder that it would be in is not there; \
         create that one first, or name another\n"
    );
    scratch.write("file", "");
    let blocked = run(&["--init", "--logs", "file"]).exits(66);
    assert!(blocked.stderr.starts_with("milestone-status: file: is no folder"), "{}", blocked.stderr);
}

#[test]
fn without_a_logs_folder_nothing_is_known() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &["--logs", "elsewhere"]).exits(3);
    assert_eq!(run.stdout, "");
    assert_eq!(
        run.stderr,
        "milestone-status: elsewhere: there is no such logs folder; name the folder with --logs or \
         $MILESTONE_LOGS, or create it with milestone-status --init\n"
    );
    let json = scratch.run(TOOL, &["--logs", "elsewhere", "--json"]).exits(3).results();
    assert_eq!((&json[0]["status"], &json[0]["logs"]), (&json!("unknown"), &json!("elsewhere")));
    let problem = &json[0]["problems"][0];
    assert_eq!(problem["level"], "unknown");
    assert!(problem["message"].as_str().unwrap().starts_with("elsewhere: there is no such logs folder"));
    scratch.run(TOOL, &["--lgos", "x"]).exits(64);
}

#[test]
fn an_empty_folder_is_healthy_and_stays_empty() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run(TOOL, &[]).exits(0).stdout, "healthy: logs\n");
    let nothing =
        json!({ "status": "healthy", "logs": "logs", "journals": [], "queues": [], "problems": [] });
    assert_eq!(answer(&scratch, 0), nothing);
    assert_eq!(fs::read_dir(scratch.log("")).unwrap().count(), 0);
}

#[test]
fn what_waits_is_counted_in_bytes_from_step_to_step() {
    let scratch = Scratch::new();
    let now = clock::now().to_string();
    emit(&scratch, "a", &now);
    let emitted = bytes(&scratch, "milestones.jsonl");
    let before = answer(&scratch, 0);
    let written = &scratch.records("audit")[0]["timestamp"];
    assert_eq!(
        before["journals"][0],
        json!({ "journal": "milestones.jsonl", "bytes": emitted, "lastRecordUtc": written })
    );
    let queue = &before["queues"][0];
    assert_eq!((&queue["source"], &queue["behindBytes"]), (&json!("milestones.jsonl"), &json!(emitted)));
    assert_eq!(&queue["oldestWaitingUtc"], written);

    enqueue(&scratch);
    let queued = bytes(&scratch, queue::MILESTONE_QUEUE);
    let after = answer(&scratch, 0);
    let queue = &after["queues"][0];
    assert_eq!((&queue["behindBytes"], &queue["oldestWaitingUtc"]), (&json!(0), &Value::Null));
    let endpoint = &queue["endpoints"][0];
    assert_eq!((&endpoint["behindBytes"], &endpoint["lastAckUtc"]), (&json!(queued), &Value::Null));
    let names: Vec<&Value> = after["journals"].as_array().unwrap().iter().map(|it| &it["journal"]).collect();
    assert_eq!(
        names,
        ["milestones.jsonl", queue::MILESTONE_QUEUE, "audit.jsonl"],
        "in the order of the flow"
    );
}

#[test]
fn what_waits_for_long_is_a_warning() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2020-01-01T00:00:00.000Z");
    assert_eq!(scratch.run(TOOL, &["--quiet"]).exits(0).stdout, "", "it waits since it was reported");
    let audit = fs::read_to_string(scratch.log("audit.jsonl")).unwrap();
    let reported = scratch.records("audit")[0]["timestamp"].as_str().unwrap().to_owned();
    fs::write(scratch.log("audit.jsonl"), audit.replace(&reported, "2026-03-01T09:05:00.000Z")).unwrap();
    let run = scratch.run(TOOL, &["--quiet"]).exits(1);
    assert!(run.stdout.starts_with("warning: logs\n"), "{}", run.stdout);
    assert!(
        run.stdout.ends_with(
            "\nwarning: milestones.jsonl: a record waits since 2026-03-01T09:05:00.000Z for \
             milestone-delivery-queue.jsonl; run milestone-queue\n"
        ),
        "{}",
        run.stdout
    );
    enqueue(&scratch);
    assert_eq!(scratch.run(TOOL, &["--quiet"]).exits(0).stdout, "", "it is in the queue since now");
}

#[test]
fn the_breaker_decides_between_warning_and_critical() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2026-03-01T09:05:00.000Z");
    enqueue(&scratch);
    let answered = |cause: Option<Cause>, reason: &str, code: i32| {
        deliver(&scratch, |state| match cause {
            Some(Cause::Operator | Cause::Gone) => state.breaker.hold(cause.unwrap(), reason, clock::now()),
            Some(cause) => state.breaker.open(cause, reason, clock::now(), Duration::ZERO),
            None => {}
        });
        problems(&answer(&scratch, code))
    };
    assert!(answered(None, "", 0).is_empty());
    let silent = answered(Some(Cause::Endpoint), "timeout", 1);
    assert!(silent[0].contains("timeout"), "{silent:?}");
    let held = answered(Some(Cause::Operator), "moving house", 1);
    assert!(held[0].contains("moving house") && held[0].contains("--release"), "{held:?}");
    answered(Some(Cause::Gone), "410", 2);
    answered(Some(Cause::Items), "ten in a row", 2);
    let wrong = answered(Some(Cause::Configuration), "401\u{1b}[2J", 2);
    assert!(wrong[0].starts_with("http://127.0.0.1:1/"), "{wrong:?}");
    let text = scratch.run(TOOL, &[]).exits(2).stdout;
    assert!(text.contains("\ncritical: http://127.0.0.1:1/") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn retries_that_wait_are_counted_and_the_oldest_is_named() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2026-03-01T09:05:00.000Z");
    enqueue(&scratch);
    let end = bytes(&scratch, queue::MILESTONE_QUEUE);
    let line = fs::read(scratch.log(queue::MILESTONE_QUEUE)).unwrap();
    let retry = Retry {
        key: "milestone:a".into(),
        attempts: 0,
        tries: 2,
        first: clock::now(),
        acks_at_first: 0,
        due: clock::now(),
        delay: Duration::from_secs(5),
        reason: "timeout".into(),
        is_own: false,
        history: Vec::new(),
    };
    deliver(&scratch, |state| {
        state.cursor.offset = end;
        state.cursor.fingerprint = milepost::journal::fingerprint(line.trim_ascii_end());
        state.retries.block(LaneName::Scope("runtime".into()), 0, retry);
        state.last_ack = Some(LastAck {
            idempotency_key: "milestone:z".into(),
            at_utc: clock::now(),
            count: 1,
            receipt: None,
        });
    });
    let endpoint = answer(&scratch, 0)["queues"][0]["endpoints"][0].clone();
    let queued_at = scratch.records("milestone-delivery-queue")[0]["timestamp"].clone();
    assert_eq!((&endpoint["retries"], &endpoint["oldestWaitingUtc"]), (&json!(1), &queued_at));
}

#[test]
fn damage_is_critical_and_hides_nothing_else() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2026-03-01T09:05:00.000Z");
    enqueue(&scratch);
    let path = scratch.log("milestones.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = answer(&scratch, 2);
    assert!(problems(&cut).iter().any(|it| it.contains("logs/milestones.jsonl")), "{cut}");
    assert_eq!(cut["journals"].as_array().unwrap().len(), 2, "the other two");

    fs::write(&path, String::from_utf8(whole).unwrap().replace("nightly", "weekly_")).unwrap();
    assert!(problems(&answer(&scratch, 2))[0].contains("is another one"));

    fs::create_dir(scratch.log("quarantine")).unwrap();
    fs::write(scratch.log("quarantine/milestones.00000000000000000000.0011223344556677"), "x").unwrap();
    assert!(problems(&answer(&scratch, 2)).iter().any(|it| it.starts_with("quarantine/")));
}

#[test]
fn a_journal_that_several_steps_cannot_read_is_told_of_once() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2026-03-01T09:05:00.000Z");
    enqueue(&scratch);
    fs::write(scratch.log("milestone-delivery-queue.jsonl"), "").unwrap();
    let cut = answer(&scratch, 2);
    let told = problems(&cut);
    let once: std::collections::BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "{cut}");
}

#[test]
fn a_damaged_state_is_a_warning_since_it_is_rebuilt() {
    let scratch = Scratch::new();
    emit(&scratch, "a", "2026-03-01T09:05:00.000Z");
    enqueue(&scratch);
    fs::write(scratch.log(STATE), "{").unwrap();
    assert!(problems(&answer(&scratch, 1))[0].contains(STATE));
}
