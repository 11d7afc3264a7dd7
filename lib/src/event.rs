//! A milestone event: one verified milestone, the record of `milestones.jsonl`.
//!
//! # Invariants
//! - A [`MilestoneEvent`] is normalised and valid: its text is trimmed and not empty, its time has whole
//!   milliseconds, its id has no control characters, it has evidence, and it fits into one record.
//! - It is written as one line of JSON with its fields in the order of `milestone-event.v1.json`; the same
//!   event always gives the same bytes.
//! - What a caller left out is filled in once, here, and remembered in [`LeftOut`], so that the same
//!   command given twice is a duplicate and no conflict.
//!
//! Parts: `normal` (the form that everybody agrees on), `flag` (evidence on a command line), `line` (an event as
//! bytes). Not here: the rules of the schema (`schema`), reading JSON (`json`), whether evidence exists (`evidence`),
//! how events travel (`envelope`).

mod flag;
mod line;
mod normal;

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use self::normal::{Defaults, LeftOut, normalise};
use crate::{
    Timestamp,
    identity::hex,
    json::forms,
    schema::{FieldError, Schema},
};

/// Bytes that one record may take as a line, its newline included.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;

/// Characters of a milestone's id, as the schema says.
pub const ID_CHARS_MAX: usize = 200;

/// A milestone as it is stored and sent. Field order is the order on disk. `S` is how it holds its text: its own, or
/// borrowed from the line that it was read from ([`Text`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MilestoneEvent<S = String> {
    /// Its name for ever: 1 to 200 characters, no controls.
    pub milestone_id: S,
    /// When it happened.
    #[serde(deserialize_with = "utc")]
    pub timestamp_utc: Timestamp,
    /// The part of the work; events of one scope are delivered in order.
    pub scope: S,
    /// What has been reached.
    pub claim: S,
    /// What shows it; at least one.
    #[serde(deserialize_with = "forms::objects")]
    pub evidence: Vec<Evidence<S>>,
    /// How the work stands.
    #[serde(deserialize_with = "forms::word")]
    pub risk_status: RiskStatus,
    /// What comes next.
    pub next_action: S,
    /// Who reports it.
    #[serde(deserialize_with = "forms::word")]
    pub source: Source,
}

/// One thing that shows that a claim is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "S: Deserialize<'de>"))]
pub struct Evidence<S = String> {
    /// What kind of thing.
    #[serde(rename = "type", deserialize_with = "forms::word")]
    pub kind: EvidenceType,
    /// Where it is.
    pub path: S,
    /// What it shows.
    pub summary: S,
    /// Which state of it: a commit's id, or `sha256:` and 64 hex digits of a file.
    #[serde(
        rename = "ref",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "forms::present"
    )]
    pub reference: Option<S>,
}

/// Text of a line that was read, borrowed from it unless something in it was escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'t>(Cow<'t, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text<'de>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Visitor)
    }
}

/// Kinds of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum EvidenceType {
    Doc,
    Commit,
    Issue,
    Pr,
    Runbook,
    Metric,
    Log,
}

/// How the work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RiskStatus {
    OnTrack,
    AtRisk,
    Blocked,
    Completed,
}

/// Who reports a milestone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Source {
    Orchestrator,
    Agent,
    Operator,
}

impl EvidenceType {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            EvidenceType::Doc => "doc",
            EvidenceType::Commit => "commit",
            EvidenceType::Issue => "issue",
            EvidenceType::Pr => "pr",
            EvidenceType::Runbook => "runbook",
            EvidenceType::Metric => "metric",
            EvidenceType::Log => "log",
        }
    }
}

impl RiskStatus {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            RiskStatus::OnTrack => "on-track",
            RiskStatus::AtRisk => "at-risk",
            RiskStatus::Blocked => "blocked",
            RiskStatus::Completed => "completed",
        }
    }
}

impl Source {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Orchestrator => "orchestrator",
            Source::Agent => "agent",
            Source::Operator => "operator",
        }
    }
}

