//! What a document must look like: the public JSON Schemas, compiled into the program.
//!
//! The schemas in `schemas/` are the contract. Validators for those that a tool needs while it runs are
//! made from the same files when the library is built, so a tool reads no schema and builds no validator.
//!
//! # Invariants
//! - Only this module uses jsonschema.
//! - The same bad document gives the same errors in the same order, at most [`ERRORS_MAX`] of them and a
//!   last one that counts the rest. A document is never shown whole, a value only shortened.
//! - A valid document costs no allocation.
//! - A schema that is compiled in has no `pattern` but a literal prefix: the first regular expression
//!   costs a process 0.2 ms. (The one exception is looked at for pings only.)
//!
//! Not here: what a schema cannot say, such as control characters in an id (`event`); reading JSON (`json`).

use std::fmt;

use jsonschema::{
    ErrorIterator, JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind},
};
use serde::Serialize;
use serde_json::Value;

use crate::text;

/// How many errors of one document are listed.
pub const ERRORS_MAX: usize = 20;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field, such as `/evidence/0/type`; empty for the whole document.
    /// Names that the document made up are shortened and made harmless.
    pub path: String,
    /// What is wrong, to be read after the path: `is missing`, `must be a string, not null`.
    pub message: String,
}

impl FieldError {
    /// The error that `message` says about the field at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError { path: path.into(), message: message.into() }
    }

    /// The error that serde found at `path`. Its words may hold a value of the document: they are shortened.
    pub(crate) fn of_serde(path: impl Into<String>, cause: &serde_json::Error) -> FieldError {
        const SHOWN_CHARS_MAX: usize = 200;
        let shown: String = cause.to_string().chars().take(SHOWN_CHARS_MAX).collect();
        FieldError::new(path, text::for_people(&shown))
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The schemas that tools need while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// `milestone-event.v1.json`, the normalised form.
    MilestoneEvent,
    /// `event-envelope.v1.json`.
    EventEnvelope,
    /// `ingest-request.v1.json`, its event normalised.
    IngestRequest,
    /// `task.v1.json`.
    Task,
}

/// The code that the macro makes is not ours to document.
mod compiled {
    #[jsonschema::validator(
        path = "../schemas/milestone-event.v1.json",
        draft = Draft202012,
        validate_formats = true,
        methods = { validate = false }
    )]
    pub(super) struct MilestoneEvent;

    #[jsonschema::validator(
        path = "../schemas/event-envelope.v1.json",
        draft = Draft202012,
        validate_formats = true,
        methods = { validate = false }
    )]
    pub(super) struct EventEnvelope;

    #[jsonschema::validator(
        path = "../schemas/ingest-request.v1.json",
        draft = Draft202012,
        validate_formats = true,
        methods = { validate = false },
        resources = {
            "https://milepost.dev/schemas/milestone-event.v1.json" => { path = "../schemas/milestone-event.v1.json" }
        }
    )]
    pub(super) struct IngestRequest;

    #[jsonschema::validator(
        path = "../schemas/task.v1.json",
        draft = Draft202012,
        validate_formats = true,
        methods = { validate = false }
    )]
    pub(super) struct Task;
}

type IsValid = fn(&Value) -> bool;
type IterErrors = for<'a> fn(&'a Value) -> ErrorIterator<'a>;

impl Schema {
    /// Checks `document`.
    ///
    /// # Errors
    /// Every fault, ordered by path, at most [`ERRORS_MAX`] and a count of the rest.
    pub fn validate(self, document: &Value) -> Result<(), Vec<FieldError>> {
        self.validate_after(document, Vec::new())
    }

