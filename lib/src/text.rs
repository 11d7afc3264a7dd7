//! Text of people: how it is trimmed, how it is shown safely, and which known word was meant.
//!
//! # Invariants
//! - [`trim`] removes Unicode `White_Space` and U+FEFF and nothing else (ECMAScript's `trim` does the
//!   same, so a JavaScript receiver agrees on every event).
//! - What [`for_people`] returns cannot move the cursor, colour a terminal or turn the writing direction.

use std::borrow::Cow;

/// `text` without white space at either end.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|it: char| it.is_whitespace() || it == '\u{feff}')
}

/// Whether a person must not see this character raw: controls, and what reorders or hides text.
fn is_unsafe(it: char) -> bool {
    it.is_control()
        || matches!(it, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with control, bidi and invisible characters as `\u{…}`, for terminals and messages.
pub fn for_people(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for it in text.chars() {
        if is_unsafe(it) {
            shown.extend(it.escape_unicode());
        } else {
            shown.push(it);
        }
    }
    Cow::Owned(shown)
}

/// `text` shown to a person in quotes, cut to 80 characters.
pub fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("\"{}…\"", for_people(&text[..end])),
        None => format!("\"{}\"", for_people(text)),
    }
}

/// An address without who stands before its host, which may be a secret.
pub fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{}", &rest[authority.len()..]),
        None => url.to_owned(),
    }
}

/// The known word that `word` was probably meant to be: the nearest by edits, if near enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    known
        .into_iter()
        .map(|it| (distance(&folded, &fold(it)), it))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, it)| *edits <= 1 + it.chars().count() / 4)
        .map(|(_, it)| it)
}

/// Case and word separators do not count: `milestone_id` means `milestoneId`.
fn fold(word: &str) -> Vec<char> {
    word.chars().take(64).filter(|it| !matches!(it, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Edits between two words, where a swap of neighbours is one edit (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in (1..).zip(left) {
        let mut current = vec![row];
        for (column, b) in (1..).zip(right) {
            let change = above[column - 1] + usize::from(a != b);
            let mut edits = change.min(above[column] + 1).min(current[column - 1] + 1);
            if row > 1 && column > 1 && *a == right[column - 2] && left[row - 2] == *b {
                edits = edits.min(before[column - 2] + 1);
            }
            current.push(edits);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_an_address_names_is_not_shown() {
        for (url, shown) in [
            ("https://a.example/x", "https://a.example/x"),
            ("https://user:pass@a.example/x?y", "https://***@a.example/x?y"),
            ("https://u@v@a.example", "https://***@a.example"),
            ("a.example", "a.example"),
        ] {
            assert_eq!(without_userinfo(url), shown);
        }
    }

    #[test]
    fn trim_takes_unicode_space_and_the_byte_order_mark() {
        assert_eq!(trim("\u{feff}\u{a0} \t\u{2003}a b\u{3000}\r\n"), "a b");
        assert_eq!(trim("\u{200b}a"), "\u{200b}a");
        assert_eq!(trim(" \u{feff} "), "");
    }

    #[test]
    fn terminal_tricks_are_shown_not_done() {
        assert_eq!(for_people("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\\u{a}");
        assert_eq!(for_people("zażółć 日本"), "zażółć 日本");
        assert_eq!(quoted(&"x".repeat(100)), format!("\"{}…\"", "x".repeat(80)));
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["milestoneId", "timestampUtc", "scope", "claim", "riskStatus"];
        assert_eq!(nearest("milestone_id", known), Some("milestoneId"));
        assert_eq!(nearest("calim", known), Some("claim"));
        assert_eq!(nearest("timestamp", known), Some("timestampUtc"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
