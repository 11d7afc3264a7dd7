//! Entries that the table does not have yet: (hash of key, logical offset) pairs in memory.
//!
//! A hash table of the plainest kind, since its keys are hashes already: a tree takes five times as long for what a long
//! call does once or twice for each event.
//!
//! # Invariants
//! - A pair is there once, however often it was put in.
//! - A quarter of the slots is empty at least, so that a search is short.

/// Room for the first entries; it doubles from there.
const SLOTS_MIN: usize = 128;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Tail {
    /// Their number is a power of two, or 0; a pair stands at the place that its hash names or behind it, before the
    /// next empty slot. Hash 0 marks an empty one: the table gives no key that.
    slots: Vec<(u64, u64)>,
    entries: usize,
}

impl Tail {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Puts an entry in.
    pub fn insert(&mut self, hash: u64, offset: u64) {
        debug_assert!(hash != 0, "0 marks an empty slot");
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mut at = self.home(hash);
        while self.slots[at].0 != 0 {
            if self.slots[at] == (hash, offset) {
                return;
            }
            at = self.after(at);
        }
        self.slots[at] = (hash, offset);
        self.entries += 1;
    }

    /// The offsets under a hash.
    pub fn offsets(&self, hash: u64) -> impl Iterator<Item = u64> {
        let first = if self.slots.is_empty() { None } else { Some(self.home(hash)) };
        std::iter::successors(first, |at| Some(self.after(*at)))
            .map(|at| self.slots[at])
            .take_while(|it| it.0 != 0)
            .filter(move |it| it.0 == hash)
            .map(|it| it.1)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slots.iter().copied().filter(|it| it.0 != 0)
    }

    /// Takes all entries out, in no order; [`Tail::clear`] can have the room back.
    pub fn take(&mut self) -> Vec<(u64, u64)> {
        let mut entries = std::mem::take(&mut self.slots);
        entries.retain(|it| it.0 != 0);
        self.entries = 0;
        entries
    }

    /// Forgets all entries, and keeps the room that `taken` has for the next ones.
    pub fn clear(&mut self, mut taken: Vec<(u64, u64)>) {
        // As it grew here, so that its length is a power of two again.
        let slots = 1 << taken.capacity().checked_ilog2().unwrap_or_default();
        taken.clear();
        taken.resize(if slots < SLOTS_MIN { 0 } else { slots }, (0, 0));
        self.slots = taken;
        self.entries = 0;
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![(0, 0); slots]);
        self.entries = 0;
        for (hash, offset) in old.into_iter().filter(|it| it.0 != 0) {
            self.insert(hash, offset);
        }
    }

    fn home(&self, hash: u64) -> usize {
        // The low half is enough to tell apart far more slots than there ever are.
        usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default() & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(pairs in proptest::collection::vec((1..40_u64, 0..4_u64), 0..600)) {
            let mut tail = Tail::default();
            // Far apart and close together, and at the end of the slots, where a search goes on at their beginning.
            let spread = |hash: u64| if hash.is_multiple_of(2) { hash } else { u64::MAX - hash };
            for round in 0..2 {
                let mut set = BTreeSet::new();
                for (hash, offset) in &pairs {
                    tail.insert(spread(*hash), *offset);
                    set.insert((spread(*hash), *offset));
                }
                prop_assert_eq!(tail.len(), set.len(), "round {}", round);
                prop_assert_eq!(&tail.entries().collect::<BTreeSet<_>>(), &set);
                for hash in (0..41).map(spread).filter(|it| *it != 0) {
                    let expected: BTreeSet<_> = set.range((hash, 0)..=(hash, u64::MAX)).map(|it| it.1).collect();
                    prop_assert_eq!(tail.offsets(hash).collect::<BTreeSet<_>>(), expected);
                }
                let taken = tail.take();
                prop_assert_eq!(&taken.iter().copied().collect::<BTreeSet<_>>(), &set);
                tail.clear(taken);
            }
        }
    }
}
