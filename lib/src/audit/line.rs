//! An audit record as it lies on disk: its fields, found without parsing.
//!
//! Lines are stored canonically, in one order of fields. So a line can be read by walking over it once, and the
//! same walk proves that it is canonical: then its hash is over its own bytes. What the walk is not sure of
//! (a fraction, a key that is no plain word, another form) it leaves to a parser.
//!
//! # Invariants
//! - [`RawLine::read`] answers only for a line that is exactly its own canonical form.
//! - Fields are as they lie there, escapes included; equal texts have equal bytes ([`raw`]).
//!
//! Not here: what the fields mean (`audit`), the chain (`verify`).

use memchr::memmem::Finder;

use crate::canonical;

/// An audit record's fields, as bytes of its line.
#[derive(Clone, Copy, Debug)]
pub struct RawLine<'l> {
    /// `action`.
    pub action: &'l [u8],
    /// `detail`, a JSON object.
    pub detail: &'l [u8],
    /// `hash`.
    pub hash: &'l [u8],
    /// `idempotency_key`.
    pub key: Option<&'l [u8]>,
    /// `outcome`.
    pub outcome: &'l [u8],
    /// `prev`.
    pub prev: &'l [u8],
    /// `scope`.
    pub scope: Option<&'l [u8]>,
    /// `seq`.
    pub seq: u64,
    /// `timestamp`.
    pub timestamp: &'l [u8],
    /// `tool`.
    pub tool: &'l [u8],
    /// `trace_id`.
    pub trace_id: Option<&'l [u8]>,
    /// The line before and after its `hash`: together the canonical record without it.
    pub hashed: [&'l [u8]; 2],
}

/// A text as it lies between quotes in a canonical line.
pub fn raw(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    canonical::write_string(text, &mut out);
    out.pop();
    out.remove(0);
    out
}

impl<'l> RawLine<'l> {
    /// Reads a line without its newline; `None` when it is not surely an audit record in canonical form.
    pub fn read(line: &'l [u8]) -> Option<RawLine<'l>> {
        // Once for the whole line, where many bytes are looked at together.
        let is_ascii = line.is_ascii();
        if has(line, |it| it < b' ') || !is_ascii && std::str::from_utf8(line).is_err() {
            return None;
        }
        let mut walk = Walk { line, at: 0, is_ascii, escapes: 0 };
        walk.literal(b"{\"action\":")?;
        let action = walk.string()?;
        walk.literal(b",\"detail\":")?;
        let start = walk.at;
        walk.object(0)?;
        let detail = &line[start..walk.at];
        let before = &line[..walk.at];
        walk.literal(b",\"hash\":")?;
        let hash = walk.string()?;
        let after = &line[walk.at..];
        walk.literal(b",\"idempotency_key\":")?;
        let key = walk.string_or_null()?;
        walk.literal(b",\"outcome\":")?;
        let outcome = walk.string()?;
        walk.literal(b",\"prev\":")?;
        let prev = walk.string()?;
        walk.literal(b",\"scope\":")?;
        let scope = walk.string_or_null()?;
        walk.literal(b",\"seq\":")?;
        let seq = std::str::from_utf8(walk.integer()?).ok()?.parse().ok()?;
        walk.literal(b",")?;
        let Last { timestamp, tool, trace_id } = walk.last()?;
        Some(RawLine {
            action,
            detail,
            hash,
            key,
            outcome,
            prev,
            scope,
            seq,
            timestamp,
            tool,
            trace_id,
            hashed: [before, after],
        })
    }
}

/// Whether a line looks like an audit record without any escape, by its ends and its bytes alone. If it is a record,
/// then in whatever form, each text in it stands there between quotes as it is.
pub fn is_plain(line: &[u8]) -> bool {
    line.starts_with(b"{\"action\":\"") && line.ends_with(b"}") && !has(line, |it| it < b' ' || it == b'\\')
}

/// Whether a line looks like a whole JSON object, by its ends and its bytes alone: what is torn, or holds NULs, does not.
pub(super) fn looks_whole(line: &[u8]) -> bool {
    line.starts_with(b"{") && line.ends_with(b"}") && !has(line, |it| it < b' ')
}

/// Finds the time of a record without reading the record.
#[derive(Clone, Debug)]
pub struct TimeFinder(Finder<'static>);

impl Default for TimeFinder {
    fn default() -> TimeFinder {
        TimeFinder(Finder::new(b"\"timestamp\":\""))
    }
}

impl TimeFinder {
    /// The `timestamp` of a record that [`is_plain`], as [`RawLine::timestamp`]; `None` when it is not where it stands
    /// in canonical form.
    pub fn find<'l>(&self, line: &'l [u8]) -> Option<&'l [u8]> {
        /// Room for the time and what stands behind it.
        const TAIL_BYTES: usize = 160;
        let tail = &line[line.len().saturating_sub(TAIL_BYTES)..];
        let mut walk = Walk { line: tail, at: self.0.find(tail)?, is_ascii: false, escapes: 0 };
        walk.last().map(|it| it.timestamp)
    }
}

