//! What is sent next, in this order: a probe while the breaker is open, else a retry that is due, else an item
//! of a lane that became free, else runs of what was read beyond the mark.
//!
//! # Invariants
//! - An item is chosen only when no other of its scope is unsettled before it, but for those before it in the same
//!   run (`--order scope`), none of the queue at all (`strict`), or whenever it is reached (`none`).
//! - What is no valid record is kept in quarantine and passed over when it is read.
//!
//! Not here: what comes of it (`outcome`).

use std::{collections::BTreeSet, sync::Arc};

use super::{Engine, Job, Next, Order, Origin, PASSED_MAX, PROBE_RECORDS_MAX, Sweep, World, pace::RUN_MAX};
use crate::{
    Result, Timestamp,
    audit::Outcome,
    delivery::{
        Level, Outgoing, Route,
        event::{Detail, Event},
        item::{Head, Item},
        lanes::{LANES_MAX, LaneName},
    },
    ingest,
    journal::{self, Item as Found, Reader},
};

const NO_RECORD: &str = "is no record of a queue";
/// The most bytes of a batch: what a receiver takes, and some less for the sake of memory.
const BATCH_BYTES_MAX: usize = ingest::batch::BODY_BYTES_MAX / 4;

/// A line of the queue that can never be delivered.
struct Invalid<'l> {
    offset: u64,
    line: &'l [u8],
    why: &'l str,
    /// The lane that it is the first of.
    lane: Option<&'l LaneName>,
    /// Whether it lies beyond the mark and beyond what the window holds.
    is_beyond: bool,
}

/// What a sweep came to.
enum Swept {
    Item(Item, LaneName),
    /// The next item's lane has one under way, or there is none.
    Nothing,
    Again,
}

impl Engine {
    pub(super) fn next(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        let is_idle = self.under_way.is_idle();
        if !is_idle && (self.state.breaker.is_held() || self.state.breaker.is_open()) {
            if !self.under_way.is_probe() {
                world.recall();
            }
            return Ok(Next::Wait(None));
        }
        if self.state.breaker.is_held() {
            return Ok(Next::Wait(None));
        }
        if self.state.breaker.is_open() {
            self.forget_window();
            return self.next_probe(now, world);
        }
        if let Some(until) = self.pace.quiet_until(now) {
            return Ok(Next::Wait(Some(until)));
        }
        let is_full = self.under_way.runs.len() >= self.pace.runs_max();
        if is_full || self.under_way.items >= self.pace.allowed() {
            return Ok(Next::Wait(None));
        }
        if self.settings.order == Order::Strict {
            if !is_idle {
                return Ok(Next::Wait(None));
            }
            if !self.state.retries.is_empty() {
                return self.next_strict(now, world);
            }
        } else {
            let due = self.state.retries.due(now).find(|(name, _)| !self.under_way.lanes.contains(*name));
            if let Some((name, offset)) = due.map(|(name, lane)| (name.clone(), lane.offset)) {
                return self.send_from_lane(name, offset, false, now, world);
            }
            match self.swept(now, world)? {
                Swept::Item(item, name) => return self.send_one(item, Origin::Lane(name), false, world),
                Swept::Again => return Ok(Next::Again),
                Swept::Nothing => {}
            }
        }
        // At the limit only the retries go on, until one of them is settled.
        if self.state.retries.len() < LANES_MAX {
            let has_more = self.read_ahead(now, world)?;
            if self.send_from_window(now, world)? {
                return Ok(Next::Started);
            }
            if has_more {
                return Ok(Next::Again);
            }
        }
        let is_free = |name: &LaneName| !self.under_way.lanes.contains(name);
        Ok(Next::Wait(self.state.retries.next_due(is_free)))
    }

    /// Lanes from before the order was strict, or the one item that all wait for.
    fn next_strict(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        let first = self
            .state
            .retries
            .first()
            .map(|(name, lane)| (name.clone(), lane.offset, lane.retry.as_ref().map(|it| it.due)));
        match first {
            Some((_, _, Some(due))) if due > now => Ok(Next::Wait(Some(due))),
            Some((name, offset, Some(_))) => self.send_from_lane(name, offset, false, now, world),
            _ => match self.swept(now, world)? {
                Swept::Item(item, name) => self.send_one(item, Origin::Lane(name), false, world),
                Swept::Again | Swept::Nothing => Ok(Next::Again),
            },
        }
    }

