//! A task: what is to be done in a chat or by a user, and by when. The record of `tasks.jsonl`.
//!
//! # Invariants
//! - A task belongs to a scope, `chat:…` or `user:…`, always: it is named by scope and id together, and the same
//!   id in two scopes is two tasks.
//! - A [`Task`] is normalised and valid: its text is trimmed, its times have whole milliseconds in UTC, a UUID has
//!   its one spelling, and the id has no colon, since a reminder's key is joined with it.
//! - The last line of a task counts. An earlier one is history.
//!
//! Not here: how tasks get into the journal (`emit`), which are due (`table`), reminding (`reminder`).

mod blocks;
mod emit;
mod table;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    emit::{Offer, TaskEmitted, TaskEmitter},
    table::{DuePoint, TaskTable},
};
use crate::{
    Timestamp,
    event::RECORD_BYTES_MAX,
    identity,
    journal::{Described, Journal, JournalName},
    logs::Logs,
    schema::{FieldError, Schema},
    text,
};

/// The journal of tasks.
pub const TASKS: &str = "tasks";

/// The journal of tasks in a logs folder.
pub fn tasks(logs: &Logs) -> Journal {
    Journal::new(logs, JournalName::internal(TASKS), describe)
}

/// What settling must know of a task.
fn describe(line: &[u8]) -> Option<Described> {
    let task = Task::from_line(line).ok()?;
    Some(Described { key: identity::task_key(&task.scope, &task.task_id), scope: Some(task.scope) })
}

/// A task as it stands since one line. Field order is the order on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name within its scope: 1 to 200 characters, no controls, no colon.
    pub task_id: String,
    /// Whom it belongs to: `chat:…` or `user:…`.
    pub scope: String,
    /// What is to be done.
    pub title: String,
    /// From when on it is overdue.
    pub due_at: Timestamp,
    /// How it stands.
    pub status: Status,
    /// When this line was written, or what its writer says.
    pub updated_at: Timestamp,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is to be done; only such a task is reminded of.
    Open,
    /// It is done.
    Done,
    /// It will not be done.
    Cancelled,
}

/// Which fields the caller left out: they are filled in, and not compared with what is stored (J8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// `updated_at`.
    pub updated_at: bool,
}

impl Task {
    /// Makes a task of a JSON document: normalises it, fills in a status of open and `now`, validates it.
    ///
    /// # Errors
    /// Every fault of the document, ordered by field; as [`Schema::validate`].
    pub fn from_value(mut document: Value, now: Timestamp) -> Result<(Task, LeftOut), Vec<FieldError>> {
        let (left_out, errors) = normalise(&mut document, now);
        Schema::Task.validate_after(&document, errors)?;
        let task: Task =
            serde_json::from_value(document).map_err(|it| vec![FieldError::of_serde("", &it)])?;
        task.to_line().map_err(|it| vec![it])?;
        Ok((task, left_out))
    }

