//! The form of an event that everybody agrees on, and what is filled in where the input leaves something out.
//!
//! # Invariants
//! - What is normal already stays as it is.
//! - What was filled in is told ([`LeftOut`]), since it is not compared with what is stored.
//!
//! Not here: whether the document is valid (`schema`).

use serde_json::Value;

use super::Source;
use crate::{Timestamp, schema::FieldError, text};

/// What stands for a field that the input leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `timestampUtc`; with `None` the field is required.
    pub timestamp: Option<Timestamp>,
    /// `source`.
    pub source: Source,
    /// Whether an absent `milestoneId` is derived from scope, time and content; else it is required.
    pub derive_id: bool,
}

impl Defaults {
    /// What JSON may leave out, in a file, on stdin or in a request: the source, which is orchestrator.
    pub const JSON: Defaults = Defaults { timestamp: None, source: Source::Orchestrator, derive_id: false };
}

/// Which fields the caller left out: they are filled in, and not compared with what is stored (J8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// `timestampUtc`.
    pub timestamp: bool,
    /// `source`.
    pub source: bool,
    /// `ref` of each evidence, in order.
    pub refs: Vec<bool>,
}

/// Brings an event's document into the form that everybody agrees on: text trimmed, time in milliseconds,
/// empty `ref`s dropped, `defaults` for what is absent. Says what was left out, and what no schema can see.
/// Call it before the document is validated.
pub fn normalise(document: &mut Value, defaults: &Defaults) -> (LeftOut, Vec<FieldError>) {
    let mut left_out = LeftOut::default();
    let mut errors = Vec::new();
    let Value::Object(fields) = document else {
        return (left_out, errors);
    };
    fields.values_mut().for_each(trim);
    if let Some(Value::Array(evidence)) = fields.get_mut("evidence") {
        for it in evidence {
            let Value::Object(it) = it else {
                left_out.refs.push(false);
                continue;
            };
            it.values_mut().for_each(trim);
            if it.get("ref").is_some_and(|it| it == "") {
                it.remove("ref");
            }
            left_out.refs.push(!it.contains_key("ref"));
        }
    }
    match fields.get_mut("timestampUtc") {
        Some(Value::String(given)) => match Timestamp::parse_utc(given) {
            Ok(time) => {
                if given.len() != TIMESTAMP_BYTES {
                    *given = time.to_string();
                }
            }
            Err(message) => errors.push(FieldError::new("/timestampUtc", no_time(given, message))),
        },
        Some(_) => {}
        None => {
            if let Some(time) = defaults.timestamp {
                fields.insert("timestampUtc".to_owned(), Value::from(time.to_string()));
                left_out.timestamp = true;
            }
        }
    }
    if !fields.contains_key("source") {
        fields.insert("source".to_owned(), Value::from(defaults.source.as_str()));
        left_out.source = true;
    }
    if let Some(Value::String(id)) = fields.get("milestoneId")
        && let Some(control) = id.chars().find(|it| it.is_control())
    {
        let message = format!("holds a control character (U+{:04X})", u32::from(control));
        errors.push(FieldError::new("/milestoneId", message));
    }
    (left_out, errors)
}

/// Length of a time in its one form, `YYYY-MM-DDTHH:MM:SS.sssZ`: text that parses and is as long is that.
const TIMESTAMP_BYTES: usize = 24;

fn trim(value: &mut Value) {
    if let Value::String(it) = value {
        let trimmed = text::trim(it);
        if trimmed.len() < it.len() {
            *it = trimmed.to_owned();
        }
    }
}

/// What is said of a text that is no time: a long one is shown in short.
pub(super) fn no_time(given: &str, message: String) -> String {
    const SHOWN_BYTES_MAX: usize = 40;
    if given.len() <= SHOWN_BYTES_MAX {
        return message;
    }
    format!("{} is no RFC 3339 time: expected YYYY-MM-DDTHH:MM:SSZ", text::quoted(given))
}
