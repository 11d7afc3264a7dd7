//! The circuit breaker of one endpoint: when sending stops, when it is probed, when it goes on. Pure.
//!
//! | state | opened by | what is sent | ended by |
//! | --- | --- | --- | --- |
//! | closed | | all that is due | |
//! | open, endpoint | five endpoint faults in a row | one probe at a time | an acknowledgement |
//! | open, configuration | one fault of the configuration | one probe at a time | an acknowledgement |
//! | open, items | ten rejected items in a row | one probe at a time | an acknowledgement |
//! | held | `--hold`, 410, `webhook-delivery: disable` | nothing | `--release` |
//!
//! Outside of "open, items" a rejection by the contract also proves that the application itself answers, and
//! ends the opening. Another URL resets the breaker, but not what the operator held.
//!
//! # Invariants
//! - It depends on nothing but the sequence of calls, so replaying the audit gives the same breaker.
//! - A failed probe uses no attempt and leaves nothing behind but the time of the next one.
//!
//! Not here: which item is the next probe (`engine`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{backoff, verdict::Fault};
use crate::Timestamp;

/// Endpoint faults in a row that open it.
const ENDPOINT_FAULTS_MAX: u32 = 5;
/// Rejected items in a row, without an acknowledgement, that open it.
const ITEM_FAULTS_MAX: u32 = 10;

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Everything.
    #[default]
    Closed,
    /// Probes.
    Open,
    /// Nothing.
    Held,
}

/// What closed the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Endpoint faults in a row.
    Endpoint,
    /// Wrong secret, wrong URL or a proxy.
    Configuration,
    /// Rejected items in a row.
    Items,
    /// The operator.
    Operator,
    /// The endpoint itself wants no more.
    Gone,
}

/// The breaker of one endpoint, as it stands in the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// What it lets through.
    pub state: Gate,
    /// What closed the gate; none while it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_utc: Option<Timestamp>,
    /// Endpoint faults in a row.
    #[serde(default)]
    pub endpoint_faults: u32,
    /// Rejected items in a row.
    #[serde(default)]
    pub item_faults: u32,
    /// Probes that failed since it opened.
    #[serde(default)]
    pub probes: u32,
    /// When the next probe is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_utc: Option<Timestamp>,
    /// The delay that made it, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The queue offset of the last probe with an item that waited for a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_waiting: Option<u64>,
    /// The queue offset of the last probe with an item beyond the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_beyond: Option<u64>,
}

impl Breaker {
    /// Whether only probes are sent.
    pub fn is_open(&self) -> bool {
        self.state == Gate::Open
    }

    /// Whether nothing is sent.
    pub fn is_held(&self) -> bool {
        self.state == Gate::Held
    }

    /// Whether an operator must do something before this passes.
    pub fn needs_operator(&self) -> bool {
        self.is_held() || (self.is_open() && self.cause != Some(Cause::Endpoint))
    }

    /// The next probe is not due before this time.
    pub fn due(&self, now: Timestamp) -> Timestamp {
        self.due_utc.unwrap_or(now)
    }

    /// Brings a due time nearer that a clock that went back has put off. Says whether it did.
    pub fn rebase(&mut self, now: Timestamp) -> bool {
        let Some(due) = self.due_utc else { return false };
        let still = backoff::still_due(due, Duration::from_millis(self.delay_ms), now);
        self.due_utc = Some(still);
        still != due
    }

    /// Counts an acknowledgement.
    pub fn count_acknowledged(&mut self) {
        self.endpoint_faults = 0;
        self.item_faults = 0;
    }

    /// Counts a failure; says what it would open a closed breaker for.
    ///
    /// `is_own` marks an item that is known to fail where others pass: it speaks for nobody else.
    pub fn count_failed(&mut self, fault: Fault, is_own: bool) -> Option<Cause> {
        if is_own && fault != Fault::Item {
            return None;
        }
        match fault {
            Fault::Endpoint => {
                self.endpoint_faults = self.endpoint_faults.saturating_add(1);
                (self.endpoint_faults >= ENDPOINT_FAULTS_MAX).then_some(Cause::Endpoint)
            }
            Fault::Item => {
                self.endpoint_faults = 0;
                self.item_faults = self.item_faults.saturating_add(1);
                (self.item_faults >= ITEM_FAULTS_MAX).then_some(Cause::Items)
            }
            Fault::Application => {
                self.endpoint_faults = 0;
                None
            }
            Fault::Configuration => Some(Cause::Configuration),
            Fault::Gone => None,
        }
    }