    /// Reads a line of `tasks.jsonl`, with or without its newline; nothing is filled in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_line(line: &[u8]) -> Result<Task, Vec<FieldError>> {
        if line.len() > RECORD_BYTES_MAX {
            return Err(vec![too_long(line.len())]);
        }
        let read: Result<Task, _> = serde_json::from_slice(line);
        if let Ok(task) = &read
            && task.is_normal()
        {
            return read.map_err(|_| Vec::new());
        }
        // Not written by task-emit, or no task at all: judged as input would be, all its fields required.
        let document: Value =
            serde_json::from_slice(line).map_err(|it| vec![FieldError::of_serde("", &it)])?;
        let mut missing = Vec::new();
        for field in ["status", "updated_at"] {
            if document.is_object() && document.get(field).is_none() {
                missing.push(FieldError::new(format!("/{field}"), "is missing"));
            }
        }
        match Task::from_value(document, Timestamp::default()) {
            Ok((task, _)) if missing.is_empty() && read.is_ok() => Ok(task),
            Ok(_) if missing.is_empty() => {
                Err(vec![FieldError::new("", read.err().map_or_else(String::new, |it| it.to_string()))])
            }
            Ok(_) => Err(missing),
            Err(mut errors) => {
                errors.extend(missing);
                errors.sort();
                Err(errors)
            }
        }
    }

    /// The record: one line of JSON with its newline.
    ///
    /// # Errors
    /// When it takes more than [`RECORD_BYTES_MAX`].
    pub fn to_line(&self) -> Result<Vec<u8>, FieldError> {
        let mut line = serde_json::to_vec(self).map_err(|it| FieldError::of_serde("", &it))?;
        line.push(b'\n');
        if line.len() > RECORD_BYTES_MAX { Err(too_long(line.len())) } else { Ok(line) }
    }

    /// Whether this says what is `stored`, when what the caller left out is not compared.
    pub fn same_content(&self, stored: &Task, left_out: LeftOut) -> bool {
        let updated_at = if left_out.updated_at { stored.updated_at } else { self.updated_at };
        Task { updated_at, ..self.clone() } == *stored
    }

    /// Whether nothing is left for normalising and validating to do, but for what serde has seen to.
    fn is_normal(&self) -> bool {
        let normal = |it: &str| !it.is_empty() && text::trim(it).len() == it.len();
        normal(&self.task_id)
            && self.task_id.chars().count() <= NAME_CHARS_MAX
            && self.scope.chars().count() <= NAME_CHARS_MAX
            && fault_of_id(&self.task_id).is_none()
            && uuid(&self.task_id).is_none_or(|it| it == self.task_id)
            && normal(&self.scope)
            && fault_of_scope(&self.scope).is_none()
            && normal(&self.title)
    }
}

/// As the schema says.
const NAME_CHARS_MAX: usize = 200;

/// Checks a scope that a person gave, such as `--scope`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn checked_scope(given: &str) -> Result<String, String> {
    let scope = text::trim(given);
    match fault_of_scope(scope) {
        Some(fault) => Err(fault),
        None if scope.chars().count() > NAME_CHARS_MAX => Err("has more than 200 characters".to_owned()),
        None => Ok(scope.to_owned()),
    }
}

/// A task's id in its one spelling: a UUID in lower case with hyphens, everything else trimmed only.
pub fn one_spelling(task_id: &str) -> String {
    let trimmed = text::trim(task_id);
    uuid(trimmed).unwrap_or_else(|| trimmed.to_owned())
}

/// The one spelling of a UUID, if `text` is one: in any case, with or without hyphens, in braces, or as
/// `urn:uuid:` (RFC 9562 and what programs print).
fn uuid(text: &str) -> Option<String> {
    const URN: &str = "urn:uuid:";
    let bare = match text.get(..URN.len()) {
        Some(start) if start.eq_ignore_ascii_case(URN) => &text[URN.len()..],
        _ => text,
    };
    let bare = bare.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(bare);
    let bytes = bare.as_bytes();
    let hyphens = [8, 13, 18, 23];
    let is_spelt = match bytes.len() {
        32 => bytes.iter().all(u8::is_ascii_hexdigit),
        36 => (0..36)
            .all(|at| if hyphens.contains(&at) { bytes[at] == b'-' } else { bytes[at].is_ascii_hexdigit() }),
        _ => false,
    };
    if !is_spelt {
        return None;
    }
    let digits: Vec<char> = bare.chars().filter(|it| *it != '-').map(|it| it.to_ascii_lowercase()).collect();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Some(groups.map(|it| it.iter().collect::<String>()).join("-"))
}

/// Parses a time of a task: any RFC 3339 time, a leap second too. That is the second after it, as every clock of
/// the system counts.
///
/// # Errors
/// As [`Timestamp::parse_rfc3339`].
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let as_it_stands = Timestamp::parse_rfc3339(text);
    if as_it_stands.is_ok() || text.get(16..19) != Some(":60") {
        return as_it_stands;
    }
    let before = Timestamp::parse_rfc3339(&format!("{}:59{}", &text[..16], &text[19..]))?;
    let after = Timestamp::from_millis((before.millis().div_euclid(1000) + 1) * 1000);
    // They are inserted at the end of a day in UTC, whatever the offset says.
    if after.millis().rem_euclid(86_400_000) == 0 { Ok(after) } else { as_it_stands }
}

