//! Bytes that survive power loss: writing, syncing, cutting, renaming. Nobody else does any of it.
//!
//! Every call goes through [`Disk`], whose default methods are the system calls themselves; a test
//! replaces single methods to make a write short or a sync fail.
//!
//! # Invariants
//! - A name is durable only once its folder is synced; a file's own sync does not cover it.
//! - A sync that failed is never tried again: Linux marks the lost pages clean, and the second
//!   `fdatasync` returns 0 while the disk holds zeros.
//! - What is created gets the mode asked for whatever the umask, and, when root creates it, the owner
//!   and group of its folder, so that operator and services share it.
//!
//! Not here: which bytes go where (`journal`, `state_file`, `index`).
#![expect(clippy::disallowed_methods, reason = "this module owns what is banned everywhere else")]

use std::{
    fmt, fs,
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

/// Mode of every file in the logs folder: owner and group, nobody else.
pub const FILE_MODE: u32 = 0o660;
/// Mode of every folder: the group is handed on to what is created inside.
pub const DIR_MODE: u32 = 0o2770;

/// The operations on the disk that durability hangs on.
pub trait Disk: fmt::Debug + Send + Sync {
    /// One `pwrite(2)`; may write less than asked.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// `fdatasync(2)`: data, and the length if it changed.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// `fsync(2)` on a folder: the names in it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// `ftruncate(2)`.
    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// `rename(2)`; durable after [`Disk::sync_dir`] of the folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// `unlink(2)`; durable after [`Disk::sync_dir`] of the folder.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// `open(2)` with `O_CREAT | O_EXCL`, read and write, mode [`FILE_MODE`].
    fn create_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
    }

    /// `mkdir(2)` with mode [`DIR_MODE`].
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
}

/// The disk itself.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Writes all of `bytes` at `offset`, going on after short and interrupted writes.
pub fn write_all_at(disk: &dyn Disk, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

/// Opens a file for reading and writing, creating it if it is absent; says whether it did.
/// The new name is not durable yet: [`Disk::sync_dir`] is the caller's.
pub fn open_or_create(disk: &dyn Disk, path: &Path) -> io::Result<(File, bool)> {
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|it| (it, false)),
        }
        match disk.create_new(path) {
            // Another process was faster: open what it made.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(cause),
            Ok(file) => {
                share(&file, path, FILE_MODE)?;
                return Ok((file, true));
            }
        }
    }
}

/// Creates a folder if it is absent; the parent is synced when it was. Parents are not created.
pub fn ensure_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    share(&File::open(path)?, path, DIR_MODE)?;
    disk.sync_dir(parent(path))
}

/// Replaces a file by `bytes`, wholly or not at all: temporary file, sync, rename, sync of the folder.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    // One writer a file holds a lock, so one temporary name is enough; what a crash left is replaced.
    name.push(".tmp");
    let temporary = dir.join(name);
    match disk.remove(&temporary) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let file = disk.create_new(&temporary)?;
    share(&file, &temporary, FILE_MODE)?;
    write_all_at(disk, &file, bytes, 0)?;
    disk.sync_data(&file)?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}

/// The folder that `path` is in; of a bare name that is the current one.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a new file or folder its mode, and, for root, the owner and group of the folder it is in.
fn share(file: &File, path: &Path, mode: u32) -> io::Result<()> {
    let created = file.metadata()?;
    if rustix::process::geteuid().is_root() {
        let dir = fs::metadata(parent(path))?;
        if (dir.uid(), dir.gid()) != (created.uid(), created.gid()) {
            fchown(file, Some(dir.uid()), Some(dir.gid()))?;
        }
    }
    // After the change of owner, which clears the set-group-id bit.
    if created.permissions().mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}
