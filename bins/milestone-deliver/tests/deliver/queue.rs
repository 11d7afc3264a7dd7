//! What is in the queue, and who delivers it.

use std::process::{Child, Command};

use milepost::{
    Timestamp,
    envelope::{EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, JournalName},
    logs::Logs,
    queue,
};
use milepost_testing::{Scratch, milestone};
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

pub fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}
