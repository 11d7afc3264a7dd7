//! JSON of a form that is known beforehand, read in one walk: what our own tools wrote, which is nearly everything.
//!
//! The names are expected where they stand, and the texts between them can be copied as they are. So no document is
//! made, and none need be written again.
//!
//! # Invariants
//! - Every string that was passed is in the one form that is canonical (`canonical`): equal texts have equal bytes.
//! - A walk that ends early says nothing about the text: a parser judges it.
//!
//! Not here: which names come when (those who walk).

use std::borrow::Cow;

use crate::canonical;

/// What is left of a text.
#[derive(Debug)]
pub struct Walk<'t> {
    rest: &'t str,
}

/// A string in the text.
#[derive(Debug)]
pub struct Text<'t> {
    /// As it stands there, quotes included.
    pub raw: &'t str,
    /// What it says.
    pub says: Cow<'t, str>,
}

impl<'t> Walk<'t> {
    /// At the start of a text; `None` when it is surely not in canonical form.
    pub fn of(text: &'t [u8]) -> Option<Walk<'t>> {
        // Controls are escaped. Looked for here, where many bytes are compared at once.
        let least = text.iter().fold(u8::MAX, |least, it| least.min(*it));
        let rest = std::str::from_utf8(text).ok()?;
        (least >= b' ').then_some(Walk { rest })
    }

    /// What was not passed yet.
    pub fn rest(&self) -> &'t str {
        self.rest
    }

    /// Passes what is expected here.
    pub fn pass(&mut self, expected: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    /// The string behind `name`, which is expected here.
    pub fn string(&mut self, name: &str) -> Option<Text<'t>> {
        self.pass(name)?;
        let inner = self.rest.strip_prefix('"')?;
        let end = memchr::memchr2(b'"', b'\\', inner.as_bytes())?;
        let (raw, says) = if inner.as_bytes().get(end) == Some(&b'"') {
            (self.rest.get(..end + 2)?, Cow::Borrowed(inner.get(..end)?))
        } else {
            let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let says = values.next()?.ok()?;
            let raw = self.rest.get(..values.byte_offset())?;
            let mut canonical = Vec::with_capacity(raw.len());
            canonical::write_string(&says, &mut canonical);
            if canonical != raw.as_bytes() {
                return None;
            }
            (raw, Cow::Owned(says))
        };
        self.rest = self.rest.get(raw.len()..)?;
        Some(Text { raw, says })
    }

    /// The natural number behind `name`.
    pub fn number(&mut self, name: &str) -> Option<u64> {
        self.pass(name)?;
        let end = self.rest.bytes().position(|it| !it.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let is_plain = digits.len() == 1 || !digits.starts_with('0');
        self.rest = rest;
        digits.parse().ok().filter(|_| is_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_they_stand_and_what_they_say() {
        let mut walk = Walk::of("{\"a\":\"b\u{e9}\",\"c\":\"d\\n\\\"\",\"e\":70}".as_bytes()).unwrap();
        let first = walk.string("{\"a\":").unwrap();
        assert_eq!((first.raw, first.says.as_ref()), ("\"b\u{e9}\"", "b\u{e9}"));
        let second = walk.string(",\"c\":").unwrap();
        assert_eq!((second.raw, second.says.as_ref()), ("\"d\\n\\\"\"", "d\n\""));
        assert_eq!(walk.number(",\"e\":"), Some(70));
        assert_eq!((walk.pass("}"), walk.rest()), (Some(()), ""));
    }

    #[test]
    fn what_is_not_canonical_ends_the_walk() {
        for odd in [
            "\"\\u0041\"",
            "\"\\u000a\"",
            "\"\\u001F\"",
            "\"\\/\"",
            "\"\\ud83d\\ude80\"",
            "\"a",
            "\"\\x\"",
            "7",
        ] {
            assert!(Walk::of(odd.as_bytes()).unwrap().string("").is_none(), "{odd}");
        }
        for odd in ["", "-1", "01", "99999999999999999999", "\"1\""] {
            assert_eq!(Walk::of(odd.as_bytes()).unwrap().number(""), None, "{odd}");
        }
        assert!(Walk::of(b"\"a\nb\"").is_none() && Walk::of(b"\xff").is_none());
    }
}
