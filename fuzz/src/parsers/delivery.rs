//! What a delivery remembers: its state file, the audit records and the commands that it is brought up to date by.
//!
//! An input is lines: the first one is a state file (else a new state), the others are audit records and commands.

use milepost::{
    Timestamp,
    audit::Detail,
    canonical,
    delivery::{Command, Control, Event, LANES_MAX, State},
};

use milepost_fuzz::seeds;
use serde_json::{Value, json};

const QUEUE: &str = "milestone-delivery-queue";

pub fn seeds() -> Vec<Vec<u8>> {
    let states = seeds::lines("delivery-state.v1");
    let events = [
        r#"{"tool":"milestone-deliver","action":"deliver","outcome":"acknowledged","idempotency_key":"milestone:a","scope":"s","detail":{"queue":"milestone-delivery-queue","endpoint":"","queueOffset":10,"cursor":20,"at":"2026-03-01T09:05:00.000Z","reason":"accepted","status":200,"receipt":{"seq":7,"head":"ab"},"answer":"x"}}"#,
        r#"{"tool":"milestone-deliver","action":"deliver","outcome":"retried","idempotency_key":"milestone:b","scope":"s","detail":{"queue":"milestone-delivery-queue","endpoint":"","queueOffset":20,"cursor":30,"at":"2026-03-01T09:05:00.000Z","attempt":1,"tries":2,"due":"2026-03-01T09:05:05.000Z","delayMs":5000,"reason":"server-error","fault":"application","status":500,"counted":true,"own":true,"alone":true}}"#,
        r#"{"tool":"milestone-deliver","action":"deliver","outcome":"retried","idempotency_key":"milestone:c","scope":"t","detail":{"queue":"milestone-delivery-queue","endpoint":"","queueOffset":20,"cursor":30,"at":"2026-03-01T09:05:00.000Z","reason":"timeout","fault":"endpoint","probe":true,"ahead":true}}"#,
        r#"{"tool":"milestone-deliver","action":"deliver","outcome":"dead-lettered","idempotency_key":"milestone:b","scope":"s","detail":{"journal":"milestone-delivery-deadletter","offset":0,"queue":"milestone-delivery-queue","endpoint":"","queueOffset":20,"cursor":40,"at":"2026-03-01T09:05:00.000Z","attempt":10,"reason":"rejected","fault":"item","ahead":true}}"#,
        r#"{"tool":"milestone-deliver","action":"deliver","outcome":"quarantined","detail":{"queue":"milestone-delivery-queue","endpoint":"","queueOffset":5,"cursor":9,"at":"2026-03-01T09:05:00.000Z","reason":"no-record","quarantine":"quarantine/x"}}"#,
        r#"{"tool":"milestone-deliver","action":"breaker","outcome":"opened","detail":{"queue":"milestone-delivery-queue","endpoint":"","url":"http://127.0.0.1:1/","breaker":{"state":"open","cause":"endpoint","reason":"x","endpointFaults":5,"dueUtc":"2026-03-01T09:05:00.000Z","delayMs":1000}}}"#,
        r#"{"tool":"milestone-deliver","action":"hold","outcome":"done","detail":{"journal":"milestone-delivery-control","from":0,"to":50,"queue":"milestone-delivery-queue","endpoint":"","at":"2026-03-01T09:05:00.000Z","command":"hold","reason":"why"}}"#,
        r#"{"tool":"milestone-deliver","action":"resync","outcome":"done","detail":{"queue":"milestone-delivery-queue","endpoint":"","cursor":0}}"#,
        r#"{"at":"2026-03-01T09:05:00.000Z","command":"hold","reason":"why"}"#,
        r#"{"at":"2026-03-01T09:05:00.000Z","command":"release"}"#,
        r#"{"at":"2026-03-01T09:05:00.000Z","command":"retry-now"}"#,
    ];
    let mut all: Vec<Vec<u8>> = states.clone();
    for event in events {
        all.push([b"\n", event.as_bytes()].concat());
        all.extend(states.iter().take(2).map(|it| [it, &b"\n"[..], event.as_bytes()].concat()));
    }
    all.push([b"\n", events.join("\n").as_bytes()].concat());
    // Given, and told of again.
    let released = events[6].replace("\"hold\",\"reason\":\"why\"", "\"release\"");
    all.push(format!("\n{}\n{released}", events[6]).into_bytes());
    all
}

