//! The answers of the contract, the order of its checks, and what they leave behind.

use serde_json::{Value, json};

use crate::client::{EVENTS, Folder, MILESTONES, event, signed, signed_body};

const EVENT_ID: &str = "evt_0123456789abcdef0123456789abcdef";

#[test]
fn an_accepted_milestone_is_in_the_feed_with_its_receipt() {
    let folder = Folder::new();
    let receiver = folder.start();
    let answer = receiver.emit("a", &json!({ "claim": "  Done.\u{feff} " }));
    assert_eq!(answer.verdict(), (200, "accepted".into()));
    let line = &folder.lines("receive/feed.jsonl")[0];
    assert_eq!(
        answer.json(),
        json!({ "ok": true, "status": "accepted", "milestoneId": "a", "receipt": { "seq": 1, "head": line["hash"] } })
    );
    let expected = event("a", &json!({ "claim": "Done." }));
    assert_eq!(line["event"], expected);
    assert_eq!(
        (&line["idempotencyKey"], &line["sentAtUtc"]),
        (&json!("milestone:a"), &json!("1970-01-01T00:00:00.000Z"))
    );
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 1);
    let audit = &folder.lines("audit.jsonl")[0];
    let stored = std::fs::read(folder.file("receive/feed.jsonl")).unwrap();
    let fingerprint = milepost::journal::fingerprint(stored.trim_ascii_end());
    assert_eq!(
        (&audit["tool"], &audit["action"], &audit["outcome"], &audit["scope"], &audit["detail"]),
        (
            &json!("milestone-receive"),
            &json!("receive"),
            &json!("appended"),
            &json!("runtime"),
            &json!({ "journal": "receive/feed", "offset": 0, "seq": 1, "fingerprint": fingerprint })
        )
    );
}

#[test]
fn an_absent_source_is_orchestrator_and_the_same_event_as_with_it() {
    let folder = Folder::new();
    let receiver = folder.start();
    let mut without = event("a", &Value::Null);
    without.as_object_mut().unwrap().remove("source");
    assert_eq!(receiver.post(&signed(&without)).verdict(), (200, "accepted".into()));
    assert_eq!(folder.lines("receive/feed.jsonl")[0]["event"]["source"], "orchestrator");
    let with = receiver.emit("a", &json!({ "source": "orchestrator" }));
    assert_eq!(with.verdict(), (200, "duplicate".into()));
}

#[test]
fn a_signed_ping_is_answered_and_stored_nowhere() {
    let folder = Folder::new();
    let receiver = folder.start();
    let body = br#"{"event":null,"idempotencyKey":"ping:1","sentAtUtc":"2026-03-01T09:05:00.000Z"}"#;
    for path in [MILESTONES, EVENTS] {
        let answer = receiver.post(&signed_body(path, "ping:1", body));
        assert_eq!((answer.status, answer.json()), (200, json!({ "ok": true, "status": "pong" })));
    }
    assert_eq!(
        receiver
            .post(
                &signed_body(MILESTONES, "ping:1", body)
                    .without(&["x-openclaw-signature", "webhook-signature"])
            )
            .status,
        401
    );
    assert!(folder.lines("receive/feed.jsonl").is_empty() && folder.lines("audit.jsonl").is_empty());
}

#[test]
fn checks_come_in_the_order_of_the_contract() {
    let folder = Folder::new();
    let receiver = folder.start();
    let bad_event = signed(&event("a", &json!({ "claim": "" })));
    // Each request fails one check more than the one before it; the first of them answers.
    let bad_signature = bad_event.clone().body(&bad_event.body.to_ascii_uppercase());
    let bad_signature = bad_signature.body(br#"{"event":1}"#);
    let bad_json = bad_signature.clone().body(br#"{"event":1,"event":2}"#);
    let stale = bad_json.clone().replacing("x-openclaw-timestamp", "2020-01-01T00:00:00Z");
    let text = stale.clone().replacing("content-type", "text/plain");
    let huge = text.clone().body(&vec![b' '; (512 << 10) + 1]);
    let expected = [
        (bad_event, 400, "/event/claim"),
        (bad_signature, 401, "not this body's signature"),
        (bad_json, 400, "duplicate key"),
        (stale, 401, "2020-01-01T00:00:00.000Z"),
        (text, 415, "application/json"),
        (huge, 413, "512 KiB"),
    ];
    for (request, status, words) in expected {
        let answer = receiver.post(&request);
        assert_eq!(answer.verdict(), (status, "rejected".into()), "{answer:?}");
        assert!(answer.reason().contains(words), "{answer:?}");
    }
    assert!(folder.lines("receive/feed.jsonl").is_empty());
    // Only the first one was authentic.
    assert_eq!(folder.lines("receive/rejected.jsonl").len(), 1);
}

#[test]
fn a_body_of_the_largest_size_is_still_judged() {
    let folder = Folder::new();
    let receiver = folder.start();
    let mut body = signed(&event("a", &Value::Null)).body;
    body.resize(512 << 10, b' ');
    assert_eq!(
        receiver.post(&signed_body(MILESTONES, "milestone:a", &body)).verdict(),
        (200, "accepted".into())
    );
    body.push(b' ');
    let chunked = signed_body(MILESTONES, "milestone:a", &body);
    let pieces = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let chunked = chunked.with("transfer-encoding", "chunked").body(&pieces);
    assert_eq!(receiver.post(&chunked).status, 413);
}

#[test]
fn only_json_is_taken_whatever_its_parameters() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null));
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=\"y\""] {
        assert_eq!(receiver.post(&request.clone().replacing("content-type", content_type)).status, 200);
    }
    for content_type in
        ["", "text/json", "application/jsonx", "application/json, text/plain", "application/xml"]
    {
        assert_eq!(receiver.post(&request.clone().replacing("content-type", content_type)).status, 415);
    }
    assert_eq!(receiver.post(&request.clone().without(&["content-type"])).status, 415);
    assert_eq!(receiver.post(&request.with("content-encoding", "gzip")).status, 415);
}

