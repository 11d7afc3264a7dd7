//! The live stream: in order, without gap or repeat, whatever happens to either side.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::client::{Folder, Receiver, Request, event, owned, send, signed_body};

/// An open stream.
struct Stream {
    lines: BufReader<TcpStream>,
}

/// One event of it.
#[derive(Debug)]
struct Event {
    id: u64,
    name: String,
    item: Value,
}

impl Stream {
    fn open(receiver: &Receiver, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut stream = receiver.connect();
        send(&mut stream, "GET", &Request { path: path.into(), headers: owned(headers), body: Vec::new() });
        let mut stream = Stream { lines: BufReader::new(stream) };
        // The first thing it says shows that it is open; what comes after now is streamed.
        while !stream.line().unwrap().starts_with("retry: ") {}
        stream
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None` at the end. The framing of chunks is passed over.
    fn next(&mut self) -> Option<Event> {
        let (mut id, mut name) = (0, String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => id = value.parse().unwrap(),
                Some(("event", value)) => value.clone_into(&mut name),
                Some(("data", value)) => {
                    return Some(Event { id, name, item: serde_json::from_str(value).unwrap() });
                }
                _ => {}
            }
        }
    }

    fn ids(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.next().unwrap().id).collect()
    }
}

const PATH: &str = "/api/milestones/stream";

fn emit_all(receiver: &Receiver, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        assert_eq!(receiver.emit(&format!("m{number}"), &Value::Null).status, 200);
    }
}

#[test]
fn what_comes_is_streamed_as_the_item_of_latest() {
    let folder = Folder::new();
    let receiver = folder.start();
    emit_all(&receiver, 1..=2);
    let mut stream = Stream::open(&receiver, PATH, &[]);
    receiver.emit("m2", &Value::Null);
    emit_all(&receiver, 3..=3);
    let event = stream.next().unwrap();
    assert_eq!((event.id, event.name.as_str()), (3, "milestone"));
    assert_eq!(event.item, receiver.get("/api/milestones/latest?limit=1").json()["items"][0]);
}

#[test]
fn who_comes_back_gets_what_it_missed_once_and_in_order() {
    let folder = Folder::new();
    let receiver = folder.start();
    emit_all(&receiver, 1..=150);
    let mut stream = Stream::open(&receiver, PATH, &[("last-event-id", "5")]);
    assert_eq!(stream.ids(145), (6..=150).collect::<Vec<_>>());
    emit_all(&receiver, 151..=152);
    assert_eq!(stream.ids(2), [151, 152]);
    // From the journal, after a restart; and the id wins over the query of the first connection.
    assert_eq!(receiver.end(), 0);
    assert!(stream.next().is_none(), "the stream ends with the receiver");
    let receiver = folder.start();
    let mut stream = Stream::open(&receiver, &format!("{PATH}?after=7"), &[("last-event-id", "20")]);
    assert_eq!(stream.ids(132), (21..=152).collect::<Vec<_>>());
    emit_all(&receiver, 153..=153);
    assert_eq!(stream.ids(1), [153]);
    assert_eq!(
        Stream::open(&receiver, &format!("{PATH}?after=0"), &[]).ids(153),
        (1..=153).collect::<Vec<_>>()
    );
}

#[test]
fn an_id_of_another_feed_begins_now_and_no_id_is_refused() {
    let folder = Folder::new();
    let receiver = folder.start();
    emit_all(&receiver, 1..=1);
    let mut stream = Stream::open(&receiver, PATH, &[("last-event-id", "999")]);
    emit_all(&receiver, 2..=2);
    assert_eq!(stream.ids(1), [2]);
    let answer = receiver.get_with(PATH, &[("last-event-id", "x")]);
    assert_eq!((answer.status, answer.json()["ok"].clone()), (400, json!(false)));
    assert_eq!(receiver.get(&format!("{PATH}?after=-1")).status, 400);
}

#[test]
fn a_client_that_reads_nothing_is_closed_and_costs_the_others_nothing() {
    let folder = Folder::new();
    let receiver = folder.start();
    let mut stuck = Stream::open(&receiver, PATH, &[]);
    let mut stream = Stream::open(&receiver, PATH, &[]);
    let claim = "x".repeat(200_000);
    let mut number = 0;
    let mut emit_next = || {
        number += 1;
        assert_eq!(receiver.emit(&format!("m{number}"), &json!({ "claim": claim })).status, 200);
        assert_eq!(stream.ids(1), [number]);
    };
    while !receiver.get("/metrics").body.contains("milepost_receive_streams 1\n") {
        emit_next();
    }
    emit_next();
    // It got what the kernel held, and then the end.
    while stuck.line().is_some() {}
}

#[test]
fn a_thousand_clients_each_see_every_milestone() {
    let folder = Folder::new();
    let receiver = folder.start();
    let streams: Vec<_> = (0..1000).map(|_| Stream::open(&receiver, PATH, &[])).collect();
    emit_all(&receiver, 1..=2);
    for mut stream in streams {
        assert_eq!(stream.ids(2), [1, 2]);
    }
}

#[test]
fn who_missed_too_much_is_told_to_begin_anew() {
    let folder = Folder::new();
    let receiver = folder.start();
    for part in 0..80 {
        let items: Vec<_> = (0..128)
            .map(|it| {
                let id = format!("m{}", part * 128 + it + 1);
                let event = event(&id, &Value::Null);
                milepost::ingest::milestone_body(
                    &format!("milestone:{id}"),
                    milepost::Timestamp::from_millis(0),
                    &event,
                )
            })
            .collect();
        let body = milepost::ingest::batch::body(&items);
        let path = milepost::ingest::batch::MILESTONES_PATH;
        assert_eq!(receiver.post(&signed_body(path, "b", &body)).status, 200);
    }
    // 10,240 are there: who has 240 gets the rest, who has fewer is told where the end is.
    let mut late = Stream::open(&receiver, PATH, &[("last-event-id", "240")]);
    assert_eq!(late.ids(10_000), (241..=10_240).collect::<Vec<_>>());
    let mut later = Stream::open(&receiver, PATH, &[("last-event-id", "239")]);
    let reset = later.next().unwrap();
    assert_eq!((reset.name.as_str(), reset.id, &reset.item["seq"]), ("reset", 10_240, &json!(10_240)));
    receiver.emit("new", &Value::Null);
    assert_eq!(later.ids(1), [10_241]);
}
