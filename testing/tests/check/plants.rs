//! Losses, duplicates and changes, planted one at a time into copies of a rich folder. Each must be found, by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use milepost::{
    audit::{self, Action, Draft, Outcome},
    canonical, chain,
    envelope::{Attempt, DeadLetter, EventEnvelope, Resume},
    event::{Defaults, MilestoneEvent},
    journal::{Batch, Journal, JournalName},
    logs::Logs,
    queue,
};
use milepost_testing::{Scratch, milestone};
use serde_json::{Value, json};

use crate::{
    folder::{copy, emit, rich, segments},
    report,
};

const MILESTONES: &str = "milestones";
const QUEUE: &str = "milestone-delivery-queue";
const LETTERS: &str = "milestone-delivery-deadletter";
const CONTROL: &str = "milestone-delivery-control";
const FEED: &str = "receive/feed";
const REJECTED: &str = "receive/rejected";
const STATE: &str = "milestone-delivery-state.json";
const JOURNALS: [&str; 10] = [
    MILESTONES,
    QUEUE,
    LETTERS,
    CONTROL,
    FEED,
    REJECTED,
    "receive/events",
    "reminders",
    "reminder-delivery-queue",
    "audit",
];

/// A damage, and what must be found of it: one of the kinds, in a file whose name begins so.
struct Plant {
    name: String,
    damage: Box<dyn Fn(&Path)>,
    kinds: Vec<&'static str>,
    file: String,
}

fn plant(
    name: impl Into<String>,
    kinds: &[&'static str],
    file: &str,
    damage: impl Fn(&Path) + 'static,
) -> Plant {
    Plant { name: name.into(), damage: Box::new(damage), kinds: kinds.to_vec(), file: file.into() }
}

// ---- by hand

fn lines(path: &Path) -> Vec<Vec<u8>> {
    fs::read(path).unwrap().split_inclusive(|it| *it == b'\n').map(<[u8]>::to_vec).collect()
}

fn write(path: &Path, lines: &[Vec<u8>]) {
    fs::write(path, lines.concat()).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut all = lines(path);
    change(&mut all);
    write(path, &all);
}

/// The mark of a journal, said anew with the right checksum.
fn set_mark(logs: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let path = logs.join(format!(".lock/{name}.lock"));
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    let (body, _) = text.rsplit_once(",\"check\":").unwrap();
    let mut mark: Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    change(&mut mark);
    // In the order of the fields.
    let fields = ["version", "base", "length", "auditOffset", "undo", "seq", "head"];
    let body: Vec<_> = fields.iter().map(|it| format!("\"{it}\":{}", mark[it])).collect();
    let body = format!("{{{}", body.join(","));
    let line = format!("{body},\"check\":\"{:08x}\"}}", crc32fast::hash(body.as_bytes()));
    fs::write(path, format!("{line:<319}\n")).unwrap();
}

/// Makes the mark say that the active segment is as long as it is.
fn believe(logs: &Path, name: &str) {
    let length = fs::metadata(logs.join(format!("{name}.jsonl"))).unwrap().len();
    set_mark(logs, name, |mark| {
        mark["length"] = length.into();
        mark["seq"] = 0.into();
        mark["head"] = "".into();
    });
}

/// Another string of the same length in one field of a line.
fn change_field(line: &mut Vec<u8>, pointer: &str) {
    let text = String::from_utf8(line.clone()).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let old = record.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {text}")).to_string();
    let at = old.rfind(|it: char| it.is_ascii_alphanumeric()).unwrap();
    let other = if old.as_bytes()[at] == b'3' { "4" } else { "3" };
    let mut new = old.clone();
    new.replace_range(at..=at, other);
    let name = pointer.rsplit('/').next().unwrap();
    let (old, new) = (format!("\"{name}\":{old}"), format!("\"{name}\":{new}"));
    assert!(text.contains(&old), "{old} in {text}");
    *line = text.replacen(&old, &new, 1).into_bytes();
}

fn a_field(name: &str) -> &'static str {
    match name {
        MILESTONES => "/claim",
        CONTROL => "/at",
        FEED => "/event/claim",
        REJECTED => "/detail",
        "receive/events" => "/envelope/payload/title",
        "reminders" | "reminder-delivery-queue" => "/payload/title",
        "audit" => "/timestamp",
        LETTERS => "/reason",
        _ => "/payload/claim",
    }
}

