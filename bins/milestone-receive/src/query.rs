//! The questions that readers may ask: `limit`, `scope`, `riskStatus`, `since`, `q`, `cursor`.
//!
//! # Invariants
//! - A value that makes no sense is refused with the name of its parameter; an unknown parameter is passed
//!   over, since links gather some on their way.

use milepost::{Timestamp, event::RiskStatus, text};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    feed::{Before, Filter},
    latest::TOP_MAX,
};

/// A question about the newest milestones.
#[derive(Clone, Debug)]
pub struct Query {
    /// How many at most.
    pub limit: usize,
    /// Which.
    pub filter: Filter,
    /// Only what is older than this place.
    pub before: Option<Before>,
}

/// Statuses in the order in which people are offered them.
pub const RISKS: [(RiskStatus, &str, &str); 4] = [
    (RiskStatus::OnTrack, "on-track", "On track"),
    (RiskStatus::AtRisk, "at-risk", "At risk"),
    (RiskStatus::Blocked, "blocked", "Blocked"),
    (RiskStatus::Completed, "completed", "Completed"),
];

/// Characters that may be searched for.
const WORDS_CHARS_MAX: usize = 200;

/// What stays readable in a query: everything that no parser takes for more than text.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Query {
    /// Reads the part of a URL after `?`.
    ///
    /// # Errors
    /// A sentence that names the parameter.
    pub fn parse(query: Option<&str>, limit: usize) -> Result<Query, String> {
        let mut parsed = Query { limit, filter: Filter::default(), before: None };
        for (name, value) in pairs(query.unwrap_or_default()) {
            let value = value.map_err(|()| format!("{name} is no percent-encoded UTF-8"))?;
            match name.as_str() {
                "limit" => {
                    let limit = value.parse().ok().filter(|it| (1..=TOP_MAX).contains(it));
                    parsed.limit = limit.ok_or_else(|| {
                        format!("limit must be a number from 1 to {TOP_MAX}, not {}", text::quoted(&value))
                    })?;
                }
                // A form that was left empty means everything.
                "scope" | "riskStatus" | "since" | "cursor" if value.is_empty() => {}
                "q" => {
                    let words = text::trim(&value).to_lowercase();
                    if words.chars().count() > WORDS_CHARS_MAX {
                        return Err(format!("q has more than {WORDS_CHARS_MAX} characters"));
                    }
                    parsed.filter.words = Some(words).filter(|it| !it.is_empty());
                }
                "since" => {
                    // The + of an offset that was not encoded has become a space, which no time holds.
                    let since = Timestamp::parse_rfc3339(&value.replace(' ', "+"));
                    parsed.filter.since = Some(since.map_err(|_| {
                        format!("since must be an RFC 3339 time, not {}", text::quoted(&value))
                    })?);
                }
                "cursor" => {
                    parsed.before = Some(cursor_of(&value).ok_or_else(|| {
                        format!("cursor must be the next of an earlier answer, not {}", text::quoted(&value))
                    })?);
                }
                "scope" => parsed.filter.scope = Some(text::trim(&value).to_owned()),
                "riskStatus" => {
                    let risk = RISKS.iter().find(|it| it.1 == value).map(|it| it.0);
                    parsed.filter.risk = Some(risk.ok_or_else(|| {
                        let known = RISKS.map(|it| it.1).join(", ");
                        format!("riskStatus must be one of {known}, not {}", text::quoted(&value))
                    })?);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// A place as readers see it: `{milliseconds}.{seq}`, to be given back as it is.
pub fn cursor((time, seq): Before) -> String {
    format!("{}.{seq}", time.millis())
}

fn cursor_of(text: &str) -> Option<Before> {
    let (millis, seq) = text.split_once('.')?;
    Some((Timestamp::from_millis(millis.parse().ok()?), seq.parse().ok()?))
}

/// The seq in `?after=`, for a first connection to the stream; `None` when there is none.
///
/// # Errors
/// A sentence, when it is no number.
pub fn after(query: Option<&str>) -> Result<Option<u64>, String> {
    let Some((_, value)) = pairs(query.unwrap_or_default()).find(|it| it.0 == "after") else {
        return Ok(None);
    };
    value.ok().and_then(|it| it.parse().ok()).map(Some).ok_or_else(|| "after must be a seq".to_owned())
}

/// The id in `?milestone=`, for the page of one.
pub fn milestone(query: Option<&str>) -> Option<String> {
    let (_, value) = pairs(query.unwrap_or_default()).find(|it| it.0 == "milestone")?;
    value.ok().filter(|it| !it.is_empty())
}

/// `text` as a value in a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

/// The slug and the words of a status.
pub fn words_of(risk: RiskStatus) -> (&'static str, &'static str) {
    RISKS.iter().find(|it| it.0 == risk).map_or(("", ""), |it| (it.1, it.2))
}

fn pairs(query: &str) -> impl Iterator<Item = (String, Result<String, ()>)> {
    query.split('&').filter(|it| !it.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name).unwrap_or_default(), decode(value))
    })
}

fn decode(text: &str) -> Result<String, ()> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_and_what_makes_no_sense_is_named() {
        let query = Query::parse(Some("limit=7&scope=a%20b+c%26&riskStatus=at-risk&utm=x"), 20).unwrap();
        assert_eq!((query.limit, query.filter.scope.as_deref()), (7, Some("a b c&")));
        assert_eq!(query.filter.risk, Some(RiskStatus::AtRisk));
        assert_eq!(Query::parse(None, 20).unwrap().limit, 20);
        let since = |it: &str| Query::parse(Some(&format!("since={it}")), 20).unwrap().filter.since;
        assert_eq!(since("2026-03-01T10:05:00+01:00"), since("2026-03-01T09:05:00Z"));
        assert!(Query::parse(Some("scope=&riskStatus="), 20).unwrap().filter.scope.is_none());
        for bad in ["limit=0", "limit=201", "limit=x", "limit=", "riskStatus=fine", "scope=%ff"] {
            let name = bad.split('=').next().unwrap();
            assert!(Query::parse(Some(bad), 20).unwrap_err().starts_with(name), "{bad}");
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for text in ["runtime", "chat:42", "a&b=c+d %", "zażółć \u{202e}"] {
            let query = Query::parse(Some(&format!("scope={}", encode(text))), 20).unwrap();
            assert_eq!(query.filter.scope.as_deref(), Some(text));
        }
    }
}
