//! The main job through the programs themselves: emit, queue, deliver, receive, and there it is in the feed.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Child,
};

use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

/// A real fleet's first milestones.
const MILESTONES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/milestones.jsonl");

/// A sender and a receiver, each with its own logs folder.
struct Pipeline {
    sender: Scratch,
    receiver: Receiver,
}

/// A running milestone-receive.
struct Receiver {
    scratch: Scratch,
    child: Option<Child>,
    address: String,
}

impl Receiver {
    fn start() -> Receiver {
        let scratch = Scratch::new();
        secret(&scratch, "correct horse");
        let mut receiver = Receiver { scratch, child: None, address: String::new() };
        receiver.begin("127.0.0.1:0");
        receiver
    }

    fn begin(&mut self, listen: &str) {
        let mut child = self
            .scratch
            .command("milestone-receive")
            .args(["--listen", listen, "--secret-file", "secret"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        listening["address"].as_str().unwrap().strip_prefix("http://").unwrap().clone_into(&mut self.address);
        self.child = Some(child);
    }

    /// Ends it by SIGKILL and starts it again at the same address.
    fn kill_and_restart(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let address = self.address.clone();
        self.begin(&address);
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// How often each milestone is in the feed's store.
    fn stored(&self) -> BTreeMap<String, usize> {
        let mut stored = BTreeMap::new();
        for line in self.scratch.records("receive/feed") {
            *stored.entry(line["event"]["milestoneId"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        stored
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn secret(scratch: &Scratch, text: &str) {
    let path = scratch.write("secret", format!("{text}\n"));
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

impl Pipeline {
    fn start() -> Pipeline {
        let sender = Scratch::new();
        secret(&sender, "correct horse");
        Pipeline { sender, receiver: Receiver::start() }
    }

    fn deliver(&self, args: &[&str]) -> Run {
        let url = format!("http://{}/internal/milestones/ingest", self.receiver.address);
        self.sender.run("milestone-deliver", &[&["--url", &url, "--secret-file", "secret"], args].concat())
    }
}

#[test]
fn real_milestones_reach_the_feed_once_however_often_it_all_runs() {
    let pipeline = Pipeline::start();
    for round in 0..3 {
        let emitted = pipeline.sender.run("milestone-emit", &["--verify-evidence=off", MILESTONES]).exits(0);
        let expected = if round == 0 { "appended" } else { "duplicate" };
        assert!(emitted.all("status").iter().all(|it| it == expected), "{}", emitted.stdout);
        let queued = pipeline.sender.run("milestone-queue", &[]).exits(0);
        assert_eq!(queued.all("queued"), [if round == 0 { 8 } else { 0 }]);
        let delivered = pipeline.deliver(&["--drain"]).exits(0);
        assert_eq!(delivered.all("delivered"), [if round == 0 { 8 } else { 0 }], "{}", delivered.stdout);
        assert_eq!(delivered.all("pending"), [0]);
    }
    let source = std::fs::read_to_string(MILESTONES).unwrap();
    let expected: BTreeMap<String, usize> = source
        .lines()
        .map(|it| (serde_json::from_str::<Value>(it).unwrap()["milestoneId"].as_str().unwrap().to_owned(), 1))
        .collect();
    assert_eq!(pipeline.receiver.stored(), expected);

    let latest = pipeline.receiver.get("/api/milestones/latest?limit=200");
    let items = latest["items"].as_array().unwrap();
    assert_eq!(items.len(), 8);
    let times: Vec<_> = items.iter().map(|it| it["timestampUtc"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");

    // The sender's audit holds the receiver's proof, and both name the event's trace alike.
    let receipts: BTreeMap<String, Value> = pipeline
        .sender
        .records("audit")
        .into_iter()
        .filter(|it| it["action"] == "deliver" && it["outcome"] == "acknowledged")
        .map(|it| (it["idempotency_key"].as_str().unwrap().to_owned(), it["detail"]["receipt"].clone()))
        .collect();
    for line in pipeline.receiver.scratch.records("receive/feed") {
        let receipt = &receipts[line["idempotencyKey"].as_str().unwrap()];
        assert_eq!((&receipt["seq"], &receipt["head"]), (&line["seq"], &line["hash"]));
    }
}

#[test]
fn kills_on_both_sides_lose_and_double_nothing() {
    let mut pipeline = Pipeline::start();
    let events: Vec<String> = (0..400).map(|it| milestone(&format!("m{it}")).to_string()).collect();
    pipeline.sender.feed("milestone-emit", &["-q"], events.join("\n").as_bytes()).exits(0);
    pipeline.sender.run("milestone-queue", &["-q"]).exits(0);
    for round in 0..6 {
        let url = format!("http://{}/internal/milestones/ingest", pipeline.receiver.address);
        let mut sender = pipeline
            .sender
            .command("milestone-deliver")
            .args(["--url", &url, "--secret-file", "secret", "--drain", "--backoff-base", "10ms"])
            .spawn()
            .unwrap();
        // Somewhere in the middle: as soon as the receiver has taken a few more.
        let enough = (round + 1) * 40;
        while pipeline.receiver.scratch.records("receive/feed").len() < enough {
            std::thread::yield_now();
        }
        if round % 2 == 0 {
            sender.kill().unwrap();
            sender.wait().unwrap();
            pipeline.receiver.kill_and_restart();
        } else {
            pipeline.receiver.kill_and_restart();
            sender.kill().unwrap();
            sender.wait().unwrap();
        }
    }
    pipeline.deliver(&["--drain", "--backoff-base", "10ms"]).exits(0);
    let expected: BTreeMap<String, usize> = (0..400).map(|it| (format!("m{it}"), 1)).collect();
    assert_eq!(pipeline.receiver.stored(), expected);
    assert!(pipeline.sender.records("milestone-delivery-deadletter").is_empty());
}

#[test]
fn a_wrong_secret_publishes_nothing_and_loses_nothing() {
    let pipeline = Pipeline::start();
    pipeline.sender.run("milestone-emit", &["-q", "--verify-evidence=off", MILESTONES]).exits(0);
    pipeline.sender.run("milestone-queue", &["-q"]).exits(0);
    secret(&pipeline.sender, "wrong horse");
    let held = pipeline.deliver(&["--drain"]).exits(75);
    assert!(held.stderr.contains("401"), "{}", held.stderr);
    assert!(pipeline.receiver.stored().is_empty());
    secret(&pipeline.sender, "correct horse");
    pipeline.deliver(&["--release"]).exits(0);
    pipeline.deliver(&["--drain"]).exits(0);
    assert_eq!(pipeline.receiver.stored().len(), 8);
}

#[test]
fn an_overdue_task_becomes_a_reminder_that_is_received_once() {
    let pipeline = Pipeline::start();
    let task = |id: &str, scope: &str, status: &str| {
        let due = "2026-03-01T09:00:00+01:00";
        json!({ "task_id": id, "scope": scope, "title": "Pay.", "due_at": due, "status": status }).to_string()
    };
    let tasks = [
        task("pay", "chat:42", "open"),
        task("pay", "user:7", "open"),
        task("call", "user:7", "open"),
        task("call", "user:7", "done"),
    ];
    pipeline.sender.feed("task-emit", &["-q"], tasks.join("\n").as_bytes()).exits(0);
    let queue = ["--queue", "reminder-delivery-queue.jsonl"];
    for round in 0..3 {
        let now = ["--now", if round < 2 { "2026-03-01T08:30:00Z" } else { "2026-03-01T09:30:00Z" }];
        pipeline.sender.run("reminder-scan", &now).exits(0);
        pipeline
            .sender
            .run("milestone-queue", &[&["--source", "reminders.jsonl"], &queue[..]].concat())
            .exits(0);
        let delivered = pipeline.deliver(&[&["--drain"], &queue[..]].concat()).exits(0);
        assert_eq!(delivered.all("delivered"), [if round == 1 { 0 } else { 2 }], "{}", delivered.stdout);
    }
    let received = pipeline.receiver.scratch.records("receive/events");
    let keys: Vec<_> = received.iter().map(|it| it["idempotencyKey"].as_str().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "rem:chat:42:pay:2026-03-01T08:00Z",
            "rem:user:7:pay:2026-03-01T08:00Z",
            "rem:chat:42:pay:2026-03-01T09:00Z",
            "rem:user:7:pay:2026-03-01T09:00Z",
        ]
    );
    let reminders = pipeline.sender.records("reminders");
    for (line, reminder) in received.iter().zip(&reminders) {
        assert_eq!(line["envelope"], *reminder);
    }
    // Nothing of it is shown to anybody.
    assert_eq!(pipeline.receiver.get("/api/milestones/latest")["items"], json!([]));
    assert!(pipeline.receiver.stored().is_empty());
}
