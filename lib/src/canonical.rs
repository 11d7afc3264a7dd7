//! The canonical form of a value: the bytes that are signed, sent and hashed.
//!
//! It is what the existing JavaScript application makes when it sorts the keys of a parsed document,
//! rebuilds the objects and calls `JSON.stringify`. The form is pinned: signatures of other programs and
//! every hash chain ever written depend on each byte of it.
//!
//! # Invariants
//! - Equal values give equal bytes, however their keys were ordered and their numbers spelt.
//! - Keys stand in the order of their UTF-16 code units, except that array indices (`0` to `4294967294`)
//!   come first, in numeric order: so a JavaScript object lists its keys whatever order they came in.
//! - Numbers are what ECMAScript prints for the nearest double; `-0` is `0`.
//! - `"` and `\` are escaped, and the controls below U+0020: as `\b \t \n \f \r`, else as `\u00xx` in lower
//!   case. Everything else stands raw, U+007F and U+2028 too. No white space.
//!
//! Not here: what may be signed at all (`json`), signing (`signing`), the order of an event's fields in its
//! journal (`event`).

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// The canonical form of `value`.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(value, &mut out);
    out
}

/// Appends the canonical form of `value` to `out`.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            // Without serde_json's arbitrary_precision every number has a double.
            let double = number.as_f64().unwrap_or_default();
            out.extend_from_slice(ryu_js::Buffer::new().format(double).as_bytes());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => write_object(fields, out),
    }
}

fn write_object(fields: &Map<String, Value>, out: &mut Vec<u8>) {
    out.push(b'{');
    // A map of serde_json is sorted by UTF-8 bytes. That is the canonical order but for two kinds of keys.
    if fields.keys().any(|key| array_index(key).is_some() || has_surrogates(key)) {
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_unstable_by(|(left, _), (right, _)| key_order(left, right));
        write_fields(sorted.into_iter(), out);
    } else {
        write_fields(fields.iter(), out);
    }
    out.push(b'}');
}

fn write_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut Vec<u8>) {
    for (at, (key, value)) in fields.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        write(value, out);
    }
}

/// Array indices first, by number; then the others by UTF-16 code units.
fn key_order(left: &str, right: &str) -> Ordering {
    match (array_index(left), array_index(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.encode_utf16().cmp(right.encode_utf16()),
    }
}

/// The number that `key` spells, if ECMAScript counts it among the array indices: 0 to 2^32 - 2, without
/// leading zeros.
fn array_index(key: &str) -> Option<u32> {
    // Not only for speed: `parse` would take a plus sign and leading zeros.
    let is_plain = matches!(key.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
    if is_plain { key.parse().ok().filter(|it| *it < u32::MAX) } else { None }
}

/// Whether UTF-16 writes `key` with surrogates, which sort before U+E000 while UTF-8 sorts them behind.
fn has_surrogates(key: &str) -> bool {
    key.bytes().any(|it| it >= 0xf0)
}

/// Appends the canonical form of a string, quotes included, for callers that write a record by hand.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (raw, from_escape) = rest.split_at(raw_length(rest));
        out.extend_from_slice(raw);
        let Some((byte, behind)) = from_escape.split_first() else { break };
        rest = behind;
        let short = match byte {
            b'"' | b'\\' => *byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 0xf));
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.push(b'"');
}

/// How many bytes at the front of `bytes` are written as they are.
fn raw_length(bytes: &[u8]) -> usize {
    let is_escaped = |it: &u8| *it < b' ' || *it == b'"' || *it == b'\\';
    // Without an early exit the compiler tests the sixteen bytes of a chunk at once.
    let (chunks, _) = bytes.as_chunks::<16>();
    let raw =
        chunks.iter().take_while(|it| !it.iter().fold(false, |any, it| any | is_escaped(it))).count() * 16;
    raw + bytes[raw..].iter().position(is_escaped).unwrap_or(bytes.len() - raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(to_vec(&serde_json::from_str(text).unwrap())).unwrap()
    }

    #[test]
    fn keys_are_sorted_at_every_depth_and_white_space_is_gone() {
        assert_eq!(
            canonical("{ \"b\" : [ { \"d\":null , \"c\":true } , [] , {} ],\n\"a\":\"x y\" }"),
            r#"{"a":"x y","b":[{"c":true,"d":null},[],{}]}"#
        );
    }

    #[test]
    fn array_indices_come_first_by_number() {
        assert_eq!(
            canonical(
                r#"{"!":0,"":0,"01":0,"10":0,"9":0,"0":0,"+1":0,"-1":0,"1.5":0,"4294967295":0,"4294967294":0,"４":0}"#
            ),
            r#"{"0":0,"9":0,"10":0,"4294967294":0,"":0,"!":0,"+1":0,"-1":0,"01":0,"1.5":0,"4294967295":0,"４":0}"#
        );
    }

    #[test]
    fn other_keys_go_by_utf_16_code_units() {
        assert_eq!(
            canonical(
                "{\"\u{e000}\":1,\"\u{1f680}\":2,\"\u{ff61}\":3,\"a\u{1f680}\":4,\"a\u{ffff}\":5,\"z\":6}"
            ),
            "{\"a\u{1f680}\":4,\"a\u{ffff}\":5,\"z\":6,\"\u{1f680}\":2,\"\u{e000}\":1,\"\u{ff61}\":3}"
        );
    }

    #[test]
    fn numbers_are_printed_as_ecmascript_does() {
        assert_eq!(
            canonical(
                "[1.0,-0,-0.0,0,1e21,1e20,1e-7,0.000001,5e-324,1.7976931348623157e308,-2.50,123456789.125,-7]"
            ),
            "[1,0,0,0,1e+21,100000000000000000000,1e-7,0.000001,5e-324,1.7976931348623157e+308,-2.5,123456789.125,-7]"
        );
        assert_eq!(
            canonical("[9007199254740991,9007199254740993,18446744073709551615,-9223372036854775808]"),
            "[9007199254740991,9007199254740992,18446744073709552000,-9223372036854776000]"
        );
    }

    #[test]
    fn only_quote_backslash_and_controls_are_escaped() {
        let all: String = (0..=0x2f)
            .chain([0x5b, 0x5c, 0x5d, 0x7f, 0x80, 0xe9, 0x2028, 0x2029, 0xfeff, 0x1f680])
            .filter_map(char::from_u32)
            .collect();
        assert_eq!(
            String::from_utf8(to_vec(&Value::String(all))).unwrap(),
            concat!(
                r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
                r"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f",
                r##" !\"#$%&'()*+,-./[\\]"##,
                "\u{7f}\u{80}é\u{2028}\u{2029}\u{feff}🚀\""
            )
        );
    }

    #[test]
    fn an_escape_is_found_at_every_place_of_a_string() {
        for length in 0..50 {
            for at in 0..=length {
                let text = format!("{}\n{}", "x".repeat(at), "é".repeat(length - at));
                assert_eq!(to_vec(&Value::from(text.as_str())), serde_json::to_vec(&text).unwrap());
            }
        }
    }

    #[test]
    fn the_canonical_form_of_the_canonical_form_is_itself() {
        let once = canonical(r#"{"b":[1e20,9007199254740993,0.1],"10":{"é":"\u0001"},"9":"\ud83d\ude80"}"#);
        assert_eq!(canonical(&once), once);
    }
}
