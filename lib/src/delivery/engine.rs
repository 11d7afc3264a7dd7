//! The loop: what is next (`next`), hand it over, judge what comes back (`outcome`), make it durable (`store`).
//!
//! Many items are under way at once. Those beyond the mark stand in a `window`; when one of them is settled before
//! its predecessors are, the state remembers it as settled ahead, and the mark follows when the gap closes.
//!
//! # Invariants
//! - Nothing is sent after an event could not be made durable.
//! - A pass in which nothing happened writes nothing.
//! - Of a lane one run is under way at most, its items in order; after a failure none of them is sent before it was
//!   judged.
//!
//! Not here: the wire, the clock and messages (behind [`World`]).

mod next;
mod outcome;
mod pace;
mod unread;
mod window;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use self::{pace::Pace, unread::Unread, window::Window};
use super::{
    Consumer, Level,
    backoff::Schedule,
    breaker::{Breaker, Cause, Gate},
    control::Control,
    item::Item,
    lanes::LaneName,
    state::State,
    store::Store,
    wire::{Fate, Outgoing, Returned},
};
use crate::{
    Result, Timestamp,
    journal::{Item as Found, Journal, Reader},
    state_file::{self, Loaded},
};

/// An item's own fault shows at this failed try, if another was acknowledged meanwhile.
const OWN_FAULT_TRIES: u32 = 3;
/// How far beyond the mark a probe is looked for.
const PROBE_RECORDS_MAX: usize = 1000;
/// Records passed over before commands and signals are looked for again.
const PASSED_MAX: usize = 4096;
/// A clock that differs more from the endpoint's is reported.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(60);
/// How often a long pass looks for the operator's commands.
const CONTROL_INTERVAL: Duration = Duration::from_millis(200);
/// How long an answer is waited for before the rest is looked after.
const PATIENCE: Duration = Duration::from_millis(50);

/// Which items wait for which (`--order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Within a scope.
    #[default]
    Scope,
    /// All for the first unsettled one.
    Strict,
    /// None.
    None,
}

/// How to deliver.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where is sent to, as the state records it: another one resets the breaker.
    pub url: String,
    /// When failed attempts are repeated.
    pub schedule: Schedule,
    /// Which items wait for which.
    pub order: Order,
    /// How many requests may be on the wire at once; 0 is taken for 1.
    pub concurrency: usize,
}

/// What the engine sees of the outside.
pub trait World {
    /// The time of day.
    fn now(&mut self) -> Timestamp;
    /// Hands over requests that are to be made one after the other, until one of them is not acknowledged: then
    /// it and all others that were handed over and are not on the wire come back unsent.
    ///
    /// # Errors
    /// When nothing can be sent at all.
    fn start(&mut self, run: Vec<Outgoing>) -> Result<()>;
    /// What has come back; waits for the first of it, `at_most` so long.
    fn returned(&mut self, at_most: Duration) -> Vec<Returned>;
    /// Takes back what is not on the wire; it comes back unsent.
    fn recall(&mut self);
    /// Whether to end after what is in flight.
    fn is_stopping(&self) -> bool;
    /// Tells a person.
    fn say(&mut self, level: Level, text: &str);
}

/// Why a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Nothing more is due; the next attempt is at this time, if one is known.
    Until(Option<Timestamp>),
    /// It was asked to end.
    Stopped,
}

/// What a run did and what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Always `ok`.
    pub status: &'static str,
    /// Accepted by the receiver.
    pub delivered: u64,
    /// The receiver had them.
    pub duplicate: u64,
    /// Items that wait for another attempt now.
    pub retrying: u64,
    /// Given up.
    pub dead_lettered: u64,
    /// All that is not settled, those that wait for another attempt included.
    pub pending: u64,
    /// When the next attempt is due; null when none is planned.
    pub next_attempt_utc: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    delivered: u64,
    duplicate: u64,
    dead_lettered: u64,
}

/// Where an item was found, and so what follows when it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// In the window: the number of its entry.
    Window(u64),
    /// In a lane.
    Lane(LaneName),
    /// Beyond the mark, as a probe.
    Beyond,
}

/// An item that is under way.
#[derive(Clone, Debug)]
struct Job {
    item: Arc<Item>,
    origin: Origin,
    is_probe: bool,
}

/// A request that is under way.
#[derive(Debug)]
struct Trip {
    run: u64,
    jobs: Vec<Job>,
}

/// What is under way.
#[derive(Debug, Default)]
struct UnderWay {
    trips: HashMap<u64, Trip>,
    /// Requests of each run that have not come back.
    runs: HashMap<u64, usize>,
    /// Lanes below the mark of which an item is under way.
    lanes: HashSet<LaneName>,
    items: usize,
    /// The last ticket and the last run.
    last: u64,
}

#[derive(Debug)]
enum Next {
    /// Something was handed over.
    Started,
    /// Nothing more can be sent now. When something is due that nothing under way decides.
    Wait(Option<Timestamp>),
    /// Something was settled without sending; look again.
    Again,
}

