//! What was read beyond the mark: which records may be sent, which are on their way, which are settled.
//!
//! It lets many items be under way at once, while the mark still moves over settled ones only. It remembers
//! nothing of its own: dropped, it is read again from the mark, and what is settled in it stands in the state.
//!
//! # Invariants
//! - Entries stand in the order of the queue; the first one is the first that the mark has not passed.
//! - Of each lane only the first unsettled entry is offered, and none while one of the lane is under way.
//! - It is bounded in entries and bytes, whatever waits in the queue.
//!
//! Not here: which lanes wait for a retry (`lanes`), what is sent when (`next`).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::delivery::{
    item::Item,
    lanes::{LaneName, Lanes},
};

/// The most records that are read ahead.
const ENTRIES_MAX: usize = 16_384;
/// The most bytes of bodies that are read ahead.
const BYTES_MAX: usize = 8 << 20;
/// So many times what may be under way is enough while there is something for everybody to do: more of it would only
/// be in the way, in memory and in the processor's caches.
const ENOUGH: usize = 2;
/// The least that is enough.
const ENOUGH_MIN: usize = 512;

/// The number of an entry: it grows by one for each record, and is not used again.
pub(super) type Number = u64;

#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: Number,
    lanes: HashMap<Arc<LaneName>, usize>,
    /// What is queued in the lanes, by their numbers in `lanes`, which are used again.
    queued: Vec<Queued>,
    /// Numbers of lanes that are not used.
    spare: Vec<usize>,
    /// Entries that are the first of a lane of which none is under way.
    offered: BTreeSet<Number>,
    unsettled: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    end: u64,
    /// What is to be delivered; none when it is settled.
    unsettled: Option<Unsettled>,
}

#[derive(Debug)]
struct Unsettled {
    item: Arc<Item>,
    lane: usize,
    is_sent: bool,
}

/// The unsettled entries of a lane, in order.
#[derive(Debug)]
struct Queued {
    name: Arc<LaneName>,
    numbers: VecDeque<Number>,
    under_way: usize,
}

impl Queued {
    /// Where in the lane an entry stands: nearly always at its head.
    fn place(&self, number: Number) -> Option<usize> {
        if self.numbers.front() == Some(&number) { Some(0) } else { self.numbers.binary_search(&number).ok() }
    }
}

impl Window {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether there is enough to choose from when so many items may be under way, and nobody waits in vain.
    pub fn is_enough(&self, allowed: usize) -> bool {
        self.unsettled >= allowed.saturating_mul(ENOUGH).max(ENOUGH_MIN)
    }

    /// How many entries may be sent now, each of another lane; some of them may turn out to wait for a retry.
    pub fn offered(&self) -> usize {
        self.offered.len()
    }

    /// How many entries are not settled.
    pub fn unsettled(&self) -> u64 {
        self.unsettled as u64
    }

    /// Adds a record that there is nothing to do about.
    pub fn push_settled(&mut self, end: u64) {
        self.entries.push_back(Entry { end, unsettled: None });
    }

    /// Adds an item.
    pub fn push(&mut self, item: Item, lane: LaneName) {
        let number = self.first + self.entries.len() as u64;
        let lane = match self.lanes.get(&lane) {
            Some(lane) => *lane,
            None => self.new_lane(lane),
        };
        let Some(queued) = self.queued.get_mut(lane) else { return };
        if queued.numbers.is_empty() {
            self.offered.insert(number);
        }
        queued.numbers.push_back(number);
        self.unsettled += 1;
        self.bytes += bytes_of(&item);
        let end = item.end;
        let unsettled = Some(Unsettled { item: Arc::new(item), lane, is_sent: false });
        self.entries.push_back(Entry { end, unsettled });
    }

    fn new_lane(&mut self, name: LaneName) -> usize {
        let name = Arc::new(name);
        let queued = Queued { name: Arc::clone(&name), numbers: VecDeque::new(), under_way: 0 };
        let lane = self.spare.pop().unwrap_or(self.queued.len());
        match self.queued.get_mut(lane) {
            Some(it) => *it = queued,
            None => self.queued.push(queued),
        }
        self.lanes.insert(name, lane);
        lane
    }

    /// Takes the first entry that is offered and whose lane does not wait for a retry.
    pub fn take(&mut self, lanes: &Lanes) -> Option<Number> {
        while let Some(number) = self.offered.pop_first() {
            let Some(it) = self.unsettled_at(number) else { continue };
            // One that waits is offered again when its lane is gone.
            if lanes.covering(it.item.scope.as_deref(), it.item.key(), it.item.offset).is_none() {
                return Some(number);
            }
        }
        None
    }

