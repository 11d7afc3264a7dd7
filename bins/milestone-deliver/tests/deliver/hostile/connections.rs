//! Connections that are refused, broken off, or silent.

use std::time::Duration;

use milepost_testing::hostile::{Early, Hostile, Mode, Part, Way};

use super::bench::{ACCEPTED, BROKEN, Bench, CONCURRENCY, Expected, endpoint, meet};

const NO_CONNECTION: Expected = endpoint(&["connection"]);
const TIMEOUT: Expected = endpoint(&["timeout"]);

#[test]
fn refused() {
    for concurrency in CONCURRENCY {
        let server = Hostile::refusing();
        let bench = Bench::new(3).more(concurrency);
        bench.pass(&server.url(), &NO_CONNECTION, &[]);
        bench.expect(&NO_CONNECTION);
        bench.recover(&server.open());
    }
}

#[test]
fn a_name_without_an_address() {
    let bench = Bench::new(3);
    bench.run("https://milepost.invalid/internal/milestones/ingest", &["--timeout", "20s"]).exits(0);
    bench.expect(&endpoint(&["name"]));
}

#[test]
fn made_but_never_taken() {
    for concurrency in CONCURRENCY {
        let server = Hostile::never_accepting();
        let bench = Bench::new(3).more(concurrency);
        bench.pass(&server.url(), &TIMEOUT, &[]);
        bench.expect(&TIMEOUT);
        bench.recover(&server.open());
    }
}

#[test]
fn taken_and_silent() {
    meet(&Mode::Early(Early::Silence), &TIMEOUT);
}

#[test]
fn closed_at_once() {
    meet(&Mode::Early(Early::Close), &NO_CONNECTION);
}

#[test]
fn reset_at_once() {
    meet(&Mode::Early(Early::Reset), &NO_CONNECTION);
}

#[test]
fn reset_in_the_requests_head() {
    meet(&Mode::Early(Early::ResetInHead), &NO_CONNECTION);
}

#[test]
fn reset_in_the_requests_body() {
    meet(&Mode::ResetInBody, &NO_CONNECTION);
}

#[test]
fn answered_before_the_request_was_read() {
    meet(&Mode::Early(Early::Unavailable), &endpoint(&["unavailable"]));
}

#[test]
fn closed_without_an_answer() {
    meet(&Mode::Broken(Part::Nothing, Way::Close), &NO_CONNECTION);
}

#[test]
fn reset_without_an_answer() {
    meet(&Mode::Broken(Part::Nothing, Way::Reset), &NO_CONNECTION);
}

#[test]
fn silent_after_the_request() {
    meet(&Mode::Broken(Part::Nothing, Way::Hang), &TIMEOUT);
}

#[test]
fn broken_off_in_the_status_line() {
    meet(&Mode::Broken(Part::Status, Way::Close), &BROKEN);
    meet(&Mode::Broken(Part::Status, Way::Reset), &BROKEN);
}

#[test]
fn broken_off_in_the_headers() {
    meet(&Mode::Broken(Part::Headers, Way::Close), &BROKEN);
    meet(&Mode::Broken(Part::Headers, Way::Reset), &BROKEN);
}

#[test]
fn broken_off_in_the_body() {
    meet(&Mode::Broken(Part::Body, Way::Close), &BROKEN);
    meet(&Mode::Broken(Part::Body, Way::Reset), &BROKEN);
}

#[test]
fn broken_off_in_a_chunk() {
    meet(&Mode::Broken(Part::Chunk, Way::Close), &BROKEN);
    meet(&Mode::Broken(Part::Chunk, Way::Reset), &BROKEN);
}

#[test]
fn silent_within_an_answer() {
    for part in [Part::Status, Part::Headers, Part::Body, Part::Chunk] {
        meet(&Mode::Broken(part, Way::Hang), &TIMEOUT);
    }
}

#[test]
fn stored_and_the_answer_lost() {
    for (part, way, expected) in [
        (Part::Nothing, Way::Reset, NO_CONNECTION),
        (Part::Nothing, Way::Hang, TIMEOUT),
        (Part::Body, Way::Close, BROKEN),
    ] {
        meet(&Mode::Lost(part, way), &expected);
    }
}

#[test]
fn closed_after_each_answer_though_keep_alive_was_said() {
    meet(&Mode::GoodThen(Way::Close), &ACCEPTED);
    meet(&Mode::GoodThen(Way::Reset), &ACCEPTED);
    meet(&Mode::GoodWith("connection: close\r\n"), &ACCEPTED);
}

#[test]
fn silent_after_each_answer_though_keep_alive_was_said() {
    for concurrency in CONCURRENCY {
        let server = Hostile::start(Mode::GoodThen(Way::Hang));
        let bench = Bench::new(3).more(concurrency);
        bench.pass(&server.url(), &TIMEOUT, &[]);
        // Each connection serves one request; the next one on it times out.
        for attempt in bench.attempts() {
            let reason = &attempt["detail"]["reason"];
            assert!(reason == "accepted" || reason == "timeout", "{attempt}");
        }
        assert!(!bench.settled("acknowledged").is_empty());
        bench.recover(&server);
    }
}

#[test]
fn slow_but_in_time() {
    meet(&Mode::GoodIn(Duration::from_millis(150)), &ACCEPTED);
}

#[test]
fn bytes_behind_an_answer_are_no_answer_to_the_next_request() {
    for concurrency in CONCURRENCY {
        for ack in [&["--ack", "contract"], &["--ack", "2xx"]] {
            let server = Hostile::start(Mode::GoodWithSurplus);
            let bench = Bench::new(5).more(concurrency);
            bench.pass(&server.url(), &ACCEPTED, ack);
            bench.expect(&ACCEPTED);
            assert_eq!(server.stored().len(), 5);
            bench.recover(&server);
        }
    }
}
