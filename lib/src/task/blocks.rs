//! The file under the table of tasks: blocks of 4 KiB, each with a checksum.
//!
//! redb keeps its order and its commits; it believes what it reads. So every block is checked here on its way in,
//! and damage is an error before redb sees it. What is only looked at is never written: opening a database changes
//! its header, and those changes stay in memory.
//!
//! # Invariants
//! - A block that is not what was written to its place is [`io::ErrorKind::InvalidData`], and so is a file that
//!   has fewer blocks than were written.
//! - With [`Access::Look`] the file does not change.
//! - All writing and syncing goes through `durable`.
//!
//! Not here: what is in the blocks (redb), what it means (`table`).

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use redb::StorageBackend;

use crate::{durable, logs::Logs};

const BLOCK_BYTES: usize = 4096;
/// A block and its CRC-32, which also covers the block's number.
const STRIDE_BYTES: usize = BLOCK_BYTES + 4;

/// Before the blocks: how many there are, a CRC-32 of that, and four unused bytes.
const HEAD_BYTES: usize = 16;

/// What a table is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read; nothing of the file changes.
    Look,
    /// To be changed.
    Change,
}

/// The storage of one table.
#[derive(Debug)]
pub struct Blocks {
    file: File,
    logs: Logs,
    /// How many there are, with [`Access::Look`] how many there would be by now.
    count: AtomicU64,
    /// With [`Access::Look`]: blocks as they would be by now.
    instead: Option<Mutex<BTreeMap<u64, Vec<u8>>>>,
}

impl Blocks {
    /// Over an open file.
    pub fn new(file: File, logs: &Logs, access: Access) -> io::Result<Blocks> {
        let count = AtomicU64::new(count_in(&file)?);
        let instead = (access == Access::Look).then(|| Mutex::new(BTreeMap::new()));
        Ok(Blocks { file, logs: logs.clone(), count, instead })
    }

