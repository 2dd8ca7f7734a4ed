//! The file as written: TOML with the place of every key and value, read as far as it can be read.
//!
//! A syntax error does not end the reading. What the TOML reader had to guess around an error is not
//! judged any further: one slip must not look like five.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::limits::MISTAKES_MAX;
use super::report::Wrong;
use super::values::shown;

/// A text as TOML, together with what is wrong with it as such.
pub(super) struct ConfigFile<'t> {
    /// The text, with lines blanked that would have hidden everything below them; same length.
    readable: Cow<'t, str>,
    /// What is no TOML, with its place.
    pub mistakes: Vec<(Range<usize>, Wrong)>,
    /// Parts that say nothing reliable.
    pub unreliable: Vec<Range<usize>>,
}

impl<'t> ConfigFile<'t> {
    /// Also answers with what the text says, unless lines had to be blanked: reading takes most of the time
    /// of a check.
    pub(super) fn read(text: &'t str) -> (Self, Option<DeTable<'t>>) {
        let mut file = Self { readable: Cow::Borrowed(text), mistakes: Vec::new(), unreliable: Vec::new() };
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return (file, Some(root.into_inner()));
        }
        file.read_broken(text);
        (file, None)
    }

    fn read_broken(&mut self, text: &str) {
        for _ in 0..BLANKED_LINES_MAX {
            let (root, errors) = DeTable::parse_recoverable(&self.readable);
            let swallowed = swallowing_value(root.get_ref(), &errors);
            let hiding = errors.iter().filter(|error| error.message().starts_with(NO_VALUE));
            let hiding = hiding.map(|error| line_around(text, place_of(error, text).start));
            // At the end of the text the reader may miss the value of a key far above, whatever stands there.
            let hiding = hiding.into_iter().find(|line| !self.is_blanked(line));
            match (swallowed, hiding) {
                (None, Some(line)) => self.blank(text, line, &errors),
                (swallowed, _) => {
                    self.keep(text, &errors, swallowed);
                    break;
                }
            }
        }
        self.mistakes.sort_by_key(|(place, _)| place.start);
    }

    /// The tables and values, best effort where there are mistakes.
    pub(super) fn root(&self) -> DeTable<'_> {
        DeTable::parse_recoverable(&self.readable).0.into_inner()
    }

    /// Secrets on lines that are no TOML: what follows a telling word there must not be shown.
    pub(super) fn hidden_in(&self, text: &str) -> Vec<Range<usize>> {
        let line = |place: &Range<usize>| line_around(text, place.start);
        self.mistakes.iter().filter_map(|(place, _)| secret_part(text, line(place))).collect()
    }

    /// Notes the errors of one line, then empties it: the reader gives up at such a line.
    fn blank(&mut self, text: &str, line: Range<usize>, errors: &[Error]) {
        let first = errors.iter().map(|error| place_of(error, text)).zip(errors);
        let first = first.filter(|(place, _)| line_around(text, place.start) == line);
        if let Some((place, error)) = first.min_by_key(|(place, _)| place.start) {
            self.mistakes.push((place.clone(), explained(error, &place, text)));
        }
        self.unreliable.push(line.clone());
        let blanks = " ".repeat(line.len());
        self.readable.to_mut().replace_range(line, &blanks);
    }

    /// Notes one error per line, and only the unclosed value where one swallowed the rest of the file.
    fn keep(&mut self, text: &str, errors: &[Error], swallowed: Option<(Range<usize>, &'static str)>) {
        let end = swallowed.as_ref().map_or(text.len() + 1, |(value, _)| value.start);
        let mut places: Vec<_> = errors.iter().map(|error| (place_of(error, text), error)).collect();
        places.sort_by_key(|(place, _)| place.start);
        let mut judged_to = 0;
        for (place, error) in places.into_iter().filter(|(place, _)| place.start < end) {
            let line = line_around(text, place.start);
            if self.mistakes.len() == MISTAKES_MAX {
                self.unreliable.push(line.start..text.len());
                break;
            }
            if line.end >= judged_to && !self.is_blanked(&line) {
                judged_to = line.end + 1;
                self.note(text, line, place, error);
            }
        }
        if let Some((value, what)) = swallowed {
            self.mistakes.push((value.start..first_line_end(text, &value), unclosed(what)));
            self.unreliable.push(value);
        }
    }

    fn is_blanked(&self, line: &Range<usize>) -> bool {
        self.unreliable.iter().take(BLANKED_LINES_MAX).any(|part| part.start == line.start)
    }

    fn note(&mut self, text: &str, line: Range<usize>, place: Range<usize>, error: &Error) {
        let misplaced = error.message().starts_with("unclosed table");
        let end = if misplaced { next_heading(text, line.end) } else { line.end };
        let place = if is_unquoted(error) { whole_word(text, &place) } else { place };
        self.mistakes.push((place.clone(), explained(error, &place, text)));
        self.unreliable.push(line.start..end);
    }
}

/// How the TOML reader names the error at which it stops reading.
const NO_VALUE: &str = "key with no value";

/// Lines that are blanked before the rest is given up; each costs one more reading of the text.
const BLANKED_LINES_MAX: usize = 32;

