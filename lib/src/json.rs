//! Strict JSON: the one door through which foreign text becomes a value.
//!
//! What passes means the same to every party. So whatever JSON parsers disagree about is refused, with
//! its place: duplicate keys (first or last?), `__proto__` (a JavaScript receiver drops it, so that it
//! would be unsigned), lone surrogates (no UTF-8), numbers that a double does not hold exactly, a byte
//! order mark, text after the document, deep nesting. The list is the one of the ingest contract.
//!
//! # Invariants
//! - Whatever the bytes are, [`parse`] returns: no panic, no overflow of the stack, time linear in them but
//!   for the sorting of keys.
//! - A value that passed [`parse`] nests at most [`DEPTH_MAX`] deep and has only finite numbers.
//! - The same text always gives the same [`Refusal`].
//!
//! Not here: which fields a document has (`schema`), how a value is written (`canonical`). Journals may
//! hold what this refuses: the canonical form of the number `1e20` is an integer beyond 2^53.

pub mod forms;

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

use crate::text;

/// How many arrays and objects may stand inside each other.
pub const DEPTH_MAX: usize = 64;

/// The largest integer up to which a double holds every integer: 2^53 - 1.
pub const INTEGER_MAX: u64 = 9_007_199_254_740_991;

/// Why a text is not taken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The line of the place, from 1; only a line feed ends a line.
    pub line: usize,
    /// The column of the place, from 1, in characters.
    pub column: usize,
    /// What is wrong there: lower case, no full stop, control characters escaped.
    pub what: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

impl std::error::Error for Refusal {}

/// Parses one document that fills `text`.
///
/// # Errors
/// A [`Refusal`] that names the first trouble found and its place.
pub fn parse(text: &[u8]) -> Result<Value, Refusal> {
    parse_to_depth(text, DEPTH_MAX)
}

/// As [`parse`], with another bound on nesting: for a document whose parts were documents, and may nest as
/// deep as those.
///
/// # Errors
/// As [`parse`].
pub fn parse_to_depth(text: &[u8], depth_max: usize) -> Result<Value, Refusal> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(refusal(text, 0, "a byte order mark before the document; save it as UTF-8 without one"));
    }
    let text = std::str::from_utf8(text).map_err(|it| refusal(text, it.valid_up_to(), "invalid UTF-8"))?;
    let mut seen = Seen::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Document { seen: &mut seen, depth: 0, depth_max }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| explain(text, &error, seen.trouble, depth_max))?;
    if seen.large_number
        && let Some((at, literal)) = first_large_integer(text)
    {
        let what = format!("integer {} is beyond ±(2^53-1); write it as a string", text::quoted(literal));
        return Err(refusal(text.as_bytes(), at, what));
    }
    Ok(value)
}

/// Parses one object that fills `text`.
///
/// # Errors
/// As [`parse`], and when the document is no object.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let found = match parse(text)? {
        Value::Object(fields) => return Ok(fields),
        Value::Array(_) => "an array",
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::Null => "null",
    };
    let at = text.iter().position(|it| !it.is_ascii_whitespace()).unwrap_or(0);
    Err(refusal(text, at, format!("expected an object, found {found}")))
}

/// What the visitors found that serde's errors cannot carry.
#[derive(Default)]
struct Seen {
    /// Why a visitor stopped the parse.
    trouble: Option<Trouble>,
    /// A number of 2^53 or more came by. Whether it was written as an integer only the text tells:
    /// `serde_json` makes a double of an integer that a u64 does not hold.
    large_number: bool,
}

enum Trouble {
    DuplicateKey(String),
    ProtoKey,
    TooDeep,
}

/// One value in a document, `depth` arrays and objects inside it.
struct Document<'a> {
    seen: &'a mut Seen,
    depth: usize,
    depth_max: usize,
}