/// Whether some byte is such a one. Without an early exit the compiler tests many bytes at once.
fn has(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |has, it| has | is_one(*it))
}

/// A place in a line.
struct Walk<'l> {
    /// Without a byte below U+0020.
    line: &'l [u8],
    at: usize,
    is_ascii: bool,
    /// How many escapes were passed.
    escapes: usize,
}

/// The last fields of a record.
struct Last<'l> {
    timestamp: &'l [u8],
    tool: &'l [u8],
    trace_id: Option<&'l [u8]>,
}

/// Deeper is left to the parser.
const DEPTH_MAX: usize = 16;
/// Integers of so many digits are sure to be printed the same by ECMAScript.
const DIGITS_MAX: usize = 15;

impl<'l> Walk<'l> {
    fn next(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        let rest = self.line.get(self.at..)?;
        rest.starts_with(bytes).then(|| self.at += bytes.len())
    }

    /// The last fields of a record, up to its end.
    fn last(&mut self) -> Option<Last<'l>> {
        self.literal(b"\"timestamp\":")?;
        let timestamp = self.string()?;
        self.literal(b",\"tool\":")?;
        let tool = self.string()?;
        self.literal(b",\"trace_id\":")?;
        let trace_id = self.string_or_null()?;
        self.literal(b"}")?;
        (self.at == self.line.len()).then_some(Last { timestamp, tool, trace_id })
    }

    #[expect(clippy::option_option, reason = "the outer one says whether the walk goes on")]
    fn string_or_null(&mut self) -> Option<Option<&'l [u8]>> {
        if self.next()? == b'n' { self.literal(b"null").map(|()| None) } else { self.string().map(Some) }
    }

    /// What stands between the quotes of a string.
    fn string(&mut self) -> Option<&'l [u8]> {
        self.literal(b"\"")?;
        let start = self.at;
        loop {
            self.at += plain_length(self.line.get(self.at..)?);
            match self.next()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.line[start..self.at - 1]);
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    /// An escape in the only form that is canonical.
    fn escape(&mut self) -> Option<()> {
        self.escapes += 1;
        let rest = &self.line[self.at..];
        match rest.get(1)? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let digits = rest.get(2..6)?;
                let lower = digits.iter().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(it));
                let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                if !lower || code >= 0x20 || matches!(code, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d) {
                    return None;
                }
                self.at += 6;
            }
            _ => return None,
        }
        Some(())
    }

    fn integer(&mut self) -> Option<&'l [u8]> {
        let start = self.at;
        let negative = usize::from(self.next()? == b'-');
        let digits = self.line[start + negative..].iter().take_while(|it| it.is_ascii_digit()).count();
        let first = *self.line.get(start + negative)?;
        let is_sure = match digits {
            0 => false,
            1 => first != b'0' || negative == 0,
            2..=DIGITS_MAX => first != b'0',
            _ => false,
        };
        self.at = start + negative + digits;
        (is_sure && !matches!(self.next(), Some(b'.' | b'e' | b'E'))).then(|| &self.line[start..self.at])
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.integer().map(drop),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.literal(b"{")?;
        if depth > DEPTH_MAX || self.next()? == b'}' {
            return self.literal(b"}");
        }
        let mut before: Option<&[u8]> = None;
        loop {
            let escapes = self.escapes;
            let key = self.string()?;
            // Of such keys the order of bytes is the canonical one.
            let is_plain = !key.first().is_some_and(u8::is_ascii_digit)
                && (self.is_ascii || key.is_ascii())
                && self.escapes == escapes;
            if !is_plain || before.is_some_and(|it| it >= key) {
                return None;
            }
            before = Some(key);
            self.literal(b":")?;
            self.value(depth + 1)?;
            if self.next()? == b'}' {
                return self.literal(b"}");
            }
            self.literal(b",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.literal(b"[")?;
        if depth > DEPTH_MAX || self.next()? == b']' {
            return self.literal(b"]");
        }
        loop {
            self.value(depth + 1)?;
            if self.next()? == b']' {
                return self.literal(b"]");
            }
            self.literal(b",")?;
        }
    }
}

/// How many bytes come before the next quote or backslash. Most texts are short, so eight bytes at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Sets the high bit of each byte that is `byte`; of what is above the first such byte nothing is said.
    let find = |word: u64, byte: u8| {
        let differs = word ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs & (ONES << 7)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = find(word, b'"') | find(word, b'\\');
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_end = |it: &u8| matches!(it, b'"' | b'\\');
    words.len() * 8 + rest.iter().position(is_end).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn record(detail: &Value) -> Value {
        json!({
            "action": "emit", "detail": detail, "hash": "h", "idempotency_key": "k\n\u{1}é\"", "outcome": "done",
            "prev": "p", "scope": null, "seq": 7, "timestamp": "t", "tool": "x", "trace_id": null
        })
    }

    #[test]
    fn the_fields_of_a_canonical_line_are_found() {
        let line =
            canonical::to_vec(&record(&json!({ "a": [1, -2, true, null, {}, []], "b": { "c": "d" } })));
        let read = RawLine::read(&line).unwrap();
        assert_eq!(read.key.unwrap(), raw("k\n\u{1}é\""));
        assert_eq!((read.seq, read.scope, read.tool), (7, None, &b"x"[..]));
        assert_eq!(read.detail, br#"{"a":[1,-2,true,null,{},[]],"b":{"c":"d"}}"#);
        let mut without = record(&json!({ "a": [1, -2, true, null, {}, []], "b": { "c": "d" } }));
        without.as_object_mut().unwrap().remove("hash");
        assert_eq!(read.hashed.concat(), canonical::to_vec(&without));
    }

    #[test]
    fn what_is_not_canonical_is_not_read() {
        let good = String::from_utf8(canonical::to_vec(&record(&json!({ "a": 1, "b": "x\u{1}" })))).unwrap();
        assert!(RawLine::read(good.as_bytes()).is_some());
        for (from, to) in [
            ("\"a\":1", "\"a\": 1"),
            ("\"a\":1,\"b\"", "\"b\":1,\"a\""),
            ("\"a\":1,\"b\"", "\"a\":1,\"a\""),
            ("\"a\":1", "\"a\":01"),
            ("\"a\":1", "\"a\":1.0"),
            ("\"a\":1", "\"a\":1e0"),
            ("\"a\":1", "\"a\":-0"),
            ("\"a\":1", "\"a\":1234567890123456"),
            ("\\u0001", "\\u0041"),
            ("\\u0001", "\\u000a"),
            ("\\u0001", "\\u001F"),
            ("\\u0001", "\\/"),
            ("\\u0001", "\u{1}"),
            ("\"seq\":7", "\"seq\":-7"),
            ("}}", "}} "),
            ("{\"action\"", " {\"action\""),
        ] {
            let bad = good.replacen(from, to, 1);
            let bad = if bad == good { format!("{good} ") } else { bad };
            assert!(RawLine::read(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|it| Value::Object(it.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        /// A line that is read is its own canonical form, whatever was done to it.
        #[test]
        fn a_line_that_is_read_is_canonical(detail in value(), at in any::<usize>(), byte in any::<u8>()) {
            let detail = json!({ "a": detail });
            let line = serde_json::to_vec(&record(&detail)).unwrap();
            let mut broken = line.clone();
            let at = at % broken.len();
            broken[at] = byte;
            for line in [line, broken, canonical::to_vec(&record(&detail))] {
                if RawLine::read(&line).is_some() {
                    let value: Value = serde_json::from_slice(&line).unwrap();
                    prop_assert_eq!(canonical::to_vec(&value), line);
                }
            }
        }
    }
}