/// Delivers one queue to one endpoint. The caller holds the instance lock.
#[derive(Debug)]
pub struct Engine {
    consumer: Consumer,
    settings: Settings,
    queue: Journal,
    state: State,
    store: Store,
    /// Reads beyond the mark, into the window.
    forward: Reader,
    window: Window,
    unread: Unread,
    sweep: Option<Sweep>,
    under_way: UnderWay,
    pace: Pace,
    counts: Counts,
    last_now: Timestamp,
    control_seen: Option<Timestamp>,
    has_room: bool,
    has_said_clock: bool,
    /// Events of this run.
    events: u64,
}

/// A pass over the queue below the mark, for the lanes that are free.
///
/// A lane that becomes free on the way takes part only if the pass has not left items of it behind: order
/// within the lane hangs on that. The next pass finds those.
#[derive(Debug)]
struct Sweep {
    reader: Reader,
    start: u64,
    left_behind: BTreeSet<LaneName>,
    has_found: bool,
}

impl Engine {
    /// Reads the state and makes ready to deliver.
    ///
    /// # Errors
    /// [`crate::Kind::BadData`] when the queue is not the one that the state was taken from (J5).
    pub fn open(consumer: &Consumer, settings: Settings, world: &mut impl World) -> Result<Engine> {
        let (store, state, note) = Store::open(consumer)?;
        if let Some(note) = note {
            world.say(Level::Warning, &note);
        }
        let now = world.now();
        let forward = Reader::open_at(consumer.logs(), consumer.queue_name(), state.cursor.offset)?;
        let mut engine = Engine {
            consumer: consumer.clone(),
            queue: consumer.queue(),
            state,
            store,
            forward,
            window: Window::default(),
            unread: Unread::default(),
            sweep: None,
            under_way: UnderWay::default(),
            pace: Pace::new(settings.concurrency),
            settings,
            counts: Counts::default(),
            last_now: now,
            control_seen: None,
            has_room: false,
            has_said_clock: false,
            events: 0,
        };
        if engine.state.rebase(now) {
            engine.store.touch();
        }
        engine.take_url(now, world);
        Ok(engine)
    }

    /// How much has happened in this run: a number that grows with every event.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Another URL is another endpoint: what the breaker knows is of the old one.
    fn take_url(&mut self, now: Timestamp, world: &mut impl World) {
        let url = Some(self.settings.url.clone());
        if self.state.url == url {
            return;
        }
        let was_known = self.state.url.is_some();
        self.state.url = url;
        (self.state.clock, self.state.previous_secret_utc) = (None, None);
        let by_operator = self.state.breaker.cause == Some(Cause::Operator);
        if was_known && self.state.breaker != Breaker::default() && !by_operator {
            world.say(Level::Note, "the URL is another one: the breaker is reset");
            let mut breaker = self.state.breaker.clone();
            breaker.reset();
            self.move_breaker(breaker, now);
        }
    }

    /// Delivers what is due. All that happened is on disk when this returns; see also [`Engine::finish`].
    ///
    /// # Errors
    /// What stops delivery altogether; the next run goes on from what is on disk.
    pub fn run(&mut self, world: &mut impl World) -> Result<Pause> {
        self.queue.settle_if_needed()?;
        self.forward.refresh()?;
        // A command that was given before a record was queued is followed before that record is sent.
        self.control_seen = None;
        loop {
            let now = world.now();
            self.follow_clock(now);
            self.follow_control(now, world)?;
            let is_stopping = world.is_stopping();
            let next = if is_stopping { Next::Wait(None) } else { self.next(now, world)? };
            if is_stopping && !self.under_way.is_idle() {
                world.recall();
            }
            match next {
                Next::Started => continue,
                Next::Wait(until) if self.under_way.is_idle() => {
                    self.store.commit_rest(&mut self.state)?;
                    return Ok(if is_stopping { Pause::Stopped } else { Pause::Until(until) });
                }
                Next::Wait(until) => {
                    let until_due = until.map_or(PATIENCE, |it| it.since(now));
                    self.take_back(until_due.min(PATIENCE), world)?;
                }
                Next::Again if !self.under_way.is_idle() => self.take_back(Duration::ZERO, world)?,
                Next::Again => {}
            }
            if self.store.is_due(world.now()) {
                self.store.commit_group(&mut self.state, world.now())?;
            }
        }
    }

    /// Takes what has come back, and waits for it if there is nothing yet.
    fn take_back(&mut self, at_most: Duration, world: &mut impl World) -> Result<()> {
        let returned = world.returned(at_most);
        let has_idle = self.under_way.runs.len() < self.pace.couriers() && !self.under_way.is_probe();
        if returned.is_empty() && !at_most.is_zero() && has_idle {
            // Somebody waits for an answer, and what he was to send after it another could send meanwhile.
            world.recall();
        }
        for Returned { ticket, fate } in returned {
            let Some(trip) = self.under_way.take(ticket) else { continue };
            match fate {
                Fate::Unsent => self.unsent(&trip.jobs),
                Fate::Judged(judged) => self.judged(&trip.jobs, *judged, world)?,
            }
        }
        Ok(())
    }

