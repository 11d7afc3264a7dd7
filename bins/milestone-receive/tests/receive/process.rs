//! Starting, ending, and being killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::client::{Folder, Receiver, event, read, send, signed};

#[test]
fn without_a_secret_it_does_not_listen() {
    let folder = Folder::new();
    let output = folder.command(&[]).env_remove("CLAWDBOT_MILESTONE_WEBHOOK_SECRET").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("milestone-receive: ") && text.contains("secret"), "{text}");
    let empty = folder.command(&[]).env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", "").output().unwrap();
    assert_eq!(empty.status.code(), Some(78));
}

#[test]
fn one_instance_works_in_a_folder() {
    let folder = Folder::new();
    let receiver = folder.start();
    let second = folder.run(&[]);
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another milestone-receive"));
    assert_eq!(receiver.end(), 0);
    assert_eq!(folder.start().end(), 0);
}

#[test]
fn faults_of_the_command_line_have_their_exit_codes() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let code = |flags: &[&str]| folder.run(flags).status.code();
    assert_eq!(code(&["--tolerance", "5"]), Some(64));
    let fresh = |flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_milestone-receive"));
        command.env_clear().env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", "s").arg("--logs").arg(folder.path());
        command.args(flags).output().unwrap().status.code()
    };
    assert_eq!(fresh(&["--listen", &taken]), Some(69));
    assert_eq!(fresh(&["--listen", "somewhere"]), Some(64));
    assert_eq!(fresh(&["--show-evidence", "some"]), Some(64));
    assert_eq!(fresh(&["--cors", "app.example/x"]), Some(64));
    assert_eq!(fresh(&["--public-host", "http://x"]), Some(64));
    assert_eq!(fresh(&["--listen", "192.0.2.1:0"]), Some(78));
    let nowhere = folder.file("nowhere");
    assert_eq!(fresh(&["--logs", nowhere.to_str().unwrap()]), Some(64));
}

#[test]
fn asked_to_end_it_answers_what_is_in_flight_and_keeps_it() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null));
    let mut stream = receiver.connect();
    // The request is begun before the signal and finished after it.
    let (first, rest) = request.body.split_at(10);
    let length = request.body.len().to_string();
    send(&mut stream, "POST", &request.clone().with("content-length", &length).body(first));
    // Answered by another connection: by then the first one is being served.
    assert_eq!(receiver.get("/healthz").status, 200);
    let pid = receiver.pid();
    let waiting = thread::spawn(move || receiver.end());
    // It takes no new connections once it is ending.
    while std::net::TcpStream::connect(stream.peer_addr().unwrap()).is_ok() {
        thread::yield_now();
    }
    std::io::Write::write_all(&mut stream, rest).unwrap();
    assert_eq!(read(stream).verdict(), (200, "accepted".into()));
    assert_eq!(waiting.join().unwrap(), 0, "process {pid}");
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 1);
}