fn normalise(document: &mut Value, now: Timestamp) -> (LeftOut, Vec<FieldError>) {
    let mut left_out = LeftOut::default();
    let mut errors = Vec::new();
    let Value::Object(fields) = document else { return (left_out, errors) };
    for value in fields.values_mut() {
        if let Value::String(it) = value {
            text::trim(it).to_owned().clone_into(it);
        }
    }
    if let Some(Value::String(id)) = fields.get_mut("task_id") {
        *id = one_spelling(id);
        errors.extend(fault_of_id(id).map(|it| FieldError::new("/task_id", it)));
    }
    if let Some(Value::String(scope)) = fields.get("scope") {
        errors.extend(fault_of_scope(scope).map(|it| FieldError::new("/scope", it)));
    }
    for name in ["due_at", "updated_at"] {
        let Some(Value::String(given)) = fields.get_mut(name) else { continue };
        match parse_time(given) {
            Ok(time) => *given = time.to_string(),
            // The parser shows what it was given, which may be anything.
            Err(_) if given.len() > SHOWN_BYTES_MAX => {
                let what = format!("{} is no RFC 3339 time", text::quoted(given));
                errors.push(FieldError::new(format!("/{name}"), what));
            }
            Err(what) => errors.push(FieldError::new(format!("/{name}"), what)),
        }
    }
    if !fields.contains_key("updated_at") {
        fields.insert("updated_at".to_owned(), Value::from(now.to_string()));
        left_out.updated_at = true;
    }
    if !fields.contains_key("status") {
        fields.insert("status".to_owned(), Value::from("open"));
    }
    (left_out, errors)
}

const SHOWN_BYTES_MAX: usize = 40;

fn fault_of_id(id: &str) -> Option<String> {
    match id.chars().find(|it| it.is_control() || *it == ':') {
        Some(':') => Some("holds a colon, which separates the parts of a reminder's key".to_owned()),
        Some(control) => Some(format!("holds a control character (U+{:04X})", u32::from(control))),
        None => None,
    }
}

fn fault_of_scope(scope: &str) -> Option<String> {
    if let Some(control) = scope.chars().find(|it| it.is_control()) {
        return Some(format!("holds a control character (U+{:04X})", u32::from(control)));
    }
    let name = scope.strip_prefix("chat:").or_else(|| scope.strip_prefix("user:"));
    match name.map(text::trim) {
        Some(it) if !it.is_empty() => None,
        _ => Some(format!("must be chat:… or user:…, not {}", text::quoted(scope))),
    }
}

