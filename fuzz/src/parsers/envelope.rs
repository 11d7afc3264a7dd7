//! Envelopes: records of a queue, dead letters, and what is read of them on the way.

use milepost::{
    Timestamp,
    delivery::Item,
    envelope::{DeadLetter, EventEnvelope},
    json, queue,
};
use serde_json::Value;

use crate::event::check_errors;
use milepost_fuzz::seeds;

pub fn seeds() -> Vec<Vec<u8>> {
    ["event-envelope.v1", "dead-letter.v1", "reminder.v1"].into_iter().flat_map(seeds::lines).collect()
}

pub fn run(input: &[u8]) {
    match EventEnvelope::from_line(input) {
        Ok(envelope) => check(&envelope, input),
        Err(errors) => check_errors(&errors),
    }
    if let Ok(document) = json::parse(input)
        && let Ok(envelope) = EventEnvelope::from_value(document)
    {
        let line = line_of(|line| envelope.write_line(line).is_ok());
        assert!(EventEnvelope::from_line(&line).is_ok(), "what the schema takes is taken from a journal");
    }
    match DeadLetter::from_line(input) {
        Ok(letter) => check_letter(&letter),
        Err(errors) => check_errors(&errors),
    }
    // These look at lines before anybody judged them.
    queue::keys_of(input, &mut |_| {});
    if let Ok(envelope) = queue::event_of(input, Timestamp::from_millis(0)) {
        let line = line_of(|line| envelope.write_line(line).is_ok());
        assert!(queue::describe(&line).is_some(), "what the queue writes it also settles");
    }
}

fn check(envelope: &EventEnvelope, input: &[u8]) {
    let line = line_of(|line| envelope.write_line(line).is_ok());
    let again = EventEnvelope::from_line(&line).expect("what is written is read back");
    assert_eq!(line_of(|line| again.write_line(line).is_ok()), line, "and written the same");
    assert_eq!(again.payload.get(), envelope.payload.get(), "the payload stays byte for byte");
    // A payload is passed on as it stands, one with half of a surrogate pair too, which no value can hold.
    if let Ok(given) = serde_json::from_slice::<Value>(input) {
        let written: Value = serde_json::from_slice(&line).expect("a line is JSON");
        for (name, value) in given.as_object().expect("an envelope is an object") {
            // Times are written in their one form, and what is null is left out.
            if name != "timestamp" && !value.is_null() {
                assert_eq!(written.get(name), Some(value), "{name} is kept");
            }
        }
    }
    let described = queue::describe(&line).expect("a record can be settled");
    assert_eq!(described.key, envelope.idempotency_key);
    assert_eq!(described.scope, queue::scope_of(envelope));

    let item =
        Item::read(0, line.len() as u64, &line).expect("a record is an item, if only one to give up on");
    assert_eq!(item.key(), envelope.idempotency_key);
    // A record that is put back, for whatever endpoint, is sent with the same bytes.
    let mut redriven = envelope.clone();
    redriven.endpoint = Some("other".to_owned());
    redriven.redrive_of = Some(7);
    let redriven = line_of(|line| redriven.write_line(line).is_ok());
    let redriven = Item::read(9, 10, &redriven).expect("so is one that was put back");
    assert_eq!((&redriven.body, &redriven.name, &redriven.scope), (&item.body, &item.name, &item.scope));
    if let Ok(body) = item.body {
        let parsed: Value = serde_json::from_slice(&body).expect("a body is JSON");
        assert_eq!(milepost::canonical::to_vec(&parsed), body, "a body is canonical");
    }
}

fn check_letter(letter: &DeadLetter) {
    let line = line_of(|line| letter.write_line(line).is_ok());
    let again = DeadLetter::from_line(&line).expect("what is written is read back");
    assert_eq!(line_of(|line| again.write_line(line).is_ok()), line, "and written the same");
    assert_eq!(again.endpoint(), letter.endpoint());
    let record = line_of(|line| letter.envelope().write_line(line).is_ok());
    assert!(EventEnvelope::from_line(&record).is_ok(), "it can be put back");
}

fn line_of(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut line = Vec::new();
    assert!(write(&mut line), "it can be written");
    assert_eq!(line.iter().position(|it| *it == b'\n'), Some(line.len() - 1), "one line");
    line
}
