//! The last things that went wrong, by the audit.
//!
//! # Invariants
//! - The audit is read backwards, segment by segment, and not further than [`BYTES_MAX`] from its end: what it costs
//!   does not grow with history.

use std::collections::VecDeque;

use milepost::{
    Result, Timestamp,
    journal::{Extent, JournalName, lines_from},
    logs::Logs,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is further back is not looked at.
const BYTES_MAX: u64 = 64 << 20;

/// Outcomes that somebody may want to look into.
const OUTCOMES: [&str; 5] = ["rejected", "conflict", "retried", "dead-lettered", "quarantined"];

/// Something that went wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// When.
    pub at_utc: Timestamp,
    pub tool: String,
    pub action: String,
    pub outcome: String,
    /// The event's key, if it is about one.
    pub idempotency_key: Option<String>,
    /// What was said of it.
    pub reason: String,
}

#[derive(Deserialize)]
struct Record {
    timestamp: Timestamp,
    tool: String,
    action: String,
    outcome: String,
    idempotency_key: Option<String>,
    detail: Value,
}

/// The last `count` of them, the newest first.
pub fn last(logs: &Logs, count: usize) -> Result<Vec<Trouble>> {
    let name = JournalName::audit();
    let extent = Extent::of(logs, &name)?;
    let segments = extent.sealed.iter().map(|it| it.base).chain([extent.active.base]);
    let first = extent.end().saturating_sub(BYTES_MAX);
    let mut found: VecDeque<Trouble> = VecDeque::new();
    for base in segments.collect::<Vec<_>>().into_iter().rev() {
        let missing = count - found.len();
        let mut here: VecDeque<Trouble> = VecDeque::new();
        let next = next_base(&extent, base);
        lines_from(logs, &name, base, &mut |offset, text| {
            if offset >= next {
                return false;
            }
            if let Some(trouble) = trouble_in(text) {
                here.push_back(trouble);
                if here.len() > missing {
                    here.pop_front();
                }
            }
            true
        })?;
        while let Some(it) = here.pop_back() {
            found.push_front(it);
        }
        if found.len() >= count || base <= first {
            break;
        }
    }
    Ok(found.into_iter().rev().collect())
}

/// Where the segment behind the one at `base` begins.
fn next_base(extent: &Extent, base: u64) -> u64 {
    let bases = extent.sealed.iter().map(|it| it.base).chain([extent.active.base]);
    bases.filter(|it| *it > base).min().unwrap_or(u64::MAX)
}

fn trouble_in(text: &[u8]) -> Option<Trouble> {
    // Most records tell of success: look before parsing.
    const OUTCOME: &[u8] = b"\"outcome\":\"";
    let word = &text[memchr::memmem::rfind(text, OUTCOME)? + OUTCOME.len()..];
    if !OUTCOMES.iter().any(|it| word.starts_with(it.as_bytes())) {
        return None;
    }
    let Record { timestamp, tool, action, outcome, idempotency_key, detail } =
        serde_json::from_slice(text).ok()?;
    let said = |field: &str| detail[field].as_str().filter(|it| !it.is_empty()).map(str::to_owned);
    let first_error = || {
        let error = detail["errors"].get(0)?;
        Some(format!("{}: {}", error["path"].as_str()?, error["message"].as_str()?))
    };
    let status = detail["status"].as_u64().map_or(String::new(), |it| format!("HTTP {it} "));
    let reason = said("answer").or_else(first_error).or_else(|| said("reason")).unwrap_or_default();
    let reason = format!("{status}{reason}");
    Some(Trouble { at_utc: timestamp, tool, action, outcome, idempotency_key, reason })
}
