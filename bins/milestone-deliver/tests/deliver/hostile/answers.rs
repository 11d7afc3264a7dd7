//! Answers that are none, too many, too large, too slow, or somebody else's.

use std::time::Duration;

use milepost_testing::hostile::{Framing, Hostile, Mode, gzip_bomb};

use super::bench::{
    ACCEPTED, BROKEN, Bench, CONCURRENCY, DUPLICATE, Expected, REJECTED, application, configuration,
    endpoint, gone, meet,
};

const FOREIGN: Expected = configuration(&["foreign-answer"]);
const TIMEOUT: Expected = endpoint(&["timeout"]);
const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// These bytes instead of an answer.
fn raw(bytes: impl AsRef<[u8]>, expected: &Expected) {
    meet(&Mode::Raw(bytes.as_ref().to_vec()), expected);
}

#[test]
fn garbage_instead_of_http() {
    raw([0xff, 0xfe, 0, 1, 2, 3, b'\r', b'\n', b'\r', b'\n'], &BROKEN);
    raw([0; 4096], &BROKEN);
    raw("SSH-2.0-OpenSSH_9.2p1\r\n", &BROKEN);
    raw("{\"ok\":true}", &BROKEN);
}

#[test]
fn status_lines_that_are_none() {
    for line in
        ["HTTP/1.1 abc OK", "HTTP/1.1", "HTTP/9.9 200 OK", "HTTP/1.1 99 X", "HTTP/1.1 99999 X", "200 OK"]
    {
        raw(format!("{line}\r\ncontent-length: 0\r\n\r\n"), &BROKEN);
    }
}

#[test]
fn headers_that_are_none() {
    for header in ["no colon", "bad name: x", "nul: a\0b", ": empty"] {
        raw(format!("HTTP/1.1 200 OK\r\n{header}\r\ncontent-length: 0\r\n\r\n"), &BROKEN);
    }
}

#[test]
fn headers_without_end() {
    meet(&Mode::EndlessHeaders("x-a: b\r\n"), &BROKEN);
    meet(&Mode::EndlessHeaders("x"), &BROKEN);
    meet(&Mode::DrippingHeaders, &TIMEOUT);
}

#[test]
fn a_slow_drip() {
    meet(&Mode::DrippingBody, &TIMEOUT);
}

#[test]
fn interim_answers_before_a_good_one() {
    meet(&Mode::GoodAfter("HTTP/1.1 100 Continue\r\n\r\n"), &ACCEPTED);
    meet(&Mode::GoodAfter("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 X\r\n\r\n"), &ACCEPTED);
}

#[test]
fn interim_answers_without_end() {
    meet(&Mode::EndlessInterim(Duration::ZERO), &BROKEN);
    meet(&Mode::EndlessInterim(Duration::from_millis(5)), &TIMEOUT);
}

#[test]
fn another_protocol() {
    raw("HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", &BROKEN);
}

#[test]
fn http_1_0() {
    meet(&Mode::GoodByHttp10, &ACCEPTED);
    raw("HTTP/1.0 200 OK\r\n\r\n{\"ok\":true}", &FOREIGN);
}

#[test]
fn a_body_of_a_gigabyte() {
    for framing in [Framing::Length, Framing::Chunks, Framing::Close] {
        meet(&Mode::Huge(200, framing), &BROKEN);
    }
}

#[test]
fn an_error_page_of_a_gigabyte_says_what_its_status_says() {
    meet(&Mode::Huge(500, Framing::Chunks), &application(&["server-error"]));
    meet(&Mode::Huge(503, Framing::Chunks), &endpoint(&["unavailable"]));
    meet(&Mode::Huge(404, Framing::Length), &configuration(&["not-found"]));
    // A rejection is read in its body, and of this one nobody knows the end.
    meet(&Mode::Huge(400, Framing::Chunks), &BROKEN);
}

#[test]
fn nothing_is_decompressed() {
    // Ten megabytes in 60 KiB, a gigabyte in 6 MiB.
    meet(&gzip_bomb(60 << 10), &FOREIGN);
    meet(&gzip_bomb(6 << 20), &BROKEN);
    meet(&Mode::GoodGzipped, &FOREIGN);
}

#[test]
fn lengths_that_contradict_themselves() {
    let body = r#"{"ok":true,"status":"accepted"}"#;
    for headers in [
        "content-length: 31\r\ncontent-length: 5\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length: 0x10\r\n",
        "content-length: \r\n",
    ] {
        raw(format!("{JSON}{headers}\r\n{body}"), &BROKEN);
    }
}

#[test]
fn chunks_that_are_none() {
    for body in [
        "ZZZ\r\n{\"ok\":true}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde\r\n",
        "\r\n\r\n",
    ] {
        raw(format!("{JSON}transfer-encoding: chunked\r\n\r\n{body}"), &BROKEN);
    }
}

#[test]
fn chunks_with_extensions_and_trailers_without_end() {
    let extension = format!("{JSON}transfer-encoding: chunked\r\n\r\n1;{}", "x".repeat(2 << 20));
    raw(extension, &BROKEN);
    let trailer =
        format!("{JSON}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{}", "a: b\r\n".repeat(400_000));
    raw(trailer, &BROKEN);
}