impl Document<'_> {
    /// The same document one level further in.
    fn inside(&mut self) -> Document<'_> {
        Document { seen: self.seen, depth: self.depth + 1, depth_max: self.depth_max }
    }

    fn stop<E: de::Error>(&mut self, trouble: Trouble) -> E {
        self.seen.trouble = Some(trouble);
        E::custom("")
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        self.seen.large_number |= it > INTEGER_MAX;
        Ok(Value::Number(it.into()))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        self.seen.large_number |= it.unsigned_abs() > INTEGER_MAX;
        Ok(Value::Number(it.into()))
    }

    fn visit_f64<E: de::Error>(self, it: f64) -> Result<Value, E> {
        // 2^63 and not 2^53: an integer literal comes as a double only where an i64 does not hold it.
        self.seen.large_number |= it.abs() >= 9_223_372_036_854_775_808.0;
        Number::from_f64(it).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::String(it.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        if self.depth == self.depth_max {
            return Err(self.stop(Trouble::TooDeep));
        }
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.inside())? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        if self.depth == self.depth_max {
            return Err(self.stop(Trouble::TooDeep));
        }
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if key == "__proto__" {
                return Err(self.stop(Trouble::ProtoKey));
            }
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(fields.next_value_seed(self.inside())?);
                }
                Entry::Occupied(place) => {
                    let key = place.key().clone();
                    return Err(self.stop(Trouble::DuplicateKey(key)));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

/// The refusal that `error` means, at the place where a person looks for it.
fn explain(text: &str, error: &serde_json::Error, trouble: Option<Trouble>, depth_max: usize) -> Refusal {
    let noticed = offset_of(text, error.line(), error.column());
    // When a visitor stops, serde_json stands after the key or bracket in question, and after white space
    // or a closing bracket that it still took.
    let taken = text.as_bytes().get(..=noticed).unwrap_or(text.as_bytes());
    let (at, what) = match trouble {
        Some(Trouble::DuplicateKey(key)) => {
            (last_key(taken), format!("duplicate key {}", text::quoted(&key)))
        }
        Some(Trouble::ProtoKey) => {
            (last_key(taken), "the key \"__proto__\", which JavaScript receivers would drop".to_owned())
        }
        Some(Trouble::TooDeep) => {
            let bracket = taken.iter().rposition(|it| matches!(it, b'[' | b'{'));
            (bracket.unwrap_or(noticed), format!("nested deeper than {depth_max} arrays and objects"))
        }
        None if text.trim_ascii().is_empty() => (0, "the text is empty".to_owned()),
        None => (noticed, in_words(error)),
    };
    refusal(text.as_bytes(), at, what)
}

/// Where the last key in `taken` starts: at the quote that opens it.
fn last_key(taken: &[u8]) -> usize {
    let mut quotes = (0..taken.len()).rev().filter(|at| taken[*at] == b'"');
    quotes.next();
    // A quote within the key is escaped: an odd number of backslashes stands before it.
    let backslashes = |at: usize| taken[..at].iter().rev().take_while(|it| **it == b'\\').count();
    quotes.find(|at| backslashes(*at) % 2 == 0).unwrap_or(0)
}

/// `serde_json`'s message in words that name the remedy, without the place that it appends.
fn in_words(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let words = match message.strip_suffix(&place).unwrap_or(&message) {
        "EOF while parsing a list" => "the text ends inside an array",
        "EOF while parsing an object" => "the text ends inside an object",
        "EOF while parsing a string" => "the text ends inside a string",
        "EOF while parsing a value" => "the text ends where a value should stand",
        "expected `:`" => "expected \":\" after the key",
        "expected `,` or `]`" => "expected \",\" or \"]\" in an array",
        "expected `,` or `}`" => "expected \",\" or \"}\" in an object",
        "expected ident" => "expected true, false or null",
        "expected value" => "expected a value: an object, array, string, number, true, false or null",
        "invalid escape" => "no escape of JSON (they are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX)",
        "invalid number" => "no number of JSON",
        "number out of range" => "number beyond what a double holds",
        "key must be a string" => "expected a key in double quotes",
        "trailing comma" => "a comma with nothing after it",
        "trailing characters" => "text after the end of the document",
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "a lone surrogate: half of a \\uD8xx\\uDCxx pair"
        }
        it if it.starts_with("control character") => "a raw control character in a string; write \\u00xx",
        other => return other.to_owned(),
    };
    words.to_owned()
}

