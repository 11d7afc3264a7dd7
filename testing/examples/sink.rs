//! A receiver that keeps nothing: it answers every request with the contract's acknowledgement as fast as it can.
//!
//! For measuring a sender: what it does not need itself is left to the sender. Prints the address that it listens
//! on, and in the end how many items came in how many requests, and in what time from the first one on.
//!
//! Other senders are answered too: those that post several items as lines of one body, and, below any path but the
//! contract's, those that expect an answer of Elasticsearch.
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
    fmt::Write as _,
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

use memchr::{memchr_iter, memmem};

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
        let (end, length) = loop {
            if let Some(end) = memmem::find(&bytes, b"\r\n\r\n") {
                let length = content_length(&bytes[..end]);
                if bytes.len() >= end + 4 + length {
                    break (end, length);
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        };
        FIRST.get_or_init(Instant::now);
        let whole = end + 4 + length;
        let body = answer(&bytes[..end], &bytes[end + 4..whole]);
        bytes.drain(..whole);
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

fn answer(head: &[u8], body: &[u8]) -> String {
    let line = head.split(|it| *it == b'\r').next().unwrap_or_default();
    if !line.starts_with(b"POST ") {
        return "{}".into();
    }
    if memmem::find(line, b"/internal/").is_none() {
        ITEMS.fetch_add(1, Relaxed);
        return "{}".into();
    }
    if !body.starts_with(b"{\"items\":") {
        ITEMS.fetch_add(1 + memchr_iter(b'\n', body.trim_ascii_end()).count() as u64, Relaxed);
        let id = between(body, b"\"milestoneId\":\"").map_or("", |(id, _)| id);
        return format!(r#"{{"ok":true,"status":"accepted","milestoneId":"{id}"}}"#);
    }
    // An item is `{"event":{… "milestoneId":"…" …},"idempotencyKey":"…", …}`. Quotation marks in texts are escaped, so
    // the names stand nowhere else.
    let (mut answer, mut rest, mut items) = (String::from(r#"{"ok":true,"results":["#), body, 0);
    while let Some((id, after)) = between(rest, b"\"milestoneId\":\"") {
        let (key, after) = between(after, b"\"idempotencyKey\":\"").unwrap();
        let comma = if items == 0 { "" } else { "," };
        write!(answer, r#"{comma}{{"idempotencyKey":"{key}","status":"accepted","milestoneId":"{id}"}}"#)
            .unwrap();
        (rest, items) = (after, items + 1);
    }
    ITEMS.fetch_add(items, Relaxed);
    answer.push_str("]}");
    answer
}

/// The text behind `start`, up to the next quotation mark, and what follows; other programs' requests may have none.
fn between<'a>(body: &'a [u8], start: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let rest = &body[memmem::find(body, start)? + start.len()..];
    let (text, after) = rest.split_at(memchr::memchr(b'"', rest)?);
    Some((std::str::from_utf8(text).unwrap(), after))
}