#[test]
fn what_is_refused_after_the_signature_is_kept_and_shown_without_its_words() {
    let folder = Folder::new();
    let receiver = folder.start();
    let answer = receiver.emit("a", &json!({ "riskStatus": "secretive", "evidence": [] }));
    assert_eq!(answer.verdict(), (400, "rejected".into()));
    assert!(answer.reason().contains("/event/riskStatus") && answer.reason().contains("/event/evidence"));
    let body = br#"{"event":null,"idempotencyKey":"k","sentAtUtc":"yesterday","more":1}"#;
    let answer = receiver.post(&signed_body(MILESTONES, "k", body));
    assert!(answer.reason().contains("sentAtUtc") && answer.reason().contains("\"more\""), "{answer:?}");

    let kept = folder.lines("receive/rejected.jsonl");
    assert_eq!(
        (&kept[0]["reason"], &kept[1]["reason"]),
        (&json!("invalid-event"), &json!("invalid-request"))
    );
    assert_eq!(kept[0]["request"]["event"]["riskStatus"], "secretive");
    assert_eq!(folder.verify_chain("receive/rejected.jsonl"), 2);
    assert_eq!(folder.audited("milestone:a"), ["rejected"]);

    let shown = receiver.get("/api/milestones/dead-letter");
    assert!(!shown.body.contains("secretive"));
    let in_order = r#"{"ok":true,"items":[{"timestampUtc":""#;
    assert!(shown.body.starts_with(in_order) && shown.body.ends_with(r#"],"count":2}"#), "{}", shown.body);
    let shown = shown.json();
    assert_eq!((&shown["ok"], &shown["count"]), (&json!(true), &json!(2)));
    assert_eq!(
        shown["items"][1],
        json!({ "timestampUtc": kept[0]["receivedAtUtc"], "reason": "invalid-event", "idempotencyKey": "milestone:a" })
    );
    // They are still there after a restart.
    receiver.kill();
    assert_eq!(folder.start().get("/api/milestones/dead-letter").json(), shown);
}

#[test]
fn other_events_are_kept_and_shown_nowhere() {
    let folder = Folder::new();
    let receiver = folder.start();
    let envelope = |title: &str| {
        json!({
            "event_id": EVENT_ID, "event_type": "reminder.due", "schema_version": "1.0.0",
            "source": "reminder-scan", "target": "chat:42", "timestamp": "2026-03-01T09:05:00.000Z",
            "trace_id": "0123456789abcdef0123456789abcdef", "idempotency_key": "rem:1",
            "payload": { "title": title, "n": 1.50, "scope": "chat:42" },
        })
    };
    let request = |title: &str| {
        let body =
            milepost::ingest::event_body("rem:1", milepost::Timestamp::from_millis(0), &envelope(title));
        signed_body(EVENTS, "rem:1", &body)
    };
    let answer = receiver.post(&request("Private reminder"));
    assert_eq!(answer.verdict(), (200, "accepted".into()));
    assert_eq!((&answer.json()["eventId"], &answer.json()["receipt"]["seq"]), (&json!(EVENT_ID), &json!(1)));
    assert_eq!(receiver.post(&request("Private reminder")).verdict(), (200, "duplicate".into()));
    assert_eq!(receiver.post(&request("Another")).verdict(), (409, "rejected".into()));
    let audited: Vec<Value> =
        folder.lines("audit.jsonl").iter().map(|it| json!([it["outcome"], it["scope"]])).collect();
    let expected = ["appended", "duplicate", "conflict"].map(|it| json!([it, "chat:42"]));
    assert_eq!(audited, expected);
    assert_eq!(folder.lines("receive/events.jsonl")[0]["envelope"], envelope("Private reminder"));
    assert_eq!(folder.verify_chain("receive/events.jsonl"), 1);
    assert_eq!(folder.audited("rem:1"), ["appended", "duplicate", "conflict"]);
    for path in ["/", "/api/milestones/latest", "/api/milestones/dead-letter", "/metrics", "/healthz"] {
        let answer = receiver.get(path);
        assert!(answer.status == 200 && !answer.body.contains("Private"), "{path}");
    }
    // A milestone on this route is no event, and the other way round.
    assert_eq!(receiver.post(&signed(&event("a", &Value::Null)).clone()).status, 200);
    let mut misplaced = signed(&event("b", &Value::Null));
    misplaced.path = EVENTS.into();
    assert_eq!(receiver.post(&misplaced).status, 400);
}

#[test]
fn other_paths_and_methods_are_answered_in_json() {
    let folder = Folder::new();
    let receiver = folder.start();
    let nothing = receiver.get("/internal/milestones");
    assert_eq!((nothing.status, nothing.json()["ok"].clone()), (404, json!(false)));
    let method = receiver.get(MILESTONES);
    assert_eq!((method.status, method.header("allow")), (405, Some("POST")));
    assert_eq!(method.json()["ok"], false);
    let mut latest = signed(&event("a", &Value::Null));
    latest.path = "/api/milestones/latest".into();
    assert_eq!(receiver.post(&latest).status, 405);
}
