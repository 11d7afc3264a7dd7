//! Where lines are, by seq and roughly by time, however many there are.
//!
//! The feed is divided into blocks of equally many lines. Of each block only its place and the times in it are
//! kept; when there are too many, every two become one.
//!
//! # Invariants
//! - At most [`BLOCKS_MAX`] blocks. A block knows its first seq and offset, and a time of none of its lines lies
//!   outside of its bounds.

use milepost::Timestamp;
use serde::{Deserialize, Serialize};

/// Blocks that are kept.
const BLOCKS_MAX: usize = 4096;

/// Lines that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The seq of its first line.
    pub seq: u64,
    /// The logical offset of that line.
    pub offset: u64,
    /// The earliest time in it.
    pub earliest: Timestamp,
    /// The latest time in it.
    pub latest: Timestamp,
}

/// All blocks of a feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blocks {
    blocks: Vec<Block>,
    /// Seqs of one block.
    stride: u64,
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks { blocks: Vec::new(), stride: 16 }
    }
}

impl Blocks {
    /// Adds the next line.
    pub fn add(&mut self, seq: u64, offset: u64, time: Timestamp) {
        match self.blocks.last_mut() {
            Some(last) if seq / self.stride == last.seq / self.stride => {
                last.earliest = last.earliest.min(time);
                last.latest = last.latest.max(time);
            }
            _ => {
                if self.blocks.len() == BLOCKS_MAX {
                    self.halve();
                }
                let is_inside =
                    self.blocks.last().is_some_and(|it| seq / self.stride == it.seq / self.stride);
                if is_inside {
                    self.add(seq, offset, time);
                } else {
                    self.blocks.push(Block { seq, offset, earliest: time, latest: time });
                }
            }
        }
    }

    fn halve(&mut self) {
        self.stride *= 2;
        let mut fewer: Vec<Block> = Vec::with_capacity(BLOCKS_MAX);
        for block in self.blocks.drain(..) {
            match fewer.last_mut() {
                Some(last) if last.seq / self.stride == block.seq / self.stride => {
                    last.earliest = last.earliest.min(block.earliest);
                    last.latest = last.latest.max(block.latest);
                }
                _ => fewer.push(block),
            }
        }
        self.blocks = fewer;
    }

    /// An offset at or before the line with this seq.
    pub fn before(&self, seq: u64) -> u64 {
        let after = self.blocks.partition_point(|it| it.seq <= seq);
        after.checked_sub(1).map_or(0, |at| self.blocks[at].offset)
    }

    /// Every block with the offset behind it, those with the latest times first. The feed ends at `end`.
    pub fn by_time(&self, end: u64) -> Vec<(Block, u64)> {
        let ends = self.blocks.iter().skip(1).map(|it| it.offset).chain([end]);
        let mut all: Vec<_> = self.blocks.iter().copied().zip(ends).collect();
        all.sort_by_key(|it| std::cmp::Reverse((it.0.latest, it.0.seq)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(lines: u64) -> Blocks {
        let mut blocks = Blocks::default();
        for seq in 1..=lines {
            blocks.add(seq, seq * 10, time(seq));
        }
        blocks
    }

    fn time(seq: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(seq * 7919 % 1_000_003).unwrap())
    }

    #[test]
    fn blocks_stay_few_and_never_lead_past_a_line() {
        let blocks = blocks(1_000_000);
        assert!(blocks.blocks.len() <= BLOCKS_MAX && blocks.blocks.len() >= BLOCKS_MAX / 2 - 1);
        for seq in [1, 2, 511, 512, 513, 777_777, 1_000_000, 2_000_000] {
            let before = blocks.before(seq);
            assert!(before <= seq * 10, "{seq}");
            assert!(seq > 1_000_000 || seq * 10 - before <= blocks.stride * 10, "{seq}");
        }
    }

    #[test]
    fn the_times_of_a_block_are_those_of_its_lines() {
        let blocks = blocks(100_000);
        let all = blocks.by_time(1_000_010);
        assert!(all.is_sorted_by_key(|it| std::cmp::Reverse(it.0.latest)));
        for (block, end) in all {
            let times: Vec<_> = (block.seq..end / 10).map(time).collect();
            assert_eq!(block.earliest, *times.iter().min().unwrap());
            assert_eq!(block.latest, *times.iter().max().unwrap());
        }
    }
}
