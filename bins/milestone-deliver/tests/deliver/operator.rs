//! What an operator asks for: hold, release, retry, ping.

use milepost_testing::{Run, wait_until};
use serde_json::{Value, json};

use crate::{
    queue::{TOOL, terminate},
    scripted::{REJECTED, Server, accepted, command, counts, deliver, enqueue, scratch, state, status},
};

#[test]
fn hold_release_and_retry_now_work_from_outside() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|number, it| if number == 0 { status(500, "") } else { accepted(it) });
    assert_eq!(scratch.run(TOOL, &["--hold", "x"]).exits(0).all("command"), ["hold: x"]);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 0, 0, 1));
    assert_eq!(server.requests().len(), 0);
    let told = scratch.records("audit").into_iter().find(|it| it["action"] == "hold").unwrap();
    assert!(told["detail"]["fingerprint"].is_string(), "a changed command would not show: {told}");
    scratch.run(TOOL, &["--release"]).exits(0);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 1, 0, 1));
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 1, 0, 1));
    scratch.run(TOOL, &["--retry-now"]).exits(0);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (1, 0, 0, 0));
}

#[test]
fn what_comes_after_hold_has_said_so_is_not_sent_by_a_running_instance() {
    let scratch = scratch(&["m0"]);
    let server = Server::start(|_, it| accepted(it));
    let watching = command(&scratch, &server.url(), &["--watch"]).spawn().unwrap();
    for round in 1..=5 {
        wait_until(|| server.requests().len() == round);
        scratch.run(TOOL, &["--hold", "x"]).exits(0);
        enqueue(&scratch, &[&format!("m{round}")]);
        // Whatever it does with what came, it has done it when its state says that it holds.
        wait_until(|| state(&scratch)["breaker"]["state"] == "held");
        assert_eq!(server.requests().len(), round, "sent although --hold had ended before");
        scratch.run(TOOL, &["--release"]).exits(0);
    }
    wait_until(|| server.requests().len() == 6);
    terminate(&watching);
    Run::of(watching).exits(0);
}

#[test]
fn ping_says_pong_or_why_not_and_stores_nothing() {
    let scratch = scratch(&[]);
    let pong = Server::start(|_, _| status(200, r#"{"ok":true,"status":"pong"}"#));
    assert_eq!(deliver(&scratch, &pong, &["--ping"]).exits(0).all("status"), ["pong"]);
    let [request] = &pong.requests()[..] else { panic!("one request") };
    assert!(request.json()["idempotencyKey"].as_str().unwrap().starts_with("ping:"));
    assert_eq!(request.json()["event"], Value::Null);
    let wrong = Server::start(|_, _| status(401, REJECTED));
    let run = deliver(&scratch, &wrong, &["--ping"]).exits(78);
    assert_eq!(
        (run.all("reason"), run.all("answer")),
        (vec![json!("unauthorized")], vec![json!("no such scope")])
    );
    let down = Server::start(|_, _| status(503, ""));
    deliver(&scratch, &down, &["--ping"]).exits(69);
    assert_eq!(scratch.records("audit").len(), 0);
}
