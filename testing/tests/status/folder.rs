//! A folder in which everything that can happen has happened, made by the tools themselves.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use milepost::{
    Timestamp,
    audit::{self, Action, Draft, Outcome},
    envelope::{EventEnvelope, REMINDER_DUE},
    identity,
    journal::{Batch, Journal, JournalName},
    logs::Logs,
    queue,
};
use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

/// Small, so that every journal has several segments.
pub const ROTATE: &str = "3KiB";

/// A running milestone-receive; killed when dropped.
#[derive(Debug)]
pub struct Receiver {
    pub child: Child,
    pub address: String,
}

impl Receiver {
    pub fn start(scratch: &Scratch) -> Receiver {
        Receiver::at(scratch, "127.0.0.1:0")
    }

    pub fn at(scratch: &Scratch, listen: &str) -> Receiver {
        let mut child = scratch
            .command("milestone-receive")
            .args(["--listen", listen, "--secret-file", "secret", "--rotate-bytes", ROTATE])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let address = listening["address"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Receiver { child, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let path = scratch.write("secret", "correct horse\n");
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    scratch
}

pub fn events(ids: impl IntoIterator<Item = String>) -> Vec<u8> {
    ids.into_iter().map(|it| milestone(&it).to_string() + "\n").collect::<String>().into_bytes()
}

pub fn emit(scratch: &Scratch, ids: impl IntoIterator<Item = String>) -> Run {
    scratch.feed("milestone-emit", &["-q", "--rotate-bytes", ROTATE], &events(ids))
}

pub fn enqueue(scratch: &Scratch, args: &[&str]) -> Run {
    scratch.run("milestone-queue", &[&["-q", "--rotate-bytes", ROTATE], args].concat()).exits(0)
}

pub fn deliver(scratch: &Scratch, url: &str, args: &[&str]) -> Run {
    let all = [&["-q", "--rotate-bytes", ROTATE, "--secret-file", "secret", "--url", url], args].concat();
    scratch.run("milestone-deliver", &all)
}

fn numbered(prefix: &str, numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(move |it| format!("{prefix}{it}"))
}

const REMINDERS: [&str; 4] = ["--source", "reminders.jsonl", "--queue", "reminder-delivery-queue.jsonl"];

/// See the head of this file.
pub fn rich() -> Scratch {
    let folder = scratch();
    let receiver = Receiver::start(&folder);
    let backup_folder = scratch();
    let backup = Receiver::start(&backup_folder);

    // Somebody else has used four of the ids for something else, so these will be refused.
    let other = scratch();
    let taken: String = [4, 7, 15, 21]
        .map(|it| {
            let mut event = milestone(&format!("m{it}"));
            event["claim"] = json!("Something else.");
            event.to_string() + "\n"
        })
        .concat();
    other.feed("milestone-emit", &["-q"], taken.as_bytes()).exits(0);
    other.run("milestone-queue", &["-q"]).exits(0);
    deliver(&other, &receiver.url(), &["--drain"]).exits(0);

    for round in 0..5 {
        emit(&folder, numbered("m", round * 6..round * 6 + 6)).exits(0);
        enqueue(&folder, &[]);
        deliver(&folder, &receiver.url(), &["--drain"]).exits(0);
        deliver(&folder, &backup.url(), &["--drain", "--endpoint", "backup"]).exits(0);
    }
    // Duplicates, a conflict, a refusal.
    emit(&folder, numbered("m", 0..3)).exits(0);
    let mut conflict = milestone("m1");
    conflict["claim"] = json!("Another claim.");
    folder.feed("milestone-emit", &["-q"], conflict.to_string().as_bytes()).exits(2);
    folder.feed("milestone-emit", &["-q"], b"{}\n").exits(65);
    // Dead letters: m4 is put back and given up again, m7 is put back and waits, m15 is closed, m21 stays.
    enqueue(&folder, &["--redrive", "m4"]);
    deliver(&folder, &receiver.url(), &["--drain"]).exits(0);
    enqueue(&folder, &["--redrive", "m7"]);
    discard(&folder, "milestone:m15");
    // An operator holds and releases.
    folder.run("milestone-deliver", &["--hold", "lunch"]).exits(0);
    folder.run("milestone-deliver", &["--release"]).exits(0);
    // Queued and not sent; emitted and not queued.
    emit(&folder, numbered("p", 0..8)).exits(0);
    enqueue(&folder, &[]);
    emit(&folder, numbered("q", 0..8)).exits(0);

    remind(&folder, 0..12);
    enqueue(&folder, &REMINDERS);
    deliver(&folder, &receiver.url(), &["--drain", "--queue", "reminder-delivery-queue.jsonl"]).exits(0);
    remind(&folder, 12..14);
    enqueue(&folder, &REMINDERS);
    folder
}

/// Closes a dead letter, by its audit record.
fn discard(folder: &Scratch, key: &str) {
    let logs = Logs::open(Some(&folder.log("")), "milestone-queue").unwrap();
    let letters = folder.records("milestone-delivery-deadletter");
    let mut offset = 0;
    for letter in letters {
        if letter["idempotency_key"] == key {
            break;
        }
        offset += line_length(folder, "milestone-delivery-deadletter", offset);
    }
    let detail = json!({
        "queue": "milestone-delivery-queue",
        "endpoint": "",
        "deadLetter": offset,
        "reason": "settled by hand",
    });
    audit::append(&logs, &[Draft::of(Action::Discard, Outcome::Done, key, "runtime", detail)]).unwrap();
}

fn line_length(folder: &Scratch, name: &str, offset: u64) -> u64 {
    let logs = Logs::open(Some(&folder.log("")), "test").unwrap();
    let lines = queue::open(&logs, JournalName::internal(name)).lines().get(offset).unwrap().unwrap();
    lines.len() as u64 + 1
}

/// Reminders as a scan writes them.
fn remind(folder: &Scratch, numbers: std::ops::Range<u32>) {
    let logs = Logs::open(Some(&folder.log("")), "reminder-scan").unwrap().rotate_at(2 << 10);
    let journal = Journal::new(&logs, JournalName::internal("reminders"), queue::describe);
    for number in numbers {
        let task = format!("t{number}");
        let key = identity::reminder_key("chat:42", &task, "2026-03-01T09:00Z");
        let payload = json!({
            "task_id": task,
            "scope": "chat:42",
            "title": "Pay the invoice",
            "due_at": "2026-02-28T12:00:00.000Z",
            "time_bucket": "2026-03-01T09:00Z",
        });
        let now = Timestamp::parse_utc("2026-03-01T09:05:00Z").unwrap();
        let event =
            EventEnvelope::new(REMINDER_DUE, "reminder-scan", "reminders", key.clone(), &payload, now)
                .unwrap();
        let mut line = Vec::new();
        event.write_line(&mut line).unwrap();
        let mut writer = journal.write().unwrap();
        let mut batch = Batch::default();
        let detail = json!({ "journal": "reminders", "offset": writer.end() });
        batch.push(&line);
        batch.audit(Draft::of(Action::Remind, Outcome::Reminded, &key, "chat:42", detail));
        writer.append(&batch).unwrap();
    }
}

/// A copy of a folder's files.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

/// The files of a journal, sealed ones first.
pub fn segments(logs: &Path, name: &str) -> Vec<PathBuf> {
    let active = logs.join(format!("{name}.jsonl"));
    let own = active.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = fs::read_dir(active.parent().unwrap())
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| {
            let file = it.file_name().unwrap().to_str().unwrap();
            file.strip_prefix(&own).is_some_and(|it| it.len() == 27 && it.starts_with('.'))
        })
        .collect();
    files.sort();
    files.push(active);
    files
}
