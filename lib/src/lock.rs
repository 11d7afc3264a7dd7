//! Locks between processes: flock(2) on files that are never renamed or removed.
//!
//! # Invariants
//! - The kernel releases a lock when its holder dies; no lock file says by its existence that it is held.
//! - Waiting is bounded. Whoever has asked in vain for some milliseconds waits in the kernel's own queue: polling does
//!   not go on, and nobody starves.
//!
//! Only user of fs2. Not here: the order in which locks are taken (`journal`).

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{Error, Kind, Result, durable, logs::Logs};

/// The first and the longest pause before a held lock is asked for again: most are held for one batch of one record,
/// which two syncs take. To wait in the kernel's queue takes a thread, a third of what a run with one event costs.
const PAUSES: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));
/// How long a held lock is asked for again: some ten of such batches. A longer one is worth a thread.
const ASK_FOR: Duration = Duration::from_millis(20);

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock `.lock/{name}.lock`, waiting at most as long as the logs folder says.
    ///
    /// # Errors
    /// [`Kind::Temporary`] when it is still held then.
    pub fn acquire(logs: &Logs, name: &str) -> Result<Lock> {
        let (file, path) = open(logs, name)?;
        let wait = logs.lock_wait();
        let lock = match try_lock(&file) {
            Ok(true) => Ok(Some(file)),
            Ok(false) => lock_within(file, wait),
            Err(cause) => Err(cause),
        };
        match lock {
            Ok(Some(file)) => Ok(Lock { file, path }),
            Ok(None) => {
                let what = format!("still locked by another process after {} s", wait.as_secs());
                Err(Error::new(Kind::Temporary, path.display(), what).cure("nothing was done; try again"))
            }
            Err(cause) => Err(Error::io("cannot lock", &path, cause)),
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_acquire(logs: &Logs, name: &str) -> Result<Option<Lock>> {
        let (file, path) = open(logs, name)?;
        match try_lock(&file) {
            Ok(true) => Ok(Some(Lock { file, path })),
            Ok(false) => Ok(None),
            Err(cause) => Err(Error::io("cannot lock", &path, cause)),
        }
    }

    /// The lock file, in which a journal keeps its mark.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(logs: &Logs, name: &str) -> Result<(File, PathBuf)> {
    let path = logs.place(&format!(".lock/{name}.lock"))?;
    // The name is not synced: a lock file lost in a power cut is a missing mark, which settling cures.
    match durable::open_or_create(logs.disk(), &path) {
        Ok((file, _)) => Ok((file, path)),
        Err(cause) => Err(Error::io("cannot open the lock file", &path, cause)),
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        // In full: std's own method of this name would win and return another type.
        match fs2::FileExt::try_lock_exclusive(file) {
            Ok(()) => return Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// Asks again after growing pauses, then waits in the kernel's queue.
fn lock_within(file: File, wait: Duration) -> io::Result<Option<File>> {
    let (mut pause, longest) = PAUSES;
    let mut asked = Duration::ZERO;
    while asked < ASK_FOR.min(wait) {
        thread::sleep(pause);
        if try_lock(&file)? {
            return Ok(Some(file));
        }
        asked += pause;
        pause = longest.min(pause * 3 / 2);
    }
    let rest = wait.saturating_sub(asked);
    if rest.is_zero() { Ok(None) } else { wait_in_queue(file, rest) }
}

/// Blocks in a thread of its own, because flock(2) has no time limit. The channel has no room, so the
/// thread hands over the lock or, when nobody waits any more, drops the file and with it the lock.
fn wait_in_queue(file: File, wait: Duration) -> io::Result<Option<File>> {
    let (give, take) = mpsc::sync_channel(0);
    thread::Builder::new().name("lock".into()).spawn(move || {
        let outcome = loop {
            match fs2::FileExt::lock_exclusive(&file) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => break Err(cause),
                Ok(()) => break Ok(file),
            }
        };
        // A failed send returns the file, and dropping it is all there is to do.
        drop(give.send(outcome));
    })?;
    match take.recv_timeout(wait) {
        Ok(outcome) => outcome.map(Some),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the locking thread died")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_then_reported() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap().wait_at_most(Duration::from_millis(20));
        let held = Lock::acquire(&logs, "a").unwrap();
        assert!(Lock::try_acquire(&logs, "a").unwrap().is_none());
        let error = Lock::acquire(&logs, "a").unwrap_err();
        assert_eq!(error.kind(), Kind::Temporary);
        drop(held);
        let patient = logs.clone().wait_at_most(Duration::from_secs(60));
        Lock::acquire(&patient, "a").unwrap();
    }

    #[test]
    fn whoever_waits_gets_the_lock_when_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap();
        let held = Lock::acquire(&logs, "a").unwrap();
        let waiting = thread::spawn({
            let logs = logs.clone();
            move || Lock::acquire(&logs, "a").map(drop)
        });
        drop(held);
        waiting.join().unwrap().unwrap();
    }
}