/// The outermost value that runs to the end of the file because nothing closes it.
fn swallowing_value(root: &DeTable<'_>, errors: &[Error]) -> Option<(Range<usize>, &'static str)> {
    let ends: Vec<usize> = errors
        .iter()
        .filter(|error| {
            error.message().starts_with("unclosed") || error.message().starts_with("invalid multi")
        })
        .filter_map(Error::span)
        .map(|span| span.start)
        .collect();
    if ends.is_empty() { None } else { unclosed_value_in(root, &ends) }
}

fn unclosed_value_in(table: &DeTable<'_>, ends: &[usize]) -> Option<(Range<usize>, &'static str)> {
    table.iter().find_map(|(_, value)| {
        let span = value.span();
        let what = match value.get_ref() {
            DeValue::Array(_) => "close it with `]`; look for a missing comma before that, too",
            DeValue::Table(_) => "close it with `}`; look for a missing comma before that, too",
            DeValue::String(_) => "end it with three quotes, as it begins",
            _ => return None,
        };
        // The span of a `[table]` is its heading, which ends where its first line does.
        if ends.contains(&span.end) && span.start < span.end {
            return Some((span, what));
        }
        match value.get_ref() {
            DeValue::Table(inner) => unclosed_value_in(inner, ends),
            _ => None,
        }
    })
}

/// The rest of the line after a word that announces a secret and its `=` or `:`.
fn secret_part(text: &str, line: Range<usize>) -> Option<Range<usize>> {
    const WORDS: [&str; 6] = ["authorization", "cookie", "token", "secret", "password", "api-key"];
    let lower = text.get(line.clone())?.to_ascii_lowercase();
    let word = WORDS.iter().filter_map(|word| lower.find(word)).min()?;
    let value = word + lower.get(word..)?.find(['=', ':'])? + 1;
    Some(line.start + value..line.end)
}

fn unclosed(help: &'static str) -> Wrong {
    Wrong::new("a value is not closed; nothing below it could be read", "opened here", help)
}

/// Says an error of the TOML reader in our way: with a next step.
fn explained(error: &Error, place: &Range<usize>, text: &str) -> Wrong {
    if is_unquoted(error) {
        return unquoted(text.get(place.clone()).unwrap_or(""));
    }
    let message = error.message().trim_end_matches(", expected nothing");
    let meant_as_block = text.get(place.start..).is_some_and(|rest| rest.starts_with([':', '{']));
    let help = ADVICE.iter().find(|(start, _)| message.starts_with(start));
    let help = match help {
        _ if meant_as_block => KEY_AND_VALUE,
        Some((_, help)) => help,
        None => "this is TOML: `key = value`, tables as `[name]`, text in double quotes (https://toml.io)",
    };
    Wrong::new(format!("not valid TOML: {message}"), "here", help)
}

const KEY_AND_VALUE: &str = "write `key = value`; a table begins with `[name]` on its own line";

/// How messages of the TOML reader begin, and what to do about them.
const ADVICE: [(&str, &str); 6] = [
    (NO_VALUE, KEY_AND_VALUE),
    ("duplicate key", "a key, and a table's heading, may stand once; merge the two"),
    ("invalid basic string", "end the text with a double quote, on the same line"),
    ("unclosed table", "end the heading of the table with `]`, on the same line"),
    ("missing escaped value", "write a backslash as `\\\\`, or put the text in single quotes"),
    ("extra comma", "remove one comma"),
];

/// Whether a value is text without quotes, which the reader may have taken for half a number or date.
fn is_unquoted(error: &Error) -> bool {
    const STARTS: [&str; 5] =
        ["string values must be quoted", "invalid float", "invalid date", "invalid time", "invalid boolean"];
    STARTS.iter().any(|start| error.message().starts_with(start))
}

fn unquoted(word: &str) -> Wrong {
    let help = match word {
        "" => "write a value after `=`; text stands in double quotes".to_owned(),
        word => format!("write \"{}\", in double quotes", shown(word)),
    };
    let label = if word.is_empty() { "no value" } else { "no quotes" };
    Wrong::new("not valid TOML: neither a number, true, false, nor text in quotes", label, help)
}

/// The word in which a place lies: the reader may point at its second half only.
fn whole_word(text: &str, place: &Range<usize>) -> Range<usize> {
    let before = text.get(..place.start).unwrap_or("");
    let word = before.rfind([' ', '\t', '\n', '=', ',', '[', '{', '"']).map_or(0, |at| at + 1);
    word..place.end
}

/// Where an error stands, within the text whatever the TOML reader says.
fn place_of(error: &Error, text: &str) -> Range<usize> {
    let span = error.span().unwrap_or(0..0);
    let start = char_boundary(text, span.start);
    start..char_boundary(text, span.end).max(start)
}

fn char_boundary(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

/// The bytes of the line that holds this one, without its line end.
fn line_around(text: &str, byte: usize) -> Range<usize> {
    let start = text[..byte].rfind('\n').map_or(0, |at| at + 1);
    let end = text[byte..].find(['\n', '\r']).map_or(text.len(), |at| byte + at);
    start..end
}

/// Where the next table begins; what stands before it belongs to a table whose name is not known.
fn next_heading(text: &str, from: usize) -> usize {
    text[from..].find("\n[").map_or(text.len(), |at| from + at)
}

fn first_line_end(text: &str, value: &Range<usize>) -> usize {
    line_around(text, char_boundary(text, value.start)).end.min(value.end)
}
