//! How long is waited: `Retry-After` in every form, and an outage that ends.

use std::time::Duration;

use milepost_testing::{
    Run,
    hostile::{Hostile, Mode},
    wait_until,
};

use super::bench::{Bench, CONCURRENCY, Watchdog};

/// The delay before the next attempt that was planned after one with these headers.
fn planned_delay(status: u16, headers: &'static str) -> Duration {
    let server = Hostile::start(Mode::Answer(status, headers, ""));
    let bench = Bench::new(1);
    bench.run(&server.url(), &["--backoff-base", "1s"]).exits(0);
    let [attempt] = &bench.attempts()[..] else { panic!("one attempt") };
    Duration::from_millis(attempt["detail"]["delayMs"].as_u64().unwrap())
}

const SCHEDULED: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_millis(1250);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn retry_after_is_followed_in_each_of_its_forms() {
    for (headers, seconds) in [
        ("retry-after: 120\r\n", 120),
        ("Retry-After:   7\r\n", 7),
        ("date: Fri, 20 Nov 2026 10:00:00 GMT\r\nretry-after: Fri, 20 Nov 2026 10:01:30 GMT\r\n", 90),
        ("date: Fri, 20 Nov 2026 10:00:00 GMT\r\nretry-after: Friday, 20-Nov-26 10:01:30 GMT\r\n", 90),
        ("date: Fri, 20 Nov 2026 10:00:00 GMT\r\nretry-after: Fri Nov 20 10:01:30 2026\r\n", 90),
    ] {
        for status in [408, 425, 429, 503, 500] {
            assert_eq!(planned_delay(status, headers), Duration::from_secs(seconds), "{status} {headers}");
        }
    }
}

#[test]
fn a_retry_after_beyond_a_day_is_a_day() {
    for headers in [
        "retry-after: 99999999\r\n",
        "retry-after: 99999999999999999999999999\r\n",
        "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
    ] {
        assert_eq!(planned_delay(503, headers), DAY, "{headers}");
    }
}

#[test]
fn a_retry_after_that_says_nothing_leaves_the_schedule() {
    for headers in [
        "",
        "retry-after: 0\r\n",
        "retry-after: -1\r\n",
        "retry-after: 1.5\r\n",
        "retry-after: soon\r\n",
        "retry-after:\r\n",
        "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        "retry-after: 20 Nov\r\n",
        "retry-after: \u{e9}\r\n",
    ] {
        let delay = planned_delay(429, headers);
        assert!(SCHEDULED.contains(&delay), "{headers}: {delay:?}");
    }
}

#[test]
fn two_that_differ_never_shorten_the_schedule() {
    let delay = planned_delay(503, "retry-after: 0\r\nretry-after: 30\r\n");
    assert!(delay >= *SCHEDULED.start() && delay <= DAY, "{delay:?}");
}

#[test]
fn nobody_comes_back_before_the_time() {
    for concurrency in CONCURRENCY {
        let server = Hostile::start(Mode::Answer(503, "retry-after: 1\r\n", ""));
        let bench = Bench::new(2).more(concurrency);
        let more = ["--drain", "--backoff-base", "1ms", "--backoff-cap", "2ms", "--drain-timeout", "30s"];
        let child = bench.command(&server.url(), &more).spawn().unwrap();
        let _watchdog = Watchdog::of(&child);
        wait_until(|| server.count() >= 2);
        server.turn(Mode::Good);
        Run::of(child).exits(0);
        let attempts = bench.attempts();
        for key in &bench.keys {
            let times: Vec<_> = attempts
                .iter()
                .filter(|it| it["idempotency_key"] == key.as_str())
                .map(|it| milepost::Timestamp::parse_utc(it["detail"]["at"].as_str().unwrap()).unwrap())
                .collect();
            assert!(times[1].since(times[0]) >= Duration::from_secs(1), "{times:?}");
        }
    }
}

#[test]
fn an_outage_costs_probes_and_no_attempt_and_then_all_arrives() {
    for concurrency in CONCURRENCY {
        let server = Hostile::start(Mode::Answer(503, "", "<html>maintenance</html>"));
        let bench = Bench::with_scopes(60, 20).more(concurrency);
        let more = ["--drain", "--backoff-base", "5ms", "--backoff-cap", "20ms", "--drain-timeout", "40s"];
        let child = bench.command(&server.url(), &more).spawn().unwrap();
        let _watchdog = Watchdog::of(&child);
        wait_until(|| server.count() >= 40);
        server.turn(Mode::Good);
        let run = Run::of(child).exits(0);
        assert_eq!(run.results().last().unwrap()["delivered"], 60);
        for attempt in bench.attempts() {
            let used = u64::from(attempt["outcome"] == "acknowledged");
            assert_eq!(attempt["detail"]["attempt"], used, "{attempt}");
        }
        let audit = bench.scratch.records("audit");
        let moves: Vec<_> =
            audit.iter().filter(|it| it["action"] == "breaker").map(|it| it["outcome"].clone()).collect();
        assert_eq!(moves, ["opened", "closed"]);
        bench.recover(&server);
    }
}
