//! Each rule of delivery by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    time::Duration,
};

use crate::bench::{Bench, Wire, accepted, items, rejected, run, settings, start, status, timeout};
use milepost::{
    Kind, Timestamp,
    delivery::{
        Command, Consumer, Control, LANES_MAX, Level, Settings,
        backoff::Schedule,
        breaker::{Cause, Gate},
        resync,
        verdict::{Attempted, HttpAnswer},
    },
    journal::{JournalName, Resync},
};
use serde_json::json;

#[test]
fn everything_is_delivered_once_in_order_and_audited_once() {
    let bench = Bench::new();
    bench.enqueue(&items(700, 7));
    let mut wire = Wire::new(accepted);
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending, summary.retrying), (700, 0, 0));
    assert_eq!(summary.next_attempt_utc, None);
    let expected: Vec<_> = (0..700).map(|it| format!("m{it}")).collect();
    assert_eq!(wire.ids(), expected);
    assert_eq!(bench.audit("deliver", "acknowledged").len(), 700);
    let audit = bench.lines("audit").len();
    let state = bench.state();
    assert_eq!(state.last_ack.as_ref().unwrap().count, 700);

    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending), (0, 0));
    assert_eq!((wire.posts.len(), bench.lines("audit").len()), (700, audit));
    assert_eq!(bench.state(), state, "an idle pass changes nothing");
}

#[test]
fn an_idle_pass_writes_nothing_at_all() {
    let bench = Bench::new();
    let mut wire = Wire::new(accepted);
    bench.run(&mut wire);
    assert!(!bench.dir.path().join(bench.consumer().state_file()).exists());
    assert_eq!(bench.lines("audit").len(), 0);
}

#[test]
fn a_blocked_scope_holds_its_own_items_and_no_others() {
    let bench = Bench::new();
    bench.enqueue(&items(9, 3));
    let mut failures = 3;
    let mut wire = Wire::new(move |it| {
        if it.id == "m1" && failures > 0 {
            failures -= 1;
            return status(500, "oops");
        }
        accepted(it)
    });
    let summary = bench.run(&mut wire);
    assert_eq!(wire.ids(), ["m0", "m1", "m2", "m3", "m5", "m6", "m8"]);
    assert_eq!((summary.delivered, summary.retrying, summary.pending), (6, 1, 3));
    let summary = bench.drain(&mut wire);
    assert_eq!(summary.pending, 0);
    assert_eq!(wire.ids()[7..], ["m1", "m1", "m1", "m4", "m7"]);
    let times: Vec<_> = wire.posts.iter().filter(|it| it.id == "m1").map(|it| it.at).collect();
    for (pair, least) in times.windows(2).zip([5, 20, 80]) {
        assert!(pair[1].since(pair[0]) >= Duration::from_secs(least));
    }
    let bodies: BTreeSet<_> = wire.posts.iter().filter(|it| it.id == "m1").map(|it| &it.body).collect();
    assert_eq!(bodies.len(), 1, "every attempt has the same bytes");
}

#[test]
fn strict_order_waits_for_the_first_and_none_for_nobody() {
    for (order, expected) in [
        (milepost::delivery::Order::Strict, vec!["m0", "m1"]),
        (milepost::delivery::Order::None, vec!["m0", "m1", "m2", "m3", "m4", "m5"]),
    ] {
        let bench = Bench::new();
        bench.enqueue(&items(6, 2));
        let mut wire = Wire::new(|it| if it.id == "m1" { status(500, "") } else { accepted(it) });
        run(&bench.consumer(), Settings { order, ..settings() }, &mut wire).unwrap();
        assert_eq!(wire.ids(), expected);
        // Another order from here on: everything is delivered all the same, once.
        let mut wire = Wire::new(accepted);
        wire.now = start().plus(Duration::from_secs(60));
        assert_eq!(bench.drain(&mut wire).pending, 0);
        assert_eq!(wire.posts.len(), 7 - expected.len());
    }
}

