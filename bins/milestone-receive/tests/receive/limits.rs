//! What a hostile or broken peer can cost.

use std::{
    io::{Read, Write},
    time::Instant,
};

use serde_json::Value;

use crate::client::{Folder, Receiver, event, read, send, signed};

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null)).with("content-length", "600000").body(b"");
    let mut stream = receiver.connect();
    send(&mut stream, "POST", &request);
    assert_eq!(read_head(&mut stream), "HTTP/1.1 413 Payload Too Large");
    // Whoever asks first need not send it at all.
    let mut stream = receiver.connect();
    send(&mut stream, "POST", &request.with("expect", "100-continue"));
    assert_eq!(read_head(&mut stream), "HTTP/1.1 413 Payload Too Large");
}

#[test]
fn a_sender_that_insists_on_a_large_body_still_sees_the_answer() {
    let folder = Folder::new();
    let receiver = folder.start();
    let request = signed(&event("a", &Value::Null)).body(&vec![b'x'; 8 << 20]);
    let mut stream = receiver.connect();
    assert!(send(&mut stream, "POST", &request));
    assert_eq!(read(stream).status, 413);
}

#[test]
fn headers_that_are_too_long_are_refused() {
    let folder = Folder::new();
    let receiver = folder.start();
    let long = receiver.get_with("/", &[("x-long", &"x".repeat(20_000))]);
    assert_eq!(long.status, 431);
}

#[test]
fn headers_that_come_slowly_end_the_connection_and_hold_nobody_up() {
    let folder = Folder::new();
    let receiver = folder.start();
    let began = Instant::now();
    let mut slow = receiver.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ").unwrap();
    assert_eq!(receiver.get("/healthz").status, 200);
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
}

/// Everything that comes back on a raw connection.
fn raw(receiver: &Receiver, request: &str) -> String {
    let mut stream = receiver.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A refused request may end in a reset.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_that_two_parties_could_divide_differently_are_refused_or_the_last() {
    let folder = Folder::new();
    let receiver = folder.start();
    let hidden = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let post = "POST /internal/milestones/ingest HTTP/1.1\r\nhost: localhost\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    for (name, request) in [
        (
            "a length that counts against chunks",
            format!("{post}content-length: 4\r\n{chunked}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks that count against a length",
            format!("{post}{chunked}content-length: 60\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("{post}content-length: 0\r\ncontent-length: 5\r\n\r\n{hidden}")),
        ("a length with a sign", format!("{post}content-length: +0\r\n\r\n{hidden}")),
        ("lengths in a list", format!("{post}content-length: 0, 5\r\n\r\n{hidden}")),
        ("a coding that is none", format!("{post}transfer-encoding: xchunked\r\n\r\n{hidden}")),
        (
            "chunks that are not the last coding",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{hidden}"),
        ),
        ("chunks in HTTP/1.0", format!("{}{chunked}\r\n0\r\n\r\n{hidden}", post.replace("1.1", "1.0"))),
        ("a space before the colon", format!("{post}content-length : 0\r\n\r\n{hidden}")),
        ("a folded header", format!("{post}x-a: b\r\n content-length: 4\r\n\r\n{hidden}")),
        ("a chunk that is no number", format!("{post}{chunked}\r\nzz\r\n\r\n{hidden}")),
        ("a NUL", format!("{post}x-a: b\0c\r\n\r\n{hidden}")),
    ] {
        let answer = raw(&receiver, &request);
        assert!(
            answer.matches("HTTP/1.").count() <= 1 && !answer.contains("\"ok\":true"),
            "{name}: {answer}"
        );
    }
}

#[test]
fn requests_in_a_row_on_one_connection_are_answered_in_their_order() {
    let folder = Folder::new();
    let receiver = folder.start();
    let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
    let answer = raw(
        &receiver,
        &[head("/healthz", ""), head("/nowhere", ""), head("/healthz", "connection: close\r\n")].concat(),
    );
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|it| &it[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{answer}");
}

#[test]
fn thousands_of_silent_and_half_open_connections_hold_nobody_up() {
    const WANTED: u64 = 10_000;
    let folder = Folder::new();
    let receiver = folder.start();
    // As many as this machine lets us have.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(limit.maximum.unwrap_or(WANTED + 500).min(WANTED + 500));
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(WANTED + 500);
    let idle: Vec<_> = (0..WANTED.min(files.saturating_sub(300)))
        .map(|at| {
            let mut stream = receiver.connect();
            if at % 2 == 0 {
                stream.write_all(b"POST /internal/milestones/ingest HTTP/1.1\r\nhost: loc").unwrap();
            }
            stream
        })
        .collect();
    for id in ["a", "b"] {
        let began = Instant::now();
        assert_eq!(receiver.emit(id, &Value::Null).status, 200);
        assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    }
    drop(idle);
}

#[test]
fn asked_to_end_it_tells_its_streams_to_come_back() {
    let folder = Folder::new();
    let receiver = folder.start();
    let mut stream = receiver.connect();
    stream.write_all(b"GET /api/milestones/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut seen = String::new();
    let mut piece = [0; 512];
    while !seen.contains("retry: ") {
        let read = stream.read(&mut piece).unwrap();
        seen.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    assert_eq!(receiver.end(), 0);
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.contains(": ending") && seen.ends_with("0\r\n\r\n"), "{seen}");
}

fn read_head(stream: &mut impl Read) -> String {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}
