//! Batches: each item is judged as if it had come alone, in order.

use milepost::{
    Timestamp, identity,
    ingest::{self, batch},
};
use serde_json::{Value, json};

use crate::client::{EVENTS, Folder, Receiver, Request, Response, event, signed, signed_body};

/// The body that an event has alone.
fn alone(event: &Value) -> Vec<u8> {
    let key = identity::milestone_key(event["milestoneId"].as_str().unwrap_or("none"));
    ingest::milestone_body(&key, Timestamp::from_millis(0), event)
}

fn batch_of<T: AsRef<[u8]>>(path: &str, items: &[T]) -> Request {
    signed_body(path, "a batch", &batch::body(items))
}

fn post<T: AsRef<[u8]>>(receiver: &Receiver, items: &[T]) -> Response {
    receiver.post(&batch_of(batch::MILESTONES_PATH, items))
}

fn statuses(answer: &Response) -> Vec<String> {
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &json!(true)), "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    results.iter().map(|it| it["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_acknowledgement_says_how_many_may_come_together() {
    let folder = Folder::new();
    let receiver = folder.start();
    let header = |answer: &Response| answer.header(batch::HEADER).and_then(batch::items_max);
    for _ in ["accepted", "duplicate"] {
        assert_eq!(header(&receiver.emit("a", &Value::Null)), Some(128));
    }
    assert_eq!(header(&post(&receiver, &[alone(&event("a", &Value::Null))])), Some(128));
    assert_eq!(header(&receiver.emit("a", &json!({ "claim": "Other." }))), None);
    assert_eq!(header(&receiver.get("/healthz")), None);
}