    /// As [`Schema::validate`], with the faults `known` already. About a field that they name they stand
    /// for what the schema would say.
    ///
    /// # Errors
    /// As [`Schema::validate`], those `known` among them.
    pub fn validate_after(self, document: &Value, known: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
        // The macro gives each validator its own type.
        macro_rules! run {
            ($of:ident) => {
                (compiled::$of::is_valid as IsValid, compiled::$of::iter_errors as IterErrors)
            };
        }
        let (is_valid, errors) = match self {
            Schema::MilestoneEvent => run!(MilestoneEvent),
            Schema::EventEnvelope => run!(EventEnvelope),
            Schema::IngestRequest => run!(IngestRequest),
            Schema::Task => run!(Task),
        };
        // Collecting errors allocates even when there are none.
        if known.is_empty() && is_valid(document) {
            return Ok(());
        }
        let mut found: Vec<Found> = known.into_iter().map(|error| Found { rank: 0, error }).collect();
        for error in errors(document) {
            self.add(&error, &mut found);
        }
        Err(in_order(found))
    }

    /// The fields that the object at `path` may have, in the order in which they are written.
    pub fn fields(self, path: &str) -> &'static [&'static str] {
        match self {
            Schema::MilestoneEvent if path.is_empty() => &[
                "milestoneId",
                "timestampUtc",
                "scope",
                "claim",
                "evidence",
                "riskStatus",
                "nextAction",
                "source",
            ],
            Schema::MilestoneEvent if path.starts_with("/evidence/") => &["type", "path", "summary", "ref"],
            Schema::EventEnvelope if path.is_empty() => &[
                "event_id",
                "event_type",
                "schema_version",
                "source",
                "target",
                "timestamp",
                "trace_id",
                "idempotency_key",
                "payload",
                "resume",
                "endpoint",
                "redrive_of",
            ],
            Schema::EventEnvelope if path == "/resume" => &["offset", "fingerprint"],
            Schema::IngestRequest => match path.strip_prefix("/event") {
                Some(within) => Schema::MilestoneEvent.fields(within),
                None => &["idempotencyKey", "sentAtUtc", "event"],
            },
            Schema::Task if path.is_empty() => {
                &["task_id", "scope", "title", "due_at", "status", "updated_at"]
            }
            _ => &[],
        }
    }

    /// Says what one error of the validator means; one about several names gives one for each.
    fn add(self, error: &ValidationError<'_>, found: &mut Vec<Found>) {
        let parent = error.instance_path().as_str();
        let path = shown_path(parent);
        let instance: &Value = error.instance();
        let mut unknown = |name: &str| {
            let path = format!("{path}/{}", shown_name(name));
            found.push(Found::new(1, path, self.unknown_field(parent, name)));
        };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                for name in unexpected {
                    unknown(name);
                }
            }
            ValidationErrorKind::PropertyNames { error } => {
                unknown(error.instance().as_str().unwrap_or_default());
            }
            // `propertyNames` with `enum` reports the name as the instance, at the object's path.
            ValidationErrorKind::Enum { .. }
                if error.schema_path().as_str().ends_with("/propertyNames/enum") =>
            {
                unknown(instance.as_str().unwrap_or_default());
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                found.push(Found::new(1, format!("{path}/{}", shown_name(name)), "is missing".to_owned()));
            }
            kind => {
                let (rank, message) = fault(kind, instance);
                found.push(Found::new(rank, path, message));
            }
        }
    }

    fn unknown_field(self, parent: &str, name: &str) -> String {
        let meant = text::nearest(name, self.fields(parent).iter().copied());
        let hint = meant.map(|it| format!("; did you mean \"{it}\"?")).unwrap_or_default();
        format!("unknown field {}{hint}", text::quoted(name))
    }
}

