//! RE2's syntax in that of the library: what is a character there must not be an operator here, nor the other way round.

use std::borrow::Cow;

use super::PatternError;

/// Most times that RE2 repeats anything.
const REPETITIONS_MAX: u32 = 1000;

/// Names in `[:...:]`.
const NAMED_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// `re2` as the library takes it. What both refuse may be left to the library.
pub(super) fn translated(re2: &str) -> Result<Cow<'_, str>, PatternError> {
    if !re2.contains(['[', '\\', '{', '*', '+', '?']) {
        return Ok(Cow::Borrowed(re2));
    }
    let mut text = Translation { rest: re2, out: String::with_capacity(re2.len() + 16), is_repeated: false };
    while let Some(character) = text.next() {
        let was_repeated = std::mem::take(&mut text.is_repeated);
        match character {
            '[' => text.class()?,
            '\\' => text.escape()?,
            '(' => text.group()?,
            '*' | '+' | '?' => text.repeat(was_repeated, character.encode_utf8(&mut [0; 4]))?,
            '{' => match repetition(text.rest)? {
                Some(end) => {
                    let (times, rest) = text.rest.split_at(end);
                    text.rest = rest;
                    text.repeat(was_repeated, &format!("{{{times}"))?;
                }
                None => text.literal('{'),
            },
            other => text.out.push(other),
        }
    }
    Ok(Cow::Owned(text.out))
}

fn malformed<T>(reason: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError::Malformed(reason.into()))
}

/// Where a repetition ends, of which the text behind its `{` is given; `None` when that brace stands for itself.
fn repetition(text: &str) -> Result<Option<usize>, PatternError> {
    let Some((times, _)) = text.split_once('}') else { return Ok(None) };
    let is_number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    let (least, most) = times.split_once(',').unwrap_or((times, ""));
    if least.is_empty() || !is_number(least) || !is_number(most) {
        return Ok(None);
    }
    let is_too_many =
        |text: &&str| !text.is_empty() && text.parse().map_or(true, |times: u32| times > REPETITIONS_MAX);
    if [least, most].iter().any(is_too_many) {
        return malformed(format!("nothing is repeated more than {REPETITIONS_MAX} times"));
    }
    Ok(Some(times.len() + 1))
}

/// The characters of a class that is written with a backslash.
fn of_perl(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[\t\n\f\r ]",
        'S' => r"[^\t\n\f\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

struct Translation<'p> {
    rest: &'p str,
    out: String,
    /// Whether what was written last is a repetition.
    is_repeated: bool,
}