/// What can be done to a file of a journal.
fn by_hand(plants: &mut Vec<Plant>) {
    for name in JOURNALS {
        let add = |plants: &mut Vec<Plant>, what: &str, damage: Box<dyn Fn(&Path, PathBuf)>, sealed: bool| {
            let place = if sealed { "a sealed segment" } else { "the active segment" };
            plants.push(plant(format!("{name}: {what} in {place}"), &[], name, move |logs| {
                let files = segments(logs, name);
                if sealed && files.len() < 2 {
                    panic!("{name} has no sealed segment");
                }
                let file =
                    if sealed { files[(files.len() - 2) / 2].clone() } else { files.last().unwrap().clone() };
                damage(logs, file);
            }));
        };
        let is_short = [CONTROL, LETTERS, REJECTED].contains(&name);
        for sealed in [true, false].into_iter().filter(|it| !(*it && is_short)) {
            for at in [0, 1] {
                let place = move |all: &Vec<Vec<u8>>| if at == 0 { 0 } else { all.len() - 1 };
                add(
                    plants,
                    &format!("line {at} removed"),
                    Box::new(move |_, file| edit(&file, |all| drop(all.remove(place(all))))),
                    sealed,
                );
                add(
                    plants,
                    &format!("line {at} removed and the mark moved"),
                    Box::new(move |logs, file| {
                        edit(&file, |all| drop(all.remove(place(all))));
                        believe(logs, name);
                    }),
                    sealed,
                );
                add(
                    plants,
                    &format!("line {at} twice"),
                    Box::new(move |logs, file| {
                        edit(&file, |all| all.insert(place(all), all[place(all)].clone()));
                        believe(logs, name);
                    }),
                    sealed,
                );
                add(
                    plants,
                    &format!("line {at} changed"),
                    Box::new(move |_, file| {
                        edit(&file, |all| {
                            let at = place(all);
                            change_field(&mut all[at], a_field(name));
                        });
                    }),
                    sealed,
                );
                add(
                    plants,
                    &format!("line {at} made zeros"),
                    Box::new(move |_, file| {
                        edit(&file, |all| {
                            let at = place(all);
                            let length = all[at].len() - 1;
                            all[at][..length].fill(0);
                        });
                    }),
                    sealed,
                );
                add(
                    plants,
                    &format!("newline of line {at} made a space"),
                    Box::new(move |_, file| {
                        edit(&file, |all| {
                            let at = place(all);
                            *all[at].last_mut().unwrap() = b' ';
                        });
                    }),
                    sealed,
                );
            }
        }
        add(
            plants,
            "tail cut",
            Box::new(|_, file| {
                let whole = fs::read(&file).unwrap();
                fs::write(&file, &whole[..whole.len() - 7]).unwrap();
            }),
            false,
        );
        add(
            plants,
            "all cut and no mark",
            Box::new(move |logs, file| {
                fs::write(file, "").unwrap();
                fs::remove_file(logs.join(format!(".lock/{name}.lock"))).unwrap();
            }),
            false,
        );
        add(plants, "file removed", Box::new(|_, file| fs::remove_file(file).unwrap()), false);
        if !is_short {
            for which in ["first", "middle", "newest"] {
                plants.push(plant(
                    format!("{name}: {which} sealed segment gone"),
                    &["segment-missing"],
                    name,
                    move |logs| {
                        let files = segments(logs, name);
                        let last = files.len() - 2;
                        let at = [("first", 0), ("middle", last / 2), ("newest", last)];
                        fs::remove_file(&files[at.iter().find(|it| it.0 == which).unwrap().1]).unwrap();
                    },
                ));
            }
        }
        if name != "audit" {
            let gone = "record-missing";
            plants.push(plant(
                format!("{name}: all gone, locks too"),
                &[gone, "segment-missing"],
                name,
                move |logs| {
                    segments(logs, name).iter().for_each(|it| drop(fs::remove_file(it)));
                    let _ = fs::remove_file(logs.join(format!(".lock/{name}.lock")));
                },
            ));
            plants.push(plant(
                format!("{name}: a record that nobody audited"),
                &["record-unaudited"],
                name,
                move |logs| {
                    let file = logs.join(format!("{name}.jsonl"));
                    edit(&file, |all| {
                        let mut new = all.last().unwrap().clone();
                        // Of the same kind, and with another name, so that nothing else is wrong with it.
                        let text = String::from_utf8(new.clone()).unwrap();
                        if let Some(id) =
                            serde_json::from_str::<Value>(&text).unwrap()["milestoneId"].as_str()
                        {
                            new = text.replace(id, "planted").into_bytes();
                        }
                        all.push(new);
                    });
                    believe(logs, name);
                },
            ));
        }
    }
}

