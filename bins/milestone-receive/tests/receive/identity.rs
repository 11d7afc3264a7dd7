//! One event is in the feed once, however often and however concurrently it comes.

use std::{collections::BTreeMap, thread};

use milepost::{Timestamp, ingest};
use serde_json::{Value, json};

use crate::client::{Folder, MILESTONES, Request, event, signed, signed_body};

fn under_key(key: &str, event: &Value) -> Request {
    signed_body(MILESTONES, key, &ingest::milestone_body(key, Timestamp::from_millis(0), event))
}

#[test]
fn the_same_again_is_a_duplicate_with_the_first_ones_receipt() {
    let folder = Folder::new();
    let receiver = folder.start();
    let first = receiver.emit("a", &Value::Null).json();
    receiver.emit("b", &Value::Null);
    let again = receiver.emit("a", &json!({ "claim": " Claim of a. ", "timestampUtc": "2026-03-01T09:05Z" }));
    assert_eq!(again.verdict(), (200, "duplicate".into()));
    assert_eq!(again.json()["receipt"], first["receipt"]);
    // Another key, but the milestone is known.
    let other_key = receiver.post(&under_key("other", &event("a", &Value::Null)));
    assert_eq!(other_key.json()["receipt"], first["receipt"]);
    assert_eq!(folder.lines("receive/feed.jsonl").len(), 2);
    assert_eq!(folder.audited("milestone:a"), ["appended", "duplicate"]);
    assert_eq!(folder.audited("other"), ["duplicate"]);
    // Also after a restart, and without the index.
    receiver.kill();
    std::fs::remove_dir_all(folder.file(".index")).unwrap();
    let receiver = folder.start();
    assert_eq!(receiver.emit("a", &Value::Null).json()["receipt"], first["receipt"]);
}

#[test]
fn a_conflict_is_kept_whole_however_large() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    let claim = "x".repeat(200_000);
    assert_eq!(receiver.emit("a", &json!({ "claim": claim })).status, 409);
    assert_eq!(folder.lines("receive/rejected.jsonl")[0]["request"]["event"]["claim"], claim);
    folder.verify_chain("receive/rejected.jsonl");
    // Also to the next one that starts.
    receiver.kill();
    assert_eq!(folder.start().get("/api/milestones/dead-letter").json()["count"], 1);
}

#[test]
fn another_event_under_a_known_key_or_id_is_a_conflict_and_kept() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    let same_id = receiver.post(&under_key("k2", &event("a", &json!({ "claim": "Other." }))));
    let same_key = receiver.post(&under_key("milestone:a", &event("b", &Value::Null)));
    assert!(same_key.reason().contains("milestone \"b\" or its key \"milestone:a\""), "{same_key:?}");
    for answer in [same_id, same_key] {
        assert_eq!(answer.verdict(), (409, "rejected".into()));
        assert!(answer.reason().contains("accepted before"), "{answer:?}");
    }
    assert_eq!(folder.lines("receive/feed.jsonl").len(), 1);
    let kept = folder.lines("receive/rejected.jsonl");
    assert_eq!((&kept[0]["reason"], &kept[0]["idempotencyKey"]), (&json!("conflict"), &json!("k2")));
    assert_eq!(kept[0]["request"]["event"]["claim"], "Other.");
    assert_eq!(folder.audited("k2"), ["conflict"]);
    let shown = receiver.get("/api/milestones/dead-letter").json();
    assert_eq!(
        (&shown["items"][0]["idempotencyKey"], &shown["items"][0]["reason"]),
        (&json!("milestone:a"), &json!("conflict"))
    );
    // The refused one left no trace of its identity.
    assert_eq!(receiver.emit("b", &Value::Null).verdict(), (200, "accepted".into()));
}

#[test]
fn of_many_at_the_same_time_one_is_accepted() {
    let folder = Folder::new();
    let receiver = folder.start();
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..48)
            .map(|number| {
                let receiver = &receiver;
                scope.spawn(move || {
                    // Sixteen events, three times each, one of them with another content.
                    let id = format!("m{}", number % 16);
                    let changes = if number < 16 { json!({ "claim": "Other." }) } else { Value::Null };
                    (id.clone(), number < 16, receiver.emit(&id, &changes))
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let mut by_id: BTreeMap<String, Vec<(bool, u16, Value)>> = BTreeMap::new();
    for (id, is_other, answer) in answers {
        by_id.entry(id).or_default().push((is_other, answer.status, answer.json()));
    }
    for (id, answers) in by_id {
        let accepted: Vec<_> = answers.iter().filter(|it| it.2["status"] == "accepted").collect();
        assert_eq!(accepted.len(), 1, "{id}: {answers:?}");
        for (is_other, status, answer) in &answers {
            if *is_other == accepted[0].0 {
                assert_eq!(
                    (*status, &answer["receipt"]),
                    (200, &accepted[0].2["receipt"]),
                    "{id}: {answers:?}"
                );
            } else {
                assert_eq!(*status, 409, "{id}: {answers:?}");
            }
        }
    }
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 16);
    assert_eq!(folder.verify_chain("audit.jsonl"), 48);
}

#[test]
fn a_receiver_that_rotates_its_journals_knows_every_event_still() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--rotate-bytes", "2KiB"]);
    let receipts: Vec<_> =
        (0..20).map(|it| receiver.emit(&format!("m{it}"), &Value::Null).json()["receipt"].clone()).collect();
    assert!(std::fs::read_dir(folder.file("receive")).unwrap().count() > 4);
    receiver.kill();
    let receiver = folder.start();
    for (number, receipt) in receipts.iter().enumerate() {
        let again = receiver.post(&signed(&event(&format!("m{number}"), &Value::Null))).json();
        assert_eq!((&again["status"], &again["receipt"]), (&json!("duplicate"), receipt));
    }
    let items = receiver.get("/api/milestones/latest?limit=200").json();
    assert_eq!(items["items"].as_array().unwrap().len(), 20);
}
