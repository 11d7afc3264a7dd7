//! Faults of programs, and what people can do who know how the journals are made: chains and marks are right.

use std::{fs, path::Path};

use milepost::{
    audit::{self, Action, Draft, Outcome},
    canonical, chain,
    envelope::{Attempt, DeadLetter, EventEnvelope},
    event::{Defaults, MilestoneEvent},
    journal::{Batch, Journal, JournalName, Position},
    logs::Logs,
    queue,
};
use milepost_testing::milestone;
use serde_json::{Value, json};

use crate::{
    by_hand::{change_field, edit, lines, set_mark},
    folder::segments,
    plants::{FEED, LETTERS, MILESTONES, Plant, QUEUE, plant},
};

const STATE: &str = "milestone-delivery-state.json";

/// Its name, the kind of finding, the file, what is done.
type Fault = (&'static str, &'static str, &'static str, fn(&Path));

/// All of them.
pub fn plants() -> Vec<Plant> {
    let all = [IN_THE_QUEUE, OF_REDRIVES, IN_THE_AUDIT, IN_THE_STATE, IN_NEW_CHAINS].concat();
    all.into_iter().map(|(name, kind, file, damage)| plant(name, &[kind], file, damage)).collect()
}

/// What a faulty milestone-emit or milestone-queue would do.
const IN_THE_QUEUE: &[Fault] = &[
    ("an id twice in the source", "id-twice", MILESTONES, |logs| {
        let (_, line, _) = records(logs, MILESTONES).swap_remove(3);
        append(logs, MILESTONES, &line, |offset, _| {
            let detail = json!({ "journal": MILESTONES, "offset": offset });
            Draft::of(Action::Emit, Outcome::Appended, "milestone:m3", "runtime", detail)
        });
    }),
    ("an id twice in the queue", "id-twice", QUEUE, |logs| enqueue(logs, |_| {})),
    ("an event that the queue skipped", "skipped", MILESTONES, |logs| {
        let next = envelope(logs, "q4", |_| {});
        enqueue(logs, |it| *it = next);
    }),
    ("a note that passes over events", "skipped", MILESTONES, |logs| {
        let after = records(logs, QUEUE).pop().unwrap().2["resume"].clone();
        let to = envelope(logs, "q3", |_| {}).resume.unwrap();
        let note = json!({ "after": after, "to": { "offset": to.offset, "fingerprint": to.fingerprint } });
        fs::write(logs.join(".index/milestone-delivery-queue.passed.json"), note.to_string()).unwrap();
    }),
    ("a payload that was not emitted", "payload-differs", QUEUE, |logs| {
        let other = envelope(logs, "q0", |it| it["claim"] = "Another.".into());
        enqueue(logs, |it| *it = other);
    }),
    ("a record from nowhere", "from-nowhere", QUEUE, |logs| {
        let (event, _) = MilestoneEvent::from_value(milestone("never"), &Defaults::JSON).unwrap();
        let other = EventEnvelope::for_milestone(&event, milepost::Timestamp::from_millis(0)).unwrap();
        enqueue(logs, |it| *it = EventEnvelope { resume: it.resume.clone(), ..other });
    }),
    ("a resume that is not behind its event", "resume-differs", QUEUE, |logs| {
        let (here, there) = (envelope(logs, "q0", |_| {}), envelope(logs, "q1", |_| {}));
        enqueue(logs, |it| *it = EventEnvelope { resume: there.resume, ..here });
    }),
];

/// Dead letters and what puts them back.
const OF_REDRIVES: &[Fault] = &[
    ("a redrive of nothing", "redrive-of-nothing", QUEUE, |logs| {
        enqueue(logs, |it| (it.endpoint, it.redrive_of) = (Some(String::new()), Some(1)));
    }),
    ("a redrive of another event", "redrive-of-nothing", QUEUE, |logs| {
        enqueue(logs, |it| (it.endpoint, it.redrive_of) = (Some(String::new()), Some(0)));
    }),
    ("a dead letter put back twice", "redriven-twice", QUEUE, |logs| {
        let again = records(logs, QUEUE).into_iter().rfind(|it| !it.2["redrive_of"].is_null()).unwrap().2;
        enqueue(logs, |it| *it = serde_json::from_value(again).unwrap());
    }),
    ("a dead letter of another record", "letter-differs", LETTERS, |logs| {
        let queue = records(logs, QUEUE);
        let record: EventEnvelope = serde_json::from_value(queue[2].2.clone()).unwrap();
        let attempts: Vec<Attempt> = Vec::new();
        let (key, now) = (record.idempotency_key.clone(), milepost::Timestamp::from_millis(0));
        let letter = DeadLetter::new(record, "", "why".into(), attempts, now, queue[5].0);
        let mut line = Vec::new();
        letter.write_line(&mut line).unwrap();
        append(logs, LETTERS, &line, |offset, _| {
            let detail = json!({ "journal": LETTERS, "offset": offset });
            Draft::of(Action::Settle, Outcome::Recovered, key, "runtime", detail)
        });
    }),
];

/// Audit records that are not so.
const IN_THE_AUDIT: &[Fault] = &[
    ("acknowledged twice", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |_| {});
    }),
    ("acknowledged and given up", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::DeadLettered, "milestone:m2", |_| {});
    }),
    ("given up and acknowledged", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m21", |_| {});
    }),
    ("a settlement of nothing", "settled-nothing", "audit", |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = 17.into());
    }),
    ("a settlement of another event", "settled-nothing", "audit", |logs| {
        let (offset, ..) = records(logs, QUEUE).pop().unwrap();
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = offset.into());
    }),
    ("a settlement for another endpoint", "settled-nothing", "audit", |logs| {
        let (offset, _, record) =
            records(logs, QUEUE).into_iter().rfind(|it| !it.2["redrive_of"].is_null()).unwrap();
        outcome(logs, Outcome::Acknowledged, record["idempotency_key"].as_str().unwrap(), |it| {
            it["queueOffset"] = offset.into();
            it["endpoint"] = "backup".into();
        });
    }),
    ("a settlement behind the queue", "record-missing", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = 10_000_000.into());
    }),
    ("a dead letter closed that is not there", "discarded-nothing", "audit", |logs| {
        let detail = json!({ "queue": QUEUE, "endpoint": "", "deadLetter": 3, "reason": "x" });
        audited(logs, Draft::of(Action::Discard, Outcome::Done, "milestone:m15", "runtime", detail));
    }),
    ("a dead letter closed twice", "discarded-nothing", "audit", |logs| {
        let all = records(logs, "audit");
        let first = all.into_iter().find(|it| it.2["action"] == "discard").unwrap().2;
        let detail = first["detail"].clone();
        audited(logs, Draft::of(Action::Discard, Outcome::Done, "milestone:m15", "runtime", detail));
    }),
    ("the audit tells of a record that nobody wrote", "record-missing", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 10_000_000 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:x", "runtime", detail));
    }),
    ("the audit tells of a record inside another", "record-missing", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 10 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:x", "runtime", detail));
    }),
    ("the audit tells of a record twice", "audited-twice", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 0 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:m0", "runtime", detail));
    }),
];