    fn instead(&self) -> Option<MutexGuard<'_, BTreeMap<u64, Vec<u8>>>> {
        // Whoever panicked with the lock left whole blocks, since they are inserted whole.
        self.instead.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The blocks from number `first` on, one after the other, without their checksums.
    fn read_blocks(&self, first: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut blocks = vec![0; count * BLOCK_BYTES];
        let mut stored = vec![0; count * STRIDE_BYTES];
        let filled = read_at(&self.file, &mut stored, place_of(first))?;
        let instead = self.instead();
        for (number, (block, stored)) in
            (first..).zip(blocks.chunks_exact_mut(BLOCK_BYTES).zip(stored.chunks_exact(STRIDE_BYTES)))
        {
            if let Some(it) = instead.as_ref().and_then(|it| it.get(&number)) {
                block.copy_from_slice(it);
                continue;
            }
            let (bytes, check) = stored.split_at(BLOCK_BYTES);
            let end = usize::try_from(number - first).unwrap_or(usize::MAX).saturating_mul(STRIDE_BYTES);
            if filled < end + STRIDE_BYTES && instead.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A file that was made longer holds zeros there.
            let is_new = check == [0; 4] && bytes.iter().all(|it| *it == 0);
            if !is_new && check != check_of(number, bytes) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a block is damaged"));
            }
            block.copy_from_slice(bytes);
        }
        Ok(blocks)
    }

    fn write_blocks(&self, first: u64, blocks: &[u8]) -> io::Result<()> {
        if let Some(mut instead) = self.instead() {
            for (number, block) in (first..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
                instead.insert(number, block.to_vec());
            }
            return Ok(());
        }
        let mut stored = Vec::with_capacity(blocks.len() / BLOCK_BYTES * STRIDE_BYTES);
        for (number, block) in (first..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
            stored.extend_from_slice(block);
            stored.extend_from_slice(&check_of(number, block));
        }
        // In one write, so that a kill does not part a block from its checksum.
        durable::write_all_at(self.logs.disk(), &self.file, &stored, place_of(first))
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> io::Result<u64> {
        Ok(self.count.load(Relaxed) * BLOCK_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (first, skipped, count) = span(offset, out.len());
        let blocks = self.read_blocks(first, count)?;
        out.copy_from_slice(&blocks[skipped..skipped + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let count = len.div_ceil(BLOCK_BYTES as u64);
        if self.instead.is_some() {
            self.count.store(count, Relaxed);
            return Ok(());
        }
        // A kill in between leaves a file that is longer than its head says, which is no harm.
        let write_head = || {
            let count = count.to_le_bytes();
            let mut head = [0; HEAD_BYTES];
            head[..8].copy_from_slice(&count);
            head[8..12].copy_from_slice(&crc32fast::hash(&count).to_le_bytes());
            durable::write_all_at(self.logs.disk(), &self.file, &head, 0)
        };
        if count < self.count.load(Relaxed) {
            write_head()?;
            self.logs.disk().set_len(&self.file, place_of(count))?;
        } else {
            self.logs.disk().set_len(&self.file, place_of(count))?;
            write_head()?;
        }
        self.count.store(count, Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.instead.is_some() { Ok(()) } else { self.logs.disk().sync_data(&self.file) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (first, skipped, count) = span(offset, data.len());
        let mut blocks;
        let whole = if skipped == 0 && data.len() == count * BLOCK_BYTES {
            data
        } else {
            blocks = self.read_blocks(first, count)?;
            blocks[skipped..skipped + data.len()].copy_from_slice(data);
            &blocks
        };
        self.write_blocks(first, whole)
    }
}

/// The number of the first block of a range, where in it the range begins, and over how many blocks it goes.
fn span(offset: u64, bytes: usize) -> (u64, usize, usize) {
    let block = BLOCK_BYTES as u64;
    let skipped = usize::try_from(offset % block).unwrap_or_default();
    (offset / block, skipped, (skipped + bytes).div_ceil(BLOCK_BYTES))
}

/// Where a block begins.
fn place_of(number: u64) -> u64 {
    HEAD_BYTES as u64 + number * STRIDE_BYTES as u64
}

/// How many blocks a file has; none when it is empty.
fn count_in(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(0);
    }
    let mut head = [0; HEAD_BYTES];
    read_at(file, &mut head, 0)?;
    let mut count = [0; 8];
    count.copy_from_slice(&head[..8]);
    let (check, count) = (crc32fast::hash(&count), u64::from_le_bytes(count));
    let is_there = count.checked_mul(STRIDE_BYTES as u64).is_some_and(|it| it + HEAD_BYTES as u64 <= length);
    if head[8..12] != check.to_le_bytes() || head[12..] != [0; 4] || !is_there {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is cut or damaged"));
    }
    Ok(count)
}

fn check_of(number: u64, block: &[u8]) -> [u8; 4] {
    let mut check = crc32fast::Hasher::new();
    check.update(&number.to_le_bytes());
    check.update(block);
    check.finalize().to_le_bytes()
}

/// Reads until `bytes` are full or the file ends; says how many were read.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn open(dir: &Path, access: Access) -> Blocks {
        let logs = Logs::open(Some(dir), "test").unwrap();
        let (file, _) = durable::open_or_create(logs.disk(), &dir.join("blocks")).unwrap();
        Blocks::new(file, &logs, access).unwrap()
    }

    #[test]
    fn what_was_written_comes_back_across_block_borders() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = open(dir.path(), Access::Change);
        blocks.set_len(5 * 4096).unwrap();
        blocks.write(4000, &[7; 5000]).unwrap();
        let mut back = [1; 9000];
        blocks.read(3000, &mut back).unwrap();
        assert!(back[..1000].iter().all(|it| *it == 0) && back[6000..].iter().all(|it| *it == 0));
        assert!(back[1000..6000].iter().all(|it| *it == 7));
        assert_eq!(blocks.len().unwrap(), 5 * 4096);
        assert!(blocks.read(5 * 4096 - 10, &mut [0; 20]).is_err());
    }

    #[test]
    fn looking_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = open(dir.path(), Access::Change);
        blocks.set_len(4096).unwrap();
        blocks.write(0, &[7; 4096]).unwrap();
        let before = fs::read(dir.path().join("blocks")).unwrap();
        let look = open(dir.path(), Access::Look);
        look.set_len(3 * 4096).unwrap();
        look.write(100, &[8; 8000]).unwrap();
        look.sync_data().unwrap();
        let mut back = [0; 8100];
        look.read(0, &mut back).unwrap();
        assert!(back[..100].iter().all(|it| *it == 7) && back[100..].iter().all(|it| *it == 8));
        assert_eq!(fs::read(dir.path().join("blocks")).unwrap(), before);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test damages a file itself")]
    fn any_flipped_byte_and_any_missing_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = open(dir.path(), Access::Change);
        blocks.set_len(2 * 4096).unwrap();
        blocks.write(0, &[7; 2 * 4096]).unwrap();
        let path = dir.path().join("blocks");
        let good = fs::read(&path).unwrap();
        let read = || {
            let logs = Logs::open(Some(dir.path()), "test").unwrap();
            Blocks::new(File::open(&path)?, &logs, Access::Look)?.read(0, &mut [0; 8192])
        };
        for at in (0..good.len()).step_by(513).chain([4112, 4115, 4116]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(read().is_err(), "byte {at}");
        }
        for length in [1, 16, good.len() - 4100, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read().is_err(), "cut to {length}");
        }
        // Two blocks in each other's place.
        let swapped = [&good[..16], &good[4116..], &good[16..4116]].concat();
        fs::write(&path, swapped).unwrap();
        assert!(read().is_err());
        fs::write(&path, &good).unwrap();
        read().unwrap();
    }
}
