//! An event as bytes: its record, and its canonical form.
//!
//! # Invariants
//! - Both are written by hand, in a quarter of the time that serde takes, and are what serde and `canonical` make of
//!   the event.
//! - A record is never longer than [`RECORD_BYTES_MAX`].

use super::{Evidence, ID_CHARS_MAX, MilestoneEvent, RECORD_BYTES_MAX, too_long};
use crate::{canonical, schema::FieldError, text};

/// Appends fields: the bytes before each, and its text as a JSON string.
struct Fields<'o>(&'o mut Vec<u8>);

impl Fields<'_> {
    fn put(&mut self, before: &[u8], text: &impl AsRef<str>) {
        self.0.extend_from_slice(before);
        canonical::write_string(text.as_ref(), self.0);
    }

    /// For what is known to need no escaping.
    fn plain(&mut self, before: &[u8], word: &str) {
        self.0.extend_from_slice(before);
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }
}

impl<S: AsRef<str>> MilestoneEvent<S> {
    /// The record: one line of JSON with its newline.
    ///
    /// # Errors
    /// When it takes more than [`RECORD_BYTES_MAX`].
    pub fn to_line(&self) -> Result<Vec<u8>, FieldError> {
        let mut line = Vec::with_capacity(self.text_bytes() + 256);
        self.write_line(&mut line)?;
        Ok(line)
    }

    /// Appends the record to `batch`, as [`MilestoneEvent::to_line`] does; on an error nothing is appended.
    ///
    /// # Errors
    /// When it takes more than [`RECORD_BYTES_MAX`].
    pub fn write_line(&self, batch: &mut Vec<u8>) -> Result<(), FieldError> {
        let start = batch.len();
        self.write_json(batch);
        batch.push(b'\n');
        let bytes = batch.len() - start;
        if bytes > RECORD_BYTES_MAX {
            batch.truncate(start);
            return Err(too_long(bytes));
        }
        Ok(())
    }

    /// Appends the record without its newline, however long it is.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.put(b"{\"milestoneId\":", &self.milestone_id);
        fields.plain(b",\"timestampUtc\":", &self.timestamp_utc.to_string());
        fields.put(b",\"scope\":", &self.scope);
        fields.put(b",\"claim\":", &self.claim);
        let mut before: &[u8] = b",\"evidence\":[{\"type\":";
        for it in &self.evidence {
            fields.plain(before, it.kind.as_str());
            fields.put(b",\"path\":", &it.path);
            fields.put(b",\"summary\":", &it.summary);
            if let Some(reference) = &it.reference {
                fields.put(b",\"ref\":", reference);
            }
            before = b"},{\"type\":";
        }
        let end: &[u8] = if self.evidence.is_empty() {
            b",\"evidence\":[],\"riskStatus\":"
        } else {
            b"}],\"riskStatus\":"
        };
        fields.plain(end, self.risk_status.as_str());
        fields.put(b",\"nextAction\":", &self.next_action);
        fields.plain(b",\"source\":", self.source.as_str());
        out.push(b'}');
    }

    /// Appends the canonical form of the event (`canonical`).
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.put(b"{\"claim\":", &self.claim);
        let mut before: &[u8] = b",\"evidence\":[{\"path\":";
        for it in &self.evidence {
            fields.put(before, &it.path);
            if let Some(reference) = &it.reference {
                fields.put(b",\"ref\":", reference);
            }
            fields.put(b",\"summary\":", &it.summary);
            fields.plain(b",\"type\":", it.kind.as_str());
            before = b"},{\"path\":";
        }
        let end: &[u8] = if self.evidence.is_empty() {
            b",\"evidence\":[],\"milestoneId\":"
        } else {
            b"}],\"milestoneId\":"
        };
        fields.put(end, &self.milestone_id);
        fields.put(b",\"nextAction\":", &self.next_action);
        fields.plain(b",\"riskStatus\":", self.risk_status.as_str());
        fields.put(b",\"scope\":", &self.scope);
        fields.plain(b",\"source\":", self.source.as_str());
        fields.plain(b",\"timestampUtc\":", &self.timestamp_utc.to_string());
        out.push(b'}');
    }

    /// Whether an event that serde read is normalised and valid as it is, so that nothing is left to say about
    /// it or to change.
    pub fn is_valid(&self) -> bool {
        self.is_normal() && self.fits()
    }

    /// Whether its record is short enough.
    pub(super) fn fits(&self) -> bool {
        // Escaping makes six bytes of one at most. Counting exactly costs as much as writing.
        self.text_bytes() * 6 + 1024 <= RECORD_BYTES_MAX || self.write_line(&mut Vec::new()).is_ok()
    }

    /// Whether nothing is left for normalising and validating to do, but for what serde has seen to.
    pub(super) fn is_normal(&self) -> bool {
        let normal = |it: &S| !it.as_ref().is_empty() && text::trim(it.as_ref()).len() == it.as_ref().len();
        let id = self.milestone_id.as_ref();
        normal(&self.milestone_id)
            && id.chars().count() <= ID_CHARS_MAX
            && !id.contains(char::is_control)
            && normal(&self.scope)
            && normal(&self.claim)
            && normal(&self.next_action)
            && !self.evidence.is_empty()
            && self
                .evidence
                .iter()
                .all(|it| normal(&it.path) && normal(&it.summary) && it.reference.as_ref().is_none_or(normal))
    }

    /// Bytes of all text that is not of fixed length, before escaping.
    fn text_bytes(&self) -> usize {
        let bytes = |it: &S| it.as_ref().len();
        let evidence = |it: &Evidence<S>| {
            // The names of an evidence's fields, its type and punctuation take less than 64.
            bytes(&it.path) + bytes(&it.summary) + it.reference.as_ref().map_or(0, bytes) + 64
        };
        bytes(&self.milestone_id)
            + bytes(&self.scope)
            + bytes(&self.claim)
            + bytes(&self.next_action)
            + self.evidence.iter().map(evidence).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Timestamp,
        event::{EvidenceType, RiskStatus, Source},
    };

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,20}", "[\\x00-\\x7f\"\\\\]{0,40}"]
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let kind = prop_oneof![Just(EvidenceType::Doc), Just(EvidenceType::Log)];
        (kind, text(), text(), proptest::option::of(text()))
            .prop_map(|(kind, path, summary, reference)| Evidence { kind, path, summary, reference })
    }

    fn event() -> impl Strategy<Value = MilestoneEvent> {
        let words = (
            prop_oneof![Just(RiskStatus::OnTrack), Just(RiskStatus::Blocked)],
            prop_oneof![Just(Source::Agent), Just(Source::Operator)],
        );
        let evidence = proptest::collection::vec(evidence(), 0..4);
        (text(), text(), text(), text(), evidence, words, 0..4_000_000_000_000_i64).prop_map(
            |(milestone_id, scope, claim, next_action, evidence, (risk_status, source), at)| MilestoneEvent {
                milestone_id,
                timestamp_utc: Timestamp::from_millis(at),
                scope,
                claim,
                evidence,
                risk_status,
                next_action,
                source,
            },
        )
    }

    proptest! {
        #[test]
        fn both_forms_are_what_the_general_writers_make(event in event()) {
            let mut json = Vec::new();
            event.write_json(&mut json);
            prop_assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&event).unwrap());
            let mut out = Vec::new();
            event.write_canonical(&mut out);
            prop_assert_eq!(out, canonical::to_vec(&serde_json::to_value(&event).unwrap()));
        }
    }
}