/// State files that say more than there is.
const IN_THE_STATE: &[Fault] = &[
    ("a cursor that has passed what is not settled", "lost", QUEUE, |logs| {
        let (offset, line, _) = records(logs, QUEUE).pop().unwrap();
        state(logs, |it| {
            it["cursor"]["offset"] = (offset + line.len() as u64).into();
            it["cursor"]["fingerprint"] = milepost::journal::fingerprint(line.trim_ascii_end()).into();
        });
    }),
    ("a state that has settled ahead what is not settled", "lost", QUEUE, |logs| {
        let (offset, ..) = records(logs, QUEUE).pop().unwrap();
        state(logs, |it| it["cursor"]["ahead"] = json!([offset]));
    }),
    ("a cursor behind the queue", "state-ahead", STATE, |logs| {
        state(logs, |it| it["cursor"]["offset"] = 10_000_000.into());
    }),
    ("a cursor in another queue", "state-ahead", STATE, |logs| {
        state(logs, |it| it["cursor"]["fingerprint"] = "0011223344556677".into());
    }),
    ("a state that rests on more audit", "state-ahead", STATE, |logs| {
        state(logs, |it| it["auditOffset"] = 10_000_000.into());
    }),
    ("a state that rests on more dead letters", "state-ahead", STATE, |logs| {
        state(logs, |it| it["deadLetterOffset"] = 10_000_000.into());
    }),
    ("a state that rests on more commands", "state-ahead", STATE, |logs| {
        state(logs, |it| it["controlOffset"] = 10_000_000.into());
    }),
    ("a state with more acknowledgements", "state-ahead", STATE, |logs| {
        state(logs, |it| it["lastAck"]["count"] = 1000.into());
    }),
    ("a retry of nothing", "state-ahead", STATE, |logs| {
        state(logs, |it| {
            it["retries"] = json!([{
                "scope": "runtime", "key": "milestone:x", "offset": 0, "waiting": 0, "attempts": 1, "tries": 1,
                "dueUtc": "2026-03-01T09:05:00.000Z",
                "retry": { "firstUtc": "2026-03-01T09:05:00.000Z", "acksAtFirst": 0, "delayMs": 5, "reason": "x" },
            }]);
        });
    }),
];

