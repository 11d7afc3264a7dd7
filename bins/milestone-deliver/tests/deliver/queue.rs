//! What is in the queue, and who delivers it.

use std::{
    fs,
    process::{Child, Command},
};

use milepost::{
    Timestamp,
    envelope::{EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, JournalName},
    logs::Logs,
    queue,
};
use milepost_testing::{Scratch, milestone, wait_until};
use serde_json::{Value, json};

pub const TOOL: &str = "milestone-deliver";
pub const QUEUE: &str = "milestone-delivery-queue";
pub const SECRET: &str = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw==";

pub fn record(id: &str, scope: &str) -> EventEnvelope {
    let mut event = milestone(id);
    event["scope"] = json!(scope);
    envelope(MILESTONE_EMITTED, &format!("milestone:{id}"), &event)
}

pub fn envelope(event_type: &str, key: &str, payload: &Value) -> EventEnvelope {
    let sent = Timestamp::parse_utc("2026-03-01T09:05:00Z").unwrap();
    EventEnvelope::new(event_type, "agent", "feed", key.to_owned(), payload, sent).unwrap()
}

pub fn append(scratch: &Scratch, queue_name: &str, records: &[EventEnvelope]) {
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    let mut writer = queue::open(&logs, JournalName::internal(queue_name)).write().unwrap();
    for records in records.chunks(4096) {
        let mut batch = Batch::default();
        for record in records {
            let mut line = Vec::new();
            record.write_line(&mut line).unwrap();
            batch.push(&line);
        }
        writer.append(&batch).unwrap();
    }
}

/// SIGTERM. When this returns, the process knows: what it begins from here on, it begins in spite of it.
pub fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    wait_until(|| !has_pending_signals(child));
}

/// Whether a signal to the process waits for one of its threads to take it.
fn has_pending_signals(child: &Child) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) else { return false };
    let has_ended = status.lines().any(|it| it.starts_with("State:\tZ"));
    let pending = status.lines().find_map(|it| it.strip_prefix("ShdPnd:\t")).unwrap();
    !has_ended && pending.bytes().any(|it| it != b'0')
}
