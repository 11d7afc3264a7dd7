//! Delivery: bringing the records of a queue to an endpoint, each exactly once acknowledged or given up.
//!
//! ```text
//! queue ──► engine ── what is next? ──► World ──► verdict ──► state, breaker, backoff
//!              │                       couriers                      │
//!              └───────── store: dead letters, audit, state ◄────────┘
//! ```
//!
//! `verdict`, `backoff` and `breaker` are pure; `state` is what a delivery remembers and how each audited
//! event changes it; `store` makes it durable, in groups (`group`), with a thread for large ones (`scribe`), and reads it back; `engine` is the loop over all of them.
//! What is outside (clock, wire, messages) stands behind [`World`]; `couriers` are the threads that a tool puts
//! behind it, and `wire` is what passes between the two.
//!
//! # Invariants
//! - State changes only by events that are audited, and the same events in the same order give the same
//!   state: that is why the state file may be deleted.
//! - An item is settled when its acknowledgement or dead letter is on disk, never before.
//! - Within a scope an item is sent only when all before it are settled (`--order scope`).
//!
//! Not here: signing and HTTP (the tool), which records are in the queue (`milestone-queue`).

pub mod backoff;
pub mod breaker;
mod control;
pub mod couriers;
mod engine;
mod event;
mod group;
mod item;
mod lanes;
mod scribe;
mod settled;
mod state;
mod store;
pub mod verdict;
mod wire;

use crate::{
    Error, Kind, Result,
    journal::{Journal, JournalName},
    logs::Logs,
    queue, redrive,
};
pub use control::{Command, Control};
pub use engine::{Engine, Order, Pause, Settings, Summary, World, outlook};
pub use event::{Detail, Event};
pub use item::{Item, Route};
pub use lanes::{LANES_MAX, Lane, LaneName, Lanes, Retry};
pub use settled::{Settled, acknowledged_between};
pub use state::{ClockDifference, LastAck, State};
pub use store::resync;
pub use wire::{Fate, Judged, Outgoing, Returned, Sent};

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is lost to the flow unless somebody looks.
    Error,
    /// Something is wrong.
    Warning,
    /// Good to know.
    Note,
}

/// One reader of a queue: the queue and the endpoint it is brought to. Every file name follows from it.
#[derive(Clone, Debug)]
pub struct Consumer {
    logs: Logs,
    queue: JournalName,
    stem: String,
    endpoint: String,
}

impl Consumer {
    /// The consumer of `queue` for `endpoint`, empty for the one without a name.
    ///
    /// # Errors
    /// [`Kind::Usage`] when either name cannot be part of a file name.
    pub fn new(logs: &Logs, queue: JournalName, endpoint: &str) -> Result<Consumer> {
        let Some(stem) = queue.stem().map(str::to_owned) else {
            return Err(Error::new(
                Kind::Usage,
                queue.file(),
                "is no queue: its name must end in -queue.jsonl",
            ));
        };
        let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
        if endpoint.len() > 64 || !endpoint.bytes().all(plain) {
            let what = "is no name of an endpoint: up to 64 letters, digits, dashes and underscores";
            return Err(Error::new(Kind::Usage, crate::text::quoted(endpoint), what));
        }
        Ok(Consumer { logs: logs.clone(), queue, stem, endpoint: endpoint.to_owned() })
    }

    /// The logs folder.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The endpoint's name; empty for the one without a name.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The queue's name.
    pub fn queue_name(&self) -> &JournalName {
        &self.queue
    }

    /// The queue.
    pub fn queue(&self) -> Journal {
        queue::open(&self.logs, self.queue.clone())
    }

    /// The dead letters.
    pub fn dead_letters(&self) -> Journal {
        redrive::dead_letters(&self.logs, &self.queue, &self.endpoint)
    }

    /// The operator's commands.
    pub fn control(&self) -> Journal {
        Journal::new(&self.logs, JournalName::internal(self.named("control")), control::describe)
    }

    /// The state file, relative to the logs folder.
    pub fn state_file(&self) -> String {
        format!("{}.json", self.named("state"))
    }

    /// The name of the lock that one running instance holds.
    pub fn instance_lock(&self) -> String {
        let dot = if self.endpoint.is_empty() { "" } else { "." };
        format!("{}@deliver{dot}{}", self.queue, self.endpoint)
    }

    fn named(&self, what: &str) -> String {
        let dot = if self.endpoint.is_empty() { "" } else { "." };
        format!("{}-{what}{dot}{}", self.stem, self.endpoint)
    }
}