/// The whole chain was written anew by somebody who knows how, its mark too.
const IN_NEW_CHAINS: &[Fault] = &[
    ("an acknowledgement taken out of a whole new chain", "lost", QUEUE, |logs| {
        rewrite_chain(logs, "audit", |all| {
            all.retain(|it| !is(it, "deliver", "acknowledged", "milestone:m9"));
        });
    }),
    ("an emit record taken out of a whole new chain", "record-unaudited", MILESTONES, |logs| {
        rewrite_chain(logs, "audit", |all| all.retain(|it| !is(it, "emit", "appended", "milestone:m9")));
    }),
    ("an end of the audit taken off, with a new mark", "audit-cut", "audit", |logs| {
        rewrite_chain(logs, "audit", |all| all.truncate(all.len() - 12));
    }),
    ("a receipt changed in a whole new chain", "receipt-contradicted", FEED, |logs| {
        rewrite_chain(logs, "audit", |all| {
            let ack = all.iter_mut().find(|it| {
                is(it, "deliver", "acknowledged", "milestone:m9") && it["detail"]["endpoint"] == ""
            });
            ack.unwrap()["detail"]["receipt"]["head"] = "ab".repeat(32).into();
        });
    }),
    ("a milestone changed, and its record in a whole new chain", "payload-differs", QUEUE, |logs| {
        edit(&segments(logs, MILESTONES)[0], |all| change_field(&mut all[2], "/nextAction"));
        let fingerprint =
            milepost::journal::fingerprint(lines(&segments(logs, MILESTONES)[0])[2].trim_ascii_end());
        rewrite_chain(logs, "audit", |all| {
            let emit = all.iter_mut().find(|it| is(it, "emit", "appended", "milestone:m2")).unwrap();
            emit["detail"]["fingerprint"] = fingerprint.into();
        });
    }),
    ("a feed written anew with another event", "record-changed", FEED, |logs| {
        rewrite_chain(logs, FEED, |all| all[8]["event"]["claim"] = "Another.".into());
    }),
    ("a feed and its audit written anew", "receipt-contradicted", FEED, |logs| {
        rewrite_chain(logs, FEED, |all| all[8]["event"]["claim"] = "Another.".into());
        rewrite_chain(logs, "audit", |all| {
            for it in all.iter_mut().filter(|it| it["action"] == "receive") {
                it["detail"].as_object_mut().unwrap().remove("fingerprint");
            }
        });
    }),
];

fn open(logs: &Path) -> Logs {
    Logs::open(Some(logs), "milestone-deliver").unwrap()
}

fn journal(logs: &Path, name: &str) -> Journal {
    Journal::new(&open(logs), JournalName::internal(name), queue::describe)
}

/// Appends a line to a journal, audited as its tool would.
fn append(logs: &Path, name: &str, line: &[u8], draft: impl FnOnce(u64, u64) -> Draft<'static>) {
    let mut writer = journal(logs, name).write().unwrap();
    let (from, mut batch) = (writer.end(), Batch::default());
    batch.push(line);
    batch.audit(draft(from, from + line.len() as u64));
    writer.append(&batch).unwrap();
}

