//! The command line of task-emit, and the task that its flags describe.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{Error, Kind, Result, units::Size};
use serde_json::{Map, Value};

/// Append tasks to the journal: one by flags, or one JSON document a line from files or stdin.
///
/// A task is named by its scope and its id together; its last line says how it stands. So the same command with
/// another title, due date or status changes the task, and the very same again does nothing.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --task pay-invoice-17 --scope chat:42 --title \"Pay invoice 17\" --due 2026-03-01T12:00:00Z\n{command_name} --task pay-invoice-17 --scope chat:42 --title \"Pay invoice 17\" --due 2026-03-01T12:00:00Z --status done\njq -c '.tasks[]' tasks.json | {command_name} -",
    error_code(65, "some input is no valid task, or the journal was truncated, replaced or rewritten")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// id of the task within its scope, 1 to 200 characters without a colon; a UUID in any spelling
    #[argh(option, arg_name = "ID")]
    pub task: Option<String>,

    /// whom it belongs to: chat:… or user:…
    #[argh(option, arg_name = "SCOPE")]
    pub scope: Option<String>,

    /// what is to be done
    #[argh(option, arg_name = "TEXT")]
    pub title: Option<String>,

    /// from when on it is overdue, RFC 3339
    #[argh(option, arg_name = "TIME")]
    pub due: Option<String>,

    /// how it stands (default: open)
    #[argh(option, arg_name = "open|done|cancelled")]
    pub status: Option<String>,

    /// judge the input and write nothing
    #[argh(switch)]
    pub dry_run: bool,

    /// size at which a journal begins a new file (default: `$MILESTONE_ROTATE_BYTES`, else 64MiB)
    #[argh(option, arg_name = "SIZE")]
    pub rotate_bytes: Option<Size>,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    pub quiet: bool,

    /// input with one JSON document a line, or - for stdin
    #[argh(positional, arg_name = "FILE")]
    pub files: Vec<String>,
}

/// The fields of a task, each with the flag that gives it.
pub const FIELDS: [(&str, &str); 5] = [
    ("task_id", "--task"),
    ("scope", "--scope"),
    ("title", "--title"),
    ("due_at", "--due"),
    ("status", "--status"),
];

impl Args {
    /// The document that the flags describe; `None` when no flag describes any.
    ///
    /// # Errors
    /// A usage error for flags together with files.
    pub fn task(&self) -> Result<Option<Value>> {
        let texts = [
            ("task_id", &self.task),
            ("scope", &self.scope),
            ("title", &self.title),
            ("due_at", &self.due),
            ("status", &self.status),
        ];
        if texts.iter().all(|(_, text)| text.is_none()) {
            return Ok(None);
        }
        if !self.files.is_empty() {
            let what = "a task by flags and input files do not go together";
            return Err(Error::new(Kind::Usage, "", what).cure("give either"));
        }
        let mut document = Map::new();
        for (name, text) in texts {
            if let Some(text) = text {
                document.insert(name.to_owned(), Value::from(text.as_str()));
            }
        }
        Ok(Some(Value::Object(document)))
    }
}