    /// The first unsettled item of a lane.
    fn send_from_lane(
        &mut self,
        name: LaneName,
        offset: u64,
        is_probe: bool,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<Next> {
        let mut reader = Reader::open_at(self.consumer.logs(), self.queue.name(), offset)?;
        let Some(Found::Line { offset, end, text }) = reader.next_item()? else {
            // It was there before: the queue was cut meanwhile, and its reader says so.
            self.forward.refresh()?;
            return Ok(Next::Wait(None));
        };
        let why = match Item::read(offset, end, text) {
            Some(Item { body: Err(why), .. }) => why,
            Some(item) => return self.send_one(item, Origin::Lane(name), is_probe, world),
            None => NO_RECORD.to_owned(),
        };
        let line = text.to_vec();
        let invalid = Invalid { offset, line: &line, why: &why, lane: Some(&name), is_beyond: false };
        self.quarantine(&invalid, now, world)?;
        self.lane_moved(&name);
        Ok(Next::Again)
    }

    /// The next item of a free lane. A sweep that finds none proves that none is there.
    fn swept(&mut self, now: Timestamp, world: &mut impl World) -> Result<Swept> {
        let under_way = &self.under_way.lanes;
        let Some(from) = self.state.retries.next_free(|it| !under_way.contains(it)) else {
            return Ok(Swept::Nothing);
        };
        if self.sweep.is_none() {
            let reader = Reader::open_at(self.consumer.logs(), self.queue.name(), from)?;
            self.sweep = Some(Sweep { reader, start: from, left_behind: BTreeSet::new(), has_found: false });
        }
        let Some(sweep) = &mut self.sweep else { return Ok(Swept::Again) };
        while self.state.retries.first_free().is_some() && sweep.reader.offset() < self.state.cursor.offset {
            let Some(found) = sweep.reader.next_item()? else { break };
            let Found::Line { offset, end, text } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(self.consumer.endpoint())) else {
                continue;
            };
            let lanes = &mut self.state.retries;
            let Some(name) = lanes.covering(head.scope.as_deref(), &head.key, offset) else { continue };
            if self.state.cursor.skip.contains(&offset) {
                continue;
            }
            let Some(lane) = lanes.get(&name) else { continue };
            if lane.retry.is_none() && self.under_way.lanes.contains(&name) {
                // What becomes of the one before it decides; the sweep goes on here.
                sweep.reader.seek(offset);
                return Ok(Swept::Nothing);
            }
            if lane.retry.is_some() || lane.offset < sweep.start || sweep.left_behind.contains(&name) {
                sweep.left_behind.insert(name);
                continue;
            }
            sweep.has_found = true;
            let why = match Item::read(offset, end, text) {
                Some(Item { body: Err(why), .. }) => why,
                Some(item) => return Ok(Swept::Item(item, name)),
                None => NO_RECORD.to_owned(),
            };
            let bytes = text.to_vec();
            let invalid = Invalid { offset, line: &bytes, why: &why, lane: Some(&name), is_beyond: false };
            self.quarantine(&invalid, now, world)?;
            self.lane_moved(&name);
            return Ok(Swept::Again);
        }
        if !sweep.has_found {
            let Sweep { start, left_behind, .. } = &*sweep;
            self.state.retries.drop_free(|name, lane| {
                lane.offset >= *start && !left_behind.contains(name) && !self.under_way.lanes.contains(name)
            });
            self.window.wake_all();
            self.store.touch();
        }
        self.sweep = None;
        // While one is under way the next sweep may wait.
        Ok(if self.under_way.is_idle() { Swept::Again } else { Swept::Nothing })
    }