#[test]
fn asked_to_end_it_waits_for_no_headers() {
    const WHOLE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let folder = Folder::new();
    let receiver = folder.start();
    let mut streams = Vec::new();
    // Of the first request of a connection, and of its second one.
    for before in [&b""[..], WHOLE] {
        let mut stream = receiver.connect();
        stream.write_all(before).unwrap();
        if !before.is_empty() {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        stream.write_all(b"POST /internal/milestones/ingest HTTP/1.1\r\nhost: loc").unwrap();
        streams.push(stream);
    }
    // Answered by another connection: by then those are being served.
    assert_eq!(receiver.get("/healthz").status, 200);
    let began = Instant::now();
    assert_eq!(receiver.end(), 0);
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

#[test]
fn killed_at_any_time_it_has_lost_nothing_that_it_accepted_and_holds_nothing_twice() {
    let folder = Folder::new();
    let mut acknowledged: BTreeMap<String, Value> = BTreeMap::new();
    for round in 0..4 {
        let receiver = folder.start();
        let (ends, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let address = receiver.address;
        let answers = thread::scope(|scope| {
            let senders: Vec<_> = (0..8)
                .map(|sender| {
                    let (ends, sent) = (&ends, &sent);
                    scope.spawn(move || {
                        let mut taken = Vec::new();
                        for number in 0.. {
                            if ends.load(SeqCst) {
                                break;
                            }
                            let id = format!("r{round}.s{sender}.{number}");
                            let Ok(mut stream) = std::net::TcpStream::connect(address) else { break };
                            send(&mut stream, "POST", &signed(&event(&id, &Value::Null)));
                            let mut answer = String::new();
                            let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
                            if answer.starts_with("HTTP/1.1 200")
                                && let Some((_, body)) = answer.split_once("\r\n\r\n")
                                && let Ok(body) = serde_json::from_str::<Value>(body)
                            {
                                taken.push((id, body["receipt"].clone()));
                                sent.fetch_add(1, SeqCst);
                            }
                        }
                        taken
                    })
                })
                .collect();
            while sent.load(SeqCst) < 40 + 17 * round {
                thread::yield_now();
            }
            receiver.kill();
            ends.store(true, SeqCst);
            senders.into_iter().flat_map(|it| it.join().unwrap()).collect::<Vec<_>>()
        });
        acknowledged.extend(answers);
    }
    let receiver = folder.start();
    let lines = folder.lines("receive/feed.jsonl");
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), lines.len() as u64);
    folder.verify_chain("audit.jsonl");
    let mut seen = BTreeSet::new();
    for line in &lines {
        let id = line["event"]["milestoneId"].as_str().unwrap();
        assert!(seen.insert(id.to_owned()), "{id} is there twice");
        if let Some(receipt) = acknowledged.remove(id) {
            assert_eq!(receipt, json!({ "seq": line["seq"], "head": line["hash"] }));
        }
    }
    assert!(acknowledged.is_empty(), "lost: {acknowledged:?}");
    // Who was acknowledged, and who was only left whole, is audited once.
    let mut audited: BTreeMap<String, usize> = BTreeMap::new();
    for record in folder.lines("audit.jsonl") {
        if matches!(record["outcome"].as_str(), Some("appended" | "recovered")) {
            *audited.entry(record["idempotency_key"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for id in &seen {
        assert_eq!(audited.get(&format!("milestone:{id}")), Some(&1), "{id}");
    }
    // Each one again is a duplicate.
    for id in seen.iter().step_by(17) {
        assert_eq!(receiver.emit(id, &Value::Null).verdict(), (200, "duplicate".into()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test damages files itself")]
fn a_truncated_feed_stops_it_and_it_says_how_a_new_one_is_begun() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    assert_eq!(receiver.end(), 0);
    fs::write(folder.file("receive/feed.jsonl"), b"").unwrap();
    let output = folder.run(&[]);
    assert_eq!(output.status.code(), Some(65));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("receive/feed.jsonl") && text.contains("move the folders receive and .lock/receive")
    );
    assert!(!text.contains("--resync"), "{text}");
    fs::rename(folder.file("receive"), folder.file("old")).unwrap();
    fs::rename(folder.file(".lock/receive"), folder.file("old-lock")).unwrap();
    let receiver = folder.start();
    assert_eq!(receiver.emit("a", &Value::Null).verdict(), (200, "accepted".into()));
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test damages files itself")]
fn a_damaged_line_of_the_feed_is_told_kept_and_shown_to_nobody() {
    let folder = Folder::new();
    let receiver = folder.start();
    for id in ["a", "b", "c"] {
        assert_eq!(receiver.emit(id, &Value::Null).status, 200);
    }
    assert_eq!(receiver.end(), 0);
    let feed = folder.file("receive/feed.jsonl");
    let mut bytes = fs::read(&feed).unwrap();
    let key = bytes.windows(11).position(|it| it == b"milestone:b").unwrap();
    // No item has this field, yet the line is not what was accepted.
    bytes[key] = 0xff;
    fs::write(&feed, bytes).unwrap();
    let mut receiver = Receiver::begin(folder.command(&[]).stderr(Stdio::piped()));
    let latest = receiver.get("/api/milestones/latest").json();
    let ids: Vec<_> = latest["items"].as_array().unwrap().iter().map(|it| &it["milestoneId"]).collect();
    assert_eq!(ids, ["c", "a"]);
    let said = receiver.messages().find(|it| it.contains("warning")).unwrap();
    assert!(said.contains("receive/feed.jsonl: offset") && said.contains("quarantine/"), "{said}");
    assert_eq!(fs::read_dir(folder.file("quarantine")).unwrap().count(), 1);
    // Sent again it is there once, and the chain goes on.
    assert_eq!(receiver.emit("b", &Value::Null).verdict(), (200, "accepted".into()));
    assert_eq!(receiver.get("/api/milestones/latest").json()["items"].as_array().unwrap().len(), 3);
}

#[test]
fn what_may_pass_is_503_until_it_has_passed() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    // A journal that cannot be opened, as on a disk that fails.
    let feed = folder.file("receive/feed.jsonl");
    let aside = folder.file("aside");
    fs::copy(&feed, &aside).unwrap();
    fs::remove_file(&feed).unwrap();
    fs::create_dir(&feed).unwrap();
    let answer = receiver.emit("b", &Value::Null);
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    assert_eq!(receiver.get("/healthz").status, 503);
    fs::remove_dir(&feed).unwrap();
    fs::copy(&aside, &feed).unwrap();
    // Whoever sends nothing as long as it is not well gets to know all the same.
    while receiver.get("/healthz").status != 200 {
        thread::yield_now();
    }
    assert_eq!(receiver.emit("b", &Value::Null).verdict(), (200, "accepted".into()));
    assert_eq!(receiver.get("/healthz").status, 200);
    assert_eq!(folder.verify_chain("receive/feed.jsonl"), 2);
}
