//! The envelope that every event travels in, in a queue, to a receiver, and into the dead letters.
//!
//! # Invariants
//! - The envelope of an event is always the same but for its time: ids follow from the key (`identity`).
//! - The payload is kept byte for byte, from the queue to the dead letter and back.
//! - Versions: of our major version every minor is read. What a higher minor added is kept and written
//!   again; a field that our own version does not know is refused; another major is refused.
//! - A line that is written ends in the only newline that it has.
//!
//! Not here: signing and the ingest request (`canonical`, `signing`), where records lie (`journal`).

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    Timestamp, canonical,
    event::MilestoneEvent,
    identity,
    journal::Position,
    schema::{FieldError, Schema},
    text,
};

/// The version that this program writes.
pub const SCHEMA_VERSION: &str = "1.0.0";
/// The minor version of [`SCHEMA_VERSION`].
const MINOR: u64 = 0;
/// Type of the event that carries a milestone.
pub const MILESTONE_EMITTED: &str = "milestone.emitted";
/// What a milestone is meant for.
const MILESTONE_TARGET: &str = "milestone-feed";
/// Type of the event that carries a reminder.
pub const REMINDER_DUE: &str = "reminder.due";

/// An event in its envelope, and in a queue what the queue needs. Field order is the order on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// [`identity::event_id`].
    pub event_id: String,
    /// What the payload is, such as [`MILESTONE_EMITTED`].
    pub event_type: String,
    /// Version of the envelope, MAJOR.MINOR.PATCH.
    pub schema_version: String,
    /// Who made the event.
    pub source: String,
    /// What it is meant for.
    pub target: String,
    /// When the envelope was made; `sentAtUtc` of every attempt.
    pub timestamp: Timestamp,
    /// [`identity::trace_id`].
    pub trace_id: String,
    /// The same in every attempt.
    pub idempotency_key: String,
    /// The event as JSON, without a newline.
    pub payload: Box<RawValue>,
    /// Only in a queue: where its writer goes on in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Position>,
    /// Only in a queue, when redriven or resent, and in a dead letter: the endpoint that it is for, empty
    /// for the one without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Only in a queue, when redriven: the dead letter's offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<u64>,
    /// What a higher minor version added.
    #[serde(flatten)]
    pub added: Map<String, Value>,
}

/// An envelope that was given up on.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The record as it stood in the queue, and its endpoint.
    #[serde(flatten)]
    envelope: EventEnvelope,
    /// Why it was given up, in one sentence.
    pub reason: String,
    /// The attempts that were used up, in order.
    pub attempts: Vec<Attempt>,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// Logical offset of its record in the queue, in bytes.
    pub queue_offset: u64,
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// When it was made.
    pub at: Timestamp,
    /// HTTP status of the answer, if there was one; none of an item that was refused in a batch.
    pub status: Option<u16>,
    /// What the receiver said, or what went wrong.
    pub answer: String,
}

impl EventEnvelope {
    /// The envelope of a milestone, made `now`.
    ///
    /// # Errors
    /// None that a [`MilestoneEvent`] can cause; nothing here panics.
    pub fn for_milestone(event: &MilestoneEvent, now: Timestamp) -> Result<EventEnvelope, FieldError> {
        let key = identity::milestone_key(&event.milestone_id);
        EventEnvelope::new(MILESTONE_EMITTED, event.source.as_str(), MILESTONE_TARGET, key, event, now)
    }

    /// The envelope of an event of any type, made `now`.
    ///
    /// # Errors
    /// When `payload` has no JSON form.
    pub fn new(
        event_type: &str,
        source: &str,
        target: &str,
        idempotency_key: String,
        payload: &impl Serialize,
        now: Timestamp,
    ) -> Result<EventEnvelope, FieldError> {
        Ok(EventEnvelope {
            event_id: identity::event_id(event_type, &idempotency_key),
            event_type: event_type.to_owned(),
            schema_version: SCHEMA_VERSION.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            timestamp: now,
            trace_id: identity::trace_id(&idempotency_key),
            idempotency_key,
            payload: to_raw_value(payload).map_err(|it| FieldError::of_serde("/payload", &it))?,
            resume: None,
            endpoint: None,
            redrive_of: None,
            added: Map::new(),
        })
    }

