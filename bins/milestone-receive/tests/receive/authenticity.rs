//! Nothing unsigned is stored or shown, whatever is tried.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process::Stdio, time::Duration};

use milepost::{clock, signing::Signer};
use serde_json::{Value, json};

use crate::client::{Folder, MILESTONES, Receiver, Request, event, secret, signed, signed_by};

const OPENCLAW: [&str; 2] = ["x-openclaw-signature", "x-openclaw-timestamp"];
const WEBHOOK: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

fn status(receiver: &Receiver, request: Request) -> u16 {
    receiver.post(&request).status
}

#[test]
fn each_scheme_alone_is_enough_and_each_that_is_there_must_verify() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null));
    assert_eq!(status(&receiver, request.clone()), 200);
    assert_eq!(status(&receiver, request.clone().without(&OPENCLAW)), 200);
    assert_eq!(status(&receiver, request.clone().without(&WEBHOOK)), 200);
    assert_eq!(status(&receiver, request.clone().without(&OPENCLAW).without(&WEBHOOK)), 401);
    let other = signed_by(
        &Signer::new(&secret("other"), None),
        clock::now(),
        MILESTONES,
        "milestone:a",
        &request.body,
    );
    assert_eq!(status(&receiver, other.clone()), 401);
    for name in ["x-openclaw-signature", "webhook-signature"] {
        let wrong = &other.headers.iter().find(|it| it.0 == name).unwrap().1;
        assert_eq!(status(&receiver, request.clone().replacing(name, wrong)), 401, "{name}");
    }
    for name in OPENCLAW.into_iter().chain(WEBHOOK) {
        let twice = request.headers.iter().find(|it| it.0 == name).unwrap().1.clone();
        assert_eq!(status(&receiver, request.clone().with(name, &twice)), 401, "{name} twice");
        assert_eq!(status(&receiver, request.clone().replacing(name, "\u{e9}")), 401, "{name} is no text");
    }
    assert_eq!(folder.lines("receive/feed.jsonl").len(), 1);
}

#[test]
fn another_body_under_the_same_headers_is_refused() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null));
    let other = signed(&event("b", &Value::Null)).body;
    let answer = receiver.post(&request.body(&other));
    assert_eq!(answer.verdict(), (401, "rejected".into()));
    assert!(
        folder.lines("receive/feed.jsonl").is_empty() && folder.lines("receive/rejected.jsonl").is_empty()
    );
    assert!(folder.lines("audit.jsonl").is_empty());
    let metrics = receiver.get("/metrics").body;
    let counted =
        r#"ingest_requests_total{route="milestones",outcome="unauthenticated",reason="wrong-signature"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(receiver.get("/api/milestones/dead-letter").json()["count"], 0);
}

#[test]
fn the_window_is_the_operators_and_the_reason_names_both_times() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--tolerance", "10m"]);
    let signer = Signer::new(&secret(crate::client::SECRET), None);
    let body = signed(&event("a", &Value::Null)).body;
    let at = |seconds: i64| {
        let now = clock::now();
        let age = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { now.minus(age) } else { now.plus(age) };
        (time, signed_by(&signer, time, MILESTONES, "milestone:a", &body))
    };
    assert_eq!(status(&receiver, at(-590).1), 200);
    assert_eq!(status(&receiver, at(590).1), 200);
    for (time, request) in [at(-610), at(610)] {
        let answer = receiver.post(&request);
        assert_eq!(answer.status, 401);
        assert!(
            answer.reason().contains(&time.to_string()) && answer.reason().contains("clock"),
            "{answer:?}"
        );
    }
}

#[test]
fn a_strict_receiver_wants_standard_webhooks() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--strict"]);
    let request = signed(&event("a", &Value::Null));
    assert_eq!(status(&receiver, request.clone().without(&WEBHOOK)), 401);
    assert_eq!(status(&receiver, request.without(&OPENCLAW)), 200);
}