pub fn run(input: &[u8]) {
    let mut lines = input.split(|it| *it == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut state = serde_json::from_slice::<State>(first).unwrap_or_else(|_| State::new(""));
    check(&state);
    for line in lines {
        if let Some(event) = Event::read(line, QUEUE, "") {
            let (before, from_zero) = (state.clone(), state.control_offset == 0);
            state.apply(&event, true);
            check(&state);
            match &event {
                Event::Control(detail) => {
                    // Once means once, though the audit tells of it again.
                    if detail.to > detail.from {
                        let once = state.clone();
                        state.apply(&event, true);
                        assert_eq!(state, once, "a command is followed once");
                    }
                    let is_old = detail.from < before.control_offset;
                    assert!(!is_old || from_zero || state == before, "an old command is not followed again");
                }
                Event::Item { detail, .. } => {
                    let is_unmoved = state.cursor.offset == before.cursor.offset;
                    assert!(is_unmoved || state.cursor.offset == detail.cursor, "the cursor is the event's");
                    assert_eq!(state.breaker.is_held(), before.breaker.is_held(), "an item holds nothing");
                }
                _ => {}
            }
            check_audited(&event);
        }
        if let Ok(control) = serde_json::from_slice::<Control>(line) {
            let written = serde_json::to_vec(&control).expect("a command has a form");
            assert!(!written.contains(&b'\n'), "one line");
            assert_eq!(serde_json::from_slice::<Control>(&written).ok().as_ref(), Some(&control));
            state.follow(&control.command, control.at);
            check(&state);
            match control.command {
                Command::Hold { .. } => assert!(state.breaker.is_held(), "held"),
                Command::Release => assert!(!state.breaker.is_held() && !state.breaker.is_open(), "released"),
                Command::RetryNow => {}
            }
        }
    }
    let now = Timestamp::from_millis(1_772_355_900_000);
    state.rebase(now);
    check(&state);
    assert!(!state.rebase(now), "what is due by this clock stays so");
}

/// What is audited is what happened: read back, it is the event.
fn check_audited(event: &Event) {
    let draft = event.draft();
    let detail = match &draft.detail {
        Detail::Value(it) => canonical::to_vec(it),
        Detail::Canonical(text) => text.as_bytes().to_vec(),
    };
    let document: Value = serde_json::from_slice(&detail).expect("a detail is JSON");
    assert_eq!(canonical::to_vec(&document), detail, "and canonical");
    let plain = match event {
        Event::Item { detail, .. } => serde_json::to_value(detail),
        Event::Breaker(detail) => serde_json::to_value(detail),
        Event::Control(detail) => serde_json::to_value(detail),
        Event::Resync(detail) => serde_json::to_value(detail),
    };
    // The canonical form has no numbers beyond what a double holds.
    if plain.is_ok_and(|it| it == document) {
        let record = json!({
            "tool": "milestone-deliver", "action": draft.action.as_str(), "outcome": draft.outcome.as_str(),
            "idempotency_key": draft.key, "scope": draft.scope, "detail": document,
        });
        assert_eq!(Event::read(record.to_string().as_bytes(), QUEUE, "").as_ref(), Some(event));
    } else {
        assert!(detail.windows(16).any(|it| it.iter().all(u8::is_ascii_digit)), "only such numbers change");
    }
}

fn check(state: &State) {
    let written = serde_json::to_vec(state).expect("a state has a form");
    let again: State = serde_json::from_slice(&written).expect("what is written is read back");
    assert_eq!(&again, state, "a state is its file");
    assert!(state.retries.len() <= LANES_MAX * 2);
}
