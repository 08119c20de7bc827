//! A text to the texts of its documents, so that one that is malformed leaves its neighbours alone.
//!
//! `---` or `...` at the start of a line, followed by white space or nothing, can only be a marker (YAML 1.2,
//! c-forbidden), whatever the document around it looks like.

/// The text of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentText<'a> {
    /// What is between the markers.
    pub(crate) text: &'a str,
    /// Line of the file on which it begins, counted from 1.
    pub(crate) line: u32,
    /// Columns of that line that come before it: the marker.
    pub(crate) columns_before: u32,
}

/// Bytes of a marker, and columns.
const MARKER_BYTES: usize = 3;

/// The documents of `text` that hold more than comments and directives, one after the other.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = DocumentText<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = Some(DocumentText { text, line: 1, columns_before: 0 });
    let split = std::iter::from_fn(move || {
        let (document, after) = split_first(rest.take()?);
        rest = after;
        Some(document)
    });
    split.filter(|document| holds_anything(document.text))
}

/// The first document, and what follows its marker, if there is one. A marker at the start of a text that follows a
/// marker on the same line is none.
fn split_first(all: DocumentText<'_>) -> (DocumentText<'_>, Option<DocumentText<'_>>) {
    let (mut at, mut line) = (0, all.line);
    for full_line in all.text.split_inclusive('\n') {
        let begins_line = at > 0 || all.columns_before == 0;
        if begins_line && is_marker(full_line) {
            let (before, after) = all.text.split_at(at);
            let after = after.get(MARKER_BYTES..).unwrap_or_default();
            let next = DocumentText { text: after, line, columns_before: 3 };
            return (DocumentText { text: before, ..all }, Some(next));
        }
        at += full_line.len();
        line += 1;
    }
    (all, None)
}

/// Whether a line is `---` or `...`, alone or followed by white space.
fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is more than white space, comments and the two directives that YAML has (6.8).
fn holds_anything(text: &str) -> bool {
    text.lines().any(|line| {
        let content = line.trim_start();
        let is_directive = line.starts_with("%YAML ") || line.starts_with("%TAG ");
        !content.is_empty() && !content.starts_with('#') && !is_directive
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(u32, &str)]) {
        let found: Vec<_> = documents(text).map(|d| (d.line, d.text)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn markers_separate() {
        check("a: 1\n", &[(1, "a: 1\n")]);
        check("a: 1\n---\nb: 2", &[(1, "a: 1\n"), (2, "\nb: 2")]);
        check("---\na: 1\n---\r\nb: 2\r\n", &[(1, "\na: 1\n"), (3, "\r\nb: 2\r\n")]);
        check("--- {a: 1}\n--- # two\nb: 2\n", &[(1, " {a: 1}\n"), (2, " # two\nb: 2\n")]);
        check("a: 1\n...\nb: 2\n", &[(1, "a: 1\n"), (2, "\nb: 2\n")]);
        check("\u{feff}a: 1\n", &[(1, "a: 1\n")]);
    }

    #[test]
    fn what_only_looks_like_a_marker() {
        check("a: |\n  ---\n  b\n", &[(1, "a: |\n  ---\n  b\n")]);
        check("---a\n", &[(1, "---a\n")]);
        check("----\n", &[(1, "----\n")]);
        check("--- ---\n", &[(1, " ---\n")]);
        check("------\n", &[(1, "------\n")]);
    }

    #[test]
    fn documents_that_hold_nothing() {
        check("", &[]);
        check("\n# only a comment\n---\n   # and one more\n---\n\n", &[]);
        check("%YAML 1.2\n---\na: 1\n", &[(2, "\na: 1\n")]);
        check("%%%%\n", &[(1, "%%%%\n")]);
    }
}
