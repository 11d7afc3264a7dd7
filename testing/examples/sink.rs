//! A receiver that keeps nothing: it answers every request with the contract's acknowledgement as fast as it can.
//!
//! For measuring a sender: what it does not need itself is left to the sender. Prints the address that it listens
//! on, and in the end how many items came in how many requests, and in what time from the first one on.
//!
//! usage: sink COUNT [BATCH]
//!   COUNT   how many items are waited for
//!   BATCH   how many items a batch may have; without it the sink takes none
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "an example for measuring"
)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Instant,
};

use serde_json::Value;

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static ITEMS: AtomicU64 = AtomicU64::new(0);
static FIRST: OnceLock<Instant> = OnceLock::new();

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().expect("usage: sink COUNT [BATCH]").parse().unwrap();
    let batch: Option<u32> = args.next().map(|it| it.parse().unwrap());
    let header = batch.map_or(String::new(), |it| format!("x-milestone-batch: {it}\r\n"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (header, done) = (header.clone(), done.clone());
            thread::spawn(move || serve(stream.unwrap(), &header, count, &done));
        }
    });
    is_done.recv().unwrap();
    let seconds = FIRST.get().unwrap().elapsed().as_secs_f64();
    println!("{} items in {} requests and {seconds:.3} s", ITEMS.load(Relaxed), REQUESTS.load(Relaxed));
}

fn serve(mut stream: TcpStream, header: &str, count: u64, done: &mpsc::Sender<()>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::with_capacity(64 << 10);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let (start, length) = loop {
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                let length = content_length(&bytes[..end]);
                if bytes.len() >= end + 4 + length {
                    break (end + 4, length);
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        };
        FIRST.get_or_init(Instant::now);
        let body = answer(&bytes[start..start + length]);
        bytes.drain(..start + length);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\r\n",
            body.len()
        );
        REQUESTS.fetch_add(1, Relaxed);
        if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).is_err() {
            return;
        }
        if ITEMS.load(Relaxed) >= count {
            done.send(()).unwrap();
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|it| it.strip_prefix("content-length:"));
    value.map_or(0, |it| it.trim().parse().unwrap())
}

fn answer(body: &[u8]) -> String {
    if !body.starts_with(b"{\"items\":") {
        ITEMS.fetch_add(1, Relaxed);
        let id = between(body, b"\"milestoneId\":\"");
        return format!(r#"{{"ok":true,"status":"accepted","milestoneId":"{id}"}}"#);
    }
    let batch: Value = serde_json::from_slice(body).unwrap();
    let items = batch["items"].as_array().unwrap();
    ITEMS.fetch_add(items.len() as u64, Relaxed);
    let results: Vec<String> = items
        .iter()
        .map(|it| {
            let (key, id) = (&it["idempotencyKey"], &it["event"]["milestoneId"]);
            format!(r#"{{"idempotencyKey":{key},"status":"accepted","milestoneId":{id}}}"#)
        })
        .collect();
    format!(r#"{{"ok":true,"results":[{}]}}"#, results.join(","))
}

/// The text behind `start`, up to the next quotation mark; other programs' requests may have none.
fn between(body: &[u8], start: &[u8]) -> String {
    let Some(at) = body.windows(start.len()).position(|it| it == start) else { return String::new() };
    let rest = &body[at + start.len()..];
    String::from_utf8_lossy(rest.split(|it| *it == b'"').next().unwrap_or_default()).into_owned()
}
