//! How every task stands and which are due next: a cache over `tasks.jsonl`.
//!
//! On disk a B-tree (redb) holds, up to a position in the journal, the last line of every task and the open ones in
//! the order of their due dates. What came after the position is kept in memory and handed over when it has
//! grown, so that most calls only look. Its cost follows what is new and what is asked for, not what there is.
//!
//! # Invariants
//! - Used only under the lock of the journal of tasks; [`TaskTable::refresh`] after every time it was taken.
//! - The position is stored in one transaction with what it covers. A power cut can make it old, not wrong.
//! - Whatever is damaged, missing or belongs to another journal is made anew from the journal.
//! - Memory is bounded by `FRESH_MAX` and the tree's cache, whatever the number of tasks.
//!
//! Not here: the file (`blocks`), whom to remind (`reminder`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use sha2::{Digest, Sha256};

use super::{
    Status, Task,
    blocks::{Access, Blocks},
};
use crate::{
    Error, Kind, Result, Timestamp, durable,
    journal::{Item, Journal, Position, Reader, Writer},
};

/// How many tasks a call reads behind the position rather than write to the tree: 2 ms against 50 ms of syncs.
const FRESH_LAZY: usize = 1024;
/// How many tasks are kept in memory at most (some 30 MB) before they are handed to the tree. Handing over rewrites
/// most of the tree, whatever the number, since names are hashes: with a quarter of this, to import or read again a
/// million tasks takes three times as long.
const FRESH_MAX: usize = 1 << 18;
/// Pages of the tree that are kept in memory.
const CACHE_BYTES: usize = 8 << 20;

/// Relative to the logs folder. The number is the version of what is in it.
const FILE: &str = ".index/tasks.table1";

/// By hash of scope and id: due date in milliseconds, offset of the last line, whether it is open.
const TASKS: TableDefinition<u128, (i64, u64, bool)> = TableDefinition::new("tasks");
/// The open ones: due date in milliseconds and offset of the last line, with a hash of the scope.
const DUE: TableDefinition<(i64, u64), u64> = TableDefinition::new("due");
/// `position`: offset and fingerprint. `untold`: the first damaged line that nobody was told of.
const ABOUT: TableDefinition<&str, (u64, &str)> = TableDefinition::new("about");

/// An open task in the order of due dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuePoint {
    /// When it is due.
    pub due_at: Timestamp,
    /// Logical offset of its last line.
    pub offset: u64,
}

/// The table of the tasks of one logs folder.
#[derive(Debug)]
pub struct TaskTable {
    journal: Journal,
    path: PathBuf,
    /// The tree, opened to be looked at; none while there is none.
    tree: Option<Tree>,
    /// Up to where the tree knows the journal.
    position: Position,
    /// Tasks with lines behind that position, as they stand.
    fresh: BTreeMap<u128, Standing>,
    /// The open ones of these, as in [`DUE`].
    fresh_due: BTreeMap<(i64, u64), u64>,
    /// Tasks in `fresh` of which the tree was not asked yet what it says of them.
    unasked: Vec<u128>,
    /// What of the tree's [`DUE`] is no longer true, by those that it was asked of.
    outdated: BTreeSet<(i64, u64)>,
    /// Up to where tree and memory together know the journal.
    known: u64,
    /// Where the first damaged line begins that nobody was told of.
    untold: Option<u64>,
    fresh_max: usize,
    /// Whether it was begun again by this call: a second time means that the disk fails.
    is_rebuilt: bool,
}

/// The tree as it was when it was opened to be looked at.
struct Tree {
    tasks: ReadOnlyTable<u128, (i64, u64, bool)>,
    due: ReadOnlyTable<(i64, u64), u64>,
    /// What the tables are in.
    _database: Database,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tree")
    }
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    due: i64,
    offset: u64,
    is_open: bool,
    scope: u64,
}

/// Why the tree gave no answer.
enum Trouble {
    /// It cannot be believed.
    Damaged,
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Failed(error)
    }
}