#[test]
fn both_secrets_are_taken_while_they_rotate() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let path = folder.file(name);
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (new, old) = (file("new", "new\n"), file("old", "old\n"));
    let receiver = folder.start_with(&["--secret-file", &new, "--previous-secret-file", &old]);
    let body = signed(&event("a", &Value::Null)).body;
    let by = |current: &str, previous: Option<&str>| {
        let signer = Signer::new(&secret(current), previous.map(secret).as_ref());
        signed_by(&signer, clock::now(), MILESTONES, "milestone:a", &body)
    };
    assert_eq!(status(&receiver, by("new", None)), 200);
    assert_eq!(status(&receiver, by("old", None)), 200);
    assert_eq!(status(&receiver, by("new", Some("old"))), 200);
    assert_eq!(status(&receiver, by("oldest", None)), 401);
    // Neither is shown anywhere.
    assert_eq!(receiver.end(), 0);
    for name in ["receive/feed.jsonl", "audit.jsonl"] {
        assert!(!fs::read_to_string(folder.file(name)).unwrap().contains("oldest"));
    }
}

#[test]
fn a_hangup_reads_the_secrets_again_and_keeps_them_when_they_are_no_good() {
    let folder = Folder::new();
    let (file, previous) = (folder.file("secret"), folder.file("previous"));
    let write = |path: &Path, text: &str| {
        let mut options = fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write(&file, "first");
    write(&previous, "zeroth");
    let mut command = folder.command(&["--secret-file", file.to_str().unwrap()]);
    command.args(["--previous-secret-file", previous.to_str().unwrap()]);
    let mut receiver = Receiver::begin(command.stderr(Stdio::piped()));
    let mut messages = receiver.messages();
    let body = signed(&event("a", &Value::Null)).body;
    let by = |receiver: &Receiver, text: &str| {
        let signer = Signer::new(&secret(text), None);
        status(receiver, signed_by(&signer, clock::now(), MILESTONES, "milestone:a", &body))
    };
    let mut hang_up = |receiver: &Receiver| {
        receiver.signal(rustix::process::Signal::HUP);
        messages.find(|it| it.contains("secrets")).unwrap()
    };
    assert_eq!((by(&receiver, "first"), by(&receiver, "second")), (200, 401));

    write(&file, "second");
    write(&previous, "first");
    assert!(hang_up(&receiver).ends_with("the secrets were read again"));
    assert_eq!(["zeroth", "first", "second"].map(|it| by(&receiver, it)), [401, 200, 200]);

    write(&file, "");
    let said = hang_up(&receiver);
    assert!(said.contains("stay as they were") && said.contains("is empty"), "{said}");
    assert_eq!(["first", "second"].map(|it| by(&receiver, it)), [200, 200]);
    assert_eq!(receiver.end(), 0);
}

#[test]
fn json_that_parties_may_read_differently_is_refused() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null));
    for (body, words) in [
        (&b"{\"a\":1,\"a\":1}"[..], "duplicate key"),
        (b"{\"__proto__\":1}", "__proto__"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{\"a\":\"\\ud800\"}", "surrogate"),
        (b"{\"a\":9007199254740993}", "2^53"),
        (b"{\"a\":\"\xff\"}", "UTF-8"),
        (b"{} x", ""),
        (b"", ""),
    ] {
        let answer = receiver.post(&request.clone().body(body));
        assert_eq!(answer.verdict(), (400, "rejected".into()), "{answer:?}");
        assert!(answer.reason().contains(words), "{answer:?}");
    }
}

#[test]
fn a_page_of_another_site_cannot_reach_us_by_its_name() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--public-host", "feed.example"]);
    for host in ["evil.example", "127.0.0.1.evil.example:80", ""] {
        let answer = receiver.get_with("/api/milestones/latest", &[("host", host)]);
        assert_eq!((answer.status, answer.json()["ok"].clone()), (421, json!(false)), "{host}");
    }
    let public = |path| receiver.get_with(path, &[("host", "Feed.Example:443")]).status;
    assert_eq!(public("/api/milestones/latest"), 200);
    assert_eq!((public("/metrics"), public("/api/milestones/dead-letter")), (403, 403));
    assert_eq!(receiver.get("/metrics").status, 200);
    let forwarded = receiver.get_with("/metrics", &[("x-forwarded-for", "10.0.0.1")]);
    assert_eq!(forwarded.status, 403);
}