    /// What [`Breaker::count_failed`] would say, without counting.
    pub fn would_open(&self, fault: Fault, is_own: bool) -> Option<Cause> {
        self.clone().count_failed(fault, is_own)
    }

    /// Opens it; the first probe comes after `delay`.
    pub fn open(&mut self, cause: Cause, reason: &str, now: Timestamp, delay: Duration) {
        self.state = Gate::Open;
        self.cause = Some(cause);
        reason.clone_into(&mut self.reason);
        self.since_utc = Some(now);
        self.probes = 0;
        self.set_due(now, delay);
    }

    /// A probe with the item at this queue offset failed; the next one comes after `delay`.
    pub fn probe_failed(&mut self, offset: u64, is_beyond: bool, now: Timestamp, delay: Duration) {
        self.probes = self.probes.saturating_add(1);
        let probed = if is_beyond { &mut self.probed_beyond } else { &mut self.probed_waiting };
        *probed = Some(offset);
        self.set_due(now, delay);
    }

    /// Holds everything until it is released.
    pub fn hold(&mut self, cause: Cause, reason: &str, now: Timestamp) {
        *self = Breaker {
            state: Gate::Held,
            cause: Some(cause),
            reason: reason.to_owned(),
            since_utc: Some(now),
            ..Breaker::default()
        };
    }

    /// Closes it and forgets everything: an acknowledgement, a release, another URL.
    pub fn reset(&mut self) {
        *self = Breaker::default();
    }

    /// Makes the next probe due at once (`--retry-now`).
    pub fn probe_now(&mut self, now: Timestamp) {
        if self.is_open() {
            self.set_due(now, Duration::ZERO);
        }
    }

    fn set_due(&mut self, now: Timestamp, delay: Duration) {
        self.due_utc = Some(now.plus(delay));
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_endpoint_faults_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(breaker.count_failed(Fault::Endpoint, false), None);
            }
            breaker.count_failed(Fault::Application, false);
        }
        for _ in 0..4 {
            assert_eq!(breaker.count_failed(Fault::Endpoint, false), None);
        }
        assert_eq!(breaker.would_open(Fault::Endpoint, false), Some(Cause::Endpoint));
        assert_eq!(
            breaker.count_failed(Fault::Endpoint, true),
            None,
            "an item's own fault counts for nobody"
        );
        assert_eq!(breaker.count_failed(Fault::Endpoint, false), Some(Cause::Endpoint));
    }

    #[test]
    fn a_configuration_fault_opens_it_at_once_and_ten_rejections_do() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.count_failed(Fault::Configuration, false), Some(Cause::Configuration));
        assert_eq!(breaker.count_failed(Fault::Configuration, true), None);
        for _ in 0..9 {
            assert_eq!(breaker.count_failed(Fault::Item, false), None);
            breaker.count_failed(Fault::Endpoint, false);
            breaker.count_failed(Fault::Application, false);
        }
        assert_eq!(breaker.count_failed(Fault::Item, false), Some(Cause::Items));
        breaker.count_acknowledged();
        assert_eq!(breaker.count_failed(Fault::Item, false), None);
    }

    #[test]
    fn a_clock_that_went_back_does_not_put_the_probe_off() {
        let now = Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap();
        let mut breaker = Breaker::default();
        breaker.open(Cause::Endpoint, "x", now, Duration::from_secs(5));
        assert_eq!(breaker.due(now), now.plus(Duration::from_secs(5)));
        let before = now.minus(Duration::from_secs(86_400));
        assert!(!breaker.rebase(now) && breaker.rebase(before));
        assert_eq!(breaker.due(before), before.plus(Duration::from_secs(5)));
    }

    #[test]
    fn a_held_breaker_stays_held_until_it_is_reset() {
        let mut breaker = Breaker::default();
        breaker.hold(Cause::Gone, "410", Timestamp::default());
        breaker.probe_now(Timestamp::default());
        assert!(breaker.is_held() && breaker.needs_operator());
        breaker.reset();
        assert_eq!(breaker, Breaker::default());
    }
}
