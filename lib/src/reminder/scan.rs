//! Reminding: once for each open, overdue task and time bucket, however often and by however many it is tried.
//!
//! # Invariants
//! - The append under the lock of `reminders.jsonl`, after the key was looked up there (J8), is the claim. Nothing
//!   else decides who reminds: no clock, no state, no other lock.
//! - A pass reads what is new in `tasks.jsonl` and what is due, in batches of bounded size.
//! - A line of `tasks.jsonl` that is no task is kept in quarantine, audited and passed over; it is told of once.
//!   What remembers that is disposable: without it the line is told of again.
//! - Looking writes nothing but caches.
//!
//! Not here: names and forms (`reminder`), how tasks stand (`task::table`).

use serde_json::json;

use super::{REMINDERS, When, envelope_of, key_in, key_of, keys_of, reminders};
use crate::{
    Error, Kind, Result, Timestamp,
    audit::{self, Action, Draft, Outcome},
    index::Index,
    journal::{
        BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Item, Journal, Lines, Reader, Writer, keep_in_quarantine,
    },
    logs::Logs,
    task::{self, DuePoint, Status, Task, TaskTable},
};

/// What one pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Reminders that were written.
    pub reminded: u64,
    /// Tasks that had been reminded of in this bucket before.
    pub known: u64,
    /// Lines of the tasks that are no task.
    pub rejected: u64,
    /// When the next task falls due that is not due yet.
    pub next_due: Option<Timestamp>,
}

/// A task that [`Scanner::list`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The task.
    pub task: Task,
    /// Whether it is due by now, lead included.
    pub is_due: bool,
    /// Whether it was reminded of in the present bucket.
    pub is_reminded: bool,
}

/// Reminds of the tasks of one logs folder.
#[derive(Debug)]
pub struct Scanner {
    tasks: Journal,
    task_lines: Lines,
    table: TaskTable,
    reminders: Journal,
    reminder_lines: Lines,
    index: Option<Index>,
}

/// Open tasks in the order of their due dates, as many as one batch takes.
struct DueBatch {
    tasks: Vec<(DuePoint, Task)>,
    is_last: bool,
}

impl Scanner {
    /// A scanner of the tasks of a logs folder.
    pub fn new(logs: &Logs) -> Result<Scanner> {
        let (tasks, reminders) = (task::tasks(logs), reminders(logs));
        Ok(Scanner {
            task_lines: tasks.lines(),
            table: TaskTable::new(&tasks)?,
            tasks,
            reminder_lines: reminders.lines(),
            reminders,
            index: None,
        })
    }

    /// Reminds of every open task that is due and was not reminded of in this bucket. `tell` is told of each
    /// damaged line: its place and fault.
    pub fn scan(&mut self, when: &When, tell: &mut dyn FnMut(&Error)) -> Result<Scanned> {
        let mut scanned = Scanned { rejected: self.tell_of_damage(tell, true)?, ..Scanned::default() };
        let mut after = None;
        loop {
            let batch = self.batch(when.until(), after, None, BATCH_RECORDS_MAX)?;
            self.remind(&batch.tasks, when, &mut scanned)?;
            match batch.tasks.last() {
                Some((point, _)) if !batch.is_last => after = Some(*point),
                _ => break,
            }
        }
        if self.index.as_ref().is_some_and(Index::is_long) {
            self.hand_over_index()?;
        }
        let not_due = DuePoint { due_at: when.until(), offset: u64::MAX };
        let next = self.batch(Timestamp::MAX, Some(not_due), None, 1)?;
        scanned.next_due = next.tasks.first().map(|(point, _)| point.due_at);
        Ok(scanned)
    }

    /// Shows what is due, of one scope or of all, and then what is due next, at most `upcoming` of it.
    /// Damaged lines are told of; nothing is written.
    pub fn list(
        &mut self,
        when: &When,
        scope: Option<&str>,
        upcoming: usize,
        tell: &mut dyn FnMut(&Error),
        show: &mut dyn FnMut(Listed),
    ) -> Result<()> {
        self.tell_of_damage(tell, false)?;
        let mut after = None;
        loop {
            let batch = self.batch(when.until(), after, scope, BATCH_RECORDS_MAX)?;
            let reminded = self.reminded(&batch.tasks, when)?;
            let last = batch.tasks.last().map(|(point, _)| *point);
            for ((_, task), is_reminded) in batch.tasks.into_iter().zip(reminded) {
                show(Listed { task, is_due: true, is_reminded });
            }
            match last {
                Some(point) if !batch.is_last => after = Some(point),
                _ => break,
            }
        }
        let not_due = DuePoint { due_at: when.until(), offset: u64::MAX };
        for (_, task) in self.batch(Timestamp::MAX, Some(not_due), scope, upcoming)?.tasks {
            show(Listed { task, is_due: false, is_reminded: false });
        }
        Ok(())
    }

    /// Another bound on what the table of tasks keeps in memory; for tests.
    #[doc(hidden)]
    pub fn keep_at_most(&mut self, tasks: usize) {
        self.table.keep_at_most(tasks);
    }

    /// Locks the tasks, with the table caught up; others are let through while that takes long.
    fn caught_up(&mut self) -> Result<Writer> {
        loop {
            let writer = self.tasks.write()?;
            if self.table.refresh(&writer)? {
                return Ok(writer);
            }
        }
    }