fn too_long(bytes: usize) -> FieldError {
    let what = format!("the record takes {bytes} bytes; at most {RECORD_BYTES_MAX} (256 KiB) are allowed");
    FieldError::new("", what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({ "task_id": "pay", "scope": "chat:42", "title": "Pay.", "due_at": "2026-03-01T12:00:00+02:00" })
    }

    fn task(document: Value) -> Task {
        Task::from_value(document, Timestamp::from_millis(0)).unwrap().0
    }

    fn refused(document: Value) -> Vec<String> {
        let errors = Task::from_value(document, Timestamp::from_millis(0)).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_record_is_one_line_in_utc_with_its_fields_in_order() {
        let line = String::from_utf8(task(document()).to_line().unwrap()).unwrap();
        assert_eq!(
            line,
            "{\"task_id\":\"pay\",\"scope\":\"chat:42\",\"title\":\"Pay.\",\"due_at\":\"2026-03-01T10:00:00.000Z\",\
             \"status\":\"open\",\"updated_at\":\"1970-01-01T00:00:00.000Z\"}\n"
        );
        assert_eq!(Task::from_line(line.as_bytes()).unwrap(), task(document()));
    }

    #[test]
    fn a_uuid_in_every_spelling_is_one_id() {
        let one = "0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b";
        for spelling in [
            one,
            "0192F0C1-7B7E-7D3F-9A51-0D7A5C1F2E3B",
            "0192f0c17b7e7d3f9a510d7a5c1f2e3b",
            "{0192F0C1-7b7e-7d3f-9a51-0d7a5c1f2e3b}",
            "urn:uuid:0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b",
            "URN:UUID:{0192f0c17b7e7d3f9a510d7a5c1f2e3b}",
            " 0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b\t",
        ] {
            let mut given = document();
            given["task_id"] = json!(spelling);
            assert_eq!(task(given).task_id, one, "{spelling}");
        }
        for other in
            ["0192f0c1", "0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3g", "{a}", "urn-uuid", "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ"]
        {
            assert_eq!(one_spelling(other), other);
        }
    }

    #[test]
    fn a_scope_is_a_chat_or_a_user_always() {
        for scope in ["team:1", "chat:", "chat: ", "user:", "42", "Chat:1", "xchat:1", "chat:a\u{7}b", ""] {
            let mut given = document();
            given["scope"] = json!(scope);
            assert!(refused(given)[0].starts_with("/scope: "), "{scope:?}");
            assert!(checked_scope(scope).is_err());
        }
        let mut none = document();
        none.as_object_mut().unwrap().remove("scope");
        assert_eq!(refused(none), ["/scope: is missing"]);
        assert_eq!(checked_scope(" chat:a:b ").unwrap(), "chat:a:b");
    }

    #[test]
    fn all_faults_are_told_and_none_of_it_is_taken() {
        let given =
            json!({ "task_id": "a:b", "scope": "chat:1", "title": " ", "due_at": "soon", "stat": "done" });
        assert_eq!(
            refused(given),
            [
                "/due_at: \"soon\" is no RFC 3339 time: expected YYYY-MM-DDTHH:MM:SSZ",
                "/stat: unknown field \"stat\"; did you mean \"status\"?",
                "/task_id: holds a colon, which separates the parts of a reminder's key",
                "/title: is empty",
            ]
        );
        let mut long = document();
        long["title"] = json!("x".repeat(RECORD_BYTES_MAX));
        assert!(refused(long)[0].contains("256 KiB"));
    }

    #[test]
    fn a_leap_second_is_the_second_after_it() {
        let time = |text| parse_time(text).map(|it| it.to_string());
        assert_eq!(time("2016-12-31T23:59:60Z").unwrap(), "2017-01-01T00:00:00.000Z");
        assert_eq!(time("2017-01-01T00:59:60.75+01:00").unwrap(), "2017-01-01T00:00:00.000Z");
        assert!(time("2016-12-31T23:58:60Z").is_err());
        assert!(time("2016-12-31T12:59:60Z").is_err());
        assert!(time("2016-12-31T23:59:61Z").is_err());
    }

    #[test]
    fn a_line_of_another_writer_is_normalised_or_refused() {
        let line = |status: &str, updated: &str| {
            format!(
                "{{\"task_id\":\"0192F0C17B7E7D3F9A510D7A5C1F2E3B\",\"scope\":\"user:7\",\"title\":\" t\",\
                 \"due_at\":\"2026-03-01T12:00:00.000Z\"{status}{updated}}}"
            )
        };
        let whole = line(",\"status\":\"done\"", ",\"updated_at\":\"2026-03-01T12:00:00.000Z\"");
        let task = Task::from_line(whole.as_bytes()).unwrap();
        assert_eq!((task.task_id.len(), task.title.as_str(), task.status), (36, "t", Status::Done));
        let why = |line: String| {
            Task::from_line(line.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(why(line("", "")), ["/status: is missing", "/updated_at: is missing"]);
        assert!(why("{".into())[0].contains("EOF"));
        assert!(
            why(format!("{}}}", whole.trim_end_matches('}').to_owned() + ",\"scope\":\"user:8\""))[0]
                .contains("duplicate")
        );
    }

    #[test]
    fn the_time_of_writing_is_compared_only_when_it_was_given() {
        let (given, left_out) = Task::from_value(document(), Timestamp::from_millis(5)).unwrap();
        let stored = task(document());
        assert!(given.same_content(&stored, left_out));
        assert!(!given.same_content(&stored, LeftOut::default()));
        let edited = Task { title: "Pay now.".into(), ..given };
        assert!(!edited.same_content(&stored, left_out));
    }
}
