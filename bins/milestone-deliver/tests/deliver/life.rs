//! How long it stays, beside whom, and what it needs to begin.

use std::{
    fs,
    process::{Command, Stdio},
    sync::mpsc,
};

use milepost_testing::{Run, wait_until};

use crate::{
    queue::{TOOL, terminate},
    scripted::{Server, accepted, command, counts, deliver, enqueue, scratch, state, status},
};

#[test]
fn drain_exits_75_when_held_misconfigured_or_out_of_time() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, _| status(401, ""));
    let run = deliver(&scratch, &server, &["--drain"]).exits(75);
    assert!(run.stderr.contains("wrong secret"), "{}", run.stderr);
    scratch.run(TOOL, &["--hold", "deploying"]).exits(0);
    let run = deliver(&scratch, &server, &["--drain"]).exits(75);
    assert!(run.stderr.contains("deploying"), "{}", run.stderr);
    scratch.run(TOOL, &["--release"]).exits(0);
    let server = Server::start(|_, _| status(503, ""));
    let run = deliver(&scratch, &server, &["--drain", "--drain-timeout", "300ms"]).exits(75);
    assert!(run.stderr.contains("--drain-timeout"), "{}", run.stderr);
}

#[test]
fn a_second_instance_leaves_and_drain_waits_for_it() {
    let scratch = scratch(&["m1"]);
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start(move |_, it| {
        wait.recv().unwrap();
        accepted(it)
    });
    let first = command(&scratch, &server.url(), &[]).spawn().unwrap();
    wait_until(|| !server.requests().is_empty());
    let second = deliver(&scratch, &server, &[]).exits(0);
    assert_eq!(second.stdout, "");
    assert!(second.stderr.contains("another milestone-deliver is at work"), "{}", second.stderr);
    let late = deliver(&scratch, &server, &["--drain", "--drain-timeout", "100ms"]).exits(75);
    assert!(late.stderr.contains("--drain-timeout"), "{}", late.stderr);
    let patient = command(&scratch, &server.url(), &["--drain"]).spawn().unwrap();
    go.send(()).unwrap();
    Run::of(first).exits(0);
    assert_eq!(Run::of(patient).exits(0).all("pending"), [0], "the one that waited says what is left");
    assert_eq!(server.ids(), ["m1"]);
    // Another endpoint is another consumer.
    go.send(()).unwrap();
    assert_eq!(counts(&deliver(&scratch, &server, &["--endpoint", "backup"]).exits(0)).0, 1);
    assert!(scratch.log("milestone-delivery-state.backup.json").exists());
}

#[test]
fn watch_delivers_what_comes_and_ends_by_sigterm_after_what_is_in_flight() {
    let scratch = scratch(&["m1"]);
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start(move |number, it| {
        if number >= 2 {
            wait.recv().unwrap();
        }
        accepted(it)
    });
    let watching = command(&scratch, &server.url(), &["--watch", "--concurrency=1"]).spawn().unwrap();
    wait_until(|| server.requests().len() == 1);
    enqueue(&scratch, &["m2"]);
    wait_until(|| server.requests().len() == 2);
    enqueue(&scratch, &["m3", "m4"]);
    wait_until(|| server.requests().len() == 3);
    terminate(&watching);
    // The signal must have reached it before the answer does.
    let status = format!("/proc/{}/status", watching.id());
    wait_until(|| std::fs::read_to_string(&status).unwrap().contains("ShdPnd:\t0000000000000000"));
    go.send(()).unwrap();
    let run = Run::of(watching).exits(0);
    assert_eq!(server.ids(), ["m1", "m2", "m3"]);
    assert_eq!(run.results().pop().unwrap()["delivered"], 3);
    assert_eq!(state(&scratch)["lastAck"]["idempotencyKey"], "milestone:m3");
    go.send(()).unwrap();
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)).0, 1);
    assert_eq!(server.ids(), ["m1", "m2", "m3", "m4"]);
}

#[test]
fn without_an_audit_nothing_is_sent() {
    let scratch = scratch(&["m1"]);
    fs::create_dir(scratch.log("audit.jsonl"))
        .or_else(|_| {
            fs::remove_file(scratch.log("audit.jsonl"))?;
            fs::create_dir(scratch.log("audit.jsonl"))
        })
        .unwrap();
    let server = Server::start(|_, it| accepted(it));
    let run = deliver(&scratch, &server, &[]);
    assert_ne!(run.code, 0);
    assert_eq!(server.requests().len(), 0, "{}", run.stderr);
}

#[test]
fn without_room_for_the_audit_nothing_is_sent() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, it| accepted(it));
    let tool = milepost_testing::tool_path(TOOL);
    let script = format!("ulimit -f 4; exec {} --url {} --secret-file secret", tool.display(), server.url());
    let mut shell = Command::new("sh");
    shell.current_dir(scratch.dir()).args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = Run::of(shell.spawn().unwrap()).exits(74);
    assert!(run.stderr.contains("ulimit -f"), "{}", run.stderr);
    assert_eq!(server.requests().len(), 0);
}
