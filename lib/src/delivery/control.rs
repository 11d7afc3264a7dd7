//! The operator's commands to a running deliverer, through `X-control.jsonl`.
//!
//! A command is a line of a journal: whoever runs the verb appends it, and the instance that holds the
//! consumer follows it, now or when it next runs.
//!
//! # Invariants
//! - A command is followed once: the state holds the offset up to which they were followed.
//! - Appending needs no instance lock, so it works beside a running instance.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Consumer,
    event::{ControlDetail, Event},
};
use crate::{
    Error, Kind, Result, Timestamp,
    journal::{Batch, Described},
};

/// What an operator can say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Send nothing until it is released.
    Hold {
        /// Why.
        reason: String,
    },
    /// Send again, and forget what the breaker knows.
    Release,
    /// Make every retry and probe due at once.
    RetryNow,
}

/// A line of the control journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// When it was given.
    pub at: Timestamp,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

impl Control {
    /// Appends the command to the consumer's control journal, audited.
    pub fn append(self, consumer: &Consumer) -> Result<()> {
        let journal = consumer.control();
        let mut writer = journal.write()?;
        let mut line = serde_json::to_vec(&self)
            .map_err(|it| Error::new(Kind::BadData, "--hold", "cannot be written as JSON").because(it))?;
        line.push(b'\n');
        let from = writer.end();
        let event = Event::Control(ControlDetail {
            journal: journal.name().as_str().to_owned(),
            from,
            to: from + line.len() as u64,
            queue: consumer.queue_name().as_str().to_owned(),
            endpoint: consumer.endpoint().to_owned(),
            at: self.at,
            command: self.command,
        });
        let mut batch = Batch::default();
        batch.push(&line);
        batch.audit(event.draft());
        writer.append(&batch)
    }
}

/// How commands are recognised when their journal is settled.
pub(super) fn describe(line: &[u8]) -> Option<Described> {
    serde_json::from_slice::<Control>(line).ok().map(|_| Described { key: "control".to_owned(), scope: None })
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Hold { reason } => write!(f, "hold: {reason}"),
            Command::Release => f.write_str("release"),
            Command::RetryNow => f.write_str("retry now"),
        }
    }
}
