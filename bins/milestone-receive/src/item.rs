//! A milestone as the public sees it: the event's fields, its place in the feed, its receipt.
//!
//! # Invariants
//! - What `--show-evidence` hides is in no item, whoever asks for it and in whatever form.
//! - The idempotency key and `sentAtUtc` are the sender's and are not shown.
//!
//! Not here: how an item becomes HTML (`page`) or an event of the stream (`stream`).

use std::{str::FromStr, sync::OnceLock};

use milepost::{
    Timestamp,
    event::{Evidence, MilestoneEvent},
    ingest::Receipt,
};
use serde::{Deserialize, Serialize};

/// How much of evidence the public sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowEvidence {
    /// Everything.
    Full,
    /// Of paths the last part; web addresses whole, since they are public by themselves.
    Basename,
    /// Type and summary only.
    None,
}

impl FromStr for ShowEvidence {
    type Err = String;

    fn from_str(text: &str) -> Result<ShowEvidence, String> {
        match text {
            "full" => Ok(ShowEvidence::Full),
            "basename" => Ok(ShowEvidence::Basename),
            "none" => Ok(ShowEvidence::None),
            _ => Err("is not full, basename or none".into()),
        }
    }
}

/// An item of the feed.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its number in the feed.
    pub seq: u64,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// The hash of its line.
    pub head: String,
    /// The event, with its evidence as far as it is shown; an empty path is a hidden one.
    pub event: MilestoneEvent,
    /// About how much memory it takes.
    pub bytes: usize,
    json: OnceLock<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    seq: u64,
    received_at_utc: Timestamp,
    event: MilestoneEvent,
    hash: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    milestone_id: &'a str,
    timestamp_utc: Timestamp,
    scope: &'a str,
    claim: &'a str,
    evidence: Vec<ShownEvidence<'a>>,
    risk_status: milepost::event::RiskStatus,
    next_action: &'a str,
    source: milepost::event::Source,
    seq: u64,
    received_at_utc: Timestamp,
    receipt: &'a Receipt,
}

#[derive(Serialize)]
struct ShownEvidence<'a> {
    #[serde(rename = "type")]
    kind: milepost::event::EvidenceType,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    summary: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
}

impl Item {
    /// The item of a line of the feed; `None` when the line is damaged.
    pub fn from_line(line: &[u8], show: ShowEvidence) -> Option<Item> {
        // serde_json does not look into fields that it passes over: a damaged line would pass as whole.
        let line = std::str::from_utf8(line).ok()?;
        let Line { seq, received_at_utc: received_at, mut event, hash: head } =
            serde_json::from_str(line).ok()?;
        for it in &mut event.evidence {
            hide(it, show);
        }
        Some(Item { seq, received_at, head, event, bytes: line.len(), json: OnceLock::new() })
    }

    /// The item as JSON, made when the first reader asks for it.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let Item { seq, received_at, head, event, .. } = self;
            let shown = Shown {
                milestone_id: &event.milestone_id,
                timestamp_utc: event.timestamp_utc,
                scope: &event.scope,
                claim: &event.claim,
                evidence: event.evidence.iter().map(ShownEvidence::of).collect(),
                risk_status: event.risk_status,
                next_action: &event.next_action,
                source: event.source,
                seq: *seq,
                received_at_utc: *received_at,
                receipt: &Receipt { seq: *seq, head: head.clone() },
            };
            // Our own types always have a JSON form.
            serde_json::to_string(&shown).unwrap_or_default()
        })
    }

    /// Whether some text of the milestone holds these words, which are in lower case. As `has` in `app.js`.
    pub fn has(&self, words: &str) -> bool {
        let event = &self.event;
        let of_evidence = event.evidence.iter().flat_map(|it| {
            [it.path.as_str(), it.summary.as_str(), it.reference.as_deref().unwrap_or_default()]
        });
        let mut texts = [&event.milestone_id, &event.scope, &event.claim, &event.next_action]
            .map(String::as_str)
            .into_iter()
            .chain(of_evidence);
        texts.any(|it| it.to_lowercase().contains(words))
    }
}

impl ShownEvidence<'_> {
    fn of(it: &Evidence) -> ShownEvidence<'_> {
        ShownEvidence {
            kind: it.kind,
            path: &it.path,
            summary: &it.summary,
            reference: it.reference.as_deref(),
        }
    }
}

/// Takes out of an evidence what is not shown.
pub fn hide(evidence: &mut Evidence, show: ShowEvidence) {
    match show {
        ShowEvidence::Full => {}
        ShowEvidence::Basename => {
            if !is_web_address(&evidence.path) {
                let last = evidence.path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
                evidence.path = last.unwrap_or_default().to_owned();
            }
        }
        ShowEvidence::None => {
            evidence.path.clear();
            evidence.reference = None;
        }
    }
}

/// Whether a path may become a link: nothing but http and https, and nothing that a browser would read
/// differently.
pub fn is_web_address(path: &str) -> bool {
    let rest = path.strip_prefix("https://").or_else(|| path.strip_prefix("http://"));
    rest.is_some_and(|it| it.starts_with(|it: char| it.is_ascii_alphanumeric()))
        && path.bytes().all(|it| it.is_ascii_graphic() && !matches!(it, b'"' | b'\'' | b'<' | b'>' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = concat!(
        r#"{"seq":7,"receivedAtUtc":"2026-03-01T09:06:00.000Z","idempotencyKey":"k","sentAtUtc":"x","event":"#,
        r#"{"milestoneId":"a","timestampUtc":"2026-03-01T09:05:00.000Z","scope":"s","claim":"c","evidence":"#,
        r#"[{"type":"log","path":"/srv/app/run.log","summary":"s","ref":"r"},"#,
        r#"{"type":"pr","path":"https://a.example/pull/4","summary":"t"}],"#,
        r#""riskStatus":"at-risk","nextAction":"n","source":"agent"},"prev":"p","hash":"h"}"#
    );

    fn json(show: ShowEvidence) -> String {
        Item::from_line(LINE.as_bytes(), show).unwrap().json().to_owned()
    }

    #[test]
    fn an_item_is_the_event_and_its_place() {
        assert_eq!(
            json(ShowEvidence::Full),
            concat!(
                r#"{"milestoneId":"a","timestampUtc":"2026-03-01T09:05:00.000Z","scope":"s","claim":"c","#,
                r#""evidence":[{"type":"log","path":"/srv/app/run.log","summary":"s","ref":"r"},"#,
                r#"{"type":"pr","path":"https://a.example/pull/4","summary":"t"}],"riskStatus":"at-risk","#,
                r#""nextAction":"n","source":"agent","seq":7,"receivedAtUtc":"2026-03-01T09:06:00.000Z","#,
                r#""receipt":{"seq":7,"head":"h"}}"#
            )
        );
    }

    #[test]
    fn what_is_hidden_is_nowhere_in_the_item() {
        let basename = json(ShowEvidence::Basename);
        assert!(basename.contains(r#""path":"run.log""#) && !basename.contains("/srv"), "{basename}");
        assert!(basename.contains("https://a.example/pull/4"));
        let none = json(ShowEvidence::None);
        assert!(!none.contains("path") && !none.contains("run.log") && !none.contains("ref"), "{none}");
    }

    #[test]
    fn only_plain_web_addresses_become_links() {
        assert!(is_web_address("https://a.example/x?y#z"));
        for path in
            ["javascript:alert(1)", "https://", "https:///x", "https://a b", "HTTPS://a", "//a", "data:x"]
        {
            assert!(!is_web_address(path), "{path}");
        }
    }
}
