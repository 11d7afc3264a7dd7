//! Strict JSON and its canonical form.

use milepost::{canonical, json};
use serde_json::Value;

use milepost_fuzz::{oracle, seeds};

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::vectors();
    all.extend(seeds::texts(&[
        "",
        " {\"a\":[null,true,false,\"\\u00e9\\ud83d\\ude80\\/\"],\r\n\t\"n\":[0,-0,1.5e3,-12]} ",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"__proto__\":1}",
        "{\"4294967294\":0,\"4294967295\":1,\"01\":2,\"9\":3,\"10\":4}",
        "{\"\u{e000}\":1,\"\u{1f680}\":2}",
        "[9007199254740991,9007199254740992,-9007199254740992,9.007199254740993e15,1e400,5e-324]",
        "\"\\ud800\"",
        "\u{feff}{}",
    ]));
    all.push(b"\"\xff\"".to_vec());
    all.push([&b"[".repeat(64)[..], &b"]".repeat(64)].concat());
    all.push([&b"[".repeat(65)[..], &b"]".repeat(65)].concat());
    all
}

pub fn run(input: &[u8]) {
    let parsed = json::parse(input);
    assert_eq!(parsed, json::parse(input), "the same text gives the same");
    assert_eq!(parsed.is_ok(), oracle::is_strict_json(input), "the contract says otherwise: {parsed:?}");
    assert_eq!(
        json::parse_object(input).ok(),
        parsed.as_ref().ok().and_then(|it| it.as_object()).cloned(),
        "an object is a document that is one"
    );
    match parsed {
        Ok(value) => check_value(&value),
        Err(refusal) => {
            let lines = input.split(|it| *it == b'\n').count();
            assert!((1..=lines).contains(&refusal.line), "{refusal}");
            let longest = input.split(|it| *it == b'\n').map(<[u8]>::len).max().unwrap_or(0);
            assert!((1..=longest + 1).contains(&refusal.column), "{refusal}");
            assert!(!refusal.what.is_empty() && !refusal.what.contains(char::is_control), "{refusal}");
        }
    }
}

fn check_value(value: &Value) {
    let plain = serde_json::to_vec(value).expect("a value has a form");
    assert_eq!(json::parse(&plain).as_ref(), Ok(value), "what is written is read back");
    let canonical = canonical::to_vec(value);
    let text = std::str::from_utf8(&canonical).expect("the canonical form is UTF-8");
    oracle::assert_canonical_order(text);
    let again: Value = serde_json::from_slice(&canonical).expect("the canonical form is JSON");
    assert_eq!(canonical::to_vec(&again), canonical, "the canonical form is its own");
    assert!(is_same(value, &again), "{text} says something else");
    assert_eq!(canonical::to_vec(&shuffled(value)), canonical, "equal values have one form");
}

/// Equal but for how numbers are held: 1.0 is 1.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, it)| right.get(key).is_some_and(|other| is_same(it, other)))
        }
        _ => left == right,
    }
}

/// An equal value with its whole numbers spelt as doubles.
fn shuffled(value: &Value) -> Value {
    match value {
        Value::Number(it) => it.as_f64().map_or(Value::Null, Value::from),
        Value::Array(items) => items.iter().map(shuffled).collect(),
        Value::Object(fields) => fields.iter().rev().map(|(key, it)| (key.clone(), shuffled(it))).collect(),
        other => other.clone(),
    }
}