    /// Saves the state before the consumer is left. Without it nothing is lost, but more is read back.
    pub fn finish(&mut self) -> Result<()> {
        self.store.commit(&mut self.state)
    }

    /// Whether something may have come up since the last pass: records, commands, or a due time.
    pub fn has_more(&mut self, now: Timestamp) -> Result<bool> {
        let seen = self.forward.end();
        let has_new = self.forward.refresh()? > seen;
        let control = self.consumer.control();
        let control_end = Reader::open_at(self.consumer.logs(), control.name(), 0)?.end();
        let is_due = self.state.retries.first_due().is_some_and(|(due, _)| due <= now);
        let is_closed = self.state.breaker.state == Gate::Closed;
        Ok(control_end > self.state.control_offset || is_closed && (has_new || is_due))
    }

    /// What this run did so far and what is left. Costs a look at every record that came since it was last asked.
    pub fn summary(&mut self, next: Option<Timestamp>) -> Result<Summary> {
        let unread = self.unread.count(&self.consumer, &self.state, &self.forward)?;
        Ok(Summary {
            status: "ok",
            delivered: self.counts.delivered,
            duplicate: self.counts.duplicate,
            retrying: self.state.retries.retrying() as u64,
            dead_lettered: self.counts.dead_lettered,
            pending: self.state.retries.unsettled() + self.window.unsettled() + unread,
            next_attempt_utc: next,
        })
    }

    /// A clock that went back would put due times off.
    fn follow_clock(&mut self, now: Timestamp) {
        if now < self.last_now {
            self.pace.forget_times();
            if self.state.rebase(now) {
                self.store.touch();
            }
        }
        self.last_now = now;
    }

    fn follow_control(&mut self, now: Timestamp, world: &mut impl World) -> Result<()> {
        let is_early = |seen: Timestamp| now >= seen && now.since(seen) < CONTROL_INTERVAL;
        if self.control_seen.is_some_and(is_early) {
            return Ok(());
        }
        self.control_seen = Some(now);
        let breaker = self.state.breaker.clone();
        let journal = self.consumer.control();
        let mut reader = Reader::open_at(self.consumer.logs(), journal.name(), self.state.control_offset)?;
        while let Some(found) = reader.next_item()? {
            let (Found::Line { end, .. } | Found::Overlong { end, .. }) = found;
            if let Found::Line { text, .. } = found
                && let Ok(control) = serde_json::from_slice::<Control>(text)
            {
                world.say(Level::Note, &format!("told to {}", control.command));
                self.state.follow(&control.command, now);
            }
            self.state.control_offset = end;
            self.store.touch();
        }
        // The command itself was audited when it was given, maybe before a move of the breaker that came
        // before it was followed; so where it led is audited too.
        if self.state.breaker != breaker {
            self.move_breaker(self.state.breaker.clone(), now);
        }
        Ok(())
    }
}

impl UnderWay {
    fn is_idle(&self) -> bool {
        self.trips.is_empty()
    }

    /// Whether it is a probe, which goes alone.
    fn is_probe(&self) -> bool {
        self.trips.values().any(|trip| trip.jobs.iter().any(|it| it.is_probe))
    }

    /// A new ticket, or the number of a new run.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn add(&mut self, ticket: u64, run: u64, jobs: Vec<Job>) {
        self.items += jobs.len();
        *self.runs.entry(run).or_default() += 1;
        self.lanes.extend(jobs.iter().filter_map(|it| match &it.origin {
            Origin::Lane(name) => Some(name.clone()),
            _ => None,
        }));
        self.trips.insert(ticket, Trip { run, jobs });
    }

    fn take(&mut self, ticket: u64) -> Option<Trip> {
        let trip = self.trips.remove(&ticket)?;
        self.items -= trip.jobs.len();
        if let Some(left) = self.runs.get_mut(&trip.run) {
            *left -= 1;
            if *left == 0 {
                self.runs.remove(&trip.run);
            }
        }
        for job in &trip.jobs {
            if let Origin::Lane(name) = &job.origin {
                self.lanes.remove(name);
            }
        }
        Some(trip)
    }
}

/// What another instance has saved, and what is left by that; none when it has saved nothing yet.
pub fn outlook(consumer: &Consumer) -> Result<Option<(State, Summary)>> {
    Ok(match state_file::load::<State>(consumer.logs(), &consumer.state_file())? {
        Loaded::Found(state) => {
            let beyond = Reader::open_at(consumer.logs(), consumer.queue_name(), state.cursor.offset)?;
            let unread = Unread::default().count(consumer, &state, &beyond)?;
            let summary = Summary {
                status: "ok",
                delivered: 0,
                duplicate: 0,
                retrying: state.retries.retrying() as u64,
                dead_lettered: 0,
                pending: state.retries.unsettled() + unread,
                next_attempt_utc: state.retries.first_due().map(|(due, _)| due),
            };
            Some((state, summary))
        }
        Loaded::Missing | Loaded::Damaged(_) => None,
    })
}