    /// Makes an envelope of a document from outside, by the schema.
    ///
    /// # Errors
    /// Every fault, ordered by field; as [`Schema::validate`].
    pub fn from_value(document: Value) -> Result<EventEnvelope, Vec<FieldError>> {
        if let Some(Value::String(version)) = document.get("schema_version") {
            minor_of(version)?;
        }
        Schema::EventEnvelope.validate(&document)?;
        let envelope: EventEnvelope =
            serde_json::from_value(document).map_err(|it| vec![FieldError::of_serde("", &it)])?;
        envelope.checked()
    }

    /// Reads a line of a queue or of `reminders.jsonl`, with or without its newline.
    ///
    /// # Errors
    /// What is wrong with it, another major version too.
    pub fn from_line(line: &[u8]) -> Result<EventEnvelope, Vec<FieldError>> {
        let read = EventEnvelope::read(line)?;
        read.map_err(|cause| faults_of(line, &cause))?.checked()
    }

    /// Appends the record to `batch`: one line of JSON with its newline.
    ///
    /// # Errors
    /// None that an envelope can cause; then nothing is appended.
    pub fn write_line(&self, batch: &mut Vec<u8>) -> Result<(), FieldError> {
        let start = batch.len();
        self.head().write(batch);
        batch.extend_from_slice(self.payload.get().as_bytes());
        if let Some(resume) = &self.resume {
            write_resume(resume, batch);
        }
        if let Some(endpoint) = &self.endpoint {
            batch.extend_from_slice(b",\"endpoint\":");
            canonical::write_string(endpoint, batch);
        }
        if let Some(offset) = self.redrive_of {
            batch.extend_from_slice(format!(",\"redrive_of\":{offset}").as_bytes());
        }
        for (name, value) in &self.added {
            batch.push(b',');
            canonical::write_string(name, batch);
            batch.push(b':');
            if let Err(cause) = serde_json::to_writer(&mut *batch, value) {
                batch.truncate(start);
                return Err(FieldError::of_serde("", &cause));
            }
        }
        batch.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Appends the queue's record of a milestone: what [`EventEnvelope::for_milestone`] makes of it, with `resume`.
    /// Returns its idempotency key.
    pub fn write_milestone<S: AsRef<str>>(
        event: &MilestoneEvent<S>,
        now: Timestamp,
        resume: &Position,
        batch: &mut Vec<u8>,
    ) -> String {
        let key = identity::milestone_key(event.milestone_id.as_ref());
        let head = Head {
            event_id: &identity::event_id(MILESTONE_EMITTED, &key),
            event_type: MILESTONE_EMITTED,
            schema_version: SCHEMA_VERSION,
            source: event.source.as_str(),
            target: MILESTONE_TARGET,
            timestamp: now,
            trace_id: &identity::trace_id(&key),
            idempotency_key: &key,
        };
        head.write(batch);
        event.write_json(batch);
        write_resume(resume, batch);
        batch.extend_from_slice(b"}\n");
        key
    }

    fn head(&self) -> Head<'_> {
        Head {
            event_id: &self.event_id,
            event_type: &self.event_type,
            schema_version: &self.schema_version,
            source: &self.source,
            target: &self.target,
            timestamp: self.timestamp,
            trace_id: &self.trace_id,
            idempotency_key: &self.idempotency_key,
        }
    }

    /// Reads the fields; what is unknown is in `added`.
    fn read(line: &[u8]) -> Result<serde_json::Result<EventEnvelope>, Vec<FieldError>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        // The payload is kept as it stands, so a newline in it would break the next journal.
        if line.contains(&b'\n') {
            return Err(vec![FieldError::new("", "is more than one line")]);
        }
        Ok(serde_json::from_slice(line))
    }

    /// The envelope itself, if its version is ours and nothing is in it that its version does not know.
    fn checked(self) -> Result<EventEnvelope, Vec<FieldError>> {
        if minor_of(&self.schema_version)? > MINOR {
            return Ok(self);
        }
        match self.added.keys().next() {
            None => Ok(self),
            Some(name) => {
                let path = format!("/{}", text::for_people(name));
                Err(vec![FieldError::new(path, format!("unknown field {}", text::quoted(name)))])
            }
        }
    }
}

/// What an envelope says before its payload. Written by hand, in a quarter of the time that serde takes.
struct Head<'e> {
    event_id: &'e str,
    event_type: &'e str,
    schema_version: &'e str,
    source: &'e str,
    target: &'e str,
    timestamp: Timestamp,
    trace_id: &'e str,
    idempotency_key: &'e str,
}