#[test]
fn ten_failed_attempts_make_a_dead_letter_that_unblocks_its_scope() {
    let bench = Bench::new();
    bench.enqueue(&items(4, 1));
    let mut wire = Wire::new(|it| if it.id == "m1" { status(500, "boom") } else { accepted(it) });
    let summary = bench.drain(&mut wire);
    assert_eq!((summary.pending, wire.posts.len()), (0, 13));
    assert_eq!(wire.ids()[11..], ["m2", "m3"]);
    let [dead] = &bench.dead_letters()[..] else { panic!("one dead letter") };
    assert_eq!(dead.envelope().idempotency_key, "milestone:m1");
    assert_eq!(dead.attempts.len(), 10);
    assert!(dead.attempts.iter().all(|it| it.status == Some(500) && it.answer == "boom"));
    assert_eq!(dead.reason, "given up after 10 attempts: HTTP 500: boom");
    let [audited] = &bench.audit("deliver", "dead-lettered")[..] else { panic!("audited once") };
    assert_eq!(audited["detail"]["journal"], "milestone-delivery-deadletter");
    assert_eq!(audited["detail"]["offset"], 0);
}

#[test]
fn an_item_that_is_too_old_is_given_up_by_its_next_failed_attempt() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    let schedule = Schedule { age_max: Duration::from_secs(30), ..Schedule::default() };
    let settings = Settings { schedule, ..settings() };
    let mut wire = Wire::new(|_| status(500, ""));
    for _ in 0..3 {
        run(&bench.consumer(), settings.clone(), &mut wire).unwrap();
        wire.now = wire.now.plus(Duration::from_secs(25));
    }
    assert_eq!((bench.dead_letters().len(), wire.posts.len()), (1, 3));
}

#[test]
fn a_rejection_is_a_dead_letter_at_once() {
    let bench = Bench::new();
    bench.enqueue(&items(3, 1));
    let mut wire = Wire::new(|it| if it.id == "m1" { rejected() } else { accepted(it) });
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.dead_lettered, summary.pending), (2, 1, 0));
    let [dead] = &bench.dead_letters()[..] else { panic!("one dead letter") };
    assert_eq!((dead.reason.as_str(), dead.attempts.len()), ("rejected: HTTP 400: no", 1));
}

#[test]
fn a_rejection_in_a_batch_has_its_own_reason_and_not_the_status_of_the_batch() {
    let bench = Bench::new();
    bench.enqueue(&items(400, 400));
    let mut wire = Wire::new(|it| if it.id == "m300" { rejected() } else { accepted(it) });
    wire.batch = Some(10);
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.dead_lettered, summary.pending), (399, 1, 0));
    let [dead] = &bench.dead_letters()[..] else { panic!("one dead letter") };
    let [attempt] = &dead.attempts[..] else { panic!("one attempt") };
    assert_eq!((dead.reason.as_str(), attempt.status, attempt.answer.as_str()), ("rejected: no", None, "no"));
    let audited = &bench.audit("deliver", "dead-lettered")[0]["detail"];
    assert_eq!((&audited["status"], &audited["reason"]), (&json!(null), &json!("rejected")));
    let taken = bench.audit("deliver", "acknowledged");
    assert!(taken.iter().all(|it| it["detail"]["status"] == 200), "what is taken is answered as if alone");
}

#[test]
fn the_tenth_rejection_in_a_row_opens_the_breaker_instead() {
    let bench = Bench::new();
    bench.enqueue(&items(30, 30));
    let mut wire = Wire::new(|_| rejected());
    let summary = bench.run(&mut wire);
    assert_eq!((summary.dead_lettered, summary.pending, wire.posts.len()), (9, 21, 10));
    assert_eq!(bench.state().breaker.cause, Some(Cause::Items));
    for _ in 0..20 {
        wire.now = wire.now.plus(Duration::from_secs(3600));
        assert_eq!(bench.run(&mut wire).dead_lettered, 0);
    }
    assert_eq!(wire.posts.len(), 30);
    wire.answer = Box::new(accepted);
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(bench.dead_letters().len(), 9);
}

