//! Which records are shown: every condition must hold.
//!
//! # Invariants
//! - A line is judged by its bytes where it is canonical, else by what it says; both ways give the same answer.
//! - What shows at a glance that it is no record is damage, whatever the filter says. Of a line that cannot be asked
//!   for no more is looked at than that: whether every byte is right, `--verify` says.

use memchr::memmem::Finder;
use milepost::{
    Timestamp,
    audit::line::{RawLine, TimeFinder, is_plain, raw},
    canonical, identity,
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
    /// Either will do.
    keys: Option<[Vec<u8>; 2]>,
    scope: Option<Vec<u8>>,
    since: Option<String>,
    until: Option<String>,
    /// Finds the rarest of the wanted texts, quotes included.
    rarest: Option<Finder<'static>>,
    times: TimeFinder,
}

impl Filter {
    /// What the command line asks for.
    pub fn new(args: &Args, now: Timestamp) -> Filter {
        let bytes = |it: &Option<String>| it.as_deref().map(raw);
        // An id stands in the key of its milestone, and a key by itself: both end with it.
        let by_rarity = [
            (&args.trace, "\""),
            (&args.id, ""),
            (&args.scope, "\""),
            (&args.outcome, "\""),
            (&args.action, "\""),
            (&args.tool, "\""),
        ];
        let rarest =
            by_rarity.into_iter().find_map(|(it, before)| it.as_ref().map(|it| format!("{before}{it}\"")));
        Filter {
            tool: bytes(&args.tool),
            action: bytes(&args.action),
            outcome: bytes(&args.outcome),
            trace_id: bytes(&args.trace),
            keys: args.id.as_deref().map(|it| [raw(it), raw(&identity::milestone_key(it))]),
            scope: bytes(&args.scope),
            since: args.since.map(|it| it.since(now).to_string()),
            until: args.until.map(|it| it.until(now).to_string()),
            rarest: rarest.map(|it| Finder::new(&it).into_owned()),
            times: TimeFinder::default(),
        }
    }

    /// Judges a line.
    pub fn judge(&self, line: &[u8]) -> Kind {
        if self.cannot_match(line) {
            return Kind::Passed;
        }
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

    /// Whether a glance is enough: most lines are not asked for, and to read them would take ten times as long.
    fn cannot_match(&self, line: &[u8]) -> bool {
        let lacks_text = self.rarest.as_ref().is_some_and(|it| it.find(line).is_none());
        let may_say_more = lacks_text || self.since.is_some() || self.until.is_some();
        may_say_more
            && is_plain(line)
            && (lacks_text || self.times.find(line).is_some_and(|it| !self.is_in_time(it)))
    }

    /// Times of one form and one zone are in the order of their texts.
    fn is_in_time(&self, timestamp: &[u8]) -> bool {
        self.since.as_ref().is_none_or(|it| timestamp >= it.as_bytes())
            && self.until.as_ref().is_none_or(|it| timestamp < it.as_bytes())
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
            && self.keys.as_ref().is_none_or(|keys| keys.iter().any(|it| record.key == Some(it.as_slice())))
            && may_be(&self.scope, record.scope)
            && self.is_in_time(record.timestamp);
        if shown { Kind::Shown } else { Kind::Passed }
    }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs as _;
    use serde_json::json;

    use super::*;

    fn filter(args: &[&str]) -> Filter {
        let now = Timestamp::parse_utc("2026-03-02T12:00:00Z").unwrap();
        Filter::new(&Args::from_args(&["audit-tail"], args).unwrap(), now)
    }

    const CONDITIONS: &[&[&str]] = &[
        &[],
        &["--tool", "t"],
        &["--action", "emit"],
        &["--outcome", "appended"],
        &["--trace", "abc"],
        &["--id", "milestone:a"],
        &["--id", "a"],
        &["--id", "milestone:é\n\"x\""],
        &["--scope", "s"],
        &["--since", "2026-03-01T00:00:00Z"],
        &["--until", "2026-03-01T00:00:00Z"],
        &["--scope", "s", "--since", "1d", "--until", "1h"],
        &["--scope", "other", "--tool", "t"],
    ];

    #[test]
    fn a_glance_passes_nothing_that_is_asked_for_in_whatever_form_it_is_written() {
        let mut shown = 0;
        for key in ["milestone:a", "milestone:é\n\"x\"", "t"] {
            for time in ["2026-02-28T00:00:00.000Z", "2026-03-02T11:30:00.000Z", "2026-03-02T09:00:00.000Z"] {
                for scope in [json!("s"), json!("x"), json!(null)] {
                    // A detail with fields of its own that are called the same.
                    let detail =
                        json!({ "scope": "s", "timestamp": "2026-03-02T10:00:00.000Z", "tool": "t" });
                    let record = json!({
                        "action": "emit", "detail": detail, "hash": "h", "idempotency_key": key, "outcome": "appended",
                        "prev": "p", "scope": scope, "seq": 1, "timestamp": time, "tool": "t", "trace_id": "abc",
                    });
                    let canonical = String::from_utf8(canonical::to_vec(&record)).unwrap();
                    let forms = [
                        canonical.replace("\":", "\" : "),
                        canonical.replace("\"milestone", "\"\\u006dilestone"),
                        canonical.replace(
                            ",\"tool\":\"t\",\"trace_id\":\"abc\"}",
                            ",\"trace_id\":\"abc\",\"tool\":\"t\"}",
                        ),
                        canonical.clone(),
                    ];
                    for conditions in CONDITIONS {
                        let filter = filter(conditions);
                        let read = RawLine::read(canonical.as_bytes()).unwrap();
                        let expected = filter.judge_record(&read);
                        shown += usize::from(expected == Kind::Shown);
                        for form in &forms {
                            assert_eq!(filter.judge(form.as_bytes()), expected, "{conditions:?} {form}");
                        }
                    }
                }
            }
        }
        assert!(shown > 50, "{shown}");
    }

    #[test]
    fn what_does_not_look_like_a_record_is_damage_under_each_filter() {
        for line in ["", "x", "{\"action\":\"em", "\"trace_id\":null}", "{\"action\":\"e\0\0\0}", "\0\0\0\0"]
        {
            for conditions in CONDITIONS {
                assert_eq!(
                    filter(conditions).judge(line.as_bytes()),
                    Kind::Damaged,
                    "{conditions:?} {line:?}"
                );
            }
        }
    }
}
