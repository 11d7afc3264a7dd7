//! Answers over HTTP: what they mean for an item, and how long they ask to wait.
//!
//! An input is lines: status and letters for flags, `Retry-After`, `Date`, and then the body. An empty header is
//! none.

use std::{sync::Arc, time::Duration};

use milepost::{
    Timestamp,
    delivery::{
        Item, Outgoing, Route, Sent,
        backoff::{self, Schedule},
        verdict::{AckMode, Attempted, Fault, HttpAnswer, Judgement, Verdict, judge},
    },
};
use serde_json::Value;

use milepost_fuzz::seeds;

const ID: &str = "m1";
const DAY: Duration = Duration::from_secs(86_400);

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let bodies = [
        r#"{"ok":true,"status":"accepted","milestoneId":"m1","receipt":{"seq":7,"head":"ab"}}"#,
        r#"{"ok":true,"status":"duplicate","eventId":"m1"}"#,
        r#"{"ok":false,"status":"rejected","reason":"no such scope"}"#,
        r#"{"ok":true,"status":"pong"}"#,
        "<html>502 Bad Gateway</html>",
    ];
    for body in bodies {
        for status in [
            "200", "202", "301", "400", "401", "404", "408", "409", "410", "422", "429", "500", "503", "525",
            "599",
        ] {
            all.push(format!("{status}\n\n\n{body}").into_bytes());
        }
    }
    all.extend(seeds::texts(&[
        "503\n120\n\n",
        "503\n 0 \n\n",
        "429 d\n99999999999999999999\n\nx",
        "429\nFri, 20 Nov 2026 10:10:30 GMT\nFri, 20 Nov 2026 10:10:00 GMT\n",
        "503\nFriday, 20-Nov-26 10:00:30 GMT\n\n",
        "503\nFri Nov 20 10:00:30 2026\nThu, 01 Jan 1970 00:00:00 GMT\n",
        "200 d\n\n\n{\"ok\":true,\"status\":\"accepted\",\"milestoneId\":\"m1\"}",
        "200 b\n5\n\n",
        "503 o\n5\n\n",
        "200 B\n\n\n{\"ok\":true,\"results\":[{\"idempotencyKey\":\"milestone:m1\",\"status\":\"accepted\",\"milestoneId\":\"m1\",\"receipt\":{\"seq\":7,\"head\":\"ab\"}},{\"idempotencyKey\":\"milestone:m2\",\"status\":\"rejected\",\"reason\":\"no\"}]}",
        "0 u\n\n\nconnection refused",
    ]));
    all
}

pub fn run(input: &[u8]) {
    let mut parts = input.splitn(4, |it| *it == b'\n').map(|it| String::from_utf8_lossy(it).into_owned());
    let first = parts.next().unwrap_or_default();
    let header = |it: Option<String>| it.filter(|it| !it.is_empty());
    let (retry_after, date) = (header(parts.next()), header(parts.next()));
    // The body as it came, bytes that are no text too.
    let body = input.splitn(4, |it| *it == b'\n').nth(3).unwrap_or_default().to_vec();
    let digits = first.find(|it: char| !it.is_ascii_digit()).unwrap_or(first.len());
    let (status, flags) = first.split_at(digits);
    let has = |flag| flags.contains(flag);
    let status = status.parse().unwrap_or(0);
    let batch = has('B').then(|| "2".to_owned());
    let answer = HttpAnswer { status, retry_after, date, batch, disable: has('d'), by_previous: false, body };
    let what = String::from_utf8_lossy(&answer.body).into_owned();
    let attempted = match () {
        () if has('b') => Attempted::Broken { head: Some(answer.clone()), is_oversized: has('o'), what },
        () if has('u') => Attempted::Broken { head: None, is_oversized: has('o'), what },
        () => Attempted::Answered(answer.clone()),
    };
    let now = Timestamp::from_millis(1_795_168_800_000);
    for mode in [AckMode::Contract, AckMode::AnySuccess] {
        let judged = judge(&attempted, ID, mode, now);
        assert_eq!(judged, judge(&attempted, ID, mode, now), "the same gives the same");
        check(&judged, &answer, mode, matches!(attempted, Attempted::Answered(_)));
        check_delay(&judged, &answer, now);
        check_batch(&attempted, &answer, mode, now);
    }
}

/// The same as the answer to two items at once.
fn check_batch(attempted: &Attempted, answer: &HttpAnswer, mode: AckMode, now: Timestamp) {
    let item = |key: &str, id: &str| {
        let name = Sent { key: key.to_owned(), id: id.to_owned() };
        let body = Ok(Vec::new());
        Arc::new(Item { offset: 0, end: 0, scope: None, route: Route::Milestones, name, body })
    };
    let items = vec![item("milestone:m1", "m1"), item("milestone:m2", "m2")];
    let outgoing = Outgoing { ticket: 0, route: Route::Milestones, items, is_batch: true };
    let judged = outgoing.judge(attempted, mode, now);
    let Ok(items) = judged.items else { return };
    assert_eq!(items.len(), 2, "one for each");
    assert!((200..300).contains(&answer.status) && matches!(attempted, Attempted::Answered(_)));
    let body = read_kindly(&answer.body).expect("what judges is JSON");
    assert_eq!(body["ok"], true);
    assert_eq!(body["results"].as_array().map(Vec::len), Some(2));
    for (at, (item, sent)) in items.iter().zip(&outgoing.items).enumerate() {
        let result = &body["results"][at];
        assert_eq!(result["idempotencyKey"], sent.key(), "each is named");
        match &item.verdict {
            Verdict::Acknowledged { duplicate, .. } => {
                assert_eq!(result["status"], if *duplicate { "duplicate" } else { "accepted" });
                assert!(
                    [&result["milestoneId"], &result["eventId"]].contains(&&Value::from(sent.name.id.as_str()))
                );
            }
            Verdict::Failed(Fault::Item) => assert_eq!(result["status"], "rejected"),
            other => panic!("{other:?} is no result of an item"),
        }
    }
}

