//! Foreign text on its way into HTML and XML.
//!
//! # Invariants
//! - What [`Escaped`] writes is text, wherever it stands: between tags or in a quoted attribute.
//! - What [`visible`] gives turns no writing direction and hides nothing.

use std::{
    borrow::Cow,
    fmt::{self, Display},
};

/// Foreign text as people see it: what would turn the writing direction or is no character is spelled out.
/// Line ends are white space in HTML, and joiners make letters and signs what they are. As `visible` in app.js.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_unsafe = |it: char| {
        (it.is_control() && !matches!(it, '\t' | '\n' | '\r'))
            || matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let spell = |it: char| if is_unsafe(it) { it.escape_unicode().to_string() } else { it.to_string() };
    Cow::Owned(text.chars().map(spell).collect())
}

/// Foreign text in HTML, as text or in a quoted attribute.
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'', '\0']) {
            let (plain, from) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(match from.as_bytes()[0] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                // A zero byte is an error in HTML.
                _ => "\u{fffd}",
            })?;
            rest = &from[1..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_text() {
        assert_eq!(
            Escaped("<script>alert('x')</script> & \"q\" ü\0").to_string(),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot; ü\u{fffd}"
        );
    }

    #[test]
    fn text_cannot_turn_the_writing_direction() {
        assert_eq!(visible("a\u{202e}b\u{7}\u{2067}\n"), "a\\u{202e}b\\u{7}\\u{2067}\n");
        let family = "👩\u{200d}👧 می\u{200c}خواهم";
        assert_eq!(visible(family), family);
    }
}
