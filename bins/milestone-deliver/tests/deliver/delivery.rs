//! What is sent, in which form, and what comes of it.

use std::{collections::BTreeMap, time::Duration};

use milepost::{
    clock,
    secret::SecretSource,
    signing::{SignatureHeaders, Verifier, Which},
};
use serde_json::json;

use crate::scripted::{Answer, Server, accepted, counts, deliver, scratch, state, status};

#[test]
fn milestones_are_posted_signed_and_audited() {
    let scratch = scratch(&["m1", "m2"]);
    let server = Server::start(|_, it| accepted(it));
    let run = deliver(&scratch, &server, &[]).exits(0);
    assert_eq!(
        run.stdout,
        "{\"status\":\"ok\",\"delivered\":2,\"duplicate\":0,\"retrying\":0,\"deadLettered\":0,\"pending\":0,\"nextAttemptUtc\":null}\n"
    );
    assert_eq!(run.stderr, "");
    let requests = server.requests();
    assert_eq!(server.ids(), ["m1", "m2"]);
    let first = &requests[0];
    assert_eq!(first.path, "/internal/milestones/ingest");
    assert_eq!(first.headers["content-type"], "application/json");
    assert!(!first.headers.contains_key("accept-encoding"));
    assert_eq!(first.json()["sentAtUtc"], "2026-03-01T09:05:00.000Z");
    assert_eq!(first.json().as_object().unwrap().len(), 3);
    let secret = SecretSource::WEBHOOK.load(Some(&scratch.dir().join("secret")), false).unwrap();
    let verifier = Verifier::new(&secret, None, true, Duration::from_secs(300));
    let header = |name: &str| first.headers.get(name).map(String::as_str);
    let headers = SignatureHeaders {
        openclaw_signature: header("x-openclaw-signature"),
        openclaw_timestamp: header("x-openclaw-timestamp"),
        webhook_id: header("webhook-id"),
        webhook_timestamp: header("webhook-timestamp"),
        webhook_signature: header("webhook-signature"),
    };
    let checked = verifier.check_headers(&headers, clock::now()).unwrap();
    assert_eq!(verifier.verify(&checked, &first.body, &first.json()).unwrap(), Which::Current);
    let audit = scratch.records("audit");
    let [one, two] = &audit[..] else { panic!("one record an event: {audit:?}") };
    assert_eq!((&one["action"], &one["outcome"]), (&json!("deliver"), &json!("acknowledged")));
    assert_eq!(one["detail"]["receipt"], json!({"seq":1,"head":"ab"}));
    assert_eq!(two["idempotency_key"], "milestone:m2");
    assert_eq!(state(&scratch)["lastAck"]["idempotencyKey"], "milestone:m2");
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 0, 0, 0));
    assert_eq!(scratch.records("audit").len(), 2);
}

#[test]
fn the_state_has_the_fields_that_the_design_names() {
    let scratch = scratch(&["m1", "m2", "m3"]);
    let server = Server::start(|_, it| if it.id() == "m2" { status(500, "") } else { accepted(it) });
    deliver(&scratch, &server, &[]).exits(0);
    let state = state(&scratch);
    let fields: Vec<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "auditOffset",
        "breaker",
        "controlOffset",
        "cursor",
        "deadLetterOffset",
        "endpoint",
        "lastAck",
        "retries",
        "url",
        "version",
    ];
    assert_eq!(fields, expected);
    let retry = &state["retries"][0];
    assert_eq!((&retry["scope"], &retry["attempts"], &retry["tries"]), (&json!("m2"), &json!(1), &json!(1)));
}

#[test]
fn every_attempt_of_a_key_has_the_same_body_and_drain_ends_when_nothing_is_pending() {
    let scratch = scratch(&["m1", "m2", "m3"]);
    let server = Server::start(|number, it| match number % 3 {
        0 => status(503, ""),
        1 => Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
        _ => accepted(it),
    });
    let more = ["--drain", "--backoff-base", "5ms", "--backoff-cap", "20ms", "--drain-timeout", "60s"];
    let run = deliver(&scratch, &server, &more).exits(0);
    assert_eq!(counts(&run), (3, 0, 0, 0));
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for request in server.requests() {
        assert_eq!(*bodies.entry(request.id()).or_insert_with(|| request.body.clone()), request.body);
    }
    assert_eq!(bodies.len(), 3);
}

#[test]
fn attempts_run_out_and_make_a_dead_letter() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, _| status(500, "boom"));
    let more = ["--drain", "--max-attempts", "3", "--backoff-base", "1ms", "--backoff-cap", "2ms"];
    let run = deliver(&scratch, &server, &more).exits(0);
    assert_eq!((counts(&run), server.requests().len()), ((0, 0, 1, 0), 3));
    let [dead] = &scratch.records("milestone-delivery-deadletter")[..] else { panic!("one dead letter") };
    assert_eq!(dead["reason"], "given up after 3 attempts: HTTP 500: boom");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(dead["queue_offset"], 0);
    assert_eq!(dead["endpoint"], "");
}

#[test]
fn any_success_counts_when_it_is_asked_for() {
    let scratch = scratch(&["m1", "m2"]);
    let server =
        Server::start(|number, _| if number == 0 { status(202, "thanks") } else { status(422, "no") });
    assert_eq!(counts(&deliver(&scratch, &server, &["--ack", "2xx"]).exits(0)), (1, 0, 1, 0));
}
