//! How much may be under way: it begins with one item, grows with every acknowledgement, and halves when the
//! endpoint cannot keep up.
//!
//! # Invariants
//! - After a pause (the start, an open breaker) the first item goes alone, so that an endpoint that is still down, or
//!   just up, meets one request.
//! - Batches are offered to a door only as long as the receiver announces them there, and not for a while after
//!   one was not taken.

use std::time::Duration;

use crate::{Timestamp, delivery::item::Route};

/// The most requests that are handed over at once.
pub(super) const RUN_MAX: usize = 16;
/// The most items of a batch, whatever a receiver announces.
const BATCH_MAX: usize = 2048;
/// How long single requests are made after a batch was not taken.
const BATCH_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pace {
    couriers: usize,
    allowed: usize,
    milestones: Door,
    events: Door,
    quiet_until: Option<Timestamp>,
}

/// What is known of one door of the receiver.
#[derive(Debug, Default)]
struct Door {
    batch: Option<usize>,
    singly_until: Option<Timestamp>,
}

impl Pace {
    pub fn new(concurrency: usize) -> Pace {
        Pace {
            couriers: concurrency.max(1),
            allowed: 1,
            milestones: Door::default(),
            events: Door::default(),
            quiet_until: None,
        }
    }

    /// How many requests may be on the wire.
    pub fn couriers(&self) -> usize {
        self.couriers
    }

    /// How many runs may be handed over: one on the wire and one to follow for each courier. A single one keeps to
    /// the order of the queue, so it has one.
    pub fn runs_max(&self) -> usize {
        if self.couriers == 1 { 1 } else { self.couriers * 2 }
    }

    /// How many items may be under way.
    pub fn allowed(&self) -> usize {
        self.allowed
    }

    /// Items were acknowledged.
    pub fn grow(&mut self, items: usize) {
        let most = [&self.milestones, &self.events].into_iter().filter_map(|it| it.batch).max();
        let most = most.unwrap_or_default().max(RUN_MAX) * self.runs_max();
        self.allowed = (self.allowed + items).min(most);
    }

    /// The endpoint did not keep up.
    pub fn halve(&mut self) {
        self.allowed = (self.allowed / 2).max(1);
    }

    /// From the beginning.
    pub fn restart(&mut self) {
        self.allowed = 1;
    }

    /// The receiver said with an acknowledgement how many items a batch may have here, or that it takes none.
    pub fn announced(&mut self, route: Route, batch: Option<usize>) {
        self.door(route).batch = batch.map(|it| it.min(BATCH_MAX));
    }

    /// A batch was not taken; with `retry_after` nothing at all is wanted for so long.
    pub fn batch_failed(&mut self, route: Route, now: Timestamp, retry_after: Option<Duration>) {
        let door = self.door(route);
        door.batch = None;
        door.singly_until = Some(now.plus(BATCH_PAUSE));
        self.quiet_until = retry_after.map(|it| now.plus(it)).max(self.quiet_until);
    }

    /// How many items go into one request.
    pub fn batch(&mut self, route: Route, now: Timestamp) -> Option<usize> {
        let door = self.door(route);
        door.batch.filter(|_| door.singly_until.is_none_or(|it| it <= now))
    }

    /// Until when nothing is sent.
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.quiet_until.filter(|it| *it > now)
    }

    /// The clock went back.
    pub fn forget_times(&mut self) {
        self.quiet_until = None;
        self.milestones.singly_until = None;
        self.events.singly_until = None;
    }

    fn door(&mut self, route: Route) -> &mut Door {
        match route {
            Route::Milestones => &mut self.milestones,
            Route::Events => &mut self.events,
        }
    }
}
