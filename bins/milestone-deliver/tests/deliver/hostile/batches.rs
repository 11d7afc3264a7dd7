//! A receiver that says it takes batches, and then does something else with them.

use std::collections::BTreeSet;

use milepost_testing::hostile::{Batched, Framing, Hostile, Mode, Part, Request, Way};
use serde_json::json;

use super::bench::{Bench, CONCURRENCY, check_requests};
use crate::queue::SECRET;

const COUNT: usize = 120;
const SCOPES: usize = 6;
const DRAIN: [&str; 7] =
    ["--drain", "--drain-timeout", "100s", "--backoff-base", "2ms", "--backoff-cap", "20ms"];

/// All is stored once, within each scope in order, whatever became of the batches.
fn meet(batched: &Batched) {
    let hangs = matches!(batched, Batched::As(it) if matches!(**it, Mode::Broken(_, Way::Hang) | Mode::Lost(_, Way::Hang)));
    let timeout = ["--timeout", if hangs { "400ms" } else { "8s" }];
    for concurrency in CONCURRENCY {
        let server = Hostile::start(Mode::Batches(batched.clone()));
        let bench = Bench::with_scopes(COUNT, SCOPES).more(concurrency);
        bench.run(&server.url(), &[&DRAIN[..], &timeout].concat()).exits(0);
        let (taken, dead) = (bench.settled("acknowledged"), bench.settled("dead-lettered"));
        assert!(dead.is_empty(), "{batched:?} judges no item: {dead:?}");
        assert_eq!(taken.len(), COUNT, "{batched:?}");
        for attempt in bench.attempts() {
            assert!(
                attempt["detail"]["attempt"].as_u64() <= Some(1),
                "{batched:?} uses no attempt: {attempt}"
            );
        }
        let stored = server.stored();
        assert_eq!(stored.len(), COUNT, "{batched:?}");
        for scope in 0..SCOPES {
            let expected: Vec<_> = bench.keys.iter().skip(scope).step_by(SCOPES).collect();
            let ours: BTreeSet<_> = expected.iter().copied().collect();
            let came: Vec<_> = stored.iter().filter(|it| ours.contains(it)).collect();
            assert_eq!(came, expected, "{batched:?}");
        }
        assert!(server.requests().iter().any(Request::is_batch), "none was sent");
        check_requests(&server, &[SECRET]);
    }
}

#[test]
fn good() {
    meet(&Batched::Good);
}

#[test]
fn results_that_do_not_fit_judge_no_item() {
    meet(&Batched::Shuffled);
    meet(&Batched::Short);
    meet(&Batched::Surplus);
    meet(&Batched::Strangers);
}

#[test]
fn any_other_answer_judges_no_item() {
    for mode in [
        Mode::Answer(404, "", "<html>not found</html>"),
        Mode::Answer(405, "", ""),
        Mode::Answer(200, "", "<html>welcome</html>"),
        Mode::Answer(200, "", r#"{"ok":true,"results":[]}"#),
        Mode::Answer(200, "", r#"{"ok":true,"status":"accepted","milestoneId":"m1"}"#),
        Mode::Answer(500, "", "oops"),
        Mode::Answer(503, "retry-after: 0\r\n", ""),
        Mode::Rejection(400),
        Mode::Rejection(413),
        Mode::Raw(b"garbage\r\n\r\n".to_vec()),
        Mode::Huge(200, Framing::Chunks),
    ] {
        meet(&Batched::As(Box::new(mode)));
    }
}

#[test]
fn batches_that_are_lost() {
    for (part, way) in [(Part::Nothing, Way::Reset), (Part::Body, Way::Close), (Part::Headers, Way::Hang)] {
        meet(&Batched::As(Box::new(Mode::Broken(part, way))));
        meet(&Batched::As(Box::new(Mode::Lost(part, way))));
    }
}

#[test]
fn one_that_is_rejected_is_given_up_and_holds_no_other() {
    for concurrency in CONCURRENCY {
        let server = Hostile::start(Mode::Batches(Batched::OneRejected));
        let bench = Bench::with_scopes(COUNT, SCOPES).more(concurrency);
        bench.run(&server.url(), &DRAIN).exits(0);
        let (taken, dead) = (bench.settled("acknowledged"), bench.settled("dead-lettered"));
        assert!(taken.is_disjoint(&dead));
        assert_eq!(taken.len() + dead.len(), COUNT);
        let batches = server.requests().iter().filter(|it| it.is_batch()).count();
        assert_eq!(dead.len(), batches, "one of each");
        for letter in bench.scratch.records("milestone-delivery-deadletter") {
            assert_eq!(letter["reason"], "rejected: no such scope");
            let attempt = &letter["attempts"][0];
            assert_eq!((&attempt["status"], &attempt["answer"]), (&json!(null), &json!("no such scope")));
        }
        check_requests(&server, &[SECRET]);
    }
}
