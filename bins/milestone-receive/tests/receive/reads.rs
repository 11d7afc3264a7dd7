//! What readers get.

use serde_json::{Value, json};

use crate::client::{Folder, Receiver, event, signed_body};

fn ids(receiver: &Receiver, query: &str) -> Vec<String> {
    let answer = receiver.get(&format!("/api/milestones/latest{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|it| it["milestoneId"].as_str().unwrap().to_owned()).collect()
}

fn fill(receiver: &Receiver) {
    for (id, time, scope, risk) in [
        ("a", "2026-03-01T09:00:00.000Z", "runtime", "on-track"),
        ("b", "2026-03-03T09:00:00.000Z", "runtime", "blocked"),
        ("c", "2026-03-02T09:00:00.000Z", "demand", "on-track"),
        ("d", "2026-03-03T09:00:00.000Z", "chat:42 & more", "completed"),
    ] {
        let changes = json!({ "timestampUtc": time, "scope": scope, "riskStatus": risk });
        assert_eq!(receiver.emit(id, &changes).status, 200);
    }
}

#[test]
fn the_newest_come_first_and_filters_and_limits_apply() {
    let folder = Folder::new();
    let receiver = folder.start();
    assert_eq!(receiver.get("/api/milestones/latest").body, r#"{"ok":true,"items":[]}"#);
    fill(&receiver);
    let check = |receiver: &Receiver| {
        assert_eq!(ids(receiver, ""), ["d", "b", "c", "a"]);
        assert_eq!(ids(receiver, "?limit=2"), ["d", "b"]);
        assert_eq!(ids(receiver, "?scope=runtime"), ["b", "a"]);
        assert_eq!(ids(receiver, "?riskStatus=on-track"), ["c", "a"]);
        assert_eq!(ids(receiver, "?scope=runtime&riskStatus=on-track&limit=200"), ["a"]);
        assert_eq!(ids(receiver, "?scope=chat%3A42+%26%20more"), ["d"]);
        assert_eq!(ids(receiver, "?scope=nowhere"), [""; 0]);
    };
    check(&receiver);
    receiver.kill();
    check(&folder.start());
}

#[test]
fn an_item_is_the_event_its_place_and_its_receipt() {
    let folder = Folder::new();
    let receiver = folder.start();
    let receipt = receiver.emit("a", &Value::Null).json()["receipt"].clone();
    let item = receiver.get("/api/milestones/latest").json()["items"][0].clone();
    let line = &folder.lines("receive/feed.jsonl")[0];
    let mut expected = line["event"].clone();
    expected["seq"] = json!(1);
    expected["receivedAtUtc"] = line["receivedAtUtc"].clone();
    expected["receipt"] = receipt;
    assert_eq!(item, expected);
}

#[test]
fn questions_that_make_no_sense_are_refused_with_a_reason() {
    let folder = Folder::new();
    let receiver = folder.start();
    for query in [
        "?limit=0",
        "?limit=201",
        "?limit=-1",
        "?limit=x",
        "?riskStatus=fine",
        "?scope=%ff",
        "?since=now",
        "?cursor=x",
    ] {
        let name = query[1..].split('=').next().unwrap();
        let answer = receiver.get(&format!("/api/milestones/latest{query}"));
        assert_eq!((answer.status, answer.json()["ok"].clone()), (400, json!(false)), "{query}");
        assert!(answer.reason().contains(name), "{answer:?}");
        // The page is for people, also when a link is wrong.
        let page = receiver.get(&format!("/{query}"));
        assert_eq!((page.status, page.header("content-type")), (400, Some("text/html; charset=utf-8")));
        assert!(page.body.contains(&format!("<p>{name} ")), "{page:?}");
    }
    let page = receiver.get("/?riskStatus=%3Cb%3E").body;
    assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
}

#[test]
fn the_public_sees_of_evidence_what_the_operator_says() {
    let evidence = |flags: &[&str]| {
        let folder = Folder::new();
        let receiver = folder.start_with(flags);
        receiver.emit("a", &Value::Null);
        let page = receiver.get("/").body;
        (receiver.get("/api/milestones/latest").json()["items"][0]["evidence"][0].clone(), page)
    };
    let (full, page) = evidence(&[]);
    assert_eq!(full["path"], "/srv/app/run.log");
    assert!(page.contains("/srv/app/run.log"));
    for flags in [&["--show-evidence", "basename"][..], &["--public-host", "feed.example"]] {
        let (basename, page) = evidence(flags);
        assert_eq!(basename["path"], "run.log");
        assert!(page.contains("run.log") && !page.contains("/srv"));
    }
    let (none, page) = evidence(&["--show-evidence", "none"]);
    assert_eq!(none, json!({ "type": "log", "summary": "It ran." }));
    assert!(!page.contains("run.log"));
}

#[test]
fn foreign_text_is_text_on_the_page() {
    let folder = Folder::new();
    let receiver = folder.start();
    let attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let changes = json!({
        "scope": attack, "claim": attack, "nextAction": attack,
        "evidence": [
            { "type": "log", "path": "javascript:alert(1)", "summary": attack, "ref": attack },
            { "type": "pr", "path": "https://a.example/\" onclick=\"x", "summary": "s" },
            { "type": "pr", "path": "https://a.example/4?a=1&b=2", "summary": "s" },
        ],
    });
    assert_eq!(receiver.emit(&format!("id{attack}"), &changes).status, 200);
    let page = receiver.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        !page.body.contains("<script>") && !page.body.contains("<img") && !page.body.contains("onclick=\"")
    );
    assert!(!page.body.contains("href=\"javascript"));
    assert!(page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;"));
    assert!(page.body.contains("href=\"https://a.example/4?a=1&amp;b=2\""));
    // Nothing inline is permitted, and nothing inline is there.
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.body.contains("<style") && !page.body.contains(" style="));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("access-control-allow-origin"), None);
}

#[test]
fn the_page_tells_how_to_begin_and_brings_its_own_files() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--cors", "https://app.example"]);
    let page = receiver.get("/").body;
    assert!(page.contains("No milestones yet") && page.contains("milestone-emit --id"));
    for (path, content_type) in [
        ("/app.css", "text/css; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let file = receiver.get(path);
        assert_eq!((file.status, file.header("content-type")), (200, Some(content_type)));
        assert!(!file.body.contains("innerHTML"));
        assert_eq!(file.header("access-control-allow-origin"), Some("https://app.example"));
    }
    receiver.emit("a", &json!({ "scope": "demand" }));
    assert!(receiver.get("/?scope=other").body.contains("Nothing here"));
    let wrong = receiver.get("/?riskStatus=%3Cb%3E");
    assert_eq!((wrong.status, wrong.header("content-type")), (400, Some("text/html; charset=utf-8")));
    assert!(
        wrong.body.contains("riskStatus must be one of") && !wrong.body.contains("<b>"),
        "{}",
        wrong.body
    );
    assert!(receiver.get("/?scope=demand").body.contains("Claim of a."));
}

#[test]
fn health_and_metrics_tell_what_is_there() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    receiver.emit("a", &Value::Null);
    assert_eq!(receiver.get("/healthz").json(), json!({ "ok": true, "seq": 1 }));
    let metrics = receiver.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    for sample in [
        r#"milepost_receive_ingest_requests_total{route="milestones",outcome="accepted",reason=""} 1"#,
        r#"milepost_receive_ingest_requests_total{route="milestones",outcome="duplicate",reason=""} 1"#,
        "milepost_receive_feed_milestones 1",
        "milepost_receive_store_ok 1",
    ] {
        assert!(metrics.body.lines().any(|it| it == sample), "{sample} in {}", metrics.body);
    }
}