#[test]
fn a_wrong_secret_opens_the_breaker_at_once_and_uses_no_attempt() {
    for answer in [status(401, ""), status(404, ""), status(307, ""), status(200, "<html>"), status(418, "")]
    {
        let bench = Bench::new();
        bench.enqueue(&items(10, 10));
        let mut wire = Wire::new(|_| answer.clone());
        let summary = bench.run(&mut wire);
        assert_eq!((wire.posts.len(), summary.pending, summary.dead_lettered), (1, 10, 0));
        let breaker = bench.state().breaker;
        assert_eq!((breaker.state, breaker.cause), (Gate::Open, Some(Cause::Configuration)));
        for _ in 0..50 {
            wire.now = wire.now.plus(Duration::from_secs(400));
            bench.run(&mut wire);
        }
        assert_eq!(wire.posts.len(), 51);
        assert_eq!(bench.dead_letters().len(), 0);
        wire.answer = Box::new(accepted);
        assert_eq!(bench.drain(&mut wire).pending, 0);
    }
}

#[test]
fn a_gone_endpoint_is_held_until_it_is_released() {
    let bench = Bench::new();
    bench.enqueue(&items(5, 5));
    let mut wire = Wire::new(|_| status(410, ""));
    let summary = bench.run(&mut wire);
    assert_eq!((wire.posts.len(), summary.pending, summary.next_attempt_utc), (1, 5, None));
    wire.now = wire.now.plus(Duration::from_secs(86_400));
    bench.run(&mut wire);
    assert_eq!(wire.posts.len(), 1);
    bench.forget_state();
    bench.run(&mut wire);
    assert_eq!((wire.posts.len(), bench.state().breaker.state), (1, Gate::Held), "a rebuild knows it");
    wire.answer = Box::new(accepted);
    Control { at: wire.now, command: Command::Release }.append(&bench.consumer()).unwrap();
    assert_eq!(bench.run(&mut wire).delivered, 5);
    assert_eq!(wire.ids(), ["m0", "m0", "m1", "m2", "m3", "m4"]);
}

#[test]
fn commands_are_followed_once_with_and_without_state() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    let give = |command| Control { at: start(), command }.append(&bench.consumer()).unwrap();
    give(Command::Hold { reason: "deploying".into() });
    let mut wire = Wire::new(accepted);
    assert_eq!(bench.run(&mut wire).pending, 2);
    bench.forget_state();
    assert_eq!(bench.run(&mut wire).pending, 2);
    assert_eq!(bench.state().breaker.reason, "deploying");
    give(Command::Release);
    bench.forget_state();
    wire.answer = Box::new(|_| status(500, ""));
    assert_eq!(bench.run(&mut wire).retrying, 1);
    give(Command::RetryNow);
    wire.answer = Box::new(accepted);
    assert_eq!(bench.run(&mut wire).delivered, 2);
}

#[test]
fn another_url_resets_the_breaker_but_not_what_the_operator_held() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    let mut wire = Wire::new(|_| status(404, ""));
    bench.run(&mut wire);
    let other = Settings { url: "http://127.0.0.1/other".into(), ..settings() };
    wire.now = wire.now.plus(Duration::from_secs(8));
    Control { at: start(), command: Command::Hold { reason: "x".into() } }.append(&bench.consumer()).unwrap();
    bench.run(&mut wire);
    run(&bench.consumer(), other.clone(), &mut wire).unwrap();
    assert_eq!((wire.posts.len(), bench.state().breaker.state), (1, Gate::Held));
    Control { at: start(), command: Command::Release }.append(&bench.consumer()).unwrap();
    wire.answer = Box::new(accepted);
    assert_eq!(run(&bench.consumer(), other, &mut wire).unwrap().delivered, 2);
}