/// Whatever stands in fields that the contract does not know is passed over, text that is none too.
fn read_kindly(body: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(body).replace("\\ud", "\\u0").replace("\\uD", "\\u0");
    serde_json::from_str(&text).ok()
}

fn check(judged: &Judgement, answer: &HttpAnswer, mode: AckMode, is_whole: bool) {
    let body = read_kindly(&answer.body);
    let says = |name: &str| body.as_ref().map_or(Value::Null, |it| it[name].clone());
    let is_by_contract = mode == AckMode::Contract;
    match &judged.verdict {
        Verdict::Acknowledged { duplicate, receipt } => {
            assert!((200..300).contains(&answer.status), "only a success acknowledges");
            if is_by_contract {
                assert!(is_whole, "half an answer acknowledges nothing");
                assert_eq!(says("ok"), true);
                assert_eq!(says("status"), if *duplicate { "duplicate" } else { "accepted" });
                assert!(
                    [says("milestoneId"), says("eventId")].contains(&Value::from(ID)),
                    "it names the item"
                );
            }
            if let Some(it) = receipt {
                assert_eq!(says("receipt")["seq"], it.seq);
            }
        }
        Verdict::Pong => panic!("{ID} is no ping"),
        Verdict::Failed(Fault::Item) => {
            assert!([400, 409, 413, 415, 422].contains(&answer.status), "{}", answer.status);
            assert!(is_whole && !answer.disable);
            assert!(
                !is_by_contract || says("ok") == false && says("status") == "rejected",
                "nobody's verdict"
            );
        }
        Verdict::Failed(Fault::Gone) => assert!(answer.status == 410 || answer.disable),
        Verdict::Failed(fault) => {
            // What is nobody's own fault is never final, and never uses up an item.
            let is_ours = matches!(fault, Fault::Endpoint | Fault::Configuration);
            assert!(is_ours || !is_whole || answer.status >= 500 || !(200..500).contains(&answer.status));
        }
    }
    if is_whole && answer.disable {
        assert!(judged.is_gone, "an endpoint that wants no more is left alone");
    }
    assert!(judged.answer.chars().count() <= 201 && !judged.reason.is_empty());
}

fn check_delay(judged: &Judgement, answer: &HttpAnswer, now: Timestamp) {
    let schedule = Schedule::default();
    let plain = schedule.delay("milestone:m1", 3, None);
    let delay = schedule.delay("milestone:m1", 3, judged.retry_after);
    assert!(delay >= plain, "what a server asks for only adds");
    assert!(delay <= plain.max(DAY), "nobody is believed to need more than a day");
    assert!(schedule.probe_delay("", 2, judged.retry_after) >= judged.retry_after.unwrap_or_default());
    assert!(delay >= judged.retry_after.unwrap_or_default());
    // The same header, read a second time by hand.
    let header = answer.retry_after.as_deref().unwrap_or_default().trim();
    if judged.retry_after.is_some() || matches!(judged.status, Some(503) if !answer.disable) {
        if !header.is_empty() && header.bytes().all(|it| it.is_ascii_digit()) {
            let asked = header.parse().map_or(DAY, Duration::from_secs).min(DAY);
            assert!(
                judged.retry_after.is_none_or(|it| it == asked),
                "{header} was read as {:?}",
                judged.retry_after
            );
        } else if let Some(asked) = imf_date(header) {
            let date = answer.date.as_deref().map_or(Some(now), |it| imf_date(it.trim()));
            if let (Some(read), Some(date)) = (judged.retry_after, date) {
                assert!(read == asked.since(date).min(DAY), "{header} at {date} was read as {read:?}");
            }
        }
    }
    if let Some(date) = answer.date.as_deref().and_then(backoff::http_date) {
        assert!(date >= Timestamp::from_millis(0));
    }
}

/// `Fri, 20 Nov 2026 10:10:30 GMT`, exactly, of a year that needs no thought.
fn imf_date(text: &str) -> Option<Timestamp> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let bytes = text.as_bytes();
    if bytes.len() != 29 || !text.is_ascii() || !text.ends_with(" GMT") || &text[3..5] != ", " {
        return None;
    }
    if [7, 11, 16].iter().any(|it| bytes[*it] != b' ') {
        return None;
    }
    let month = MONTHS.find(&text[8..11]).filter(|it| it % 3 == 0)? / 3 + 1;
    let rfc = format!("{}-{month:02}-{}T{}Z", &text[12..16], &text[5..7], &text[17..25]);
    let date = Timestamp::parse_utc(&rfc).ok()?;
    // 1970 began on a Thursday.
    let days = date.unix_seconds().div_euclid(86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(days % 7).ok()?];
    let year: u32 = text[12..16].parse().ok()?;
    (text.starts_with(weekday) && (1971..2900).contains(&year)).then_some(date)
}