/// What a broken rule says about `instance`, and its rank: of several at one path the lowest is told.
fn fault(kind: &ValidationErrorKind, instance: &Value) -> (u8, String) {
    match kind {
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(wanted) => with_article(*wanted).to_owned(),
                TypeKind::Multiple(wanted) => {
                    wanted.iter().map(with_article).collect::<Vec<_>>().join(" or ")
                }
            };
            (1, format!("must be {wanted}, not {}", type_of(instance)))
        }
        ValidationErrorKind::Enum { options } => (1, not_one_of(options, instance)),
        ValidationErrorKind::MinLength { .. } if instance == "" => (2, "is empty".to_owned()),
        ValidationErrorKind::MinLength { limit } => {
            (3, format!("has {} characters; at least {limit} are needed", length(instance)))
        }
        ValidationErrorKind::MaxLength { limit } => {
            (3, format!("has {} characters; at most {limit} are allowed", length(instance)))
        }
        ValidationErrorKind::Format { format } => {
            let wanted = if format == "date-time" { "an RFC 3339 time" } else { format.as_str() };
            (4, format!("must be {wanted}, not {}", value(instance)))
        }
        ValidationErrorKind::Pattern { pattern } => {
            let prefix = pattern.trim_start_matches('^').replace('\\', "");
            (4, format!("must begin with \"{prefix}\", not {}", value(instance)))
        }
        ValidationErrorKind::MinItems { .. } => (4, "must not be empty".to_owned()),
        ValidationErrorKind::Minimum { limit } => {
            (4, format!("must be at least {limit}, not {}", value(instance)))
        }
        ValidationErrorKind::FalseSchema => (4, "is not allowed here".to_owned()),
        // No schema of ours that is compiled in has another rule.
        other => (5, format!("breaks the rule \"{}\"", other.keyword())),
    }
}

fn not_one_of(options: &Value, instance: &Value) -> String {
    let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let listed = options.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
    let meant = instance.as_str().and_then(|it| text::nearest(it, options.iter().copied()));
    let hint = meant.map(|it| format!("; did you mean \"{it}\"?")).unwrap_or_default();
    format!("must be one of {listed}, not {}{hint}", value(instance))
}

/// A value in a message: a string shortened, a number as it is, of all else only the type.
fn value(instance: &Value) -> String {
    match instance {
        Value::String(it) => text::quoted(it),
        Value::Number(it) => it.to_string(),
        other => type_of(other).to_owned(),
    }
}

fn type_of(instance: &Value) -> &'static str {
    match instance {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn with_article(wanted: JsonType) -> &'static str {
    match wanted {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    }
}

fn length(instance: &Value) -> usize {
    instance.as_str().map_or(0, |it| it.chars().count())
}

/// An error with what its order follows from.
struct Found {
    rank: u8,
    error: FieldError,
}

impl Found {
    fn new(rank: u8, path: String, message: String) -> Found {
        Found { rank, error: FieldError { path, message } }
    }
}

/// Errors ordered by path, one for each path; those beyond [`ERRORS_MAX`] only counted, in a last one.
fn in_order(mut found: Vec<Found>) -> Vec<FieldError> {
    found.sort_by(|a, b| {
        by_path(&a.error.path, &b.error.path)
            .then(a.rank.cmp(&b.rank))
            .then_with(|| a.error.message.cmp(&b.error.message))
    });
    let mut errors: Vec<FieldError> = found.into_iter().map(|it| it.error).collect();
    // A second fault of the same value is seldom news: an empty time is also no time. (Two unknown names
    // may look the same once they are shortened.)
    errors.dedup_by(|a, b| a.path == b.path && !a.message.starts_with("unknown field"));
    let more = errors.len().saturating_sub(ERRORS_MAX);
    if more > 0 {
        errors.truncate(ERRORS_MAX);
        errors.push(FieldError::new("", format!("and {more} more")));
    }
    errors
}

/// Order of two pointers, with array indexes as numbers.
fn by_path(left: &str, right: &str) -> std::cmp::Ordering {
    let parts = |path| str::split(path, '/').map(|it| (it.parse::<u64>().unwrap_or(0), it));
    parts(left).cmp(parts(right))
}

/// A pointer whose parts are safe and short enough to be shown.
fn shown_path(path: &str) -> String {
    path.split('/').map(shown_part).collect::<Vec<_>>().join("/")
}

/// A name as a part of a pointer (`~` and `/` escaped as RFC 6901 says), safe and short.
fn shown_name(name: &str) -> String {
    shown_part(name).replace('~', "~0").replace('/', "~1")
}

