//! Regular expressions as Istio and Envoy mean them: RE2 syntax.
//!
//! The library used here is close to RE2 and, like it, takes time linear in the text; where the two read a text
//! differently, it is given one that it reads as RE2 does. Patterns work on bytes, as
//! headers and paths are bytes. Validation and the proxy compile patterns here and nowhere else, so that what was
//! accepted always compiles.

mod re2;

use std::fmt;

use re2::translated;
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled program of one pattern.
pub const PROGRAM_BYTES_MAX: usize = 1024 * 1024;

/// Sizes by which programs are told apart: most patterns are of the first.
const PROGRAM_BYTES: [usize; 4] = [4 * 1024, 32 * 1024, 256 * 1024, PROGRAM_BYTES_MAX];

/// Why a pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    /// Its program is larger than [`PROGRAM_BYTES_MAX`].
    TooBig,
    /// It breaks the syntax; how, in one line.
    Malformed(String),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::TooBig => write!(f, "it takes more than {PROGRAM_BYTES_MAX} bytes when compiled"),
            PatternError::Malformed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for PatternError {}

/// A pattern that must match the whole text, as Istio's `regex` does.
///
/// # Errors
///
/// When it is malformed or its program is larger than [`PROGRAM_BYTES_MAX`].
pub fn full_match(pattern: &str) -> Result<Regex, PatternError> {
    // Compiled alone first: `a)(b` is only well-formed within the anchors.
    let pattern = translated(pattern)?;
    compile(&pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

/// The same, and a size that its program does not exceed.
///
/// # Errors
///
/// As [`full_match`].
pub fn full_match_sized(pattern: &str) -> Result<(Regex, usize), PatternError> {
    let translated = translated(pattern)?;
    let anchored = format!(r"\A(?:{translated})\z");
    // The library does not tell the size; it stops as soon as a program is larger than it may be.
    let [small @ .., _] = PROGRAM_BYTES;
    let sized = small.into_iter().find_map(|size| {
        let build = |pattern: &str| compile_within(pattern, size);
        build(&translated).and_then(|_| build(&anchored)).ok().map(|regex| (regex, size))
    });
    sized.map_or_else(|| full_match(pattern).map(|regex| (regex, PROGRAM_BYTES_MAX)), Ok)
}

/// A pattern that may match anywhere, as Istio's `uriRegexRewrite` does.
///
/// # Errors
///
/// As [`full_match`].
pub fn search(pattern: &str) -> Result<Regex, PatternError> {
    compile(&translated(pattern)?)
}

/// Character classes are ASCII as in RE2; a pattern that names Unicode classes or characters gets them.
fn compile(pattern: &str) -> Result<Regex, PatternError> {
    compile_within(pattern, PROGRAM_BYTES_MAX)
}

/// The same with a program of at most `bytes_max`.
fn compile_within(pattern: &str, bytes_max: usize) -> Result<Regex, PatternError> {
    let build = |unicode| RegexBuilder::new(pattern).unicode(unicode).size_limit(bytes_max).build();
    build(false).or_else(|_| build(true)).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooBig,
        error => {
            // The library draws an arrow below the pattern; its last line says what is wrong.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            PatternError::Malformed(reason.to_owned())
        }
    })
}