    /// Reads on into the window until it has enough to choose from. Says whether there is more to read at once.
    fn read_ahead(&mut self, now: Timestamp, world: &mut impl World) -> Result<bool> {
        let wanted = self.pace.allowed().saturating_sub(self.under_way.items);
        let mut passed = 0;
        // Who has no run to make may find one further on, when all lanes here are under way.
        let has_idle = self.under_way.runs.len() < self.pace.couriers();
        while self.window.offered() < wanted && !self.window.is_full() {
            let is_in_vain = has_idle && self.window.offered() == 0;
            if !is_in_vain && self.window.is_enough(self.pace.allowed()) {
                break;
            }
            if passed >= PASSED_MAX {
                self.pass_blocked();
                return Ok(true);
            }
            passed += 1;
            if self.forward.offset() >= self.forward.end() {
                if self.forward.refresh()? <= self.forward.offset() {
                    break;
                }
                // Before anything of that is sent, a command that was given before it was queued is followed.
                self.control_seen = None;
                return Ok(true);
            }
            let Some(found) = self.forward.next_item()? else { break };
            let (offset, end) = match found {
                Found::Line { offset, end, text } => {
                    let is_mine = !Head::may_have_endpoint(text)
                        || Head::read(text).is_none_or(|it| it.is_for(self.consumer.endpoint()));
                    if !is_mine || self.state.cursor.has_settled(offset) {
                        self.window.push_settled(end);
                        continue;
                    }
                    if let Some(item) = Item::read(offset, end, text) {
                        let scope = item.scope.as_deref();
                        if self.state.retries.is_retrying(scope, item.key(), offset) {
                            // Its lane tells of it.
                            self.window.push_settled(end);
                        } else {
                            let lane = self.lane_name(scope, item.key());
                            self.unread.was_read(offset);
                            self.window.push(item, lane);
                        }
                        continue;
                    }
                    (offset, end)
                }
                Found::Overlong { offset, end } => (offset, end),
            };
            let line = self.queue.bytes(offset, end)?;
            let is_long = line.len() > journal::LINE_BYTES_MAX;
            let why = if is_long { "is longer than any record" } else { NO_RECORD };
            self.unread.was_read(offset);
            self.window.push_settled(end);
            let invalid = Invalid { offset, line: &line, why, lane: None, is_beyond: false };
            self.quarantine(&invalid, now, world)?;
        }
        self.pass_blocked();
        Ok(false)
    }

    /// Lets the mark pass what is settled at the front of the window, and what waits behind the retry of its lane.
    pub(super) fn pass_blocked(&mut self) {
        loop {
            let mark = self.window.pass_settled(self.state.cursor.offset);
            if mark != self.state.cursor.offset {
                self.state.pass_to(mark);
                self.store.touch();
            }
            let Some(name) = self.window.blocked_front(&self.state.retries) else { return };
            self.state.retries.wait_behind(&name);
            self.window.settle(self.window.front());
        }
    }

    /// Hands over runs of what the window offers. Says whether there was anything.
    fn send_from_window(&mut self, now: Timestamp, world: &mut impl World) -> Result<bool> {
        let mut budget = self.pace.allowed().saturating_sub(self.under_way.items);
        let runs = if self.settings.order == Order::Strict { 1 } else { self.pace.runs_max() };
        let runs = runs.saturating_sub(self.under_way.runs.len());
        let mut heads = Vec::new();
        while heads.len() < budget
            && let Some(number) = self.window.take(&self.state.retries)
        {
            match self.window.item(number).map(Arc::clone) {
                Some(item) if item.body.is_err() => self.quarantine_entry(number, &item, now, world)?,
                _ => heads.push(number),
            }
        }
        let has_any = !heads.is_empty();
        let mut heads = heads.into_iter();
        for left in (1..=runs).rev() {
            // Those that follow a first one take their part of it, too.
            if budget == 0 {
                break;
            }
            let Some(first) = heads.next() else { break };
            let route = self.window.item(first).map_or(Route::Milestones, |it| it.route);
            let batch = self.pace.batch(route, now).filter(|_| budget > 1);
            let most = batch.unwrap_or(RUN_MAX).min(budget);
            let share = (heads.len() + 1).div_ceil(left).min(most);
            let chunk = std::iter::once(first).chain(heads.by_ref().take(share - 1)).collect();
            let run = self.formed(chunk, route, most);
            budget -= run.len();
            self.hand_over(run, batch.is_some(), world)?;
        }
        for number in heads {
            self.window.offer(number);
        }
        Ok(has_any)
    }