/// Follows `next` to the end; how many answers that took.
fn pages(receiver: &Receiver, query: &str) -> (Vec<String>, usize) {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for count in 1.. {
        let answer = receiver.get(&format!("/api/milestones/latest?{query}&cursor={cursor}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let items = answer.json()["items"].as_array().unwrap().clone();
        all.extend(items.iter().map(|it| it["milestoneId"].as_str().unwrap().to_owned()));
        match answer.json().get("next") {
            Some(next) => next.as_str().unwrap().clone_into(&mut cursor),
            None => return (all, count),
        }
    }
    unreachable!()
}

/// Minute, seq, id, scope and risk status of a milestone.
type Emitted = (u64, u64, String, &'static str, &'static str);

#[test]
fn pages_show_everything_once_newest_first_however_far_back() {
    let folder = Folder::new();
    let receiver = folder.start();
    // More than the lists hold, with times in no order and some alike.
    let mut expected = Vec::new();
    for part in 0..6 {
        let items: Vec<_> = (0..100)
            .map(|it| {
                let (seq, minute) = (part * 100 + it + 1, (part * 100 + it) * 7919 % 500);
                let id = format!("m{seq}");
                let time = format!("2026-03-01T{:02}:{:02}:00.000Z", minute / 60, minute % 60);
                let (scope, risk) = (
                    if seq % 3 == 0 { "third" } else { "others" },
                    if seq % 7 == 0 { "blocked" } else { "on-track" },
                );
                expected.push((minute, seq, id.clone(), scope, risk));
                let event = event(&id, &json!({ "timestampUtc": time, "scope": scope, "riskStatus": risk }));
                milepost::ingest::milestone_body(
                    &format!("milestone:{id}"),
                    milepost::Timestamp::from_millis(0),
                    &event,
                )
            })
            .collect();
        let body = milepost::ingest::batch::body(&items);
        assert_eq!(
            receiver.post(&signed_body(milepost::ingest::batch::MILESTONES_PATH, "b", &body)).status,
            200
        );
    }
    expected.sort_by(|a, b| b.cmp(a));
    let ids = |takes: &dyn Fn(&Emitted) -> bool| {
        expected.iter().filter(|it| takes(it)).map(|it| it.2.clone()).collect::<Vec<_>>()
    };
    let check = |receiver: &Receiver| {
        assert_eq!(pages(receiver, "limit=77"), (ids(&|_| true), 8));
        assert_eq!(pages(receiver, "limit=50&scope=third"), (ids(&|it| it.3 == "third"), 4));
        assert_eq!(pages(receiver, "limit=13&riskStatus=blocked").0, ids(&|it| it.4 == "blocked"));
        assert_eq!(
            pages(receiver, "limit=9&scope=third&riskStatus=blocked").0,
            ids(&|it| it.3 == "third" && it.4 == "blocked")
        );
        assert_eq!(pages(receiver, "limit=200&since=2026-03-01T07:00Z").0, ids(&|it| it.0 >= 420));
        assert_eq!(
            pages(receiver, "limit=40&since=2026-03-01T02:00Z&scope=third").0,
            ids(&|it| it.0 >= 120 && it.3 == "third")
        );
    };
    check(&receiver);
    assert_eq!(receiver.end(), 0);
    // Remembered from before, and read anew.
    check(&folder.start());
    std::fs::remove_dir_all(folder.file(".index")).unwrap();
    check(&folder.start());
}

#[test]
fn one_milestone_is_found_by_its_id() {
    let folder = Folder::new();
    let receiver = folder.start();
    for id in ["a", "a/b ć", "latest.1"] {
        receiver.emit(id, &Value::Null);
    }
    let check = |receiver: &Receiver| {
        let one = receiver.get("/api/milestones/a%2Fb%20%C4%87");
        assert_eq!((one.status, one.json()["item"]["receipt"]["seq"].clone()), (200, json!(2)), "{one:?}");
        assert_eq!(one.json()["item"], receiver.get("/api/milestones/latest").json()["items"][1]);
        assert_eq!(receiver.get("/api/milestones/b").status, 404);
        let no_id = receiver.get("/api/milestones/%ff");
        let said = r#"{"ok":false,"reason":"the id is no percent-encoded UTF-8"}"#;
        assert_eq!((no_id.status, no_id.body.as_str()), (400, said));
    };
    check(&receiver);
    receiver.kill();
    check(&folder.start());
}

#[test]
fn a_reader_who_has_it_already_is_told_so() {
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &Value::Null);
    let first = receiver.get("/api/milestones/latest?limit=5");
    let tag = first.header("etag").unwrap().to_owned();
    let again = receiver.get_with("/api/milestones/latest?limit=5", &[("if-none-match", &tag)]);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(receiver.get("/api/milestones/latest?limit=5").body, first.body);
    receiver.emit("b", &Value::Null);
    let newer = receiver.get_with("/api/milestones/latest?limit=5", &[("if-none-match", &tag)]);
    assert_eq!(newer.json()["items"].as_array().unwrap().len(), 2);
}