    /// The next open tasks that are due by `until`, behind `after`.
    fn batch(
        &mut self,
        until: Timestamp,
        after: Option<DuePoint>,
        scope: Option<&str>,
        limit: usize,
    ) -> Result<DueBatch> {
        let writer = self.caught_up()?;
        let points = self.table.due(until, after, scope, limit)?;
        if let Some(tasks) = self.read(&points, scope)? {
            let is_last = points.len() < limit && tasks.len() == points.len();
            return Ok(DueBatch { tasks, is_last });
        }
        // What the table says is not in the journal.
        self.table.distrust(&writer)?;
        let points = self.table.due(until, after, scope, limit)?;
        let tasks = self.read(&points, scope)?.unwrap_or_default();
        let is_last = points.len() < limit && tasks.len() == points.len();
        Ok(DueBatch { tasks, is_last })
    }

    /// The tasks at these points, as many as fit into a batch; `None` when one is not there.
    fn read(&mut self, points: &[DuePoint], scope: Option<&str>) -> Result<Option<Vec<(DuePoint, Task)>>> {
        let mut tasks = Vec::new();
        let mut bytes = 0;
        for point in points {
            if bytes > BATCH_BYTES_MAX / 4 {
                break;
            }
            let line = self.task_lines.get(point.offset)?.unwrap_or_default();
            bytes += line.len();
            match Task::from_line(&line) {
                Ok(it)
                    if it.status == Status::Open
                        && it.due_at == point.due_at
                        && scope.is_none_or(|scope| it.scope == scope) =>
                {
                    tasks.push((*point, it));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(tasks))
    }

    /// Writes the reminders of these tasks that are not there yet.
    fn remind(&mut self, due: &[(DuePoint, Task)], when: &When, scanned: &mut Scanned) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        let mut writer = self.reminders.write()?;
        self.open_index()?;
        let mut batch = Batch::default();
        let mut appended = Vec::new();
        let base = writer.end();
        for (point, task) in due {
            let key = key_of(task, when.bucket());
            if self.is_known(&key)? {
                scanned.known += 1;
                continue;
            }
            let envelope =
                envelope_of(task, when).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
            let mut line = Vec::with_capacity(1024);
            envelope.write_line(&mut line).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
            let offset = base + batch.bytes();
            batch.push(&line);
            let detail = json!({ "journal": REMINDERS, "offset": offset, "taskOffset": point.offset });
            batch.audit(Draft::of(Action::Remind, Outcome::Reminded, key.clone(), &task.scope, detail));
            appended.push((key, offset, base + batch.bytes()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        writer.append(&batch)?;
        scanned.reminded += appended.len() as u64;
        if let Some(index) = &mut self.index {
            for (key, offset, end) in appended {
                index.add_key(&key, offset, end);
            }
            index.settle()?;
        }
        Ok(())
    }

    /// Which of these tasks have a reminder in the present bucket.
    fn reminded(&mut self, due: &[(DuePoint, Task)], when: &When) -> Result<Vec<bool>> {
        if due.is_empty() || self.reminders.end()? == 0 {
            return Ok(vec![false; due.len()]);
        }
        let _writer = self.reminders.write()?;
        self.open_index()?;
        due.iter().map(|(_, task)| self.is_known(&key_of(task, when.bucket()))).collect()
    }

    /// Makes the index current; the caller holds the lock of the reminders.
    fn open_index(&mut self) -> Result<()> {
        match &mut self.index {
            Some(index) => index.refresh()?,
            None => self.index = Some(Index::open(&self.reminders, keys_of)?),
        }
        Ok(())
    }

    fn is_known(&mut self, key: &str) -> Result<bool> {
        let Some(index) = &mut self.index else { return Ok(false) };
        for offset in index.find(key)? {
            // A hit is a candidate: another key may have the same hash.
            let is_it = match self.reminder_lines.get(offset)? {
                Some(line) => key_in(&line).as_deref() == Some(key),
                None => self.reminder_lines.kept(offset, key)?.is_some(),
            };
            if is_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hand_over_index(&mut self) -> Result<()> {
        let Some(mut index) = self.index.take() else { return Ok(()) };
        let _lock = self.reminders.write()?;
        index.refresh()?;
        index.finish()
    }

    /// Tells of the damaged lines that nobody was told of, and if `record`, keeps and audits them; their number.
    fn tell_of_damage(&mut self, tell: &mut dyn FnMut(&Error), record: bool) -> Result<u64> {
        let _writer = self.caught_up()?;
        let Some(from) = self.table.untold() else { return Ok(0) };
        let mut reader = Reader::open_at(self.tasks.logs(), self.tasks.name(), from)?;
        let mut rejected = 0;
        while let Some(item) = reader.next_item()? {
            let (offset, end, why) = match item {
                Item::Overlong { offset, end } => (offset, end, "it is longer than any record".to_owned()),
                Item::Line { offset, end, text } => match Task::from_line(text) {
                    Ok(_) => continue,
                    Err(errors) => {
                        let why = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                        (offset, end, why)
                    }
                },
            };
            rejected += 1;
            let place = format!("{} at offset {offset}", self.tasks.name().file());
            let error = Error::new(Kind::BadData, place, format!("is no valid task: {why}"));
            if !record {
                tell(&error.cure("it is passed over"));
                continue;
            }
            let bytes = self.tasks.bytes(offset, end)?;
            let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let file = keep_in_quarantine(self.tasks.logs(), self.tasks.name(), offset, bytes)?;
            tell(&error.cure(format!("it is passed over; a copy is in {file}")));
            let detail = json!({
                "source": self.tasks.name().as_str(),
                "sourceOffset": offset,
                "quarantine": file,
                "reason": why,
            });
            let draft = Draft::new(Action::Remind, Outcome::Quarantined, detail);
            audit::append(self.tasks.logs(), &[draft]).map_err(|it| it.error)?;
        }
        if record {
            self.table.told()?;
        }
        Ok(rejected)
    }
}