#[test]
fn a_day_of_outage_with_ten_thousand_waiting_costs_probes_only() {
    let bench = Bench::new();
    bench.enqueue(&items(10_000, 10_000));
    let mut wire = Wire::new(|_| status(503, ""));
    let mut sizes = Vec::new();
    while wire.now < start().plus(Duration::from_secs(86_400)) {
        let summary = bench.run(&mut wire);
        assert_eq!((summary.pending, summary.dead_lettered), (10_000, 0));
        wire.now = summary.next_attempt_utc.unwrap();
        sizes.push(std::fs::metadata(bench.dir.path().join(bench.consumer().state_file())).unwrap().len());
    }
    assert!(wire.posts.len() < 5 + 24 * 15 + 10, "{}", wire.posts.len());
    assert!(sizes.iter().all(|it| *it < 4096), "{sizes:?}");
    let scopes: BTreeSet<_> = wire.posts[5..105].iter().map(|it| &it.scope).collect();
    assert!(scopes.len() > 45, "probes go through the scopes: {}", scopes.len());
    wire.answer = Box::new(accepted);
    let before = wire.posts.len();
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(wire.posts.len() - before, 10_000, "nothing is sent twice");
    assert!(bench.dead_letters().is_empty());
}

#[test]
fn one_poisoned_text_holds_nothing_for_ever_whatever_it_is_answered() {
    for poison in [status(503, ""), timeout(), status(403, "blocked"), status(500, ""), status(200, "<html>")]
    {
        let bench = Bench::new();
        bench.enqueue(&items(5, 5));
        let mut wire = Wire::new(|it| if it.id == "m2" { poison.clone() } else { accepted(it) });
        let mut later = 0;
        for _ in 0..200 {
            let summary = bench.run(&mut wire);
            // Some traffic goes on, in the poisoned scope too.
            if later < 40 {
                bench.enqueue(&[(format!("x{later}"), format!("s{}", later % 5))]);
                later += 1;
            } else if summary.pending == 0 {
                break;
            }
            wire.now =
                wire.now.max(summary.next_attempt_utc.unwrap_or(wire.now)).plus(Duration::from_secs(1));
        }
        let dead = bench.dead_letters();
        assert_eq!(dead.len(), 1, "{poison:?}");
        assert_eq!(
            (dead[0].envelope().idempotency_key.as_str(), dead[0].attempts.len()),
            ("milestone:m2", 10)
        );
        assert_eq!(bench.audit("deliver", "acknowledged").len(), 44);
    }
}

#[test]
fn the_first_failure_of_every_key_does_not_stop_the_flow() {
    let bench = Bench::new();
    bench.enqueue(&items(100, 20));
    let mut seen = BTreeSet::new();
    let mut wire =
        Wire::new(move |it| if seen.insert(it.id.clone()) { status(503, "") } else { accepted(it) });
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(bench.audit("deliver", "acknowledged").len(), 100);
    assert!(wire.now.since(start()) < Duration::from_secs(3600), "{:?}", wire.now.since(start()));
}

#[test]
fn retry_after_is_never_undercut() {
    let bench = Bench::new();
    bench.enqueue(&items(3, 3));
    let mut not_before: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut tries: BTreeMap<String, u32> = BTreeMap::new();
    let mut wire = Wire::new(move |it| {
        assert!(not_before.get(&it.id).is_none_or(|due| it.at >= *due), "{} at {}", it.id, it.at);
        let tries = tries.entry(it.id.clone()).or_default();
        *tries += 1;
        if *tries > 4 {
            return accepted(it);
        }
        let seconds = [600, 0, 3, 7200][*tries as usize - 1];
        not_before.insert(it.id.clone(), it.at.plus(Duration::from_secs(seconds)));
        let retry_after = Some(seconds.to_string());
        Attempted::Answered(HttpAnswer { status: 429, retry_after, ..HttpAnswer::default() })
    });
    assert_eq!(bench.drain(&mut wire).pending, 0);
}

#[test]
fn a_clock_that_goes_back_delays_nothing_for_long() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    let mut fails = 1;
    let mut wire = Wire::new(move |it| {
        fails -= 1;
        if fails >= 0 { status(500, "") } else { accepted(it) }
    });
    bench.run(&mut wire);
    wire.now = start().minus(Duration::from_secs(400 * 86_400));
    let due = bench.run(&mut wire).next_attempt_utc.unwrap();
    assert!(due <= wire.now.plus(Duration::from_secs(7)));
    wire.now = due;
    assert_eq!(bench.run(&mut wire).delivered, 1);
}

