//! A disk that fails when it is told to: what a kill, EIO or a full disk leaves behind.
//!
//! # Invariants
//! - Every operation of [`Disk`] counts one; the one that fails does nothing, but for a write, of which half is there.
//! - Nothing is synced: no test that goes on in the same system can see a sync, and all are faster without.
//!
//! Not here: what only a power cut does (lost and reordered pages), which `scripts/torture` makes of traces.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use milepost::durable::{Disk, RealDisk};

/// See the module.
#[derive(Debug)]
pub struct DyingDisk {
    /// Operations until one fails; [`NEVER`] when none does.
    left: AtomicU64,
    /// Whether only one fails.
    recovers: bool,
    has_failed: AtomicBool,
    done: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl DyingDisk {
    /// A disk that does so many operations and none after them.
    pub fn after(operations: u64) -> Arc<DyingDisk> {
        DyingDisk::new(operations, false)
    }

    /// A disk on which the operation after so many others fails, and it alone.
    pub fn failing_once_after(operations: u64) -> Arc<DyingDisk> {
        DyingDisk::new(operations, true)
    }

    /// A disk that works until [`DyingDisk::die_after`].
    pub fn healthy() -> Arc<DyingDisk> {
        DyingDisk::new(NEVER, false)
    }

    fn new(operations: u64, recovers: bool) -> Arc<DyingDisk> {
        Arc::new(DyingDisk {
            left: AtomicU64::new(operations),
            recovers,
            has_failed: AtomicBool::new(false),
            done: AtomicU64::new(0),
        })
    }

    /// Lets it do so many operations more.
    pub fn die_after(&self, operations: u64) {
        self.left.store(operations, SeqCst);
    }

    /// Lets it work again.
    pub fn heal(&self) {
        self.left.store(NEVER, SeqCst);
    }

    /// Whether anything has failed on it yet.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(SeqCst)
    }

    /// How many operations it has done.
    pub fn operations(&self) -> u64 {
        self.done.load(SeqCst)
    }

    fn operate<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.operate_or(|| {}, operation)
    }

    /// Does an operation; the first one that fails does `instead`.
    fn operate_or<T>(
        &self,
        instead: impl FnOnce(),
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let works = self.left.fetch_update(SeqCst, SeqCst, |left| match left {
            NEVER => Some(NEVER),
            left => left.checked_sub(1),
        });
        if works.is_ok() {
            self.done.fetch_add(1, SeqCst);
            return operation();
        }
        if !self.has_failed.swap(true, SeqCst) {
            instead();
        }
        if self.recovers {
            self.heal();
        }
        Err(rustix::io::Errno::IO.into())
    }
}

impl Disk for DyingDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let torn = || drop(RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset));
        self.operate_or(torn, || RealDisk.write_at(file, bytes, offset))
    }
    fn sync_data(&self, _: &File) -> io::Result<()> {
        self.operate(|| Ok(()))
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.operate(|| Ok(()))
    }
    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        self.operate(|| RealDisk.set_len(file, length))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|| RealDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|| RealDisk.remove(path))
    }
    fn create_new(&self, path: &Path) -> io::Result<File> {
        self.operate(|| RealDisk.create_new(path))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(|| RealDisk.create_dir(path))
    }
}
