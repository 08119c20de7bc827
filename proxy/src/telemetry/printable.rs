//! Text for a terminal: what others sent may hold characters that a terminal obeys.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with its control characters, C1 among them, as `\u009b`: no terminal obeys that, and in a string of JSON it
/// stands for the same. So are those that turn the direction of what follows (Unicode: `Bidi_Control`), by which a line
/// may show other than it reads. Ends of lines and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |character: char| match character {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if obeyed(character) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("a\tb\n", "a\tb\n");
        check("\u{1b}[2Ja\u{9b}2J", "\\u001b[2Ja\\u009b2J");
        check("a\u{202e}b\u{2066}\u{200f}\u{2010}", "a\\u202eb\\u2066\\u200f\u{2010}");
        check("\r\u{7f}\u{80}\u{9f}\u{a0}\u{fc}", "\\u000d\\u007f\\u0080\\u009f\u{a0}\u{fc}");
    }
}