impl Translation<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.skip(next.len_utf8());
        Some(next)
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// A character that stands for itself.
    fn literal(&mut self, character: char) {
        if r"\.+*?()|[]{}^$#&-~".contains(character) {
            self.out.push('\\');
        }
        self.out.push(character);
    }

    fn repeat(&mut self, was_repeated: bool, operator: &str) -> Result<(), PatternError> {
        if was_repeated {
            return malformed("what is repeated already cannot be repeated without a group");
        }
        self.out.push_str(operator);
        if self.rest.starts_with('?') {
            self.skip(1);
            self.out.push('?');
        }
        self.is_repeated = true;
        Ok(())
    }

    /// What follows `(`.
    fn group(&mut self) -> Result<(), PatternError> {
        self.out.push('(');
        if !self.rest.starts_with('?') {
            return Ok(());
        }
        self.skip(1);
        self.out.push('?');
        let flags = self.rest.split([')', ':', 'P', '<', '=', '!']).next().unwrap_or_default();
        if flags.contains(['u', 'x', 'R']) {
            return malformed(format!("`{flags}` are no flags of RE2"));
        }
        Ok(())
    }

    /// What follows a backslash, outside of classes.
    fn escape(&mut self) -> Result<(), PatternError> {
        let Some(letter) = self.rest.chars().next() else {
            self.out.push('\\');
            return Ok(());
        };
        let written = match letter {
            'A' => r"\A",
            'z' => r"\z",
            // Of ASCII, also where another part of the pattern is of Unicode.
            'b' => r"(?-u:\b)",
            'B' => r"(?-u:\B)",
            'C' => "(?s-u:.)",
            'p' | 'P' => {
                self.property();
                return Ok(());
            }
            'Q' => {
                self.skip(1);
                let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                quoted.chars().for_each(|character| self.literal(character));
                return Ok(());
            }
            _ => match of_perl(letter) {
                Some(class) => class,
                None => {
                    let character = self.character()?;
                    self.literal(character);
                    return Ok(());
                }
            },
        };
        self.skip(1);
        self.out.push_str(written);
        Ok(())
    }

    /// A class of Unicode, of which the backslash is taken.
    fn property(&mut self) {
        let end = match self.rest.get(1..).and_then(|name| name.strip_prefix('{')) {
            Some(name) => name.find('}').map_or(self.rest.len(), |end| end + 3),
            None => self.rest.chars().take(2).map(char::len_utf8).sum(),
        };
        self.out.push('\\');
        self.out.push_str(self.rest.get(..end).unwrap_or_default());
        self.skip(end);
    }

    /// The character that is written with a backslash, which is taken.
    fn character(&mut self) -> Result<char, PatternError> {
        let Some(letter) = self.next() else { return malformed("nothing follows the backslash") };
        let is_octal = |rest: &str| rest.starts_with(|next: char| next.is_digit(8));
        let code = match letter {
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => self.hexadecimal(),
            '0'..='7' if letter == '0' || is_octal(self.rest) => {
                let mut code = letter.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|next| next.to_digit(8)) else {
                        break;
                    };
                    self.skip(1);
                    code = code * 8 + digit;
                }
                code
            }
            letter if letter.is_ascii() && !letter.is_ascii_alphanumeric() => return Ok(letter),
            other => return malformed(format!(r"`\{other}` is no escape of RE2")),
        };
        char::from_u32(code).map_or_else(|| malformed("the code of a character is none"), Ok)
    }

    /// The code behind `\x`; one that no character has where there is none.
    fn hexadecimal(&mut self) -> u32 {
        let (digits, end) = match self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((digits, _)) => (digits, digits.len() + 2),
            None => (self.rest.get(..2).unwrap_or_default(), 2),
        };
        let is_code = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| is_code);
        self.skip(end);
        code.unwrap_or(u32::MAX)
    }

    /// A class, of which the bracket is taken.
    fn class(&mut self) -> Result<(), PatternError> {
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.skip(1);
            self.out.push('^');
        }
        let mut is_first = true;
        while is_first || !self.rest.starts_with(']') {
            is_first = false;
            if self.is_class_in_class()? {
                continue;
            }
            let first = self.class_character()?;
            self.literal(first);
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.skip(1);
                let last = self.class_character()?;
                if last < first {
                    return malformed(format!("the range `{first}-{last}` ends before it begins"));
                }
                self.out.push('-');
                self.literal(last);
            }
        }
        self.skip(1);
        self.out.push(']');
        Ok(())
    }

    /// Whether a class follows within one, which is taken.
    fn is_class_in_class(&mut self) -> Result<bool, PatternError> {
        if let Some((name, _)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) {
            if !NAMED_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return malformed(format!("`[:{name}:]` is no class of RE2"));
            }
            self.out.push_str(&format!("[:{name}:]"));
            self.skip(name.len() + 4);
            return Ok(true);
        }
        let Some(letter) = self.rest.strip_prefix('\\').and_then(|rest| rest.chars().next()) else {
            return Ok(false);
        };
        if let Some(class) = of_perl(letter) {
            self.out.push_str(class);
            self.skip(2);
        } else if matches!(letter, 'p' | 'P') {
            self.skip(1);
            self.property();
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn class_character(&mut self) -> Result<char, PatternError> {
        match self.next() {
            Some('\\') => self.character(),
            Some(character) => Ok(character),
            None => malformed("a character class is not closed"),
        }
    }
}