#[test]
fn somebody_elses_page() {
    for (status, headers, body) in [
        (200, "x-cache: HIT\r\n", "<html>please log in</html>"),
        (200, "", "{\"ok\":false}"),
        (200, "", "{\"ok\":tru"),
        (200, "", "[1,2,3]"),
        (200, "", "null"),
        (200, "", ""),
        (204, "", ""),
        (206, "", "{\"ok\":true}"),
        (200, "", r#"{"ok":true,"status":"rejected"}"#),
        (200, "", r#"{"ok":true,"ok":true,"status":"accepted","milestoneId":"m0"}"#),
        (400, "", "<html>bad request</html>"),
        (413, "", "<html>too large</html>"),
        (422, "", "{}"),
    ] {
        meet(&Mode::Answer(status, headers, body), &FOREIGN);
    }
}

#[test]
fn a_body_that_is_nested_without_end() {
    let nested: &'static str = "[".repeat(60_000).leak();
    meet(&Mode::Answer(200, "", nested), &FOREIGN);
    meet(&Mode::Answer(400, "", nested), &FOREIGN);
}

#[test]
fn another_items_acknowledgement() {
    meet(&Mode::OtherItem, &configuration(&["other-item"]));
}

#[test]
fn duplicates_only() {
    meet(&Mode::Duplicate, &DUPLICATE);
}

#[test]
fn redirects_are_not_followed() {
    for concurrency in CONCURRENCY {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = Hostile::start(Mode::Good);
            let location: &'static str = format!("location: {}\r\n", elsewhere.url()).leak();
            let server = Hostile::start(Mode::Answer(status, location, ""));
            let bench = Bench::new(2).more(concurrency);
            bench.pass(&server.url(), &configuration(&["redirect"]), &[]);
            bench.expect(&configuration(&["redirect"]));
            assert_eq!(elsewhere.connections(), 0, "{status}");
            bench.recover(&server);
        }
    }
    meet(&Mode::Answer(304, "", ""), &configuration(&["redirect"]));
}

#[test]
fn refusals_that_judge_no_item() {
    for (status, reason) in [
        (401, &["unauthorized"]),
        (403, &["forbidden"]),
        (404, &["not-found"]),
        (405, &["method-not-allowed"]),
        (402, &["client-error"]),
        (407, &["client-error"]),
        (451, &["client-error"]),
    ] {
        meet(&Mode::Rejection(status), &configuration(reason));
    }
}

#[test]
fn rejections_by_the_contract() {
    for status in [400, 409, 413, 415, 422] {
        meet(&Mode::Rejection(status), &REJECTED);
    }
}

#[test]
fn overload_and_outage() {
    for status in [408, 425, 502, 503, 504, 520, 530] {
        meet(&Mode::Answer(status, "", "<html>busy</html>"), &endpoint(&["unavailable"]));
    }
    meet(&Mode::Answer(429, "", ""), &endpoint(&["rate-limited"]));
}

#[test]
fn errors_of_the_application() {
    for status in [500, 501, 505, 511, 599] {
        meet(&Mode::Answer(status, "", "Traceback (most recent call last)"), &application(&["server-error"]));
    }
}

#[test]
fn an_endpoint_that_is_gone() {
    meet(&Mode::Answer(410, "", ""), &gone(&["gone"]));
    meet(&Mode::Answer(503, "webhook-delivery: disable\r\n", ""), &gone(&["disabled"]));
    meet(&Mode::Answer(200, "webhook-delivery: DISABLE \r\n", "<html>"), &gone(&["disabled"]));
    meet(&Mode::GoodWith("webhook-delivery: disable\r\n"), &Expected { breaker: "held", ..ACCEPTED });
}

#[test]
fn what_an_answer_says_cannot_play_with_the_terminal() {
    let server = Hostile::start(Mode::Answer(
        400,
        "",
        "{\"ok\":false,\"status\":\"rejected\",\"reason\":\"\\u001b[2J\\u202e\\u0007 pwned \\n milestone-deliver: all is well\"}",
    ));
    let bench = Bench::new(1);
    let pass = bench.pass(&server.url(), &REJECTED, &[]);
    assert!(!pass.stderr.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{:?}", pass.stderr);
    assert_eq!(pass.stderr.lines().count(), 1, "{}", pass.stderr);
    let [dead] = &bench.scratch.records("milestone-delivery-deadletter")[..] else { panic!("one") };
    assert!(dead["reason"].as_str().unwrap().len() < 400);
}

#[test]
fn a_long_reason_is_kept_short() {
    let reason: &'static str =
        format!(r#"{{"ok":false,"status":"rejected","reason":"{}"}}"#, "é".repeat(30_000)).leak();
    let server = Hostile::start(Mode::Answer(400, "", reason));
    let bench = Bench::new(1);
    bench.pass(&server.url(), &REJECTED, &[]);
    let [dead] = &bench.scratch.records("milestone-delivery-deadletter")[..] else { panic!("one") };
    assert!(dead.to_string().len() < 3000, "{}", dead.to_string().len());
    assert!(bench.attempts()[0].to_string().len() < 3000);
}

#[test]
fn a_clock_that_is_years_ahead_is_told_of_once() {
    let server = Hostile::start(Mode::GoodWith("date: Thu, 01 Jan 2099 00:00:00 GMT\r\n"));
    let bench = Bench::new(3);
    let pass = bench.pass(&server.url(), &ACCEPTED, &[]);
    assert_eq!(pass.summary["delivered"], 3);
    assert_eq!(pass.stderr.matches("2099-01-01").count(), 1, "{}", pass.stderr);
    let ahead = bench.state()["clock"]["aheadMs"].as_i64().unwrap();
    assert!(ahead > 365 * 86_400_000, "{ahead}");
}
