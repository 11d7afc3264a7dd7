//! Which keys are surely new: a Bloom filter over all that an index holds.
//!
//! A long call looks up one new key after the other, and every look-up in the table reads a page: a system call and a
//! checksum, a quarter of what an event costs. Here it is one word in memory.
//!
//! # Invariants
//! - What was put in is never called new. The other way round is a matter of chance: of a million keys in a table one
//!   new one in three hundred is looked up all the same, of ten million one in four.
//! - Its size is fixed, whatever the table's.

/// In words of 64 bits: 4 MiB.
const WORDS: usize = 1 << 19;

/// See the head of this file.
#[derive(Debug)]
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// An empty one.
    pub fn new() -> Filter {
        Filter { words: vec![0; WORDS] }
    }

    /// Puts a hash in.
    pub fn insert(&mut self, hash: u64) {
        let (word, bits) = place(hash);
        self.words[word] |= bits;
    }

    /// Whether a hash may have been put in; if not, it was not.
    pub fn may_hold(&self, hash: u64) -> bool {
        let (word, bits) = place(hash);
        self.words[word] & bits == bits
    }
}

/// Its word, and three bits of that. Table and tail go by the low bits of a hash, so here the high ones serve.
fn place(hash: u64) -> (usize, u64) {
    let bit = |at: u32| 1_u64 << ((hash >> at) & 63);
    let word = usize::try_from(hash >> 45).unwrap_or_default() % WORDS;
    (word, bit(39) | bit(33) | bit(27))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are as good as hashes (splitmix64).
    fn hash(of: u64) -> u64 {
        let mut it = of.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    #[test]
    fn what_is_there_is_never_called_new_and_most_else_is() {
        let mut filter = Filter::new();
        (0..1_000_000).for_each(|it| filter.insert(hash(it)));
        assert!((0..1_000_000).all(|it| filter.may_hold(hash(it))));
        let mistaken = (1_000_000..1_100_000).filter(|it| filter.may_hold(hash(*it))).count();
        assert!((1..500).contains(&mistaken), "{mistaken}");
    }
}