impl<'l> MilestoneEvent<Text<'l>> {
    /// Reads a line that is an event as it is, as [`MilestoneEvent::from_line`] does, without copying its text.
    ///
    /// `None` for all else; `from_line` knows what it is or what is wrong with it.
    pub fn borrowed(line: &'l [u8]) -> Option<MilestoneEvent<Text<'l>>> {
        let event: MilestoneEvent<Text<'l>> = forms::object_from(line).ok()?;
        event.is_valid().then_some(event)
    }
}

impl MilestoneEvent {
    /// Makes an event of a JSON document: normalises, fills in, validates.
    ///
    /// # Errors
    /// Every fault of the document, ordered by field; as [`Schema::validate`].
    pub fn from_value(
        mut document: Value,
        defaults: &Defaults,
    ) -> Result<(MilestoneEvent, LeftOut), Vec<FieldError>> {
        let derive_id = defaults.derive_id && document.get("milestoneId").is_none();
        if derive_id && let Value::Object(fields) = &mut document {
            // Stands in until the content that the id is made of is known to be valid.
            fields.insert("milestoneId".to_owned(), Value::from("-"));
        }
        let (left_out, errors) = normalise(&mut document, defaults);
        Schema::MilestoneEvent.validate_after(&document, errors)?;
        let mut event = MilestoneEvent::from_valid(document)?;
        if derive_id {
            event.milestone_id = event.derived_id();
        }
        Ok((event, left_out))
    }

    /// Reads a text that is an event as it is: valid, normalised, nothing left out. It is what
    /// [`MilestoneEvent::from_value`] makes of it, but for a third of the time, since no document is made.
    ///
    /// `None` for all else; the long way knows what is wrong with it.
    pub fn from_normal(text: &[u8]) -> Option<(MilestoneEvent, LeftOut)> {
        let event: MilestoneEvent = forms::object_from(text).ok()?;
        let refs = event.evidence.iter().map(|it| it.reference.is_none()).collect();
        event.is_valid().then_some((event, LeftOut { refs, ..LeftOut::default() }))
    }

    /// Makes an event of a document that is normalised and valid by the schema, such as the `event` of a
    /// checked ingest request.
    ///
    /// # Errors
    /// When it is neither, or takes more than [`RECORD_BYTES_MAX`].
    pub fn from_valid(document: Value) -> Result<MilestoneEvent, Vec<FieldError>> {
        let event: MilestoneEvent =
            serde_json::from_value(document).map_err(|it| vec![FieldError::of_serde("", &it)])?;
        if !event.fits() {
            event.write_line(&mut Vec::new()).map_err(|it| vec![it])?;
        }
        Ok(event)
    }

    /// Reads a line of `milestones.jsonl`, with or without its newline.
    ///
    /// # Errors
    /// What is wrong with it; nothing is filled in.
    pub fn from_line(line: &[u8]) -> Result<MilestoneEvent, Vec<FieldError>> {
        if line.len() > RECORD_BYTES_MAX {
            return Err(vec![too_long(line.len())]);
        }
        let event: MilestoneEvent = match forms::object_from(line) {
            Ok(event) => event,
            Err(cause) => return Err(faults_of(line, &cause)),
        };
        if event.is_normal() {
            return Ok(event);
        }
        // Not written by milestone-emit. It is judged as if it came just now.
        let document = serde_json::to_value(&event).map_err(|it| vec![FieldError::of_serde("", &it)])?;
        MilestoneEvent::from_value(document, &Defaults::JSON).map(|(event, _)| event)
    }