impl Head<'_> {
    /// Appends all up to where the payload comes.
    fn write(&self, out: &mut Vec<u8>) {
        let mut put = |before: &str, text: &str| {
            out.extend_from_slice(before.as_bytes());
            canonical::write_string(text, out);
        };
        put("{\"event_id\":", self.event_id);
        put(",\"event_type\":", self.event_type);
        put(",\"schema_version\":", self.schema_version);
        put(",\"source\":", self.source);
        put(",\"target\":", self.target);
        put(",\"timestamp\":", &self.timestamp.to_string());
        put(",\"trace_id\":", self.trace_id);
        put(",\"idempotency_key\":", self.idempotency_key);
        out.extend_from_slice(b",\"payload\":");
    }
}

fn write_resume(resume: &Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"resume\":{\"offset\":");
    out.extend_from_slice(resume.offset.to_string().as_bytes());
    out.extend_from_slice(b",\"fingerprint\":");
    canonical::write_string(&resume.fingerprint, out);
    out.push(b'}');
}

impl DeadLetter {
    /// Gives up on the record at `queue_offset`, for `endpoint` (empty for the one without a name).
    pub fn new(
        record: EventEnvelope,
        endpoint: &str,
        reason: String,
        attempts: Vec<Attempt>,
        dead_at: Timestamp,
        queue_offset: u64,
    ) -> DeadLetter {
        let envelope = EventEnvelope { endpoint: Some(endpoint.to_owned()), ..record };
        DeadLetter { envelope, reason, attempts, dead_at, queue_offset }
    }

    /// The record as it stood in the queue, with the endpoint that it was given up for.
    pub fn envelope(&self) -> &EventEnvelope {
        &self.envelope
    }

    /// The endpoint that did not take it; empty for the one without a name.
    pub fn endpoint(&self) -> &str {
        self.envelope.endpoint.as_deref().unwrap_or_default()
    }

    /// Reads a line of the dead letters, with or without its newline.
    ///
    /// # Errors
    /// What is wrong with it, another major version too.
    pub fn from_line(line: &[u8]) -> Result<DeadLetter, Vec<FieldError>> {
        let read = EventEnvelope::read(line)?;
        let mut envelope = read.map_err(|cause| vec![FieldError::of_serde("", &cause)])?;
        let added = &mut envelope.added;
        let reason = take(added, "reason")?;
        let attempts = take(added, "attempts")?;
        let dead_at = take(added, "dead_at")?;
        let queue_offset = take(added, "queue_offset")?;
        if envelope.endpoint.is_none() {
            return Err(vec![FieldError::new("/endpoint", "is missing")]);
        }
        Ok(DeadLetter { envelope: envelope.checked()?, reason, attempts, dead_at, queue_offset })
    }

    /// Appends the record to `batch`: one line of JSON with its newline.
    ///
    /// # Errors
    /// None that a dead letter can cause; then nothing is appended.
    pub fn write_line(&self, batch: &mut Vec<u8>) -> Result<(), FieldError> {
        let start = batch.len();
        if let Err(cause) = serde_json::to_writer(&mut *batch, self) {
            batch.truncate(start);
            return Err(FieldError::of_serde("", &cause));
        }
        batch.push(b'\n');
        Ok(())
    }
}

/// The minor version of `version`, if its major is ours.
fn minor_of(version: &str) -> Result<u64, Vec<FieldError>> {
    let digits = |it: &&str| it.bytes().all(|it| it.is_ascii_digit());
    let minor = version.strip_prefix("1.").and_then(|it| it.split('.').next()).filter(digits);
    let minor = minor.and_then(|it| it.parse().ok());
    minor.ok_or_else(|| {
        let message = format!("version {} is not read here; this program reads 1.x.y", text::quoted(version));
        vec![FieldError::new("/schema_version", message)]
    })
}

fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<T, Vec<FieldError>> {
    let path = format!("/{name}");
    let value = fields.remove(name).ok_or_else(|| vec![FieldError::new(&path, "is missing")])?;
    serde_json::from_value(value).map_err(|it| vec![FieldError::of_serde(&path, &it)])
}