    /// A run of these entries and of those that may follow them, in the order of the queue; all for one door.
    fn formed(&mut self, heads: BTreeSet<u64>, route: Route, most: usize) -> Vec<Job> {
        let mut next = heads.clone();
        let mut run = Vec::new();
        let mut bytes = 0;
        while let Some(number) = next.pop_first() {
            let Some(item) = self.window.item(number).map(Arc::clone) else { continue };
            // One that can never be delivered is looked after when it comes first.
            let Ok(body) = &item.body else { continue };
            bytes += ingest::batch::body_grows_by(body.len());
            let fits =
                run.is_empty() || (run.len() < most && bytes <= BATCH_BYTES_MAX && item.route == route);
            if fits {
                next.extend(self.window.follower(number));
                self.window.send(number);
                run.push(Job { item, origin: Origin::Window(number), is_probe: false });
            } else if heads.contains(&number) {
                self.window.offer(number);
            }
        }
        run
    }

    fn send_one(
        &mut self,
        item: Item,
        origin: Origin,
        is_probe: bool,
        world: &mut impl World,
    ) -> Result<Next> {
        self.hand_over(vec![Job { item: Arc::new(item), origin, is_probe }], false, world)?;
        Ok(Next::Started)
    }

    /// Hands a run over: one request with all of it, or one for each.
    fn hand_over(&mut self, jobs: Vec<Job>, as_batch: bool, world: &mut impl World) -> Result<()> {
        self.check_room()?;
        let run = self.under_way.number();
        let is_batch = as_batch && jobs.len() > 1;
        let most = if is_batch { jobs.len() } else { 1 };
        let mut requests = Vec::with_capacity(jobs.len().div_ceil(most.max(1)));
        let mut jobs = jobs.into_iter().peekable();
        while let Some(first) = jobs.peek() {
            let route = first.item.route;
            let trip: Vec<Job> = jobs.by_ref().take(most).collect();
            let items = trip.iter().map(|it| Arc::clone(&it.item)).collect();
            let ticket = self.under_way.number();
            self.under_way.add(ticket, run, trip);
            requests.push(Outgoing { ticket, route, items, is_batch });
        }
        world.start(requests)
    }

    /// What is there but was not sent is read again later.
    fn forget_window(&mut self) {
        if !self.window.is_empty() {
            self.window.clear();
            self.forward.seek(self.state.cursor.offset);
            self.unread.forget();
        }
    }

    /// The next probe: in turn a retry that is due and a fresh item, each time of another scope.
    fn next_probe(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        let breaker = &self.state.breaker;
        let due = breaker.due(now);
        if due > now {
            return Ok(Next::Wait(Some(due)));
        }
        let (probes, waiting, beyond) = (breaker.probes, breaker.probed_waiting, breaker.probed_beyond);
        let is_strict = self.settings.order == Order::Strict;
        let from_lane = self.lane_to_probe(waiting, now);
        let may_read = !is_strict || self.state.retries.is_empty();
        let beyond = if may_read && (from_lane.is_none() || probes % 2 == 1) {
            self.beyond_to_probe(beyond)?
        } else {
            None
        };
        match beyond {
            Some((Item { offset, body: Err(why), .. }, line)) => {
                let invalid = Invalid { offset, line: &line, why: &why, lane: None, is_beyond: true };
                self.unread.was_read(offset);
                self.quarantine(&invalid, now, world)?;
                return Ok(Next::Again);
            }
            Some((item, _)) => return self.send_one(item, Origin::Beyond, true, world),
            None => {}
        }
        if let Some((name, offset)) = from_lane {
            return self.send_from_lane(name, offset, true, now, world);
        }
        if self.state.retries.first_free().is_some() {
            // A probe that fails leaves the lane as it is, so the sweep begins anew.
            self.sweep = None;
            return match self.swept(now, world)? {
                Swept::Item(item, name) => self.send_one(item, Origin::Lane(name), true, world),
                Swept::Again | Swept::Nothing => Ok(Next::Again),
            };
        }
        Ok(Next::Wait(self.state.retries.next_due(|_| true)))
    }

