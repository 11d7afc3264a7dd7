//! A thread that makes large groups durable while the engine goes on; one group at a time.
//!
//! Writing the audit record of an acknowledgement costs as much as all that leads to it. Where there is little to do
//! there is no such thread.
//!
//! # Invariants
//! - A group comes back when it is on disk, or could not be written; none is given before the last one was taken back.
//! - Who drops the scribe waits until it has written: nothing reaches the audit after its instance has ended.
//!
//! Not here: what is in a group (`group`), which one is given (`store`).

use std::{
    panic,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread::{Builder, JoinHandle},
};

use super::group::Group;
use crate::{Error, Kind, Result, journal::JournalName, logs::Logs};

/// A group that came back, and the logical end of the audit after it.
pub(super) type Written = (Group, Result<u64>);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Scribe {
    /// None when it is to end.
    to: Option<SyncSender<Group>>,
    back: Receiver<Written>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Scribe {
    /// Begins the thread; none when the system has no more for us, which only costs time.
    pub fn start(logs: &Logs) -> Option<Scribe> {
        let logs = logs.clone();
        let (to, groups) = sync_channel::<Group>(1);
        let (written, back) = sync_channel(1);
        let work = move || {
            for group in groups {
                let end = group.append(&logs);
                if written.send((group, end)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("scribe".to_owned()).spawn(work).ok()?;
        Some(Scribe { to: Some(to), back, thread: Some(thread), is_busy: false })
    }

    /// Gives it a group. The last one was taken back.
    pub fn give(&mut self, group: Group) {
        debug_assert!(!self.is_busy, "one at a time");
        self.is_busy = true;
        if let Some(to) = &self.to {
            // Should it have failed, that is told when it is asked.
            let _ = to.send(group);
        }
    }

    /// What has come back, if anything has.
    pub fn poll(&mut self) -> Option<Written> {
        if !self.is_busy {
            return None;
        }
        match self.back.try_recv() {
            Ok(it) => {
                self.is_busy = false;
                Some(it)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.failed()),
        }
    }

    /// What comes back of the group that was given, if one was.
    pub fn wait(&mut self) -> Option<Written> {
        if !self.is_busy {
            return None;
        }
        self.is_busy = false;
        Some(self.back.recv().unwrap_or_else(|_| self.failed()))
    }

    /// The thread ended although it was not told to: that is a bug of ours, and whatever it had is not on disk.
    fn failed(&mut self) -> Written {
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        joined.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        let file = JournalName::audit().file();
        let error =
            Error::new(Kind::Io, file, "what happened was not written, since the thread for it has ended");
        (Group::default(), Err(error.cure("run it again: what was sent goes again under the same key")))
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            // What it could not write was not acknowledged to anybody.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        audit::Outcome,
        delivery::event::{Detail, Event},
    };

    fn group() -> Group {
        let detail = Box::new(Detail::default());
        let mut group = Group::default();
        group.push(Event::Item { outcome: Outcome::Acknowledged, key: None, scope: None, detail }, None);
        group
    }

    #[test]
    fn a_group_comes_back_when_it_is_written_or_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "milestone-deliver").unwrap();
        let mut scribe = Scribe::start(&logs).unwrap();
        assert!(scribe.wait().is_none() && scribe.poll().is_none(), "nothing was given");
        let audit = dir.path().join("audit.jsonl");
        scribe.give(group());
        let (written, end) = scribe.wait().unwrap();
        assert_eq!((written.len(), end.unwrap()), (1, fs::metadata(&audit).unwrap().len()));
        fs::remove_file(&audit).unwrap();
        fs::create_dir(&audit).unwrap();
        scribe.give(group());
        assert!(scribe.wait().unwrap().1.is_err());
    }

    #[test]
    fn who_drops_it_finds_everything_written() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "milestone-deliver").unwrap();
        let mut scribe = Scribe::start(&logs).unwrap();
        scribe.give(group());
        drop(scribe);
        let audit = fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        assert_eq!(audit.lines().count(), 1);
    }
}
