//! No false alarms: everything at work, rotating and being killed, while the check looks on.

use std::{
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use milepost::{
    journal::{JournalName, Reader},
    logs::Logs,
};
use milepost_testing::{Run, Scratch};

use crate::{
    folder::{Receiver, deliver, emit, enqueue, events, rich, scratch},
    report,
};

/// How often everything is killed.
const ROUNDS: u32 = 6;
/// Events of a round.
const EVENTS: u32 = 42;

fn start(scratch: &Scratch, tool: &str, args: &[&str]) -> Child {
    scratch
        .command(tool)
        .args(args)
        .args(["--rotate-bytes", "4KiB"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the check says while the pipeline is at work; the whole report when it is no 0.
fn look(logs: &std::path::Path) -> Result<(), String> {
    let run = Run::of(
        std::process::Command::new(milepost_testing::tool_path("milestone-status"))
            .args(["--check", "--logs", logs.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    if run.code == 0 { Ok(()) } else { Err(format!("exit {}\n{}{}", run.code, run.stdout, run.stderr)) }
}

/// Lines of the feed, which may be rotated at any moment.
fn accepted(scratch: &Scratch) -> usize {
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    let mut reader = Reader::open_at(&logs, &JournalName::internal("receive/feed"), 0).unwrap();
    let mut count = 0;
    while reader.next_item().unwrap().is_some() {
        count += 1;
    }
    count
}

#[test]
fn nothing_seems_broken_while_everything_works_and_is_killed() {
    let folder = scratch();
    let mut receiver = Receiver::start(&folder);
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (done, logs) = (Arc::clone(&done), folder.log(""));
        thread::spawn(move || {
            let mut looks = 0;
            while !done.load(SeqCst) {
                look(&logs)?;
                looks += 1;
            }
            Ok::<u32, String>(looks)
        })
    };
    for round in 0..ROUNDS {
        let url = receiver.url();
        let send = |endpoint: &str| {
            let args = [
                "--watch",
                "--url",
                &url,
                "--secret-file",
                "secret",
                "--backoff-base",
                "5ms",
                "--endpoint",
                endpoint,
            ];
            start(&folder, "milestone-deliver", &args)
        };
        let tools = [start(&folder, "milestone-queue", &["--watch"]), send(""), send("backup")];
        let from = round * EVENTS;
        // One process for each few, so that there are many appends; the last one is killed at its work.
        for at in (from..from + EVENTS).step_by(6) {
            emit(&folder, (at..at + 6).map(|it| format!("m{it}"))).exits(0);
        }
        let mut last = folder
            .command("milestone-emit")
            .args(["-q", "--rotate-bytes", "4KiB"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let killed = (0..40).map(|it| format!("k{round}-{it}"));
        let _ = std::io::Write::write_all(&mut last.stdin.take().unwrap(), &events(killed));
        let wanted = (from + EVENTS / 2) as usize;
        while accepted(&folder) < wanted {
            thread::yield_now();
        }
        kill(last);
        tools.into_iter().for_each(kill);
        // What they left, before anybody has settled it.
        look(&folder.log("")).unwrap_or_else(|it| panic!("after the kills of round {round}: {it}"));
        if round % 2 == 0 {
            let address = receiver.address.clone();
            drop(receiver);
            look(&folder.log("")).unwrap_or_else(|it| panic!("after the receiver's kill: {it}"));
            receiver = Receiver::at(&folder, &address);
        }
    }
    done.store(true, SeqCst);
    let looks = watcher.join().unwrap().unwrap_or_else(|it| panic!("while it was at work: {it}"));
    assert!(looks >= ROUNDS, "it was looked at {looks} times");

    enqueue(&folder, &[]);
    for endpoint in ["", "backup"] {
        deliver(&folder, &receiver.url(), &["--drain", "--backoff-base", "5ms", "--endpoint", endpoint])
            .exits(0);
    }
    let end = report(&folder, 0);
    for endpoint in end["queues"][0]["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["emitted"], endpoint["acknowledged"], "{end}");
        assert!(endpoint["emitted"].as_u64().unwrap() >= u64::from(ROUNDS * EVENTS), "{end}");
    }
}

#[test]
fn what_an_operator_passes_over_is_counted_and_no_loss() {
    let folder = scratch();
    let receiver = Receiver::start(&folder);
    emit(&folder, (0..5).map(|it| format!("old{it}"))).exits(0);
    enqueue(&folder, &["--from-now"]);
    emit(&folder, (0..5).map(|it| format!("new{it}"))).exits(0);
    let sums = |folder: &Scratch| {
        let it = report(folder, 0)["queues"][0]["endpoints"][0].clone();
        ["emitted", "acknowledged", "pending", "passedOver"].map(|field| it[field].as_u64().unwrap())
    };
    assert_eq!(sums(&folder), [10, 0, 5, 5], "before anything is in the queue");
    enqueue(&folder, &[]);
    assert_eq!(sums(&folder), [10, 0, 5, 5]);
    deliver(&folder, &receiver.url(), &["--drain"]).exits(0);
    assert_eq!(sums(&folder), [10, 5, 0, 5]);
    // Back to the start: what was passed over is enqueued after all, and what is there is not enqueued again.
    enqueue(&folder, &["--resync", "start"]);
    assert_eq!(sums(&folder), [10, 5, 5, 0]);
    // The deliverer to the end, and to the start again.
    folder.run("milestone-deliver", &["-q", "--resync", "end"]).exits(0);
    assert_eq!(sums(&folder), [10, 5, 0, 5]);
    folder.run("milestone-deliver", &["-q", "--resync", "start"]).exits(0);
    assert_eq!(sums(&folder), [10, 0, 10, 0]);
    deliver(&folder, &receiver.url(), &["--drain"]).exits(0);
    assert_eq!(sums(&folder), [10, 10, 0, 0]);
    // Without its state the next run knows the same, and so does the check.
    std::fs::remove_file(folder.log("milestone-delivery-state.json")).unwrap();
    assert_eq!(sums(&folder), [10, 10, 0, 0]);
    deliver(&folder, &receiver.url(), &["--drain"]).exits(0);
    assert_eq!(sums(&folder), [10, 10, 0, 0]);
}

#[test]
fn a_source_that_was_cut_is_broken_until_somebody_takes_it_as_it_is() {
    let folder = scratch();
    emit(&folder, (0..5).map(|it| format!("old{it}"))).exits(0);
    enqueue(&folder, &[]);
    std::fs::write(folder.log("milestones.jsonl"), "").unwrap();
    let cut = report(&folder, 2);
    assert_eq!(cut["findings"][0]["kind"], "cut", "{cut}");
    enqueue(&folder, &["--resync", "start"]);
    emit(&folder, (0..3).map(|it| format!("new{it}"))).exits(0);
    enqueue(&folder, &[]);
    report(&folder, 0);
}

#[test]
fn a_queue_of_ones_own_is_compared_with_the_source_that_the_audit_names() {
    let folder = scratch();
    emit(&folder, (0..3).map(|it| format!("m{it}"))).exits(0);
    enqueue(&folder, &["--queue", "extra-queue.jsonl"]);
    let report = report(&folder, 0);
    let queues: Vec<_> = report["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (it["queue"].as_str().unwrap(), it["source"].as_str().unwrap(), &it["endpoints"][0]["queued"])
        })
        .collect();
    let (some, none) = (serde_json::json!(3), serde_json::json!(0));
    assert_eq!(
        queues,
        [
            ("extra-queue.jsonl", "milestones.jsonl", &some),
            ("milestone-delivery-queue.jsonl", "milestones.jsonl", &none)
        ]
    );
}

/// A power cut may take names that were never synced, those of the lock files among them.
#[test]
fn what_has_lost_its_marks_is_not_broken() {
    let folder = rich();
    let before = report(&folder, 0);
    std::fs::remove_dir_all(folder.log(".lock")).unwrap();
    let after = report(&folder, 0);
    assert_eq!(after["queues"], before["queues"]);
    // Whoever comes next settles it all.
    emit(&folder, ["z".to_owned()]).exits(0);
    enqueue(&folder, &[]);
    report(&folder, 0);
}
