//! Which records are shown: every condition must hold.
//!
//! # Invariants
//! - A line is judged by its bytes where it is canonical, else by what it says; both ways give the same answer.
//! - What is no record is damage, whatever the filter says.

use milepost::{
    Timestamp,
    audit::line::{RawLine, raw},
    canonical,
};

use crate::args::Args;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record that is asked for.
    Shown,
    /// A record that is not.
    Passed,
    /// No record.
    Damaged,
}

/// The conditions, as they lie in a canonical line.
pub struct Filter {
    tool: Option<Vec<u8>>,
    action: Option<Vec<u8>>,
    outcome: Option<Vec<u8>>,
    trace_id: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    scope: Option<Vec<u8>>,
    since: Option<String>,
    until: Option<String>,
}

impl Filter {
    /// What the command line asks for.
    pub fn new(args: &Args, now: Timestamp) -> Filter {
        let bytes = |it: &Option<String>| it.as_deref().map(raw);
        Filter {
            tool: bytes(&args.tool),
            action: bytes(&args.action),
            outcome: bytes(&args.outcome),
            trace_id: bytes(&args.trace),
            key: bytes(&args.id),
            scope: bytes(&args.scope),
            since: args.since.map(|it| it.since(now).to_string()),
            until: args.until.map(|it| it.until(now).to_string()),
        }
    }

    /// Judges a line.
    pub fn judge(&self, line: &[u8]) -> Kind {
        if let Some(record) = RawLine::read(line) {
            return self.judge_record(&record);
        }
        // Perhaps only written in another way.
        let canonical = serde_json::from_slice(line).map(|it| canonical::to_vec(&it));
        match canonical.as_deref().ok().and_then(RawLine::read) {
            Some(record) => self.judge_record(&record),
            None => Kind::Damaged,
        }
    }

    fn judge_record(&self, record: &RawLine<'_>) -> Kind {
        let is = |wanted: &Option<Vec<u8>>, it: &[u8]| wanted.as_deref().is_none_or(|wanted| wanted == it);
        let may_be = |wanted: &Option<Vec<u8>>, it: Option<&[u8]>| {
            wanted.as_deref().is_none_or(|wanted| it == Some(wanted))
        };
        let shown = is(&self.tool, record.tool)
            && is(&self.action, record.action)
            && is(&self.outcome, record.outcome)
            && may_be(&self.trace_id, record.trace_id)
            && may_be(&self.key, record.key)
            && may_be(&self.scope, record.scope)
            // Times of one form and one zone are in the order of their texts.
            && self.since.as_ref().is_none_or(|it| record.timestamp >= it.as_bytes())
            && self.until.as_ref().is_none_or(|it| record.timestamp < it.as_bytes());
        if shown { Kind::Shown } else { Kind::Passed }
    }
}