fn audited(logs: &Path, draft: Draft) {
    audit::append(&open(logs), &[draft]).unwrap();
}

/// Lines of a journal with their offsets.
fn records(logs: &Path, name: &str) -> Vec<(u64, Vec<u8>, Value)> {
    let mut offset = segments(logs, name)[0]
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .rsplit('.')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let mut all = Vec::new();
    for line in segments(logs, name).iter().flat_map(|it| lines(it)) {
        let record = serde_json::from_slice(&line).unwrap();
        let length = line.len() as u64;
        all.push((offset, line, record));
        offset += length;
    }
    all
}

/// Appends a record to the queue as milestone-queue does.
fn enqueue(logs: &Path, change: impl FnOnce(&mut EventEnvelope)) {
    let (_, _, last) = records(logs, QUEUE).pop().unwrap();
    let mut record: EventEnvelope = serde_json::from_value(last).unwrap();
    change(&mut record);
    let mut line = Vec::new();
    record.write_line(&mut line).unwrap();
    append(logs, QUEUE, &line, |from, to| {
        let detail = json!({ "journal": QUEUE, "from": from, "to": to, "records": 1, "source": MILESTONES });
        Draft::new(Action::Enqueue, Outcome::Queued, detail)
    });
}

/// The envelope of a milestone of the source, with the position behind it.
fn envelope(logs: &Path, id: &str, change: impl FnOnce(&mut Value)) -> EventEnvelope {
    let (offset, line, mut event) =
        records(logs, MILESTONES).into_iter().find(|it| it.2["milestoneId"] == id).unwrap();
    change(&mut event);
    let (event, _) = MilestoneEvent::from_value(event, &Defaults::JSON).unwrap();
    let mut envelope = EventEnvelope::for_milestone(&event, milepost::Timestamp::from_millis(0)).unwrap();
    let fingerprint = milepost::journal::fingerprint(line.trim_ascii_end());
    envelope.resume = Some(Position { offset: offset + line.len() as u64, fingerprint });
    envelope
}

/// What the deliverer audits.
fn outcome(logs: &Path, outcome: Outcome, key: &str, change: impl FnOnce(&mut Value)) {
    let (offset, ..) = records(logs, QUEUE).into_iter().find(|it| it.2["idempotency_key"] == key).unwrap();
    let mut detail = json!({ "queue": QUEUE, "endpoint": "", "queueOffset": offset, "cursor": 0, "at": "2026-03-01T09:05:00.000Z", "reason": "x" });
    change(&mut detail);
    audited(logs, Draft::of(Action::Deliver, outcome, key, "runtime", detail));
}

/// Writes the audit anew, in one file and with a chain and a mark that hold.
fn rewrite_chain(logs: &Path, name: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let mut all: Vec<Value> = records(logs, name).into_iter().map(|it| it.2).collect();
    change(&mut all);
    let (mut head, mut text) = (chain::FIRST_PREV.to_owned(), Vec::new());
    for (record, seq) in all.iter_mut().zip(1_u64..) {
        let fields = record.as_object_mut().unwrap();
        fields.remove("hash");
        fields.insert("seq".into(), seq.into());
        fields.insert("prev".into(), head.clone().into());
        head = chain::link(&head, &canonical::to_vec(record));
        record["hash"] = head.clone().into();
        text.extend(canonical::to_vec(record));
        text.push(b'\n');
    }
    for file in segments(logs, name) {
        fs::remove_file(file).unwrap();
    }
    let length = text.len();
    fs::write(logs.join(format!("{name}.jsonl")), text).unwrap();
    set_mark(logs, name, |mark| {
        mark["base"] = 0.into();
        mark["length"] = length.into();
        mark["seq"] = all.len().into();
        mark["head"] = head.into();
    });
}

fn state(logs: &Path, change: impl FnOnce(&mut Value)) {
    let path = logs.join(STATE);
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut state);
    fs::write(path, state.to_string()).unwrap();
}

fn is(record: &Value, action: &str, outcome: &str, key: &str) -> bool {
    record["action"] == action && record["outcome"] == outcome && record["idempotency_key"] == key
}