#[test]
fn items_are_judged_in_order_as_if_each_came_alone() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("before", &Value::Null);
    let ping = br#"{"event":null,"idempotencyKey":"ping:1","sentAtUtc":"2026-03-01T09:05:00.000Z"}"#.to_vec();
    let other_key = String::from_utf8(alone(&event("a", &Value::Null))).unwrap().replace("milestone:a", "k");
    let answer = post(
        &receiver,
        &[
            alone(&event("before", &Value::Null)),
            alone(&event("a", &Value::Null)),
            alone(&event("a", &Value::Null)),
            alone(&event("a", &json!({ "claim": "Something else." }))),
            alone(&event("b", &json!({ "claim": " " }))),
            ping,
            b"7".to_vec(),
            other_key.into_bytes(),
            alone(&event("c", &json!({ "claim": " spaces go " }))),
        ],
    );
    let expected = [
        "duplicate",
        "accepted",
        "duplicate",
        "rejected",
        "rejected",
        "pong",
        "rejected",
        "duplicate",
        "accepted",
    ];
    assert_eq!(statuses(&answer), expected);
    let results = answer.json()["results"].clone();
    let lines = folder.lines("receive/feed.jsonl");
    assert_eq!(
        results[1],
        json!({
            "idempotencyKey": "milestone:a", "status": "accepted", "milestoneId": "a",
            "receipt": { "seq": 2, "head": lines[1]["hash"] },
        })
    );
    assert_eq!(results[2]["receipt"], results[1]["receipt"]);
    assert!(results[3]["reason"].as_str().unwrap().contains("accepted before with another content (seq 2)"));
    assert!(results[4]["reason"].as_str().unwrap().contains("/event/claim: is empty"));
    assert_eq!(
        (&results[5]["idempotencyKey"], &results[6]["idempotencyKey"]),
        (&json!("ping:1"), &json!(""))
    );
    assert_eq!(results[7]["idempotencyKey"], "k");
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["event"]["claim"], "spaces go");
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 3);
    assert_eq!(folder.lines("receive/rejected.jsonl").len(), 3);
    assert_eq!(folder.audited("milestone:a"), ["appended", "duplicate", "conflict"]);
    // Each item is counted, and told as its own.
    let page = receiver.get("/metrics").body;
    assert!(page.contains(r#"route="milestones",outcome="accepted",reason=""} 3"#), "{page}");
    assert!(page.contains("milepost_receive_ingest_batches_total 1"), "{page}");
}

#[test]
fn other_events_come_in_batches_too() {
    let folder = Folder::new();
    let receiver = folder.start();
    let item = |key: &str| {
        let envelope = json!({
            "event_id": "evt_0123456789abcdef0123456789abcdef", "event_type": "reminder.due",
            "schema_version": "1.0.0", "source": "s", "target": "t", "timestamp": "2026-03-01T09:05:00.000Z",
            "trace_id": "0123456789abcdef0123456789abcdef", "idempotency_key": key, "payload": { "a": 1 },
        });
        ingest::event_body(key, Timestamp::from_millis(0), &envelope)
    };
    let answer = receiver.post(&batch_of(batch::EVENTS_PATH, &[item("rem:1"), item("rem:2"), item("rem:1")]));
    assert_eq!(statuses(&answer), ["accepted", "accepted", "duplicate"]);
    assert_eq!(answer.json()["results"][0]["eventId"], "evt_0123456789abcdef0123456789abcdef");
    assert_eq!(folder.verify_chain("receive/events.jsonl"), 2);
    assert_eq!(
        receiver.post(&signed_body(EVENTS, "rem:1", &item("rem:1"))).verdict(),
        (200, "duplicate".into())
    );
}

#[test]
fn a_batch_as_a_whole_goes_through_the_checks_of_a_request() {
    let folder = Folder::new();
    let receiver = folder.start();
    let fine = batch_of(batch::MILESTONES_PATH, &[alone(&event("a", &Value::Null))]);
    let nested = format!("[{}]", "[".repeat(64) + &"]".repeat(64));
    let many: Vec<_> = (0..129).map(|it| alone(&event(&format!("m{it}"), &Value::Null))).collect();
    let with_body = |body: &[u8]| signed_body(batch::MILESTONES_PATH, "a batch", body);
    let expected = [
        (fine.clone().without(&["x-openclaw-signature", "webhook-signature"]), 401, "came without"),
        (fine.clone().body(&batch::body([alone(&event("b", &Value::Null))])), 401, "signature"),
        (fine.clone().replacing("content-type", "text/plain"), 415, "application/json"),
        (fine.clone().body(&vec![b' '; (8 << 20) + 1]), 413, "8 MiB"),
        (with_body(b"{\"items\":[]}"), 400, "0 items"),
        (with_body(&batch::body(&many)), 400, "129 items"),
        (with_body(b"[]"), 400, "items"),
        (with_body(b"{\"items\":[1],\"more\":1}"), 400, "items"),
        (with_body(b"{\"items\":[{\"a\":1,\"a\":2}]}"), 400, "duplicate key"),
        (with_body(format!("{{\"items\":[{nested}]}}").as_bytes()), 400, "nested deeper"),
    ];
    for (request, status, words) in expected {
        let answer = receiver.post(&request);
        assert_eq!(answer.verdict(), (status, "rejected".into()), "{words}: {answer:?}");
        assert!(answer.reason().contains(words), "{answer:?}");
        assert!(answer.json().get("results").is_none(), "{answer:?}");
    }
    assert!(folder.lines("receive/feed.jsonl").is_empty());
    // What is as deep as an item may be alone is judged.
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert_eq!(statuses(&post(&receiver, &[deep])), ["rejected"]);
}

#[test]
fn an_item_that_would_be_too_large_alone_is_refused_and_the_others_are_taken() {
    let folder = Folder::new();
    let receiver = folder.start();
    let large = event("large", &json!({ "claim": "x".repeat(600 << 10) }));
    let answer =
        post(&receiver, &[alone(&event("a", &Value::Null)), alone(&large), alone(&event("b", &Value::Null))]);
    assert_eq!(statuses(&answer), ["accepted", "rejected", "accepted"]);
    assert!(answer.json()["results"][1]["reason"].as_str().unwrap().contains("512 KiB"), "{answer:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test damages files itself")]
fn what_may_pass_is_503_for_the_whole_and_a_retry_finds_everything_once() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    let feed = folder.file("receive/feed.jsonl");
    let aside = folder.file("aside");
    std::fs::rename(&feed, &aside).unwrap();
    std::fs::create_dir(&feed).unwrap();
    let items: Vec<_> = ["b", "c"].map(|it| alone(&event(it, &Value::Null))).into();
    let answer = post(&receiver, &items);
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    std::fs::remove_dir(&feed).unwrap();
    std::fs::rename(&aside, &feed).unwrap();
    assert_eq!(statuses(&post(&receiver, &items)), ["accepted", "accepted"]);
    assert_eq!(statuses(&post(&receiver, &items)), ["duplicate", "duplicate"]);
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 3);
}

#[test]
fn a_long_batch_is_whole_and_in_order() {
    let folder = Folder::new();
    let receiver = folder.start();
    let items: Vec<_> = (0..128)
        .map(|it| alone(&event(&format!("m{it}"), &json!({ "nextAction": "x".repeat(9000) }))))
        .collect();
    let answer = post(&receiver, &items);
    assert!(statuses(&answer).iter().all(|it| it == "accepted"));
    let ids = folder.lines("receive/feed.jsonl");
    assert!((0..128).all(|it| ids[it]["event"]["milestoneId"] == format!("m{it}")));
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 128);
    assert_eq!(
        receiver.post(&signed(&event("m7", &json!({ "nextAction": "x".repeat(9000) })))).verdict().1,
        "duplicate"
    );
}
