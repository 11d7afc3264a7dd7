//! A journal's lines for the check: what is missing becomes a finding.
//!
//! Not here: the reading (`journal::scan`), what a line says (`book`, `walk`).

use super::finding::{Finding, FindingKind, Findings};
pub(super) use crate::journal::Whole as Line;
use crate::{
    Result,
    journal::{self, Extent, Found, JournalName},
    logs::Logs,
};

/// Gives every line to `each`, until it says that it has seen enough. Returns the offset of the first byte that was
/// not taken away by a trim.
pub(super) fn scan(
    logs: &Logs,
    name: &JournalName,
    extent: &Extent,
    findings: &mut Findings,
    each: &mut dyn FnMut(Line<'_>, &mut Findings) -> bool,
) -> Result<u64> {
    journal::scan(logs, name, extent, &mut |found| {
        let (kind, offset, what) = match found {
            Found::Line(line) => return each(line, findings),
            Found::Missing { from, to } => {
                (FindingKind::SegmentMissing, from, format!("the bytes {from} to {to} are not there"))
            }
            Found::TooLong { segment, room } => {
                let what = format!("the segment has {} bytes and room for {room}", segment.length);
                (FindingKind::SegmentTooLong, segment.base, what)
            }
            Found::Cut { segment, believed } => {
                let what = format!(
                    "it has {} bytes, but {believed} were written, synced and audited",
                    segment.length
                );
                (FindingKind::Cut, segment.base + segment.length, what)
            }
        };
        findings.add(Finding::at(kind, name, offset, what));
        true
    })
}
