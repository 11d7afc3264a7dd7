//! What a journal is called, and which files follow from it.
//!
//! # Invariants
//! - A name given by a user is a plain name: no folder, no leading dot, and never that of a segment.
//! - Two journals never share a file.

use std::fmt;

use crate::{Error, Kind, Result};

/// The path of a journal under the logs folder, without `.jsonl`: `milestones`, `receive/feed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalName(String);

/// Digits of an offset in a file name, so that globbing order is reading order.
const OFFSET_DIGITS: usize = 20;

impl JournalName {
    /// The audit journal.
    pub fn audit() -> JournalName {
        JournalName("audit".into())
    }

    /// A name that the program itself made: `receive/feed`, `milestones`. Nothing is checked.
    pub fn internal(name: impl Into<String>) -> JournalName {
        JournalName(name.into())
    }

    /// The journal that a user named by its file, such as `milestones.jsonl`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is no plain name ending in `.jsonl`.
    pub fn from_file(file: &str) -> Result<JournalName> {
        let refuse = |what: &str| {
            Err(Error::new(Kind::Usage, crate::text::quoted(file), what)
                .cure("name a file in the logs folder, such as milestones.jsonl"))
        };
        let Some(name) = file.strip_suffix(".jsonl") else {
            return refuse("is no journal: its name must end in .jsonl");
        };
        let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return refuse("is no plain file name of letters, digits, dot, dash and underscore");
        }
        if name.rsplit_once('.').is_some_and(|(_, end)| offset_of(end).is_some()) {
            return refuse("is a sealed segment, not a journal");
        }
        Ok(JournalName(name.to_owned()))
    }

    /// The queue that a user named by its file: like [`JournalName::from_file`], and ending in `-queue.jsonl`.
    pub fn from_queue_file(file: &str) -> Result<JournalName> {
        let name = JournalName::from_file(file)?;
        if name.stem().is_none() {
            return Err(Error::new(
                Kind::Usage,
                crate::text::quoted(file),
                "is no queue: its name must end in -queue.jsonl",
            )
            .cure("the names of its state and dead letters follow from it"));
        }
        Ok(name)
    }

    /// The part of a queue's name that its state and dead letters share: `X` of `X-queue`.
    pub fn stem(&self) -> Option<&str> {
        self.0.strip_suffix("-queue").filter(|it| !it.is_empty())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The active segment, relative to the logs folder.
    pub fn file(&self) -> String {
        format!("{}.jsonl", self.0)
    }

    /// The sealed segment whose first byte has this logical offset.
    pub fn sealed(&self, base: u64) -> String {
        format!("{}.{base:0width$}.jsonl", self.0, width = OFFSET_DIGITS)
    }

    /// What stays of the sealed segment whose first byte has this logical offset, once it is trimmed.
    pub fn keys(&self, base: u64) -> String {
        format!("{}.{base:0width$}.keys", self.0, width = OFFSET_DIGITS)
    }

    /// The logical offset of a sealed segment's first byte, from its file name without folder.
    pub fn base_of(&self, file: &str) -> Option<u64> {
        let own = self.0.rsplit('/').next().unwrap_or_default();
        let rest = file.strip_prefix(own)?.strip_prefix('.')?.strip_suffix(".jsonl")?;
        offset_of(rest)
    }

    /// What quarantined bytes of this journal are called, relative to the logs folder.
    pub fn quarantined(&self, offset: u64, hash: &str) -> String {
        format!("quarantine/{}.{offset:0width$}.{hash}", self.0.replace('/', "."), width = OFFSET_DIGITS)
    }
}

fn offset_of(digits: &str) -> Option<u64> {
    (digits.len() == OFFSET_DIGITS && digits.bytes().all(|it| it.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

impl fmt::Display for JournalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named_by_offset_and_found_again() {
        let name = JournalName::internal("receive/feed");
        assert_eq!(name.sealed(1234), "receive/feed.00000000000000001234.jsonl");
        assert_eq!(name.base_of("feed.00000000000000001234.jsonl"), Some(1234));
        assert_eq!(name.base_of("feed.jsonl"), None);
        assert_eq!(name.base_of("feed.1234.jsonl"), None);
        assert_eq!(name.base_of("feedx.00000000000000001234.jsonl"), None);
    }

    #[test]
    fn only_plain_names_are_journals() {
        assert_eq!(JournalName::from_file("milestones.jsonl").unwrap().as_str(), "milestones");
        for bad in [
            "",
            ".jsonl",
            "a",
            "../a.jsonl",
            "a/b.jsonl",
            ".a.jsonl",
            "a b.jsonl",
            "a.00000000000000001234.jsonl",
        ] {
            assert_eq!(JournalName::from_file(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
        assert!(JournalName::from_queue_file("-queue.jsonl").is_err());
        assert_eq!(JournalName::from_queue_file("a-queue.jsonl").unwrap().stem(), Some("a"));
    }
}
