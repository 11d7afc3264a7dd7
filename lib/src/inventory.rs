//! Which journals, queues and endpoints a logs folder has, by the names of its files.
//!
//! # Invariants
//! - A file whose name is not ours is a journal if a tool of ours has ever locked it; of ours a power cut may have
//!   taken the lock file.
//!
//! Not here: what is in them.

use std::{collections::BTreeSet, io, path::Path};

use crate::{Error, Result, emit, journal::JournalName, logs::Logs};

/// Which journal a queue is filled from, where nothing else is said.
const SOURCES: [(&str, &str); 2] =
    [("milestone-delivery-queue", emit::SOURCE), ("reminder-delivery-queue", "reminders")];

/// What the names of the journals beside a queue `X-queue` have behind the `X`.
const BESIDE_A_QUEUE: [&str; 2] = ["-deadletter", "-control"];

/// The source of a queue, by its name.
pub fn source_of(queue: &JournalName) -> Option<JournalName> {
    let known = SOURCES.iter().find(|(it, _)| *it == queue.as_str());
    known.map(|(_, source)| JournalName::internal(*source))
}

/// The queue that is usually filled from this source.
pub fn queue_of(source: &JournalName) -> Option<JournalName> {
    let known = SOURCES.iter().find(|(_, it)| *it == source.as_str());
    known.map(|(queue, _)| JournalName::internal(*queue))
}

/// Every journal of ours but the audit.
///
/// # Errors
/// When a folder cannot be listed.
pub fn journals(logs: &Logs) -> Result<BTreeSet<JournalName>> {
    let mut names = BTreeSet::new();
    for folder in ["", "receive/"] {
        let locks = files_of(&logs.dir().join(".lock").join(folder))?;
        // Locks of instances have an @ in their names, and are no journals.
        let locked = locks.iter().filter_map(|it| it.strip_suffix(".lock")).filter(|it| !it.contains('@'));
        names.extend(locked.map(|it| JournalName::internal(format!("{folder}{it}"))));
        for file in files_of(&logs.dir().join(folder))? {
            let Some(own) = file.strip_suffix(".jsonl") else { continue };
            let sealed = own.rsplit_once('.').map(|(name, _)| JournalName::internal(name));
            let name = match sealed.filter(|it| it.base_of(&file).is_some()) {
                Some(it) => it,
                None => JournalName::internal(own),
            };
            let own = name.as_str();
            let is_ours = !folder.is_empty()
                || name.stem().is_some()
                || BESIDE_A_QUEUE.iter().any(|it| own.contains(it))
                || own == "tasks"
                || SOURCES.iter().any(|(_, it)| *it == own);
            if is_ours {
                names.insert(JournalName::internal(format!("{folder}{name}")));
            }
        }
    }
    names.remove(&JournalName::audit());
    Ok(names)
}

/// The endpoints that `X-WHAT.NAME.SUFFIX` files of a queue name.
pub fn endpoints(logs: &Logs, queue: &JournalName, what: &str, suffix: &str) -> Result<BTreeSet<String>> {
    let prefix = format!("{}-{what}", queue.stem().unwrap_or_default());
    let endpoint = |file: &String| {
        let name = file.strip_prefix(&prefix)?.strip_suffix(suffix)?;
        if name.is_empty() {
            return Some(String::new());
        }
        // With one more dot, or with digits alone, it is a sealed segment.
        let name = name.strip_prefix('.').filter(|it| !it.contains('.'))?;
        (!name.bytes().all(|it| it.is_ascii_digit())).then(|| name.to_owned())
    };
    Ok(files_of(logs.dir())?.iter().filter_map(endpoint).collect())
}

/// The endpoints that a queue was ever brought to: a lock file is never removed.
pub fn deliverers(logs: &Logs, queue: &JournalName) -> Result<BTreeSet<String>> {
    let prefix = format!("{queue}@deliver");
    let endpoint = |file: &String| {
        let name = file.strip_prefix(&prefix)?.strip_suffix(".lock")?;
        if name.is_empty() { Some(String::new()) } else { name.strip_prefix('.').map(str::to_owned) }
    };
    Ok(files_of(&logs.dir().join(".lock"))?.iter().filter_map(endpoint).collect())
}

/// The names in a folder; none when it is absent.
fn files_of(dir: &Path) -> Result<Vec<String>> {
    let failed = |it| Error::io("cannot list the folder", dir, it);
    let entries = match crate::logs::entries(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        files.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(files)
}