#[test]
fn invalid_records_are_kept_aside_once_and_passed_over() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    bench.append(
        &[
            b"not json\n".to_vec(),
            b"{}\n".to_vec(),
            br#"{"idempotency_key":"milestone:x","payload":{"scope":"s"},"schema_version":"2.0.0"}"#
                .iter()
                .chain(b"\n")
                .copied()
                .collect(),
        ],
    );
    bench.enqueue(&[("last".into(), "s0".into())]);
    let mut wire = Wire::new(accepted);
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending), (2, 0));
    assert_eq!(bench.audit("deliver", "quarantined").len(), 3);
    assert_eq!(std::fs::read_dir(bench.dir.path().join("quarantine")).unwrap().count(), 3);
    let errors = wire.said.iter().filter(|(level, _)| *level == Level::Error).count();
    bench.run(&mut wire);
    assert_eq!((errors, wire.said.iter().filter(|(level, _)| *level == Level::Error).count()), (3, 3));
}

#[test]
fn records_for_another_endpoint_are_not_ours() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    bench.enqueue_for(&[("redriven".into(), "s0".into())], Some("backup"));
    bench.enqueue_for(&[("again".into(), "s0".into())], Some(""));
    let mut wire = Wire::new(|_| status(401, ""));
    assert_eq!(bench.run(&mut wire).pending, 3);
    wire.answer = Box::new(accepted);
    wire.now = wire.now.plus(Duration::from_secs(60));
    bench.run(&mut wire);
    assert_eq!(wire.ids(), ["m0", "m0", "m1", "again"]);
    let backup =
        Consumer::new(&bench.logs, JournalName::internal("milestone-delivery-queue"), "backup").unwrap();
    assert_eq!(backup.state_file(), "milestone-delivery-state.backup.json");
    let mut wire = Wire::new(accepted);
    assert_eq!(run(&backup, settings(), &mut wire).unwrap().delivered, 3);
    assert_eq!(wire.ids(), ["m0", "m1", "redriven"]);
}

#[test]
fn at_the_limit_of_lanes_reading_ahead_pauses() {
    let bench = Bench::new();
    let count = LANES_MAX + 50;
    bench.enqueue(&items(count, count));
    let mut wire = Wire::new(|_| status(500, ""));
    let schedule = Schedule { base: Duration::from_secs(3600), ..Schedule::default() };
    let summary = run(&bench.consumer(), Settings { schedule, ..settings() }, &mut wire).unwrap();
    assert_eq!((wire.posts.len(), summary.retrying, summary.pending), (LANES_MAX, 10_000, count as u64));
    wire.answer = Box::new(accepted);
    wire.now = wire.now.plus(Duration::from_secs(3 * 3600));
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(wire.posts.len(), LANES_MAX + count);
}

#[test]
fn a_queue_that_was_cut_stops_delivery_until_resync() {
    let bench = Bench::new();
    bench.enqueue(&items(20, 2));
    let mut wire = Wire::new(accepted);
    bench.run(&mut wire);
    let path = bench.dir.path().join("milestone-delivery-queue.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let half = bytes[..bytes.len() / 2].iter().rposition(|it| *it == b'\n').unwrap() as u64 + 1;
    File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    let error = run(&bench.consumer(), settings(), &mut wire).unwrap_err();
    assert_eq!(error.kind(), Kind::BadData);
    assert!(error.to_string().contains("--resync"), "{error}");
    assert_eq!(resync(&bench.consumer(), Resync::End, start()).unwrap(), half);
    bench.enqueue(&[("new".into(), "s0".into())]);
    bench.forget_state();
    assert_eq!(bench.run(&mut wire).delivered, 1, "a rebuild knows of the resync");
    assert_eq!(resync(&bench.consumer(), Resync::Start, start()).unwrap(), 0);
    assert!(bench.run(&mut wire).delivered > 9);
    assert!(resync(&bench.consumer(), Resync::Offset(7), start()).is_err());
}
