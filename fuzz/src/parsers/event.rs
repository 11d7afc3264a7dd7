//! Milestones: reading a document, normalising it, the line in the journal.

use milepost::{
    Timestamp,
    event::{Defaults, MilestoneEvent, RECORD_BYTES_MAX, Source},
    json, queue,
    schema::{FieldError, Schema},
};
use serde_json::Value;

use milepost_fuzz::seeds;

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::examples("milestone-event.v1");
    all.extend(seeds::lines("milestone-event.v1"));
    all.extend(seeds::texts(&[concat!(
        r#"{"milestoneId":"\u00a0a ","timestampUtc":" 2026-03-01T09:05Z","scope":"\ufeffs","claim":"c\n","#,
        r#""evidence":[{"type":"pr","path":" p","summary":"s","ref":" "}],"riskStatus":"at-risk ","nextAction":"n"}"#
    )]));
    all
}

pub fn run(input: &[u8]) {
    if let Ok(document) = json::parse(input) {
        from_outside(&document, &Defaults::JSON);
        let flags = Defaults {
            timestamp: Some(Timestamp::from_millis(0)),
            source: Source::Operator,
            derive_id: true,
        };
        from_outside(&document, &flags);
    }
    match MilestoneEvent::from_line(input) {
        Ok(event) => {
            check(&event);
            let now = Timestamp::from_millis(1);
            let envelope = queue::event_of(input, now).expect("a milestone gets its envelope");
            assert_eq!(envelope.idempotency_key, format!("milestone:{}", event.milestone_id));
            let line = event.to_line().expect("it fits");
            assert_eq!(envelope.payload.get().as_bytes(), &line[..line.len() - 1], "carried as it is stored");
        }
        Err(errors) => check_errors(&errors),
    }
}

fn from_outside(document: &Value, defaults: &Defaults) {
    let made = MilestoneEvent::from_value(document.clone(), defaults);
    assert_eq!(made, MilestoneEvent::from_value(document.clone(), defaults), "the same gives the same");
    let (event, left_out) = match made {
        Ok(it) => it,
        Err(errors) => return check_errors(&errors),
    };
    check(&event);
    assert!(event.same_content(&event, &left_out), "it is its own duplicate");
    assert_eq!(left_out.refs.len(), event.evidence.len());
    // What was there is kept, but for white space.
    let said = |name: &str| document[name].as_str().map(milepost::text::trim);
    assert_eq!(said("claim"), Some(event.claim.as_str()));
    assert_eq!(said("scope"), Some(event.scope.as_str()));
    assert_eq!(said("nextAction"), Some(event.next_action.as_str()));
    assert!(said("milestoneId").is_none_or(|it| it == event.milestone_id));
    assert_eq!(left_out.source, document.get("source").is_none());
}

/// What holds of every event, wherever it comes from.
fn check(event: &MilestoneEvent) {
    let Ok(line) = event.to_line() else { panic!("an event fits into its record") };
    assert!(line.len() <= RECORD_BYTES_MAX);
    assert_eq!(line.iter().position(|it| *it == b'\n'), Some(line.len() - 1), "one line");
    assert_eq!(MilestoneEvent::from_line(&line).as_ref(), Ok(event), "what is written is read back");
    let document = json::parse(&line).expect("a record is strict JSON");
    assert_eq!(Schema::MilestoneEvent.validate(&document), Ok(()));
    let (again, left_out) =
        MilestoneEvent::from_value(document, &Defaults::JSON).expect("a record is a document");
    assert_eq!(&again, event, "normalising twice is normalising once");
    assert!(!left_out.timestamp && !left_out.source, "a record leaves nothing out");

    let mut canonical = Vec::new();
    event.write_canonical(&mut canonical);
    let value = serde_json::to_value(event).expect("an event has a form");
    assert_eq!(canonical, milepost::canonical::to_vec(&value), "the short way to the canonical form");
    assert!(event.is_valid());

    assert!((1..=200).contains(&event.milestone_id.chars().count()));
    assert!(!event.milestone_id.contains(char::is_control));
    assert!(!event.evidence.is_empty());
    let mut texts = vec![&event.milestone_id, &event.scope, &event.claim, &event.next_action];
    for it in &event.evidence {
        texts.extend([&it.path, &it.summary]);
        texts.extend(&it.reference);
    }
    let is_space = |it: char| it.is_whitespace() || it == '\u{feff}';
    for text in texts {
        assert!(!text.is_empty() && !text.starts_with(is_space) && !text.ends_with(is_space), "{text:?}");
    }
}

/// A refusal says something, safely.
pub fn check_errors(errors: &[FieldError]) {
    assert!(!errors.is_empty(), "a refusal has a reason");
    for it in errors {
        let words = it.to_string();
        assert!(!words.is_empty() && !words.contains(|it: char| it.is_control()), "{words:?}");
    }
}
