//! A hash chain, record by record, and where it must stand at the mark.
//!
//! Not here: what the chain is (`chain`).

use super::{
    finding::{Finding, FindingKind, Findings},
    scan::Line,
};
use crate::{
    chain::Chain,
    journal::{Extent, JournalName},
};

/// A hash chain on its way.
#[derive(Debug)]
pub(super) struct Links {
    chain: Chain,
    /// Where it must stand when the mark is reached, if the mark says so.
    expected: Option<(u64, String)>,
    at_mark: Option<Chain>,
    is_broken: bool,
    is_first: bool,
}

impl Links {
    pub fn new(extent: &Extent) -> Links {
        let expected = (extent.chain.0 > 0).then(|| extent.chain.clone());
        let begins_later = extent.trimmed.first() == Some(&0);
        Links { chain: Chain::default(), expected, at_mark: None, is_broken: false, is_first: begins_later }
    }

    /// Steps over a record; false when nothing behind it is to be believed: a tail that does not fit.
    pub fn take(&mut self, line: &Line<'_>, name: &JournalName, findings: &mut Findings) -> bool {
        if std::mem::take(&mut self.is_first)
            && let Some(it) = Chain::before(line.text)
        {
            self.chain = it;
        }
        match self.chain.step(line.text) {
            Ok(()) => {}
            Err(_) if !line.is_believed => return false,
            Err(why) => {
                self.is_broken = true;
                let what = format!("the record {why}");
                findings.add(Finding::at(FindingKind::ChainBroken, name, line.offset, what));
                if let Some(it) = Chain::after(line.text) {
                    self.chain = it;
                }
            }
        }
        if line.is_believed {
            self.at_mark = Some(self.chain.clone());
        }
        true
    }

    /// Compares where the chain stood at the mark with what the mark says.
    pub fn check_mark(&self, name: &JournalName, findings: &mut Findings) {
        let (Some(expected), false) = (&self.expected, self.is_broken) else { return };
        let stood = self.at_mark.as_ref().map_or((0, ""), |it| (it.seq, it.head.as_str()));
        if stood != (expected.0, expected.1.as_str()) {
            let what =
                format!("the last record has seq {}, its writer had come to seq {}", stood.0, expected.0);
            findings.add(Finding::in_journal(FindingKind::ChainBroken, name, what));
        }
    }
}
