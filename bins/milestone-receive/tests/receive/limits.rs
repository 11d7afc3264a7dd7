//! What a hostile or broken peer can cost.

use std::{
    io::{Read, Write},
    time::Instant,
};

use serde_json::Value;

use crate::client::{Folder, event, read, send, signed};

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

fn read_head(stream: &mut impl Read) -> String {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}
