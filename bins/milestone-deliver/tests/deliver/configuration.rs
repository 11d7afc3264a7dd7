//! Where URL, secret and proxy come from, and what is said when they are not there.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use milepost::envelope::REMINDER_DUE;
use milepost_testing::Run;
use serde_json::json;

use crate::{
    queue::{TOOL, append, envelope},
    scripted::{Server, accepted, command, counts, deliver, scratch, status},
};

#[test]
fn what_is_not_configured_is_78_and_shows_no_secret() {
    let scratch = scratch(&[]);
    let without = |args: &[&str]| scratch.run(TOOL, args).exits(78).stderr;
    assert!(without(&["--secret-file", "secret"]).contains("--url or $MILESTONE_INGEST_URL"));
    let reminders = ["--queue", "reminder-delivery-queue.jsonl", "--secret-file", "secret"];
    assert!(without(&reminders).contains("$MILESTONE_REMINDER_URL"));
    assert!(without(&["--url", "http://127.0.0.1:9/"]).contains("CLAWDBOT_MILESTONE_WEBHOOK_SECRET"));
    for url in ["", "nonsense", "ftp://127.0.0.1/", "http://app.example/", "http://me:hunter2@127.0.0.1/"] {
        let stderr = without(&["--url", url, "--secret-file", "secret"]);
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    let path = scratch.write("open", "topsecret\n");
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let stderr = without(&["--url", "http://127.0.0.1:9/", "--secret-file", "open"]);
    assert!(stderr.contains("--allow-readable-secret") && !stderr.contains("topsecret"), "{stderr}");
    scratch
        .run(TOOL, &["--url", "http://127.0.0.1:9/", "--secret-file", "open", "--allow-readable-secret"])
        .exits(0);
    fs::set_permissions(scratch.write("empty", "\n"), Permissions::from_mode(0o600)).unwrap();
    without(&["--url", "http://127.0.0.1:9/", "--secret-file", "empty"]);
    for args in
        [&["--watch", "--drain"][..], &["--drain-timeout", "5s"], &["--max-attempts", "0"], &["--ack", "x"]]
    {
        scratch.run(TOOL, args).exits(64);
    }
}

#[test]
fn an_environment_proxy_is_not_used() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, it| accepted(it));
    let mut command = command(&scratch, &server.url(), &[]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"] {
        command.env(name, "http://127.0.0.1:1/");
    }
    assert_eq!(counts(&Run::of(command.spawn().unwrap()).exits(0)).0, 1);
}

#[test]
fn the_url_comes_from_the_environment_and_other_events_go_to_their_own_path() {
    let scratch = scratch(&[]);
    let payload = json!({"scope":"chat:42","task_id":"t1","title":"x"});
    let record = envelope(REMINDER_DUE, "rem:chat:42:t1:2026-03-01T09:00Z", &payload);
    append(&scratch, "reminder-delivery-queue", &[record]);
    let server = Server::start(|_, it| accepted(it));
    let mut command = scratch.command(TOOL);
    command
        .args(["--queue", "reminder-delivery-queue.jsonl", "--secret-file", "secret"])
        .env("MILESTONE_REMINDER_URL", format!("http://127.0.0.1:{}", server.port));
    assert_eq!(counts(&Run::of(command.spawn().unwrap()).exits(0)).0, 1);
    let [request] = &server.requests()[..] else { panic!("one request") };
    assert_eq!(request.path, "/internal/events/ingest");
    assert_eq!(request.json()["envelope"]["payload"], payload);
    assert!(scratch.log("reminder-delivery-state.json").exists());
}

#[test]
fn the_previous_secret_is_tried_once_after_a_401() {
    let scratch = scratch(&["m1"]);
    fs::set_permissions(scratch.write("old", "the old one"), Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(|number, it| if number == 0 { status(401, "") } else { accepted(it) });
    let run = deliver(&scratch, &server, &["--previous-secret-file", "old"]).exits(0);
    let state = std::fs::read_to_string(scratch.log("milestone-delivery-state.json")).unwrap();
    assert!(state.contains("\"previousSecretUtc\":\"20"), "{state}");
    assert_eq!(counts(&run).0, 1);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].headers["x-openclaw-signature"], requests[1].headers["x-openclaw-signature"]);
    assert_eq!(requests[0].headers["webhook-signature"].split(' ').count(), 2);
    assert_eq!(requests[0].body, requests[1].body);
}
