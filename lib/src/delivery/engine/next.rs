//! What is sent next, in this order: a probe while the breaker is open, else a retry that is due, else an item
//! of a lane that became free, else the next record beyond the mark.
//!
//! # Invariants
//! - An item is chosen only when no other of its scope is unsettled before it (`--order scope`), none of the
//!   queue at all (`strict`), or whenever it is reached (`none`).
//! - What is no valid record is kept in quarantine and passed over when the mark or a retry comes to it.
//!
//! Not here: what comes of it (`outcome`).

use std::collections::BTreeSet;

use super::{Engine, Job, Next, Order, Origin, PASSED_MAX, PROBE_RECORDS_MAX, Sweep, World};
use crate::{
    Result, Timestamp,
    audit::Outcome,
    delivery::{
        Level,
        event::{Detail, Event},
        item::{Head, Item},
        lanes::{LANES_MAX, LaneName},
    },
    journal::{self, Item as Found, Reader},
};

impl Engine {
    pub(super) fn next(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        if self.state.breaker.is_held() {
            return Ok(Next::Wait(None));
        }
        if self.state.breaker.is_open() {
            return self.next_probe(now, world);
        }
        let lanes = &self.state.retries;
        if self.settings.order == Order::Strict && !lanes.is_empty() {
            return match lanes.first() {
                Some((_, lane)) => match &lane.retry {
                    Some(retry) if retry.due > now => Ok(Next::Wait(Some(retry.due))),
                    Some(_) => {
                        let offset = lane.offset;
                        self.send_from_lane(offset, false, now, world)
                    }
                    None => self.next_swept(now, world),
                },
                None => Ok(Next::Again),
            };
        }
        let due = lanes.due(now).next().map(|(_, lane)| lane.offset);
        if let Some(offset) = due {
            return self.send_from_lane(offset, false, now, world);
        }
        if self.state.retries.first_free().is_some() {
            return self.next_swept(now, world);
        }
        // At the limit only the retries go on, until one of them is settled.
        if self.state.retries.len() < LANES_MAX
            && let Some(next) = self.next_forward(now, world)?
        {
            return Ok(next);
        }
        Ok(Next::Wait(self.state.retries.first_due().map(|(due, _)| due)))
    }

    /// The first unsettled item of a lane.
    fn send_from_lane(
        &mut self,
        offset: u64,
        is_probe: bool,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<Next> {
        let mut reader = Reader::open_at(self.consumer.logs(), self.queue.name(), offset)?;
        let Some(Found::Line { offset, end, text }) = reader.next_item()? else {
            // Below the mark, so it was there: the queue was cut meanwhile, and its reader says so.
            self.forward.refresh()?;
            return Ok(Next::Wait(None));
        };
        match Item::read(offset, end, text) {
            Ok(item) => Ok(Next::Send(Box::new(Job { item, origin: Origin::Lane, is_probe }))),
            Err(why) => {
                let text = text.to_vec();
                self.quarantine(offset, self.state.cursor.offset, &text, &why, now, world)?;
                Ok(Next::Again)
            }
        }
    }

    /// The next item of a free lane. A sweep that finds none proves that none is there.
    fn next_swept(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        if self.sweep.is_none() {
            let Some(from) = self.state.retries.first_free() else { return Ok(Next::Again) };
            let reader = Reader::open_at(self.consumer.logs(), self.queue.name(), from)?;
            self.sweep = Some(Sweep { reader, start: from, left_behind: BTreeSet::new(), has_found: false });
        }
        let Some(sweep) = &mut self.sweep else { return Ok(Next::Again) };
        while self.state.retries.first_free().is_some() && sweep.reader.offset() < self.state.cursor.offset {
            let Some(found) = sweep.reader.next_item()? else { break };
            let Found::Line { offset, end, text } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(self.consumer.endpoint())) else {
                continue;
            };
            let lanes = &mut self.state.retries;
            let Some(name) = lanes.covering(head.scope.as_deref(), &head.key, offset) else { continue };
            let Some(lane) = lanes.get(&name) else { continue };
            if lane.retry.is_some() || lane.offset < sweep.start || sweep.left_behind.contains(&name) {
                sweep.left_behind.insert(name);
                continue;
            }
            sweep.has_found = true;
            if self.state.cursor.ahead.remove(&offset) {
                lanes.settle(&name, offset, false);
                self.store.touch();
                continue;
            }
            return match Item::read(offset, end, text) {
                Ok(item) => Ok(Next::Send(Box::new(Job { item, origin: Origin::Lane, is_probe: false }))),
                Err(why) => {
                    let text = text.to_vec();
                    self.quarantine(offset, self.state.cursor.offset, &text, &why, now, world)?;
                    Ok(Next::Again)
                }
            };
        }
        if !sweep.has_found {
            self.state.retries.drop_all_free();
            self.store.touch();
        }
        self.sweep = None;
        Ok(Next::Again)
    }