    /// Whether this is what is `stored`, when what the caller left out is not compared (J8).
    pub fn same_content(&self, stored: &MilestoneEvent, left_out: &LeftOut) -> bool {
        let same_evidence = |at: usize, ours: &Evidence, theirs: &Evidence| {
            let no_ref = left_out.refs.get(at).copied().unwrap_or(false);
            ours.kind == theirs.kind
                && ours.path == theirs.path
                && ours.summary == theirs.summary
                && (no_ref || ours.reference == theirs.reference)
        };
        self.milestone_id == stored.milestone_id
            && (left_out.timestamp || self.timestamp_utc == stored.timestamp_utc)
            && self.scope == stored.scope
            && self.claim == stored.claim
            && self.evidence.len() == stored.evidence.len()
            && (0..)
                .zip(self.evidence.iter().zip(&stored.evidence))
                .all(|(at, (a, b))| same_evidence(at, a, b))
            && self.risk_status == stored.risk_status
            && self.next_action == stored.next_action
            && (left_out.source || self.source == stored.source)
    }

    /// An id made from scope, time and content: `{scope}.{timestamp}.{16 hex digits}`, readable, and the
    /// same for the same event. The digits are from SHA-256 over the record with an empty id, before
    /// evidence is verified.
    fn derived_id(&self) -> String {
        /// With time, digits and dots well below the 200 characters of an id.
        const SCOPE_CHARS_MAX: usize = 64;
        let mut scope = String::new();
        for it in self.scope.chars().take(SCOPE_CHARS_MAX) {
            match it {
                it if it.is_alphanumeric() => scope.push(it),
                _ if scope.ends_with('-') => {}
                _ => scope.push('-'),
            }
        }
        let nameless = MilestoneEvent { milestone_id: String::new(), ..self.clone() };
        let digest = Sha256::digest(serde_json::to_vec(&nameless).unwrap_or_default());
        let scope = match scope.trim_matches('-') {
            "" => "milestone",
            scope => scope,
        };
        format!("{scope}.{}.{}", self.timestamp_utc, hex(&digest[..8]))
    }
}

fn too_long(bytes: usize) -> FieldError {
    FieldError::new(
        "",
        format!("the record takes {bytes} bytes; at most {RECORD_BYTES_MAX} (256 KiB) are allowed"),
    )
}

/// What is wrong with a line that is no event: in the words of the schema where they reach.
fn faults_of(line: &[u8], cause: &serde_json::Error) -> Vec<FieldError> {
    let errors = match serde_json::from_slice::<Value>(line) {
        // The document is looked at as it stands: a record has all its fields.
        Ok(document) => Schema::MilestoneEvent.validate(&document).err(),
        Err(_) => None,
    };
    errors.unwrap_or_else(|| vec![FieldError::of_serde("", cause)])
}

fn utc<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = Text::deserialize(from)?;
    Timestamp::parse_utc(text.as_ref()).map_err(|it| de::Error::custom(normal::no_time(text.as_ref(), it)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "milestoneId": "release.2.4.0", "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": "runtime",
            "claim": "Out.", "evidence": [{"type": "log", "path": "deploy.log", "summary": "deployed"}],
            "riskStatus": "on-track", "nextAction": "Watch.", "source": "agent"
        })
    }

    fn event(document: Value) -> MilestoneEvent {
        MilestoneEvent::from_value(document, &Defaults::JSON).unwrap().0
    }

    fn refused(document: Value) -> Vec<String> {
        let errors = MilestoneEvent::from_value(document, &Defaults::JSON).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_record_is_one_line_with_its_fields_in_order() {
        let line = String::from_utf8(event(document()).to_line().unwrap()).unwrap();
        assert_eq!(
            line,
            "{\"milestoneId\":\"release.2.4.0\",\"timestampUtc\":\"2026-03-01T09:05:00.000Z\",\
             \"scope\":\"runtime\",\"claim\":\"Out.\",\"evidence\":[{\"type\":\"log\",\"path\":\"deploy.log\",\
             \"summary\":\"deployed\"}],\"riskStatus\":\"on-track\",\"nextAction\":\"Watch.\",\"source\":\"agent\"}\n"
        );
        assert_eq!(MilestoneEvent::from_line(line.as_bytes()).unwrap(), event(document()));
        assert_eq!(MilestoneEvent::from_line(line.trim_end().as_bytes()).unwrap(), event(document()));
    }

    #[test]
    fn what_is_read_in_one_pass_is_what_the_long_way_reads() {
        let mut given = document();
        given["evidence"] = json!([
            { "type": "commit", "path": ".", "summary": "s\\", "ref": "abc" },
            { "summary": "t", "path": "\u{1f680}\np", "type": "log" },
        ]);
        for document in [document(), given] {
            let long = MilestoneEvent::from_value(document.clone(), &Defaults::JSON).unwrap();
            assert_eq!(MilestoneEvent::from_normal(document.to_string().as_bytes()), Some(long));
        }
    }

    #[test]
    fn whatever_the_long_way_changes_or_refuses_is_not_read_in_one_pass() {
        let with = |name: &str, value: Value| {
            let mut it = document();
            it[name] = value;
            it.to_string()
        };
        let fine = document().to_string();
        let evidence = |it: Value| with("evidence", json!([it]));
        let array: Vec<Value> = document().as_object().unwrap().values().cloned().collect();
        for other in [
            with("claim", json!(" c")),
            with("claim", json!("")),
            with("claim", json!(1)),
            with("milestoneId", json!("a\u{7}")),
            with("milestoneId", json!("x".repeat(201))),
            with("timestampUtc", json!("yesterday")),
            with("riskStatus", json!({ "on-track": null })),
            with("riskStatus", json!("fine")),
            with("evidence", json!([])),
            evidence(json!(["log", "p", "s"])),
            evidence(json!({ "type": "log", "path": "p", "summary": "s", "ref": null })),
            evidence(json!({ "type": "log", "path": "p", "summary": "s", "ref": "" })),
            evidence(json!({ "type": { "log": null }, "path": "p", "summary": "s" })),
            with("extra", json!(1)),
            Value::from(array).to_string(),
            fine.replacen('{', "{\"scope\":\"s\",", 1),
            fine.replace(",\"source\":\"agent\"", ""),
            fine.replace("runtime", "\\ud800"),
            format!("\u{feff}{fine}"),
            format!("{fine}{fine}"),
        ] {
            assert_ne!(other, fine);
            assert_eq!(MilestoneEvent::from_normal(other.as_bytes()), None, "{other}");
        }
        let latin1 = fine.replace("runtime", "\u{1}").into_bytes().into_iter();
        let latin1: Vec<u8> = latin1.map(|it| if it == 1 { 0xe9 } else { it }).collect();
        assert_eq!(MilestoneEvent::from_normal(&latin1), None);
    }

    #[test]
    fn what_is_valid_as_it_is_needs_no_normalising() {
        assert!(event(document()).is_valid());
        let with = |change: fn(&mut MilestoneEvent)| {
            let mut it = event(document());
            change(&mut it);
            it.is_valid()
        };
        assert!(!with(|it| it.claim = " c".into()) && !with(|it| it.evidence.clear()));
        assert!(!with(|it| it.claim = "x".repeat(RECORD_BYTES_MAX)));
        assert!(!with(|it| it.milestone_id = "a\u{7}".into()));
    }

    #[test]
    fn text_is_trimmed_time_cut_and_an_empty_ref_dropped() {
        let mut given = document();
        given["claim"] = json!("\u{feff} Out.\r\n");
        given["milestoneId"] = json!("\trelease.2.4.0\u{85}");
        given["timestampUtc"] = json!(" 2026-03-01T09:05Z ");
        given["riskStatus"] = json!("on-track ");
        given["evidence"][0]["path"] = json!(" deploy.log");
        given["evidence"][0]["ref"] = json!(" \n");
        let (event, left_out) = MilestoneEvent::from_value(given, &Defaults::JSON).unwrap();
        assert_eq!(event, self::event(document()));
        assert_eq!(left_out, LeftOut { timestamp: false, source: false, refs: vec![true] });
    }

    #[test]
    fn what_is_only_space_is_empty() {
        let mut given = document();
        given["claim"] = json!(" \u{a0}\u{3000}\u{feff}");
        given["evidence"][0]["summary"] = json!("\n");
        assert_eq!(refused(given), ["/claim: is empty", "/evidence/0/summary: is empty"]);
    }

    #[test]
    fn json_may_leave_out_the_source_and_nothing_else() {
        let mut given = document();
        given.as_object_mut().unwrap().remove("source");
        let (event, left_out) = MilestoneEvent::from_value(given.clone(), &Defaults::JSON).unwrap();
        assert_eq!((event.source, left_out.source), (Source::Orchestrator, true));
        given.as_object_mut().unwrap().remove("timestampUtc");
        given.as_object_mut().unwrap().remove("milestoneId");
        assert_eq!(refused(given.clone()), ["/milestoneId: is missing", "/timestampUtc: is missing"]);

        let now = Timestamp::from_millis(7);
        let flags = Defaults { timestamp: Some(now), source: Source::Operator, derive_id: true };
        let (event, left_out) = MilestoneEvent::from_value(given.clone(), &flags).unwrap();
        assert_eq!((event.source, event.timestamp_utc), (Source::Operator, now));
        assert_eq!(left_out, LeftOut { timestamp: true, source: true, refs: vec![true] });
        given["source"] = Value::Null;
        assert!(MilestoneEvent::from_value(given, &flags).is_err());
    }

    #[test]
    fn ids_have_no_control_characters_and_at_most_200_others() {
        for bad in ["a\nb", "a\u{0}b", "a\u{7f}b", "a\u{9b}b"] {
            let mut given = document();
            given["milestoneId"] = json!(bad);
            let code = u32::from(bad.chars().nth(1).unwrap());
            assert_eq!(refused(given), [format!("/milestoneId: holds a control character (U+{code:04X})")]);
        }
        for (length, good) in [(200, true), (201, false)] {
            let mut given = document();
            given["milestoneId"] = json!("é".repeat(length));
            assert_eq!(MilestoneEvent::from_value(given, &Defaults::JSON).is_ok(), good);
        }
    }

    #[test]
    fn a_time_that_is_none_is_told_in_full_and_short() {
        let mut given = document();
        given["timestampUtc"] = json!("2026-03-01T09:05:00+01:00");
        assert_eq!(
            refused(given.clone()),
            ["/timestampUtc: \"2026-03-01T09:05:00+01:00\" must be in UTC and end in Z"]
        );
        given["timestampUtc"] = json!("x".repeat(100_000));
        assert!(refused(given.clone())[0].len() < 300);
        given["timestampUtc"] = json!(1);
        assert_eq!(refused(given), ["/timestampUtc: must be a string, not a number"]);
    }

    #[test]
    fn a_record_over_256_kib_is_refused_however_it_grows() {
        let fits = RECORD_BYTES_MAX - event(document()).to_line().unwrap().len();
        for (claim, good) in [
            (format!("Out.{}", "x".repeat(fits)), true),
            (format!("Out.{}", "x".repeat(fits + 1)), false),
            (format!("Out.{}", "\u{1}".repeat(fits / 6 + 1)), false),
        ] {
            let mut given = document();
            given["claim"] = json!(claim);
            assert_eq!(MilestoneEvent::from_value(given, &Defaults::JSON).is_ok(), good);
        }
        let mut event = event(document());
        event.claim = "x".repeat(RECORD_BYTES_MAX);
        let mut batch = b"before\n".to_vec();
        let error = event.write_line(&mut batch).unwrap_err().to_string();
        assert!(error.ends_with(" bytes; at most 262144 (256 KiB) are allowed"), "{error}");
        assert_eq!(batch, b"before\n");
    }

    #[test]
    fn the_same_command_twice_is_the_same_content() {
        let given = json!({
            "milestoneId": "a", "scope": "s", "claim": "c", "riskStatus": "blocked", "nextAction": "n",
            "evidence": [{"type": "log", "path": "p", "summary": "s"}, {"type": "pr", "path": "p", "summary": "s", "ref": "7"}]
        });
        let at = |millis| Defaults {
            timestamp: Some(Timestamp::from_millis(millis)),
            source: Source::Operator,
            derive_id: false,
        };
        let (mut stored, _) = MilestoneEvent::from_value(given.clone(), &at(1)).unwrap();
        stored.evidence[0].reference = Some("sha256:00".to_owned());
        stored.source = Source::Agent;
        let (again, left_out) = MilestoneEvent::from_value(given.clone(), &at(2)).unwrap();
        assert!(again.same_content(&stored, &left_out));
        assert!(!again.same_content(&stored, &LeftOut::default()));

        for (pointer, other) in [
            ("/claim", json!("d")),
            ("/evidence/1/ref", json!("8")),
            ("/evidence/0/summary", json!("t")),
            ("/riskStatus", json!("completed")),
        ] {
            let mut changed = given.clone();
            *changed.pointer_mut(pointer).unwrap() = other;
            let (changed, left_out) = MilestoneEvent::from_value(changed, &at(1)).unwrap();
            assert!(!changed.same_content(&stored, &left_out), "{pointer}");
        }
        let mut dated = given;
        dated["timestampUtc"] = json!("1970-01-01T00:00:00.002Z");
        let (dated, left_out) = MilestoneEvent::from_value(dated, &at(1)).unwrap();
        assert!(!dated.same_content(&stored, &left_out), "a time that is given is compared");
    }

    #[test]
    fn a_made_id_is_readable_and_follows_from_the_content() {
        let made = |change: fn(&mut Value)| {
            let mut given = document();
            given.as_object_mut().unwrap().remove("milestoneId");
            given["scope"] = json!(" Web: Front-End/ü ");
            change(&mut given);
            let flags = Defaults { timestamp: None, source: Source::Operator, derive_id: true };
            MilestoneEvent::from_value(given, &flags).unwrap().0.milestone_id
        };
        let id = made(|_| ());
        assert_eq!(id, made(|_| ()));
        let (readable, digits) = id.rsplit_once('.').unwrap();
        assert_eq!(readable, "Web-Front-End-ü.2026-03-01T09:05:00.000Z");
        assert!(digits.len() == 16 && digits.bytes().all(|it| it.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, made(|it| it["claim"] = json!("In.")));
        assert_eq!(made(|it| it["scope"] = json!("/")).split_once('.').unwrap().0, "milestone");
        assert!(made(|it| it["scope"] = json!("日".repeat(500))).chars().count() <= 200);
    }

    #[test]
    fn lines_that_are_no_events_are_told_in_the_words_of_the_schema() {
        let refused = |line: &str| MilestoneEvent::from_line(line.as_bytes()).unwrap_err()[0].to_string();
        let line = String::from_utf8(event(document()).to_line().unwrap()).unwrap();
        assert_eq!(refused(&line.replace(",\"source\":\"agent\"", "")), "/source: is missing");
        assert_eq!(refused(&line.replace("on-track", "fine")).split(':').next(), Some("/riskStatus"));
        assert_eq!(refused(&line.replace("\"claim\":\"Out.\"", "\"claim\":\"  \"")), "/claim: is empty");
        assert_eq!(
            refused(&line.replace("release.2.4.0", "a\\u0007")).split(':').next(),
            Some("/milestoneId")
        );
        assert!(refused(&line.replace("\"scope\"", "\"claim\":\"x\",\"scope\"")).contains("duplicate field"));
        assert!(refused(line.trim_end_matches("}\n")).contains("EOF"));
        assert!(refused(&format!("{line}{line}")).contains("trailing"));
        assert!(refused(&line.replace(".000Z", "+00:00")).contains("/timestampUtc"));
    }

    #[test]
    fn a_stored_line_that_only_needs_trimming_is_read() {
        let line = String::from_utf8(event(document()).to_line().unwrap()).unwrap();
        let untidy = line.replace("Out.", " Out. ").replace(".000Z", "Z");
        assert_eq!(MilestoneEvent::from_line(untidy.as_bytes()).unwrap(), event(document()));
    }
}
