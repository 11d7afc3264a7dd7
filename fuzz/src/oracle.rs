//! The contract said a second time, without the library: what strict JSON refuses, how keys are ordered.
//!
//! # Invariants
//! - Nothing here calls the code that it judges. Only serde_json's plain parser is common to both.

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::Value;

/// Whether the ingest contract takes `bytes` as a JSON document.
pub fn is_strict_json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if text.starts_with('\u{feff}') || serde_json::from_str::<Value>(text).is_err() {
        return false;
    }
    let mut is_good = true;
    let mut keys: Vec<BTreeSet<String>> = Vec::new();
    let depth = walk(text, |token| match token {
        Token::Open => keys.push(BTreeSet::new()),
        Token::Close => drop(keys.pop()),
        Token::Key(key) => {
            let is_new = keys.last_mut().is_some_and(|it| it.insert(key.clone()));
            is_good &= is_new && key != "__proto__";
        }
        Token::Number(number) => {
            let digits = number.trim_start_matches('-');
            if digits.bytes().all(|it| it.is_ascii_digit()) {
                // Decimal comparison: 2^53 - 1 has 16 digits.
                let limit = "9007199254740991";
                is_good &= (digits.len(), digits) <= (limit.len(), limit);
            }
        }
    });
    is_good && depth <= 64
}

/// Panics unless the objects of `canonical` list their keys in the contract's order, without white space.
pub fn assert_canonical_order(canonical: &str) {
    let mut above: Vec<Option<String>> = Vec::new();
    walk(canonical, |token| match token {
        Token::Open => above.push(None),
        Token::Close => drop(above.pop()),
        Token::Key(key) => {
            let place = above.last_mut().expect("a key stands in an object");
            if let Some(before) = place {
                assert_eq!(in_order(before, &key), Ordering::Less, "{before:?} before {key:?}");
            }
            *place = Some(key);
        }
        Token::Number(number) => assert!(!number.starts_with("-0") || number.len() > 2, "minus zero"),
    });
    let mut in_text = false;
    let mut escaped = false;
    for byte in canonical.bytes() {
        match byte {
            b'"' if !escaped => in_text = !in_text,
            b' ' | b'\n' | b'\t' | b'\r' => assert!(in_text && byte == b' ', "white space"),
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
}

/// Array indices by number, then everything else by UTF-16.
fn in_order(left: &str, right: &str) -> Ordering {
    let index = |key: &str| {
        let number: u64 = key.parse().ok()?;
        (number.to_string() == key && number < u64::from(u32::MAX)).then_some(number)
    };
    let units = |key: &str| key.encode_utf16().collect::<Vec<_>>();
    match (index(left), index(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => units(left).cmp(&units(right)),
    }
}

enum Token<'t> {
    Open,
    Close,
    Key(String),
    Number(&'t str),
}

/// Walks over a valid JSON text; the deepest nesting.
fn walk<'t>(text: &'t str, mut each: impl FnMut(Token<'t>)) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut deepest) = (0, 0usize, 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
                each(Token::Open);
            }
            b']' | b'}' => {
                depth -= 1;
                each(Token::Close);
            }
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if text[at + 1..].trim_start().starts_with(':') {
                    each(Token::Key(serde_json::from_str(&text[start..=at]).expect("a string")));
                }
            }
            b'-' | b'0'..=b'9' => {
                while at + 1 < bytes.len() && b"+-.eE0123456789".contains(&bytes[at + 1]) {
                    at += 1;
                }
                each(Token::Number(&text[start..=at]));
            }
            _ => {}
        }
        at += 1;
    }
    deepest
}