fn shown_part(part: &str) -> String {
    let quoted = text::quoted(part);
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "milestoneId": "a", "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": "s", "claim": "c",
            "evidence": [{"type": "log", "path": "p", "summary": "s"}],
            "riskStatus": "on-track", "nextAction": "n", "source": "agent"
        })
    }

    fn told(schema: Schema, document: &Value) -> Vec<String> {
        schema.validate(document).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_come_in_the_order_of_their_paths() {
        let mut document = event();
        document["evidence"] = (0..12).map(|_| json!({"type": "log", "path": "p"})).collect();
        document["claim"] = json!(7);
        document["milestone_id"] = json!("a");
        document.as_object_mut().unwrap().remove("scope");
        let errors = told(Schema::MilestoneEvent, &document);
        assert_eq!(errors[0], "/claim: must be a string, not a number");
        assert_eq!(errors[3], "/evidence/2/summary: is missing");
        assert_eq!(errors[11], "/evidence/10/summary: is missing");
        assert_eq!(
            errors[13],
            "/milestone_id: unknown field \"milestone_id\"; did you mean \"milestoneId\"?"
        );
        assert_eq!(errors[14], "/scope: is missing");
        assert_eq!(errors, told(Schema::MilestoneEvent, &document));
    }

    #[test]
    fn what_is_beyond_twenty_is_counted() {
        let mut document = event();
        for at in 0..30 {
            document[format!("x{at:02}")] = json!(at);
        }
        let errors = told(Schema::MilestoneEvent, &document);
        assert_eq!(errors.len(), 21);
        assert_eq!(errors[0], "/x00: unknown field \"x00\"");
        assert_eq!(errors[20], "and 10 more");
    }

    #[test]
    fn values_and_names_are_shown_shortened_and_harmless() {
        let mut document = event();
        document["riskStatus"] = json!("\u{1b}[31m".repeat(1000));
        document["\u{202e}/~".repeat(1000)] = json!("secret");
        document["source"] = json!({"secret": 1});
        for error in told(Schema::MilestoneEvent, &document) {
            assert!(error.len() < 1500, "{error}");
            assert!(!error.contains(['\u{1b}', '\u{202e}']) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_field_has_one_fault_and_what_is_known_comes_first() {
        let mut document = event();
        document["timestampUtc"] = json!("");
        assert_eq!(told(Schema::MilestoneEvent, &document), ["/timestampUtc: is empty"]);
        let known = vec![FieldError::new("/timestampUtc", "is no time")];
        assert_eq!(Schema::MilestoneEvent.validate_after(&document, known.clone()), Err(known.clone()));
        assert_eq!(Schema::MilestoneEvent.validate_after(&event(), known.clone()), Err(known));
    }

    #[test]
    fn an_event_in_a_request_is_told_of_with_its_whole_path() {
        let mut request =
            json!({"idempotencyKey": "k", "sentAtUtc": "2026-03-01T09:05:00Z", "event": event()});
        assert_eq!(told(Schema::IngestRequest, &request), [""; 0]);
        request["event"]["evidence"][0]["sumary"] = json!("s");
        request["send"] = json!(1);
        assert_eq!(
            told(Schema::IngestRequest, &request),
            [
                "/event/evidence/0/sumary: unknown field \"sumary\"; did you mean \"summary\"?",
                "/send: unknown field \"send\""
            ]
        );
        request["event"] = Value::Null;
        request.as_object_mut().unwrap().remove("send");
        assert_eq!(
            told(Schema::IngestRequest, &request),
            ["/idempotencyKey: must begin with \"ping:\", not \"k\""]
        );
        request["idempotencyKey"] = json!("ping:1");
        assert_eq!(told(Schema::IngestRequest, &request), [""; 0]);
    }

    #[test]
    fn an_unknown_field_of_an_envelope_is_named() {
        let document = json!({"schema_version": "1.0.0", "event-id": "x", "payload": {}});
        let errors = told(Schema::EventEnvelope, &document);
        assert_eq!(errors[0], "/event-id: unknown field \"event-id\"; did you mean \"event_id\"?");
        assert_eq!(errors[1], "/event_id: is missing");
        let errors = told(Schema::EventEnvelope, &json!({"schema_version": "2.0.0"}));
        assert!(errors.contains(&"/schema_version: must begin with \"1.\", not \"2.0.0\"".to_owned()));
    }
}
