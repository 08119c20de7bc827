//! Words of somebody else, as they are told: on one line, and cut short.

/// Characters that are told.
const TOLD_MAX: usize = 300;

/// The text, without what would break a line or a terminal.
pub(crate) fn told(text: &str) -> String {
    let text: String = text.chars().take(TOLD_MAX).collect();
    text.escape_debug().to_string()
}