/// The first integer literal (no `.`, `e`, `E`) beyond ±[`INTEGER_MAX`] and where it starts. `text` must be
/// valid JSON.
fn first_large_integer(text: &str) -> Option<(usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|it| *it != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &text[at..];
                let end = rest.find(|it: char| !it.is_ascii_digit() && !"+-.eE".contains(it));
                let literal = &rest[..end.unwrap_or(rest.len())];
                let is_integer = !literal.contains(['.', 'e', 'E']);
                // What a u64 does not hold is larger still.
                if is_integer && literal.trim_start_matches('-').parse().unwrap_or(u64::MAX) > INTEGER_MAX {
                    return Some((at, literal));
                }
                at += literal.len();
            }
            _ => at += 1,
        }
    }
    None
}

/// The byte offset that `serde_json` means by a line and a column, which count from 1 and in bytes.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2).map_or(0, |(at, _)| at + 1),
    };
    let at = (start + column.saturating_sub(1)).min(text.len());
    (0..=at).rev().find(|it| text.is_char_boundary(*it)).unwrap_or(0)
}

/// A refusal at byte offset `at`; what stands before it must be UTF-8.
fn refusal(text: &[u8], at: usize, what: impl Into<String>) -> Refusal {
    let before = &text[..at];
    let line_start = before.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
    Refusal {
        line: before.split(|it| *it == b'\n').count(),
        column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count(),
        what: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: impl AsRef<[u8]>) -> String {
        let text = text.as_ref();
        parse(text).map_or_else(|it| it.to_string(), |it| format!("taken: {it}"))
    }

    #[test]
    fn every_kind_of_value_passes() {
        let text =
            " {\"a\" : [null, true, false, \"\\u00e9\\ud83d\\ude80\\/\"],\r\n\t\"n\": [0, -0, 1.5e3, -12]} ";
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(b"null").unwrap(), Value::Null);
    }

    #[test]
    fn bytes_that_are_no_utf_8_text_are_refused() {
        assert!(refused(b"\xef\xbb\xbf{}").starts_with("line 1, column 1: a byte order mark"));
        assert_eq!(refused(b"{\n\"\xc3\xa9\xff\": 1}"), "line 2, column 3: invalid UTF-8");
        assert_eq!(refused(b"\"\xed\xa0\x80\""), "line 1, column 2: invalid UTF-8");
        assert_eq!(refused(b"\xff\xfe{\0}\0"), "line 1, column 1: invalid UTF-8");
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        assert_eq!(refused(""), "line 1, column 1: the text is empty");
        assert_eq!(refused(" \n\n"), "line 1, column 1: the text is empty");
        assert_eq!(refused("{} {}"), "line 1, column 4: text after the end of the document");
        assert_eq!(refused("{}\0"), "line 1, column 3: text after the end of the document");
        assert_eq!(refused("[1,]"), "line 1, column 4: a comma with nothing after it");
        assert_eq!(refused("[\"éé\" 1]"), "line 1, column 7: expected \",\" or \"]\" in an array");
        assert_eq!(refused("[1,\n\"é\",,]").split(": ").next(), Some("line 2, column 5"));
        assert_eq!(refused("{\"a\" 1}"), "line 1, column 6: expected \":\" after the key");
        assert_eq!(refused("{'a': 1}"), "line 1, column 2: expected a key in double quotes");
        assert_eq!(
            refused("\"a\tb\""),
            "line 1, column 3: a raw control character in a string; write \\u00xx"
        );
        assert_eq!(refused("{\"a\":\"b"), "line 1, column 7: the text ends inside a string");
        for text in [
            "01",
            "+1",
            ".5",
            "1.",
            "0x1f",
            "NaN",
            "Infinity",
            "nul",
            "True",
            "\"\\x\"",
            "\"\\u12\"",
            "// a\n1",
        ] {
            assert!(refused(text).starts_with("line 1, column "), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn a_duplicate_key_is_refused_by_name_where_it_starts() {
        assert_eq!(refused(r#"{"a":1, "b":2, "a" : 3}"#), "line 1, column 16: duplicate key \"a\"");
        assert_eq!(
            refused("{\"x\":[{\n \"é\": 1,\n \"\\u00e9\"\n\n:2}]}"),
            "line 3, column 2: duplicate key \"é\""
        );
        assert_eq!(refused(r#"{"q\"":1,"q\"":2}"#), "line 1, column 10: duplicate key \"q\"\"");
        assert_eq!(refused(r#"{"q\\":1,"q\\":2}"#), r#"line 1, column 10: duplicate key "q\""#);
        assert_eq!(refused(r#"{"":1,"":2}"#), "line 1, column 7: duplicate key \"\"");
        assert_eq!(refused(r#"{"a":1,"a"}"#), "line 1, column 8: duplicate key \"a\"");
        assert_eq!(
            refused(r#"{"\u001b at line 9 column 9":1,"\u001b at line 9 column 9":2}"#),
            "line 1, column 32: duplicate key \"\\u{1b} at line 9 column 9\""
        );
        assert!(parse(br#"{"a":{"b":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn a_proto_key_is_refused_at_any_depth_and_however_spelt() {
        let what = "the key \"__proto__\", which JavaScript receivers would drop";
        assert_eq!(refused(r#"{"__proto__":1}"#), format!("line 1, column 2: {what}"));
        assert_eq!(refused(r#"[{"a":{"_\u005fproto__":1}}]"#), format!("line 1, column 8: {what}"));
        assert!(parse(br#"{"constructor":1,"prototype":2,"a":"__proto__"}"#).is_ok());
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for text in
            [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud800A""#, r#"{"\ud83d":1}"#]
        {
            assert!(refused(text).contains("a lone surrogate"), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn an_integer_that_a_double_may_not_hold_is_refused_and_named() {
        for text in [
            "9007199254740991",
            "-9007199254740991",
            "9007199254740992.0",
            "1e20",
            "-1E300",
            "9223372036854775808e0",
        ] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}: {}", refused(text));
        }
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "-100000000000000000000000000000",
        ] {
            assert_eq!(
                refused(format!("{{\"a\\\"1\": 1e20,\n\"99999999999999999999\":[{text}]}}")),
                format!("line 2, column 25: integer \"{text}\" is beyond ±(2^53-1); write it as a string")
            );
        }
    }

    #[test]
    fn a_number_beyond_a_double_is_refused() {
        for text in ["1e400", "-1e400", &"9".repeat(400), "1e99999999999999999999", "[1.8e308]"] {
            assert!(refused(text).contains("number beyond what a double holds"), "{}", refused(text));
        }
        assert_eq!(parse(b"1e-400").unwrap(), parse(b"0.0").unwrap());
    }

    #[test]
    fn nesting_is_bounded_and_the_stack_safe() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        let what = "nested deeper than 64 arrays and objects";
        assert_eq!(refused(nested(DEPTH_MAX + 1)), format!("line 1, column 65: {what}"));
        assert_eq!(refused(nested(10_000)), format!("line 1, column 65: {what}"));
        assert_eq!(refused("{\"a\":".repeat(10_000)), format!("line 1, column 321: {what}"));
    }

    #[test]
    fn another_document_than_an_object_is_refused_where_one_is_wanted() {
        assert_eq!(parse_object(b" {\"a\":1}").unwrap().len(), 1);
        assert_eq!(
            parse_object(b"\n []").unwrap_err().to_string(),
            "line 2, column 2: expected an object, found an array"
        );
        assert!(parse_object(b"").is_err());
    }
}
