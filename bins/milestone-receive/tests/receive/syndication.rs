//! What feed readers and pulling apps get.

use milepost::{canonical, signing::Signer};
use serde_json::{Value, json};

use crate::client::{Folder, MILESTONES, event, secret, signed_by};

#[test]
fn a_json_feed_has_each_milestone_with_an_id_that_stays() {
    let folder = Folder::new();
    let receiver = folder.start();
    let empty = receiver.get("/feed.json").json();
    assert_eq!(
        (empty["version"].clone(), empty["items"].clone()),
        (json!("https://jsonfeed.org/version/1.1"), json!([]))
    );
    receiver.emit("a b", &json!({ "claim": "<b>Done</b>" }));
    receiver.emit("c", &json!({ "riskStatus": "blocked" }));
    let answer = receiver.get_with("/feed.json?riskStatus=on-track", &[("host", "localhost:99")]);
    assert_eq!(answer.header("content-type"), Some("application/feed+json; charset=utf-8"));
    let feed = answer.json();
    assert_eq!(feed["feed_url"], "http://localhost:99/feed.json?riskStatus=on-track");
    let item = &feed["items"][0];
    assert_eq!(feed["items"].as_array().unwrap().len(), 1);
    assert_eq!(item["id"], "tag:localhost,2026:milestone/a%20b");
    assert_eq!(item["title"], "<b>Done</b>");
    assert!(item["content_text"].as_str().unwrap().contains("Next: Go on."), "{item}");
    assert_eq!(item["_milestone"]["receipt"]["seq"], 1);
    let tag = answer.header("etag").unwrap();
    let again = receiver
        .get_with("/feed.json?riskStatus=on-track", &[("host", "localhost:99"), ("if-none-match", tag)]);
    assert_eq!(again.status, 304);
}

#[test]
fn an_atom_feed_holds_hostile_text_as_text() {
    let folder = Folder::new();
    let receiver = folder.start_with(&["--public-host", "feed.example"]);
    let hostile = "</title><script>alert(1)</script>&amp;\u{1b}[31m\u{202e}]]>\u{ffff}";
    let changes = json!({
        "claim": hostile, "scope": hostile, "nextAction": hostile,
        "evidence": [{ "type": "log", "path": hostile, "summary": hostile, "ref": hostile }],
    });
    assert_eq!(receiver.emit("<&\"'>", &changes).status, 200);
    let answer = receiver.get("/feed.atom");
    let xml = &answer.body;
    assert!(!xml.contains("<script") && !xml.contains(['\u{1b}', '\u{202e}', '\u{ffff}']), "{xml}");
    assert!(
        xml.contains(
            "<link rel=\"self\" type=\"application/atom+xml\" href=\"https://feed.example/feed.atom\"/>"
        ),
        "{xml}"
    );
    assert!(xml.contains("<id>tag:feed.example,2026:milestone/%3C%26%22%27%3E</id>"), "{xml}");
    // As many elements end as begin, all of them ours.
    assert_eq!(xml.matches("<entry>").count(), 1);
    assert_eq!(xml.matches("<content ").count(), xml.matches("</content>").count());
}

#[test]
fn what_is_pulled_is_signed_with_a_secret_of_its_own_and_cannot_be_posted() {
    let folder = Folder::new();
    let file = folder.file("feed-secret");
    make_secret(&file, b"another secret");
    let flags = ["--pull-feed", "--feed-secret-file", file.to_str().unwrap()];
    let receiver = folder.start_with(&flags);
    assert_eq!(receiver.get("/milestones-feed.json").body, r#"{"entries":[],"lastUpdated":null}"#);
    for at in 0..60 {
        receiver.emit(&format!("m{at}"), &Value::Null);
    }
    let feed = receiver.get("/milestones-feed.json").json();
    let entries = feed["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[49]["event"]), (50, &event("m59", &Value::Null)));
    let mut body = entries[0].clone();
    let signature = body.as_object_mut().unwrap().remove("signature").unwrap();
    let canonical = canonical::to_vec(&body);
    let signer = Signer::new(&secret("another secret"), None);
    assert_eq!(signature, signer.hex(&canonical));
    let posted = signed_by(&signer, milepost::clock::now(), MILESTONES, "milestone:m10", &canonical);
    assert_eq!(receiver.post(&posted).status, 401);
}

#[test]
fn without_a_secret_of_its_own_nothing_is_pulled() {
    let folder = Folder::new();
    assert_eq!(folder.start().get("/milestones-feed.json").status, 404);
    assert_eq!(folder.run(&["--pull-feed"]).status.code(), Some(78));
    let file = folder.file("same");
    make_secret(&file, crate::client::SECRET.as_bytes());
    assert_eq!(
        folder.run(&["--pull-feed", "--feed-secret-file", file.to_str().unwrap()]).status.code(),
        Some(78)
    );
    make_secret(&file, b"another");
    let none = ["--pull-feed", "--feed-secret-file", file.to_str().unwrap(), "--show-evidence", "none"];
    assert_eq!(folder.run(&none).status.code(), Some(64));
}

#[expect(clippy::disallowed_methods, reason = "a test makes its input itself")]
fn make_secret(file: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, bytes).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}