/// The library's form of an RE2 substitution: `\1` becomes `${1}`, `\\` a backslash, and `$` stays a dollar.
pub fn substitution(re2: &str) -> String {
    let mut text = String::with_capacity(re2.len() + 8);
    let mut characters = re2.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => text.push_str("$$"),
            '\\' => match characters.next() {
                Some(group) if group.is_ascii_digit() => {
                    text.push_str("${");
                    text.push(group);
                    text.push('}');
                }
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        let regex = full_match("/v[0-9]+/items/.*").unwrap();
        assert!(regex.is_match(b"/v1/items/7"));
        assert!(!regex.is_match(b"x/v1/items/7"));
        assert!(full_match("a|b").unwrap().is_match(b"b"));
        assert!(!full_match("a|b").unwrap().is_match(b"ab"));
    }

    #[test]
    fn what_does_not_compile() {
        for pattern in ["(", "a)(b", "[z-a]", "(?=look)", "((((a{100}){100}){100}){100})"] {
            assert!(full_match(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn sizes_of_programs() {
        let check = |pattern: &str, expected| {
            let size = full_match_sized(pattern).map(|(_, size)| size).ok();
            assert_eq!(size, expected, "{pattern}");
            assert_eq!(full_match(pattern).is_ok(), expected.is_some(), "{pattern}");
        };
        check("/v[0-9]+/items/.*", Some(4 * 1024));
        check("a{500}", Some(32 * 1024));
        check("(a{100}){50}", Some(256 * 1024));
        check("(a{100}){150}", Some(PROGRAM_BYTES_MAX));
        check("(a{1000}){1000}", None);
        check("a)(b", None);
    }

    #[test]
    fn classes_are_ascii() {
        assert!(!full_match(r"\d").unwrap().is_match("٣".as_bytes()));
        assert!(full_match("é+").unwrap().is_match("éé".as_bytes()));
        assert!(full_match("[éè]").unwrap().is_match("è".as_bytes()));
    }

    /// Whether each pattern matches the text, or is none (`None`), as with RE2.
    #[test]
    fn patterns_are_read_as_re2_reads_them() {
        let check = |pattern: &str, text: &str, expected: Option<bool>| {
            let matched = full_match(pattern).ok().map(|regex| regex.is_match(text.as_bytes()));
            assert_eq!(matched, expected, "{pattern} of {text}");
            let sized = full_match_sized(pattern).ok().map(|(regex, _)| regex.is_match(text.as_bytes()));
            assert_eq!(sized, expected, "{pattern} of {text}");
        };
        let (yes, no) = (Some(true), Some(false));
        // What is an operation on classes for the library.
        check("[a&&b]+", "a&b", yes);
        check("[a~~b]+", "a~b", yes);
        check("[!--]+", "!+-", yes);
        check("[!--]+", "a", no);
        check("[a--c]", "b", None);
        check("[^[]*", "abc", yes);
        check("[^[]*", "a[", no);
        check("[[a]+", "[a", yes);
        check("[]a-]+", "]a-", yes);
        check(r"[\w-z]+", "_-z", yes);
        check("[[:alpha:]-]+", "a-B", yes);
        check("[[:^digit:]]", "7", no);
        check("[[:nothing:]]", "a", None);
        check("[[:a]+", "[:a", yes);
        check("[a", "a", None);
        check(r"[^\D]", "7", yes);
        check(r"[\]\-\x41-\x43]+", "]-B", yes);
        // Escapes.
        check(r"x\<y\>", "x<y>", yes);
        check(r"\Q/a.b[\E+", "/a.b[[", yes);
        check(r"\Q/a.b\E", "/axb", no);
        check(r"\Qa|b", "a|b", yes);
        check(r"a\_b", "a_b", yes);
        check(r"\101\x42\x{43}\0", "ABC\0", yes);
        check(r"\xe9", "é", yes);
        check(r"a\Cb", "a\nb", yes);
        check(r"\s", "\x0b", no);
        check(r"\p{Greek}\pL\d", "αb1", yes);
        check(r"\p{Greek}\d", "α٣", no);
        check(r"a\b{start}", "a", no);
        for pattern in
            [r"\1", r"\u0041", r"\y", r"\x4", r"\x{}", r"\x{110000}", r"a\", r"[\b]", r"\p{", "[\\"]
        {
            check(pattern, "a", None);
        }
        // Repetitions and braces that are none.
        check("a{b}", "a{b}", yes);
        check("a{,2}{", "a{,2}{", yes);
        check("a{1, 2}", "a{1, 2}", yes);
        check("a{01}", "a{01}", yes);
        check("a{2,3}?", "aaa", yes);
        check("{", "{", yes);
        for pattern in ["a**", "a+*", "a*??", "a{2}{3}", "a{1001}", "a{99999999999}", "*", "a{2,1}"] {
            check(pattern, "a", None);
        }
        check("(a*)*", "aa", yes);
        // Flags.
        check("(?i)A(?-i:b)", "ab", yes);
        check("(?P<n>a)(?:b)", "ab", yes);
        for pattern in ["(?x)a b", "(?u)a", "(?i-x:a)", "(?R)a"] {
            check(pattern, "a", None);
        }
    }

    #[test]
    fn substitutions() {
        let check = |re2: &str, expected: &str| assert_eq!(substitution(re2), expected, "{re2}");
        check(r"\1", "${1}");
        check(r"/a\1b", "/a${1}b");
        check("$5", "$$5");
        check(r"\\", r"\");
        let replaced = search("^/v[0-9]+(/.*)$")
            .unwrap()
            .replace_all(b"/v1/items", substitution(r"\1").as_bytes())
            .into_owned();
        assert_eq!(replaced, b"/items");
    }
}