impl TaskTable {
    /// The table over a journal of tasks; nothing is read yet.
    pub fn new(journal: &Journal) -> Result<TaskTable> {
        Ok(TaskTable {
            journal: journal.clone(),
            path: journal.logs().place(FILE)?,
            tree: None,
            position: Position::default(),
            fresh: BTreeMap::new(),
            fresh_due: BTreeMap::new(),
            unasked: Vec::new(),
            outdated: BTreeSet::new(),
            known: 0,
            untold: None,
            fresh_max: FRESH_MAX,
            is_rebuilt: false,
        })
    }

    /// Catches up with the journal, by a bounded number of records. True when it has; on false let others have
    /// the lock, take it again and go on.
    pub fn refresh(&mut self, _locked: &Writer) -> Result<bool> {
        match self.try_refresh() {
            Err(Trouble::Damaged) => {
                self.start_again()?;
                self.try_refresh().map_err(|it| self.unreadable(it))
            }
            other => other.map_err(|it| self.unreadable(it)),
        }
    }

    /// Offset of the last line of a task.
    pub fn latest(&mut self, scope: &str, task_id: &str) -> Result<Option<u64>> {
        let name = name_of(scope, task_id);
        if let Some(it) = self.fresh.get(&name) {
            return Ok(Some(it.offset));
        }
        self.mended(|table| Ok(table.standing(name)?.map(|(_, offset, _)| offset)))
    }