/// What is wrong with a line that is no envelope: in the words of the schema where they reach.
fn faults_of(line: &[u8], cause: &serde_json::Error) -> Vec<FieldError> {
    let document: Option<Value> = serde_json::from_slice(line).ok();
    let errors = document.and_then(|it| EventEnvelope::from_value(it).err());
    errors.unwrap_or_else(|| vec![FieldError::of_serde("", cause)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Defaults;

    fn milestone() -> EventEnvelope {
        let event = json!({
            "milestoneId": "release.2.4.0", "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": "runtime",
            "claim": "Out.", "evidence": [{"type": "log", "path": "deploy.log", "summary": "deployed"}],
            "riskStatus": "on-track", "nextAction": "Watch.", "source": "agent"
        });
        let (event, _) = MilestoneEvent::from_value(event, &Defaults::JSON).unwrap();
        EventEnvelope::for_milestone(&event, Timestamp::from_millis(1_772_355_901_250)).unwrap()
    }

    /// As serde writes it.
    fn line(record: &impl Serialize) -> String {
        serde_json::to_string(record).unwrap() + "\n"
    }

    #[test]
    fn what_is_written_by_hand_is_what_serde_writes() {
        let resume = Position { offset: 12, fingerprint: "0123456789abcdef".into() };
        let mut full = EventEnvelope {
            idempotency_key: "a\"\n\u{7f}\u{2028}é".into(),
            resume: Some(resume.clone()),
            endpoint: Some("b\\".into()),
            redrive_of: Some(u64::MAX),
            ..milestone()
        };
        full.added.insert("c\t".into(), json!({ "d": [1.5, null] }));
        let small = EventEnvelope { resume: Some(resume.clone()), ..milestone() };
        for it in [&full, &small, &milestone()] {
            let mut written = b"before ".to_vec();
            it.write_line(&mut written).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), format!("before {}", line(it)));
        }
        let event = MilestoneEvent::from_line(small.payload.get().as_bytes()).unwrap();
        let mut written = Vec::new();
        let key = EventEnvelope::write_milestone(&event, small.timestamp, &resume, &mut written);
        assert_eq!((String::from_utf8(written).unwrap(), key), (line(&small), small.idempotency_key));
    }

    fn refused<T>(read: Result<T, Vec<FieldError>>) -> String {
        read.err().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_record_is_one_line_with_its_fields_in_order_and_its_payload_as_it_was() {
        let expected = "{\"event_id\":\"evt_a9e51eb97fdb25a92e657ef508a02b63\",\"event_type\":\"milestone.emitted\",\
            \"schema_version\":\"1.0.0\",\"source\":\"agent\",\"target\":\"milestone-feed\",\
            \"timestamp\":\"2026-03-01T09:05:01.250Z\",\"trace_id\":\"8a381341d5a51c44c9ec972875e57930\",\
            \"idempotency_key\":\"milestone:release.2.4.0\",\"payload\":{\"milestoneId\":\"release.2.4.0\",\
            \"timestampUtc\":\"2026-03-01T09:05:00.000Z\",\"scope\":\"runtime\",\"claim\":\"Out.\",\
            \"evidence\":[{\"type\":\"log\",\"path\":\"deploy.log\",\"summary\":\"deployed\"}],\
            \"riskStatus\":\"on-track\",\"nextAction\":\"Watch.\",\"source\":\"agent\"}}\n";
        assert_eq!(line(&milestone()), expected);
        assert_eq!(line(&EventEnvelope::from_line(expected.as_bytes()).unwrap()), expected);

        let mut queued = milestone();
        queued.resume = Some(Position { offset: 412, fingerprint: "9f2c".to_owned() });
        queued.endpoint = Some(String::new());
        queued.redrive_of = Some(0);
        let queued = line(&queued);
        assert!(queued.ends_with(
            "\"source\":\"agent\"},\"resume\":{\"offset\":412,\"fingerprint\":\"9f2c\"},\"endpoint\":\"\",\"redrive_of\":0}\n"
        ));
        assert_eq!(line(&EventEnvelope::from_line(queued.as_bytes()).unwrap()), queued);
        assert_eq!(Schema::EventEnvelope.validate(&serde_json::from_str(&queued).unwrap()), Ok(()));
    }

    #[test]
    fn a_higher_minor_is_read_and_what_it_added_is_kept() {
        let later = line(&milestone())
            .replace("1.0.0", "1.3.0")
            .replace("}}\n", "},\"priority\":{\"level\":1,\"at\":[2.5,null]}}\n");
        assert_eq!(
            line(&EventEnvelope::from_line(later.as_bytes()).unwrap()),
            later.replace("\"level\":1,\"at\":[2.5,null]", "\"at\":[2.5,null],\"level\":1")
        );
        assert!(EventEnvelope::from_value(serde_json::from_str(&later).unwrap()).is_ok());
        let ours = later.replace("1.3.0", "1.0.7");
        assert_eq!(
            refused(EventEnvelope::from_line(ours.as_bytes())),
            "/priority: unknown field \"priority\""
        );
        assert_eq!(
            refused(EventEnvelope::from_value(serde_json::from_str(&ours).unwrap())),
            "/priority: unknown field \"priority\""
        );
    }

    #[test]
    fn another_major_is_refused_whatever_its_fields_are() {
        let expected = "/schema_version: version \"2.0.0\" is not read here; this program reads 1.x.y";
        let next = line(&milestone()).replace("1.0.0", "2.0.0");
        assert_eq!(refused(EventEnvelope::from_line(next.as_bytes())), expected);
        let bare = br#"{"schema_version":"2.0.0"}"#;
        assert_eq!(refused(EventEnvelope::from_line(bare)), expected);
        assert_eq!(refused(EventEnvelope::from_value(json!({"schema_version": "2.0.0"}))), expected);
        for odd in ["1", "1.", "1.x.0", "10.0.0", "v1.0.0", "-1.0.0", "1.+1.0"] {
            let odd = line(&milestone()).replace("1.0.0", odd);
            assert!(refused(EventEnvelope::from_line(odd.as_bytes())).contains("is not read here"), "{odd}");
        }
    }

    #[test]
    fn lines_that_are_no_envelopes_are_told_in_the_words_of_the_schema() {
        let good = line(&milestone());
        let refused = |bad: String| self::refused(EventEnvelope::from_line(bad.as_bytes()));
        assert_eq!(refused(good.replace("\"target\":\"milestone-feed\",", "")), "/target: is missing");
        assert_eq!(refused("{\n}".to_owned()), "is more than one line");
        assert!(
            refused(good.replace("\"target\"", "\"source\":\"x\",\"target\"")).contains("duplicate field")
        );
        assert!(refused(good.replace("}}", "")).contains("EOF"));
    }

    #[test]
    fn a_dead_letter_is_the_record_and_why() {
        let mut queued = milestone();
        queued.resume = Some(Position { offset: 412, fingerprint: "9f2c".to_owned() });
        let attempts = vec![
            Attempt { at: Timestamp::from_millis(0), status: Some(400), answer: "no".to_owned() },
            Attempt { at: Timestamp::from_millis(1), status: None, answer: "refused".to_owned() },
        ];
        let letter =
            DeadLetter::new(queued, "backup", "why".to_owned(), attempts, Timestamp::from_millis(2), 77);
        let written = line(&letter);
        assert!(written.ends_with(
            "\"resume\":{\"offset\":412,\"fingerprint\":\"9f2c\"},\"endpoint\":\"backup\",\"reason\":\"why\",\
             \"attempts\":[{\"at\":\"1970-01-01T00:00:00.000Z\",\"status\":400,\"answer\":\"no\"},\
             {\"at\":\"1970-01-01T00:00:00.001Z\",\"status\":null,\"answer\":\"refused\"}],\
             \"dead_at\":\"1970-01-01T00:00:00.002Z\",\"queue_offset\":77}\n"
        ));
        let read = DeadLetter::from_line(written.as_bytes()).unwrap();
        assert_eq!(line(&read), written);
        assert_eq!((read.endpoint(), read.envelope().redrive_of), ("backup", None));

        let refused = |bad: String| self::refused(DeadLetter::from_line(bad.as_bytes()));
        assert_eq!(refused(written.replace("\"reason\":\"why\",", "")), "/reason: is missing");
        assert_eq!(refused(written.replace("\"endpoint\":\"backup\",", "")), "/endpoint: is missing");
        assert_eq!(refused(written.replace("\"reason\"", "\"x\":1,\"reason\"")), "/x: unknown field \"x\"");
        assert!(refused(written.replace("77", "-7")).starts_with("/queue_offset: invalid value"));
    }
}