// ---- through the library, so that the chain and the marks are right

fn open(logs: &Path) -> Logs {
    Logs::open(Some(logs), "milestone-deliver").unwrap()
}

fn journal(logs: &Path, name: &str) -> Journal {
    Journal::new(&open(logs), JournalName::internal(name), queue::describe)
}

/// Appends a line to a journal, audited as its tool would.
fn append(logs: &Path, name: &str, line: &[u8], draft: impl FnOnce(u64, u64) -> Draft) {
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
    envelope.resume = Some(Resume { offset: offset + line.len() as u64, fingerprint });
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

/// Faults of programs, and of people who know how the journals are made.
fn by_design(plants: &mut Vec<Plant>) {
    let mut add = |name: &str, kind: &'static str, file: &str, damage: fn(&Path)| {
        plants.push(plant(name, &[kind], file, damage));
    };
    add("an id twice in the source", "id-twice", MILESTONES, |logs| {
        let (_, line, _) = records(logs, MILESTONES).swap_remove(3);
        append(logs, MILESTONES, &line, |offset, _| {
            let detail = json!({ "journal": MILESTONES, "offset": offset });
            Draft::of(Action::Emit, Outcome::Appended, "milestone:m3", "runtime", detail)
        });
    });
    add("an id twice in the queue", "id-twice", QUEUE, |logs| enqueue(logs, |_| {}));
    add("an event that the queue skipped", "skipped", MILESTONES, |logs| {
        let next = envelope(logs, "q4", |_| {});
        enqueue(logs, |it| *it = next);
    });
    add("a note that passes over events", "skipped", MILESTONES, |logs| {
        let after = records(logs, QUEUE).pop().unwrap().2["resume"].clone();
        let to = envelope(logs, "q3", |_| {}).resume.unwrap();
        let note = json!({ "after": after, "to": { "offset": to.offset, "fingerprint": to.fingerprint } });
        fs::write(logs.join(".index/milestone-delivery-queue.passed.json"), note.to_string()).unwrap();
    });
    add("a payload that was not emitted", "payload-differs", QUEUE, |logs| {
        let other = envelope(logs, "q0", |it| it["claim"] = "Another.".into());
        enqueue(logs, |it| *it = other);
    });
    add("a record from nowhere", "from-nowhere", QUEUE, |logs| {
        let (event, _) = MilestoneEvent::from_value(milestone("never"), &Defaults::JSON).unwrap();
        let other = EventEnvelope::for_milestone(&event, milepost::Timestamp::from_millis(0)).unwrap();
        enqueue(logs, |it| *it = EventEnvelope { resume: it.resume.clone(), ..other });
    });
    add("a resume that is not behind its event", "resume-differs", QUEUE, |logs| {
        let (here, there) = (envelope(logs, "q0", |_| {}), envelope(logs, "q1", |_| {}));
        enqueue(logs, |it| *it = EventEnvelope { resume: there.resume, ..here });
    });
    add("a redrive of nothing", "redrive-of-nothing", QUEUE, |logs| {
        enqueue(logs, |it| (it.endpoint, it.redrive_of) = (Some(String::new()), Some(1)));
    });
    add("a redrive of another event", "redrive-of-nothing", QUEUE, |logs| {
        enqueue(logs, |it| (it.endpoint, it.redrive_of) = (Some(String::new()), Some(0)));
    });
    add("a dead letter put back twice", "redriven-twice", QUEUE, |logs| {
        let again = records(logs, QUEUE).into_iter().rfind(|it| !it.2["redrive_of"].is_null()).unwrap().2;
        enqueue(logs, |it| *it = serde_json::from_value(again).unwrap());
    });
    add("a dead letter of another record", "letter-differs", LETTERS, |logs| {
        let queue = records(logs, QUEUE);
        let record: EventEnvelope = serde_json::from_value(queue[2].2.clone()).unwrap();
        let attempts: Vec<Attempt> = Vec::new();
        let (key, now) = (record.idempotency_key.clone(), milepost::Timestamp::from_millis(0));
        let letter = DeadLetter::new(record, "", "why".into(), attempts, now, queue[5].0);
        let mut line = Vec::new();
        letter.write_line(&mut line).unwrap();
        append(logs, LETTERS, &line, |offset, _| {
            let detail = json!({ "journal": LETTERS, "offset": offset });
            Draft::of(Action::Settle, Outcome::Recovered, &key, "runtime", detail)
        });
    });
    add("acknowledged twice", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |_| {});
    });
    add("acknowledged and given up", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::DeadLettered, "milestone:m2", |_| {});
    });
    add("given up and acknowledged", "settled-twice", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m21", |_| {});
    });
    add("a settlement of nothing", "settled-nothing", "audit", |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = 17.into());
    });
    add("a settlement of another event", "settled-nothing", "audit", |logs| {
        let (offset, ..) = records(logs, QUEUE).pop().unwrap();
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = offset.into());
    });
    add("a settlement for another endpoint", "settled-nothing", "audit", |logs| {
        let (offset, _, record) =
            records(logs, QUEUE).into_iter().rfind(|it| !it.2["redrive_of"].is_null()).unwrap();
        outcome(logs, Outcome::Acknowledged, record["idempotency_key"].as_str().unwrap(), |it| {
            it["queueOffset"] = offset.into();
            it["endpoint"] = "backup".into();
        });
    });
    add("a settlement behind the queue", "record-missing", QUEUE, |logs| {
        outcome(logs, Outcome::Acknowledged, "milestone:m2", |it| it["queueOffset"] = 10_000_000.into());
    });
    add("a dead letter closed that is not there", "discarded-nothing", "audit", |logs| {
        let detail = json!({ "queue": QUEUE, "endpoint": "", "deadLetter": 3, "reason": "x" });
        audited(logs, Draft::of(Action::Discard, Outcome::Done, "milestone:m15", "runtime", detail));
    });
    add("a dead letter closed twice", "discarded-nothing", "audit", |logs| {
        let all = records(logs, "audit");
        let first = all.into_iter().find(|it| it.2["action"] == "discard").unwrap().2;
        let detail = first["detail"].clone();
        audited(logs, Draft::of(Action::Discard, Outcome::Done, "milestone:m15", "runtime", detail));
    });
    add("the audit tells of a record that nobody wrote", "record-missing", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 10_000_000 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:x", "runtime", detail));
    });
    add("the audit tells of a record inside another", "record-missing", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 10 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:x", "runtime", detail));
    });
    add("the audit tells of a record twice", "audited-twice", MILESTONES, |logs| {
        let detail = json!({ "journal": MILESTONES, "offset": 0 });
        audited(logs, Draft::of(Action::Emit, Outcome::Appended, "milestone:m0", "runtime", detail));
    });
    add("a cursor that has passed what is not settled", "lost", QUEUE, |logs| {
        let (offset, line, _) = records(logs, QUEUE).pop().unwrap();
        state(logs, |it| {
            it["cursor"]["offset"] = (offset + line.len() as u64).into();
            it["cursor"]["fingerprint"] = milepost::journal::fingerprint(line.trim_ascii_end()).into();
        });
    });
    add("a state that has settled ahead what is not settled", "lost", QUEUE, |logs| {
        let (offset, ..) = records(logs, QUEUE).pop().unwrap();
        state(logs, |it| it["cursor"]["ahead"] = json!([offset]));
    });
    add("a cursor behind the queue", "state-ahead", STATE, |logs| {
        state(logs, |it| it["cursor"]["offset"] = 10_000_000.into())
    });
    add("a cursor in another queue", "state-ahead", STATE, |logs| {
        state(logs, |it| it["cursor"]["fingerprint"] = "0011223344556677".into());
    });
    add("a state that rests on more audit", "state-ahead", STATE, |logs| {
        state(logs, |it| it["auditOffset"] = 10_000_000.into())
    });
    add("a state that rests on more dead letters", "state-ahead", STATE, |logs| {
        state(logs, |it| it["deadLetterOffset"] = 10_000_000.into());
    });
    add("a state that rests on more commands", "state-ahead", STATE, |logs| {
        state(logs, |it| it["controlOffset"] = 10_000_000.into())
    });
    add("a state with more acknowledgements", "state-ahead", STATE, |logs| {
        state(logs, |it| it["lastAck"]["count"] = 1000.into());
    });
    add("a retry of nothing", "state-ahead", STATE, |logs| {
        state(logs, |it| {
            it["retries"] = json!([{
                "scope": "runtime", "key": "milestone:x", "offset": 0, "waiting": 0, "attempts": 1, "tries": 1,
                "dueUtc": "2026-03-01T09:05:00.000Z",
                "retry": { "firstUtc": "2026-03-01T09:05:00.000Z", "acksAtFirst": 0, "delayMs": 5, "reason": "x" },
            }]);
        });
    });
    // The audit was written anew by somebody who knows how, chain and mark too.
    add("an acknowledgement taken out of a whole new chain", "lost", QUEUE, |logs| {
        rewrite_chain(logs, "audit", |all| {
            all.retain(|it| !is(it, "deliver", "acknowledged", "milestone:m9"))
        });
    });
    add("an emit record taken out of a whole new chain", "record-unaudited", MILESTONES, |logs| {
        rewrite_chain(logs, "audit", |all| all.retain(|it| !is(it, "emit", "appended", "milestone:m9")));
    });
    add("an end of the audit taken off, with a new mark", "audit-cut", "audit", |logs| {
        rewrite_chain(logs, "audit", |all| all.truncate(all.len() - 12));
    });
    add("a receipt changed in a whole new chain", "receipt-contradicted", FEED, |logs| {
        rewrite_chain(logs, "audit", |all| {
            let ack = all.iter_mut().find(|it| {
                is(it, "deliver", "acknowledged", "milestone:m9") && it["detail"]["endpoint"] == ""
            });
            ack.unwrap()["detail"]["receipt"]["head"] = "ab".repeat(32).into();
        });
    });
    add("a milestone changed, and its record in a whole new chain", "payload-differs", QUEUE, |logs| {
        edit(&segments(logs, MILESTONES)[0], |all| change_field(&mut all[2], "/nextAction"));
        let fingerprint =
            milepost::journal::fingerprint(lines(&segments(logs, MILESTONES)[0])[2].trim_ascii_end());
        rewrite_chain(logs, "audit", |all| {
            let emit = all.iter_mut().find(|it| is(it, "emit", "appended", "milestone:m2")).unwrap();
            emit["detail"]["fingerprint"] = fingerprint.into();
        });
    });
    add("a feed written anew with another event", "record-changed", FEED, |logs| {
        rewrite_chain(logs, FEED, |all| all[8]["event"]["claim"] = "Another.".into());
    });
    add("a feed and its audit written anew", "receipt-contradicted", FEED, |logs| {
        rewrite_chain(logs, FEED, |all| all[8]["event"]["claim"] = "Another.".into());
        rewrite_chain(logs, "audit", |all| {
            for it in all.iter_mut().filter(|it| it["action"] == "receive") {
                it["detail"].as_object_mut().unwrap().remove("fingerprint");
            }
        });
    });
}