    /// Open tasks that are due by `until`, in order, of all scopes or of one, behind `after`, at most `limit`.
    pub fn due(
        &mut self,
        until: Timestamp,
        after: Option<DuePoint>,
        scope: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DuePoint>> {
        let scope = scope.map(hash_of_scope);
        let start = match after {
            Some(it) => Bound::Excluded((it.due_at.millis(), it.offset)),
            None => Bound::Unbounded,
        };
        let range = (start, Bound::Included((until.millis(), u64::MAX)));
        if after.is_some_and(|it| it.due_at > until) {
            return Ok(Vec::new());
        }
        let wanted = |of: u64| scope.is_none_or(|it| it == of);
        let stored = self.mended(|table| {
            table.ask_what_is_outdated()?;
            let mut stored = Vec::new();
            let Some(tree) = &table.tree else { return Ok(stored) };
            for entry in tree.due.range(range).map_err(trouble)? {
                let (key, of) = entry.map_err(trouble)?;
                if stored.len() == limit {
                    break;
                }
                if wanted(of.value()) && !table.outdated.contains(&key.value()) {
                    stored.push(key.value());
                }
            }
            Ok(stored)
        })?;
        let fresh =
            self.fresh_due.range(range).filter(|(_, of)| wanted(**of)).map(|(key, _)| *key).take(limit);
        let mut all: Vec<(i64, u64)> = stored.into_iter().chain(fresh).collect();
        all.sort_unstable();
        all.truncate(limit);
        Ok(all
            .into_iter()
            .map(|(due, offset)| DuePoint { due_at: Timestamp::from_millis(due), offset })
            .collect())
    }

    /// Where the first damaged line begins that nobody was told of.
    pub fn untold(&self) -> Option<u64> {
        self.untold
    }

    /// Up to where the journal is known.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Remembers that all damaged lines so far were told of.
    pub fn told(&mut self) -> Result<()> {
        self.untold = None;
        self.fold()
    }

    /// Adds what was just appended to the journal, which ends at `end` by now.
    pub fn add(&mut self, task: &Task, offset: u64, end: u64) {
        self.known = end;
        self.take(task, offset);
    }

    /// Hands what is new to the tree if the next call would otherwise read much of it again.
    pub fn finish(&mut self) -> Result<()> {
        if self.fresh.len() > FRESH_LAZY.min(self.fresh_max) { self.fold() } else { Ok(()) }
    }

    /// What the table says is not what the journal holds: makes it anew.
    pub fn distrust(&mut self, locked: &Writer) -> Result<()> {
        self.start_again()?;
        while !self.refresh(locked)? {}
        Ok(())
    }

    /// Another bound on what is kept in memory; for tests.
    #[doc(hidden)]
    pub fn keep_at_most(&mut self, tasks: usize) {
        self.fresh_max = tasks;
    }

    fn try_refresh(&mut self) -> Result<bool, Trouble> {
        let (tree, position, untold) = self.look()?;
        if position != self.position || tree.is_none() != self.tree.is_none() {
            // Somebody else has handed records over, or made the table anew.
            self.forget();
            (self.known, self.untold) = (position.offset, untold);
            self.position = position;
            // Whether this is a position of the journal as it is.
            match self.journal.read_from(&self.position) {
                Err(error) if error.kind() == Kind::BadData => return Err(Trouble::Damaged),
                other => drop(other?),
            }
        }
        self.tree = tree;
        let mut reader = Reader::open_at(self.journal.logs(), self.journal.name(), self.known)?;
        let mut left = FRESH_MAX;
        while left > 0 {
            left -= 1;
            let (offset, end, task) = match reader.next_item()? {
                None => break,
                Some(Item::Line { offset, end, text }) => (offset, end, Task::from_line(text).ok()),
                Some(Item::Overlong { offset, end }) => (offset, end, None),
            };
            self.known = end;
            match task {
                Some(task) => self.take(&task, offset),
                None => self.untold = self.untold.or(Some(offset)),
            }
            if self.fresh.len() > self.fresh_max {
                self.try_fold()?;
            }
        }
        // What this process added itself waits for its end; what had to be read, the next one would read again.
        let (read, lazy) = (FRESH_MAX - left, FRESH_LAZY.min(self.fresh_max));
        if self.fresh.len() > if read > lazy { lazy } else { self.fresh_max } {
            self.try_fold()?;
        }
        Ok(self.known >= reader.end())
    }

    fn take(&mut self, task: &Task, offset: u64) {
        let name = name_of(&task.scope, &task.task_id);
        let now = Standing {
            due: task.due_at.millis(),
            offset,
            is_open: task.status == Status::Open,
            scope: hash_of_scope(&task.scope),
        };
        match self.fresh.insert(name, now) {
            Some(before) => {
                self.fresh_due.remove(&(before.due, before.offset));
            }
            None => self.unasked.push(name),
        }
        if now.is_open {
            self.fresh_due.insert((now.due, now.offset), now.scope);
        }
    }

    /// Only who asks what is due needs this: an import, and a table that is made anew, do without.
    fn ask_what_is_outdated(&mut self) -> Result<(), Trouble> {
        for name in &self.unasked {
            if let Some((due, offset, true)) = self.standing(*name)? {
                self.outdated.insert((due, offset));
            }
        }
        self.unasked.clear();
        Ok(())
    }

    /// How a task stands by the tree alone.
    fn standing(&self, name: u128) -> Result<Option<(i64, u64, bool)>, Trouble> {
        let Some(tree) = &self.tree else { return Ok(None) };
        Ok(tree.tasks.get(name).map_err(trouble)?.map(|it| it.value()))
    }

    fn fold(&mut self) -> Result<()> {
        self.mended(TaskTable::try_fold)
    }

    /// Hands what is in memory to the tree.
    fn try_fold(&mut self) -> Result<(), Trouble> {
        let position = self.journal.position_at(self.known)?;
        // One handle at a time: the one to be looked at would not see the changes.
        self.tree = None;
        let tree = self.open(Access::Change)?;
        let mut transaction = tree.begin_write().map_err(trouble)?;
        // A kill then costs the next one nothing.
        transaction.set_quick_repair(true);
        {
            let mut tasks = transaction.open_table(TASKS).map_err(trouble)?;
            let mut due = transaction.open_table(DUE).map_err(trouble)?;
            let mut about = transaction.open_table(ABOUT).map_err(trouble)?;
            let mut outdated = Vec::new();
            for (name, it) in &self.fresh {
                let before = tasks.insert(name, (it.due, it.offset, it.is_open)).map_err(trouble)?;
                if let Some((due, offset, true)) = before.map(|it| it.value()) {
                    outdated.push((due, offset));
                }
            }
            outdated.sort_unstable();
            for key in outdated {
                due.remove(key).map_err(trouble)?;
            }
            for (key, scope) in &self.fresh_due {
                due.insert(key, scope).map_err(trouble)?;
            }
            about.insert("position", (position.offset, position.fingerprint.as_str())).map_err(trouble)?;
            match self.untold {
                Some(offset) => about.insert("untold", (offset, "")).map_err(trouble).map(drop)?,
                None => about.remove("untold").map_err(trouble).map(drop)?,
            }
        }
        transaction.commit().map_err(trouble)?;
        drop(tree);
        self.forget();
        let (tree, stored, _) = self.look()?;
        if stored != position {
            return Err(Trouble::Damaged);
        }
        (self.tree, self.position) = (tree, position);
        Ok(())
    }

    /// The tree as it is on disk, and up to where it knows the journal.
    fn look(&self) -> Result<(Option<Tree>, Position, Option<u64>), Trouble> {
        match std::fs::metadata(&self.path) {
            Ok(it) if it.len() > 0 => {}
            Ok(_) => return Ok((None, Position::default(), None)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok((None, Position::default(), None));
            }
            Err(cause) => return Err(Error::io("cannot look at the index", &self.path, cause).into()),
        }
        let database = self.open(Access::Look)?;
        let look = database.begin_read().map_err(trouble)?;
        let about = look.open_table(ABOUT).map_err(trouble)?;
        let position = about.get("position").map_err(trouble)?.ok_or(Trouble::Damaged)?;
        let (offset, fingerprint) = position.value();
        let position = Position { offset, fingerprint: fingerprint.to_owned() };
        let untold = about.get("untold").map_err(trouble)?.map(|it| it.value().0);
        let (tasks, due) = (look.open_table(TASKS).map_err(trouble)?, look.open_table(DUE).map_err(trouble)?);
        Ok((Some(Tree { tasks, due, _database: database }), position, untold))
    }

    fn open(&self, access: Access) -> Result<Database, Trouble> {
        let logs = self.journal.logs();
        let (file, _) = durable::open_or_create(logs.disk(), &self.path)
            .map_err(|it| Error::io("cannot open the index", &self.path, it))?;
        let blocks = Blocks::new(file, logs, access).map_err(|it| trouble(redb::Error::Io(it)))?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        builder.create_with_backend(blocks).map_err(trouble)
    }

    /// Empties the memory; what the tree has is not touched.
    fn forget(&mut self) {
        self.fresh.clear();
        self.fresh_due.clear();
        self.unasked.clear();
        self.outdated.clear();
    }

    fn start_again(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_rebuilt, true) {
            let what = "the index does not hold what is written to it";
            return Err(Error::new(Kind::Io, self.path.display(), what).cure("check the disk"));
        }
        self.tree = None;
        self.forget();
        (self.position, self.known, self.untold) = (Position::default(), 0, None);
        match self.journal.logs().disk().remove(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("cannot remove the damaged index", &self.path, cause))
            }
            _ => Ok(()),
        }
    }

    /// Asks again of a table made anew if the one that there is cannot be believed.
    fn mended<T>(&mut self, ask: impl Fn(&mut TaskTable) -> Result<T, Trouble>) -> Result<T> {
        match ask(self) {
            Ok(answer) => Ok(answer),
            Err(Trouble::Failed(error)) => Err(error),
            Err(Trouble::Damaged) => {
                self.start_again()?;
                while !self.try_refresh().map_err(|it| self.unreadable(it))? {}
                ask(self).map_err(|it| self.unreadable(it))
            }
        }
    }

    fn unreadable(&self, trouble: Trouble) -> Error {
        unreadable(&self.path, trouble)
    }
}

fn unreadable(path: &Path, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Failed(error) => error.within(path.display()),
        Trouble::Damaged => Error::new(Kind::Io, path.display(), "the index is damaged again and again")
            .cure("check the disk"),
    }
}

/// What an error of the tree means.
fn trouble(error: impl Into<redb::Error>) -> Trouble {
    match error.into() {
        redb::Error::Io(cause)
            if !matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            let kind = Kind::of_io(&cause);
            Trouble::Failed(Error::new(kind, "", "cannot read or write the index").because(cause))
        }
        _ => Trouble::Damaged,
    }
}

/// What a task is found by. With 128 bits no two tasks meet; a line that is found is read all the same.
fn name_of(scope: &str, task_id: &str) -> u128 {
    // Neither holds a control character.
    let digest = Sha256::new().chain_update(scope).chain_update("\0").chain_update(task_id).finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}

fn hash_of_scope(scope: &str) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(scope)[..8]);
    u64::from_be_bytes(first)
}
