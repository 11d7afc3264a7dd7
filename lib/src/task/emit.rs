//! Tasks into their journal: a line for every change, and none for what is known already.
//!
//! # Invariants
//! - What [`TaskEmitter::commit`] calls appended is on disk and audited; a duplicate is how the task stands already.
//! - The lock is held for one batch at a time, never while input is waited for.
//!
//! Not here: reading and judging the input (`task-emit`, [`Task::from_value`]).

use std::collections::HashMap;

use serde_json::json;

use super::{LeftOut, TASKS, Task, TaskTable, tasks};
use crate::{
    Error, Kind, Result,
    audit::{Action, Draft, Outcome},
    identity,
    journal::{Batch, Journal, Lines, Writer},
    logs::Logs,
    schema::FieldError,
};

/// One piece of input, judged.
#[derive(Debug)]
pub enum Offer {
    /// A valid task.
    Task {
        /// Where it stood in the input, such as `stdin:3`.
        place: String,
        /// The task, normalised.
        task: Task,
        /// Which of its fields the input left out.
        left_out: LeftOut,
    },
    /// Input that was refused.
    Refused {
        /// Where it stood in the input.
        place: String,
        /// Why.
        errors: Vec<FieldError>,
    },
}

/// What became of an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEmitted {
    /// It is in the journal at this logical offset.
    Appended(u64),
    /// The task stands so already, since the line at this logical offset.
    Duplicate(u64),
    /// Its input was refused.
    Refused,
}

/// Takes offers into the journal, batch by batch.
#[derive(Debug)]
pub struct TaskEmitter {
    journal: Journal,
    lines: Lines,
    table: TaskTable,
}

impl TaskEmitter {
    /// An emitter into the tasks of a logs folder.
    pub fn new(logs: &Logs) -> Result<TaskEmitter> {
        let journal = tasks(logs);
        Ok(TaskEmitter { lines: journal.lines(), table: TaskTable::new(&journal)?, journal })
    }

    /// Takes a batch of at most [`crate::journal::BATCH_RECORDS_MAX`] offers; what it answers is in their order.
    pub fn commit(&mut self, offers: &[Offer]) -> Result<Vec<TaskEmitted>> {
        let mut writer = self.caught_up()?;
        let mut batch = Batch::default();
        let mut emitted = Vec::with_capacity(offers.len());
        // How tasks stand by this batch, with the offset of the line and the one behind it.
        let mut here: HashMap<(&str, &str), (&Task, u64)> = HashMap::new();
        let mut appended: Vec<(&Task, u64, u64)> = Vec::new();
        let base = writer.end();
        for offer in offers {
            let (task, left_out) = match offer {
                Offer::Refused { place, errors } => {
                    batch.audit(Draft::refused(Action::Task, place, errors));
                    emitted.push(TaskEmitted::Refused);
                    continue;
                }
                Offer::Task { task, left_out, .. } => (task, *left_out),
            };
            let name = (task.scope.as_str(), task.task_id.as_str());
            let stored = match here.get(&name) {
                Some((stored, offset)) => Some(((*stored).clone(), *offset)),
                None => self.stored(&writer, name)?,
            };
            let key = identity::task_key(name.0, name.1);
            let draft = |outcome, detail| Draft::of(Action::Task, outcome, key, &task.scope, detail);
            if let Some((stored, offset)) = stored
                && task.same_content(&stored, left_out)
            {
                batch.audit(draft(Outcome::Duplicate, json!({ "of": offset })));
                emitted.push(TaskEmitted::Duplicate(offset));
                continue;
            }
            let offset = base + batch.bytes();
            let line = task.to_line().map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
            batch.push(&line);
            batch.audit(draft(Outcome::Appended, json!({ "journal": TASKS, "offset": offset })));
            here.insert(name, (task, offset));
            appended.push((task, offset, base + batch.bytes()));
            emitted.push(TaskEmitted::Appended(offset));
        }
        writer.append(&batch)?;
        for (task, offset, end) in appended {
            self.table.add(task, offset, end);
        }
        Ok(emitted)
    }

    /// Ends the work; the next call of anybody finds its look-ups quickly.
    pub fn finish(mut self) -> Result<()> {
        let _writer = self.caught_up()?;
        self.table.finish()
    }

    /// Locks the journal, with the table caught up; others are let through while that takes long.
    fn caught_up(&mut self) -> Result<Writer> {
        loop {
            let writer = self.journal.write()?;
            if self.table.refresh(&writer)? {
                return Ok(writer);
            }
        }
    }

    /// How a task stands in the journal, and the offset of that line.
    fn stored(&mut self, writer: &Writer, name: (&str, &str)) -> Result<Option<(Task, u64)>> {
        let Some(offset) = self.table.latest(name.0, name.1)? else { return Ok(None) };
        let read = |lines: &mut Lines, offset| -> Result<Option<Task>> {
            let line = lines.get(offset)?;
            let task = line.and_then(|it| Task::from_line(&it).ok());
            Ok(task.filter(|it| (it.scope.as_str(), it.task_id.as_str()) == name))
        };
        if let Some(task) = read(&mut self.lines, offset)? {
            return Ok(Some((task, offset)));
        }
        self.table.distrust(writer)?;
        match self.table.latest(name.0, name.1)? {
            Some(offset) => Ok(read(&mut self.lines, offset)?.map(|it| (it, offset))),
            None => Ok(None),
        }
    }
}