    /// The next record beyond the mark that nothing blocks; `None` at the end of the queue.
    fn next_forward(&mut self, now: Timestamp, world: &mut impl World) -> Result<Option<Next>> {
        if self.forward.offset() != self.state.cursor.offset {
            self.forward.seek(self.state.cursor.offset);
        }
        for _ in 0..PASSED_MAX {
            let Some(found) = self.forward.next_item()? else { return Ok(None) };
            let (offset, end, text) = match found {
                Found::Line { offset, end, text } => (offset, end, text),
                Found::Overlong { offset, end } => {
                    let bytes = self.queue.bytes(offset, end)?;
                    self.quarantine(offset, end, &bytes, "is longer than any record", now, world)?;
                    return Ok(Some(Next::Again));
                }
            };
            let Some(head) = Head::read(text) else {
                let text = text.to_vec();
                self.quarantine(offset, end, &text, "is no record of a queue", now, world)?;
                return Ok(Some(Next::Again));
            };
            let is_passed = !head.is_for(self.consumer.endpoint()) || self.state.cursor.ahead.remove(&offset);
            let blocking = if is_passed {
                None
            } else {
                self.state.retries.covering(head.scope.as_deref(), &head.key, offset)
            };
            if let Some(name) = &blocking {
                self.state.retries.wait_behind(name);
            }
            if is_passed || blocking.is_some() {
                self.state.cursor.offset = end;
                self.store.touch();
                continue;
            }
            return match Item::read(offset, end, text) {
                Ok(item) => {
                    let job = Job { item, origin: Origin::Mark, is_probe: false };
                    Ok(Some(Next::Send(Box::new(job))))
                }
                Err(why) => {
                    let text = text.to_vec();
                    self.quarantine(offset, end, &text, &why, now, world)?;
                    Ok(Some(Next::Again))
                }
            };
        }
        Ok(Some(Next::Again))
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
        if let Some(item) = beyond {
            return Ok(Next::Send(Box::new(Job { item, origin: Origin::Beyond, is_probe: true })));
        }
        if let Some(offset) = from_lane {
            return self.send_from_lane(offset, true, now, world);
        }
        if self.state.retries.first_free().is_some() {
            // A probe that fails leaves the lane as it is, so the sweep begins anew.
            self.sweep = None;
            let next = self.next_swept(now, world)?;
            return Ok(match next {
                Next::Send(job) => Next::Send(Box::new(Job { is_probe: true, ..*job })),
                other => other,
            });
        }
        Ok(Next::Wait(self.state.retries.first_due().map(|(due, _)| due)))
    }

    /// The first item of a lane whose retry is due, after the last probed one in the order of the queue.
    fn lane_to_probe(&self, probed: Option<u64>, now: Timestamp) -> Option<u64> {
        if self.settings.order == Order::Strict {
            let (_, lane) = self.state.retries.first()?;
            return lane.retry.as_ref().filter(|it| it.due <= now).map(|_| lane.offset);
        }
        let offsets = || self.state.retries.due(now).map(|(_, lane)| lane.offset);
        let after = probed.and_then(|last| offsets().filter(|it| *it > last).min());
        after.or_else(|| offsets().min())
    }

    /// An item beyond the mark that is the first of its scope, after the last probed one.
    fn beyond_to_probe(&mut self, probed: Option<u64>) -> Result<Option<Item>> {
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
            let is_settled = self.state.cursor.ahead.contains(&offset);
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
        // One that is invalid is found out when the mark comes to it.
        Ok(first.and_then(|(offset, end, text)| Item::read(offset, end, &text).ok()))
    }

    pub(super) fn lane_name(&self, scope: Option<&str>, key: &str) -> LaneName {
        match scope {
            Some(scope) if self.settings.order != Order::None => LaneName::Scope(scope.to_owned()),
            _ => LaneName::Item(key.to_owned()),
        }
    }

    fn quarantine(
        &mut self,
        offset: u64,
        cursor: u64,
        line: &[u8],
        why: &str,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<()> {
        let kept = journal::keep_in_quarantine(self.consumer.logs(), self.queue.name(), offset, line)?;
        let file = self.queue.name().file();
        world.say(
            Level::Error,
            &format!("{file}: offset {offset}: {why}; kept in quarantine and passed over"),
        );
        let head = Head::read(line);
        let detail = Box::new(Detail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            queue_offset: offset,
            cursor,
            at: now,
            reason: "invalid-record".to_owned(),
            answer: why.to_owned(),
            quarantine: Some(kept),
            ..Detail::default()
        });
        let key = head.as_ref().map(|it| it.key.to_string()).filter(|it| !it.is_empty());
        let scope = head.and_then(|it| it.scope).map(|it| it.to_string());
        let event = Event::Item { outcome: Outcome::Quarantined, key, scope, detail };
        self.state.apply(&event, false);
        self.push(event, None, now);
        Ok(())
    }
}
