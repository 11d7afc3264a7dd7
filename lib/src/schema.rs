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
    JsonType, ValidationError,
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
        let (is_valid, errors): (fn(&Value) -> bool, fn(&Value) -> jsonschema::ErrorIterator<'_>) = match self
        {
            Schema::MilestoneEvent => {
                (compiled::MilestoneEvent::is_valid, compiled::MilestoneEvent::iter_errors)
            }
            Schema::EventEnvelope => {
                (compiled::EventEnvelope::is_valid, compiled::EventEnvelope::iter_errors)
            }
            Schema::IngestRequest => {
                (compiled::IngestRequest::is_valid, compiled::IngestRequest::iter_errors)
            }
            Schema::Task => (compiled::Task::is_valid, compiled::Task::iter_errors),
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
                unexpected.iter().for_each(|it| unknown(it));
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
        ValidationErrorKind::MinLength { limit: 1 } => (2, "is empty".to_owned()),
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
