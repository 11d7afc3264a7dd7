//! Every kind of request, its signatures checked by the reference library of Standard Webhooks.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use data_encoding::BASE64;
use milepost::envelope::REMINDER_DUE;
use milepost_testing::{
    Run, Scratch,
    hostile::{Hostile, Mode, Request},
    python, signature,
};
use serde_json::{Value, json};

use super::bench::Bench;
use crate::queue::{SECRET, TOOL, append, envelope};

const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/verify_webhooks.py");
const PLAIN: &str = "correct horse battery staple";

/// What the library says of each sample, in order.
fn verified(samples: &[Value]) -> Vec<String> {
    let mut child = Command::new(python("standardwebhooks"))
        .arg(VERIFIER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for sample in samples {
        writeln!(stdin, "{sample}").unwrap();
    }
    drop(stdin);
    let run = Run::of(child).exits(0);
    run.stdout.lines().map(str::to_owned).collect()
}

fn sample(request: &Request, secret: &str) -> Value {
    let headers: serde_json::Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({ "secret": secret, "headers": headers, "body": BASE64.encode(&request.body) })
}

/// The one request that comes of these arguments.
fn request(scratch: &Scratch, more: &[&str]) -> Request {
    let server = Hostile::start(Mode::Good);
    let run = scratch.run(TOOL, &[&["--url", &server.url()], more].concat()).exits(0);
    let mut requests = server.requests();
    assert_eq!(requests.len(), 1, "{}", run.stderr);
    requests.remove(0)
}

#[test]
fn every_kind_of_request_is_verified_by_an_independent_library() {
    let whsec = ["--secret-file", "secret"];
    let milestone = request(&Bench::new(1).scratch, &whsec);
    assert_eq!(milestone.path, "/internal/milestones/ingest");

    let reminders = Bench::new(0);
    let payload = json!({ "scope": "chat:42", "task_id": "t1", "title": "Größe \u{1f680}" });
    let record = envelope(REMINDER_DUE, "rem:chat:42:t1:2026-03-01T09:00Z", &payload);
    append(&reminders.scratch, "reminder-delivery-queue", &[record]);
    let reminder =
        request(&reminders.scratch, &[&whsec[..], &["--queue", "reminder-delivery-queue.jsonl"]].concat());
    assert_eq!(reminder.path, "/internal/events/ingest");

    let ping = request(&Bench::new(0).scratch, &[&whsec[..], &["--ping"]].concat());

    let rotating = Bench::new(1);
    rotating.scratch.secret("previous", PLAIN);
    let rotated = request(&rotating.scratch, &[&whsec[..], &["--previous-secret-file", "previous"]].concat());
    assert_eq!(rotated.header("webhook-signature").unwrap().split(' ').count(), 2);

    let plain = Bench::new(1);
    plain.scratch.secret("plain", PLAIN);
    let by_text = request(&plain.scratch, &["--secret-file", "plain"]);

    for request in [&milestone, &reminder, &ping] {
        signature::check(request, &[SECRET]).unwrap();
    }
    signature::check(&rotated, &[SECRET, PLAIN]).unwrap();
    signature::check(&by_text, &[PLAIN]).unwrap();

    let mut tampered = milestone.clone();
    tampered.body.push(b' ');
    let samples = [
        sample(&milestone, SECRET),
        sample(&reminder, SECRET),
        sample(&ping, SECRET),
        sample(&rotated, SECRET),
        sample(&rotated, PLAIN),
        sample(&by_text, PLAIN),
        sample(&tampered, SECRET),
        sample(&milestone, PLAIN),
    ];
    let expected = ["good", "good", "good", "good", "good", "good", "bad", "bad"];
    assert_eq!(verified(&samples), expected);
}