#[test]
fn every_plant_is_found_by_name() {
    let whole = rich();
    let mut plants = Vec::new();
    by_hand(&mut plants);
    by_design(&mut plants);
    let mut missed = Vec::new();
    for Plant { name, damage, kinds, file } in &plants {
        let damaged = Scratch::new();
        copy(&whole.log(""), &damaged.log(""));
        damage(&damaged.log(""));
        let run = damaged.run("milestone-status", &["--check", "--json"]);
        if run.code != 2 {
            missed.push(format!("{name}: exit {}\n  {}{}", run.code, run.stdout, run.stderr));
            continue;
        }
        let report = run.results().remove(0);
        let findings = report["findings"].as_array().unwrap();
        let is_named = findings.iter().any(|it| {
            let is_there = it["file"].as_str().unwrap().starts_with(file);
            is_there && (kinds.is_empty() || kinds.contains(&it["kind"].as_str().unwrap()))
        });
        if !is_named {
            let found: Vec<_> = findings
                .iter()
                .map(|it| format!("{} {}: {}", it["kind"], it["file"], it["message"]))
                .collect();
            missed.push(format!("{name}: wanted {kinds:?} in {file}, found\n  {}", found.join("\n  ")));
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {} plants were missed:\n{}",
        missed.len(),
        plants.len(),
        missed.join("\n")
    );
    assert!(plants.len() > 150, "{}", plants.len());
    // The copies are what is damaged.
    report(&whole, 0);
    emit(&whole, ["z".to_owned()]).exits(0);
    report(&whole, 0);
}
