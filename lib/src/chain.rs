//! A hash chain over the lines of a journal: each record holds the hash of the one before.
//!
//! `hash` is the lower-case hex SHA-256 of the text of `prev` followed by the canonical form of the record
//! without `hash` (`prev` included). The first `prev` is 64 zeros, the first `seq` 1.
//!
//! # Invariants
//! - Changing, removing or swapping any record but the last ones breaks the chain at that place. A cut tail
//!   does not: only a head kept elsewhere shows it.
//!
//! Not here: what the records say (`audit`, the receiver's feed).

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{canonical, identity::hex};

/// Where a chain stands: the last record's `seq` and `hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The last `seq`, 0 when there is no record yet.
    pub seq: u64,
    /// The last `hash`: what the next record gives as `prev`. Empty or zeros when there is none.
    pub head: String,
}

/// `prev` of the first record.
pub const FIRST_PREV: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Default for Chain {
    fn default() -> Chain {
        Chain { seq: 0, head: FIRST_PREV.to_owned() }
    }
}

#[derive(Deserialize)]
struct Link {
    seq: u64,
    hash: String,
}

impl Chain {
    /// What the next record gives as `prev`.
    pub fn prev(&self) -> &str {
        if self.seq == 0 { FIRST_PREV } else { &self.head }
    }

    /// Where a chain stands after `line`, believing it.
    pub fn after(line: &[u8]) -> Option<Chain> {
        let Link { seq, hash } = serde_json::from_slice(line).ok()?;
        Some(Chain { seq, head: hash })
    }

    /// Where a chain stands before `line`, believing it: for a chain whose beginning was trimmed.
    pub fn before(line: &[u8]) -> Option<Chain> {
        #[derive(Deserialize)]
        struct Back {
            seq: u64,
            prev: String,
        }
        let Back { seq, prev } = serde_json::from_slice(line).ok()?;
        Some(Chain { seq: seq.checked_sub(1)?, head: prev })
    }

    /// Checks that `line` is the next record, and steps over it.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn step(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(next) = self.step_canonical(line) {
            *self = next;
            return Ok(());
        }
        let mut record: Value = serde_json::from_slice(line).map_err(|it| format!("is no JSON: {it}"))?;
        let fields = record.as_object_mut().ok_or("is no JSON object")?;
        let Some(Value::String(hash)) = fields.remove("hash") else { return Err("has no hash".into()) };
        let (seq, prev) =
            (fields.get("seq").and_then(Value::as_u64), fields.get("prev").and_then(Value::as_str));
        if seq != Some(self.seq + 1) {
            return Err(format!(
                "has seq {}, expected {}",
                seq.map_or("none".into(), |it| it.to_string()),
                self.seq + 1
            ));
        }
        if prev != Some(self.prev()) {
            return Err(format!(
                "prev is {}, the record above has hash {}",
                prev.unwrap_or("absent"),
                self.prev()
            ));
        }
        let expected = link(self.prev(), &canonical::to_vec(&record));
        if hash != expected {
            return Err(format!("hash is {hash}, the record hashes to {expected}"));
        }
        *self = Chain { seq: self.seq + 1, head: hash };
        Ok(())
    }
}

impl Chain {
    /// The step over a line that is in canonical form already, as those of the audit are: its hash is that of its
    /// own text, so it need not be read and written again. `None` when that does not show that it fits.
    fn step_canonical(&self, line: &[u8]) -> Option<Chain> {
        const HASH: &[u8] = b",\"hash\":\"";
        const DIGITS: usize = 64;
        // In a string the quotes would be escaped, and behind `hash` no record has an object: it is the record's own.
        let at = memchr::memmem::rfind(line, HASH)?;
        let digits = line.get(at + HASH.len()..at + HASH.len() + DIGITS)?;
        let rest = line.get(at + HASH.len() + DIGITS..)?.strip_prefix(b"\"")?;
        // The hash covers `seq` and `prev`, but another record's may be right in itself.
        let seq = format!(",\"seq\":{},", self.seq + 1);
        let prev = format!(",\"prev\":\"{}\"", self.prev());
        memchr::memmem::find(rest, seq.as_bytes())?;
        memchr::memmem::find(rest, prev.as_bytes())?;
        let hash = Sha256::new().chain_update(self.prev()).chain_update(&line[..at]).chain_update(rest);
        let head = hex(&hash.finalize());
        (head.as_bytes() == digits).then(|| Chain { seq: self.seq + 1, head })
    }
}

/// The `hash` of a record, from its `prev` and its canonical form without `hash`.
pub fn link(prev: &str, canonical: &[u8]) -> String {
    hex(&Sha256::new().chain_update(prev).chain_update(canonical).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte of a record, changed in one bit: a fuzzer found one that no hash covers.
    #[test]
    fn no_byte_of_a_record_can_change() {
        let text = format!(r#"{{"detail":{{}},"prev":"{}","seq":1,"tool":"t"}}"#, Chain::default().prev());
        let hash = link(Chain::default().prev(), text.as_bytes());
        let line = text.replacen(",\"prev\"", &format!(",\"hash\":\"{hash}\",\"prev\""), 1).into_bytes();
        assert_eq!(Chain::default().step(&line), Ok(()));
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert!(Chain::default().step(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}
