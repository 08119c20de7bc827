//! Files of Kubernetes' downward API: labels and annotations of the pod, one `key="value"` a line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

/// Largest file that is read: the annotations of an object are at most 256 KiB, and quoting may make four of each byte.
const POD_INFO_BYTES_MAX: u64 = 1 << 20;

/// The entries of a file; `None` when there is no such file.
///
/// # Errors
///
/// When it cannot be read, or holds something else.
pub(super) fn read(file: &Path) -> Result<Option<BTreeMap<String, String>>, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let opened = match fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| named(&error))?,
    };
    let mut text = String::new();
    opened.take(POD_INFO_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| named(&error))?;
    if text.len() as u64 > POD_INFO_BYTES_MAX {
        return Err(named(&format_args!("it is longer than {POD_INFO_BYTES_MAX} bytes")));
    }
    parse(&text).map(Some).map_err(|line| named(&format_args!("line {line} is not like key=\"value\"")))
}

/// The entries of a text, or the number of the line that is none.
fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entries = lines.map(|(index, line)| {
        let entry = line.split_once('=').and_then(|(key, value)| Some((key.to_owned(), unquoted(value)?)));
        entry.ok_or(index + 1)
    });
    entries.collect()
}

/// A text as Go quotes it (`%q`).
fn unquoted(quoted: &str) -> Option<String> {
    let inside = quoted.trim_end().strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.chars();
    while let Some(next) = rest.next() {
        if next == '"' {
            return None;
        }
        if next != '\\' {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escaped = rest.next()?;
        let plain = match escaped {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '"' => u8::try_from(escaped).ok()?,
            // A byte of what is no UTF-8.
            'x' => u8::try_from(number(&mut rest, 2)?).ok()?,
            'u' | 'U' => {
                let character = char::from_u32(number(&mut rest, if escaped == 'u' { 4 } else { 8 })?)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        bytes.push(plain);
    }
    String::from_utf8(bytes).ok()
}

fn number(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |number, _| Some(number << 4 | rest.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_file() {
        let check = |text: &str, expected: Result<&[(&str, &str)], usize>| {
            let expected = expected.map(|entries| {
                entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            });
            assert_eq!(parse(text), expected, "{text}");
        };
        check("", Ok(&[]));
        check("app=\"web\"\nversion=\"\"\n\n", Ok(&[("app", "web"), ("version", "")]));
        check("a/b=\"c=d\"", Ok(&[("a/b", "c=d")]));
        check(r#"a="x\ny\t\"\\""#, Ok(&[("a", "x\ny\t\"\\")]));
        check(r#"a="é\u00e9\U0001F600\xc3\xa9""#, Ok(&[("a", "éé😀é")]));
        check("a=\"b\"\nc", Err(2));
        for bad in
            ["a=b", "a=\"", "a=\"b", r#"a="\""#, r#"a="\q""#, r#"a="\x4""#, r#"a="\ud800""#, r#"a="\xff""#]
        {
            check(bad, Err(1));
        }
        check("a=\"b\"c\"", Err(1));
    }

    #[test]
    fn files_that_are_not_there_or_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("labels");
        assert_eq!(read(&file), Ok(None));
        let length = usize::try_from(POD_INFO_BYTES_MAX).unwrap();
        fs::write(&file, "\n".repeat(length)).unwrap();
        assert_eq!(read(&file), Ok(Some(BTreeMap::new())));
        fs::write(&file, "\n".repeat(length + 1)).unwrap();
        assert!(read(&file).unwrap_err().ends_with("labels: it is longer than 1048576 bytes"));
        fs::write(&file, "app=web").unwrap();
        assert!(read(&file).unwrap_err().ends_with("labels: line 1 is not like key=\"value\""));
    }
}