    /// The first item of a lane whose retry is due, after the last probed one in the order of the queue.
    fn lane_to_probe(&self, probed: Option<u64>, now: Timestamp) -> Option<(LaneName, u64)> {
        let found = if self.settings.order == Order::Strict {
            let (name, lane) = self.state.retries.first()?;
            lane.retry.as_ref().filter(|it| it.due <= now).map(|_| (name, lane.offset))
        } else {
            let due = || self.state.retries.due(now).map(|(name, lane)| (name, lane.offset));
            let after = due().filter(|(_, offset)| probed.is_some_and(|it| *offset > it));
            after.min_by_key(|(_, offset)| *offset).or_else(|| due().min_by_key(|(_, offset)| *offset))
        };
        found.map(|(name, offset)| (name.clone(), offset))
    }

    /// An item beyond the mark that is the first of its scope, after the last probed one.
    fn beyond_to_probe(&self, probed: Option<u64>) -> Result<Option<(Item, Vec<u8>)>> {
        let mut reader = Reader::open_at(self.consumer.logs(), self.queue.name(), self.state.cursor.offset)?;
        let mut seen: BTreeSet<LaneName> = BTreeSet::new();
        let mut first = None;
        for _ in 0..PROBE_RECORDS_MAX {
            let Some(found) = reader.next_item()? else { break };
            let Found::Line { offset, end, text } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(self.consumer.endpoint())) else {
                continue;
            };
            let scope = head.scope.as_deref();
            let is_settled = self.state.cursor.has_settled(offset);
            if is_settled || self.state.retries.covering(scope, &head.key, offset).is_some() {
                continue;
            }
            if !seen.insert(self.lane_name(scope, &head.key)) {
                continue;
            }
            if probed.is_none_or(|last| offset > last) {
                first = Some((offset, end, text.to_vec()));
                break;
            }
            first.get_or_insert_with(|| (offset, end, text.to_vec()));
            if self.settings.order == Order::Strict {
                break;
            }
        }
        Ok(first.and_then(|(offset, end, text)| Some((Item::read(offset, end, &text)?, text))))
    }

    pub(super) fn lane_name(&self, scope: Option<&str>, key: &str) -> LaneName {
        match scope {
            Some(scope) if self.settings.order != Order::None => LaneName::Scope(scope.to_owned()),
            _ => LaneName::Item(key.to_owned()),
        }
    }

    /// An entry of the window that can never be delivered, and is the first of its lane.
    fn quarantine_entry(
        &mut self,
        number: u64,
        item: &Item,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<()> {
        let Err(why) = &item.body else { return Ok(()) };
        let line = self.queue.bytes(item.offset, item.end)?;
        self.window.settle(number);
        let invalid = Invalid { offset: item.offset, line: &line, why, lane: None, is_beyond: false };
        self.quarantine(&invalid, now, world)
    }

    fn quarantine(&mut self, it: &Invalid<'_>, now: Timestamp, world: &mut impl World) -> Result<()> {
        let Invalid { offset, why, .. } = *it;
        let line = it.line.strip_suffix(b"\n").unwrap_or(it.line);
        let kept = journal::keep_in_quarantine(self.consumer.logs(), self.queue.name(), offset, line)?;
        let file = self.queue.name().file();
        world.say(
            Level::Error,
            &format!("{file}: offset {offset}: {why}; kept in quarantine and passed over"),
        );
        let detail = Box::new(Detail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            queue_offset: offset,
            cursor: self.window.pass_settled(self.state.cursor.offset),
            at: now,
            reason: "invalid-record".to_owned(),
            answer: why.to_owned(),
            quarantine: Some(kept),
            probe: it.is_beyond,
            ahead: it.is_beyond,
            ..Detail::default()
        });
        let head = Head::read(line);
        // A line that was damaged while it waited settles its lane all the same.
        let (lane_key, lane_scope) = match it.lane {
            Some(LaneName::Item(key)) => (Some(key.clone()), None),
            Some(LaneName::Scope(scope)) => (None, Some(scope.clone())),
            None => (None, None),
        };
        let key = head.as_ref().map(|it| it.key.to_string()).filter(|it| !it.is_empty()).or(lane_key);
        let scope = head.and_then(|it| it.scope).map(|it| it.to_string()).or(lane_scope);
        let event = Event::Item { outcome: Outcome::Quarantined, key, scope, detail };
        self.state.apply(&event, false);
        self.push(event, None, now);
        Ok(())
    }
}