    /// The next unsettled entry of the same lane, which may follow this one in the same run.
    pub fn follower(&self, number: Number) -> Option<Number> {
        let queued = self.queued.get(self.unsettled_at(number)?.lane)?;
        queued.numbers.get(queued.place(number)? + 1).copied()
    }

    /// The item of an entry.
    pub fn item(&self, number: Number) -> Option<&Arc<Item>> {
        self.unsettled_at(number).map(|it| &it.item)
    }

    /// Puts an entry that was taken back among those that are offered.
    pub fn offer(&mut self, number: Number) {
        self.offered.insert(number);
    }

    /// Notes that an entry is under way; until it comes back none of its lane is offered.
    pub fn send(&mut self, number: Number) {
        let Some(it) = self.unsettled_at_mut(number) else { return };
        it.is_sent = true;
        let lane = it.lane;
        self.offered.remove(&number);
        if let Some(queued) = self.queued.get_mut(lane) {
            queued.under_way += 1;
        }
    }

    /// Notes that an entry came back unsettled, and stays here.
    pub fn unsend(&mut self, number: Number) {
        let Some(it) = self.unsettled_at_mut(number).filter(|it| it.is_sent) else { return };
        it.is_sent = false;
        let lane = it.lane;
        if let Some(queued) = self.queued.get_mut(lane) {
            queued.under_way -= 1;
        }
        self.offer_of(lane);
    }

    /// Notes that the mark may pass an entry: it is settled, or its lane waits for its retry.
    pub fn settle(&mut self, number: Number) {
        let index = self.index(number);
        let Some(it) = self.entries.get_mut(index).and_then(|it| it.unsettled.take()) else { return };
        self.unsettled -= 1;
        self.bytes -= bytes_of(&it.item);
        if !it.is_sent {
            self.offered.remove(&number);
        }
        let Some(queued) = self.queued.get_mut(it.lane) else { return };
        if let Some(at) = queued.place(number) {
            queued.numbers.remove(at);
        }
        queued.under_way -= usize::from(it.is_sent);
        if queued.numbers.is_empty() {
            self.lanes.remove(&queued.name);
            self.spare.push(it.lane);
        } else {
            self.offer_of(it.lane);
        }
    }

    /// Offers the first entry of a lane, if none of it is under way.
    pub fn wake(&mut self, lane: &LaneName) {
        if let Some(lane) = self.lanes.get(lane) {
            self.offer_of(*lane);
        }
    }

    /// Offers the first entry of every lane of which none is under way.
    pub fn wake_all(&mut self) {
        let free = self.queued.iter().filter(|it| it.under_way == 0);
        self.offered.extend(free.filter_map(|it| it.numbers.front()));
    }

    fn offer_of(&mut self, lane: usize) {
        if let Some(queued) = self.queued.get(lane).filter(|it| it.under_way == 0) {
            self.offered.extend(queued.numbers.front());
        }
    }

    /// Lets the mark pass the settled entries at the front; returns where it stands then.
    pub fn pass_settled(&mut self, mark: u64) -> u64 {
        let mut mark = mark;
        while let Some(it) = self.entries.front().filter(|it| it.unsettled.is_none()) {
            mark = it.end;
            self.entries.pop_front();
            self.first += 1;
        }
        mark
    }

    /// The entry at the front, if it waits behind the retry of its lane: the lane's name.
    pub fn blocked_front(&self, lanes: &Lanes) -> Option<LaneName> {
        let it = self.entries.front()?.unsettled.as_ref().filter(|it| !it.is_sent)?;
        lanes.covering(it.item.scope.as_deref(), it.item.key(), it.item.offset)
    }

    /// The number of the entry at the front.
    pub fn front(&self) -> Number {
        self.first
    }

    /// Forgets everything; only when nothing of it is under way.
    pub fn clear(&mut self) {
        *self = Window { first: self.first + self.entries.len() as u64, ..Window::default() };
    }

    fn index(&self, number: Number) -> usize {
        usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX)
    }

    fn unsettled_at(&self, number: Number) -> Option<&Unsettled> {
        self.entries.get(self.index(number))?.unsettled.as_ref()
    }

    fn unsettled_at_mut(&mut self, number: Number) -> Option<&mut Unsettled> {
        let index = self.index(number);
        self.entries.get_mut(index)?.unsettled.as_mut()
    }
}

fn bytes_of(item: &Item) -> usize {
    item.body.as_ref().map_or(0, Vec::len)
}
