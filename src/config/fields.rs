//! Reads the tables of a file key by key, and notes everything that is wrong on the way.
//!
//! ```text
//!   Value ──table()──► Fields ──read("key", …)──► Value ──duration(), word(), list() …──► Some(typed)
//!                        │                                                                   │
//!                        ▼ when the table is left: every key nobody asked for        None: said so
//!                      Desk: the mistakes found so far
//! ```
//!
//! `None` always means "not given, or said so in the report", so a caller goes on with a default and finds
//! the other mistakes too. A key that nobody asked for is unknown; so what is known is written once, where it
//! is read.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::files::Files;
use super::report::{Diagnostic, Severity, Wrong, line_of, line_starts};
use super::values::{self, shown};
use super::words::did_you_mean;

/// Where one file is checked: what checks may ask of the world, and what they found.
pub(super) struct Desk<'t> {
    /// The text of the file.
    pub text: &'t str,
    pub line_starts: OnceCell<Vec<usize>>,
    /// Relative paths start here.
    pub folder: &'t Path,
    /// Looks up an environment variable.
    pub environment: &'t dyn Fn(&str) -> Option<String>,
    /// Looks up the addresses of a host name.
    pub resolve: &'t Resolve<'t>,
    /// Parts of the text that say nothing reliable; mistakes there were already said.
    pub unreliable: &'t [Range<usize>],
    pub found: RefCell<Vec<Diagnostic>>,
    /// Files that were read and that matter to those who follow the configuration.
    pub files: RefCell<Files>,
    /// Parts of the text that must not be shown.
    pub hidden: RefCell<Vec<Range<usize>>>,
    /// Every key that was asked for, such as `pools.*.strategy`.
    #[cfg(test)]
    pub asked: RefCell<std::collections::BTreeSet<String>>,
}

/// Host name and port to addresses.
pub(super) type Resolve<'t> = dyn Fn(&str, u16) -> std::io::Result<Vec<std::net::SocketAddr>> + 't;

impl Desk<'_> {
    /// Notes a mistake at this place, unless a syntax error there already explains it.
    pub(super) fn refuse(&self, span: Range<usize>, wrong: Wrong) {
        if !self.is_unreliable(&span) {
            self.note(Severity::Error, Some(span), wrong);
        }
    }

    /// Notes that something is missing, at the nearest place there is. Where the text is not wholly
    /// readable, what seems to be missing may stand in the unreadable part, so nothing is said.
    pub(super) fn miss(&self, span: Option<Range<usize>>, wrong: Wrong) {
        if self.unreliable.is_empty() {
            self.note(Severity::Error, span, wrong);
        }
    }

    /// Notes something odd that does not refuse the file.
    pub(super) fn warn(&self, span: Range<usize>, wrong: Wrong) {
        self.note(Severity::Warning, Some(span), wrong);
    }

    /// Whether the file is already refused.
    pub(super) fn has_mistakes(&self) -> bool {
        self.found.borrow().iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// The line, from 1, in which this byte stands.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        line_of(self.line_starts.get_or_init(|| line_starts(self.text)), byte)
    }

    /// Keeps this part of the text out of every report.
    pub(super) fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// How much was found so far; unchanged means that nothing was wrong meanwhile.
    pub(super) fn found_so_far(&self) -> usize {
        self.found.borrow().len()
    }

    /// How many mistakes were found so far; oddities do not count.
    pub(super) fn mistakes_so_far(&self) -> usize {
        let is_mistake = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        self.found.borrow().iter().filter(is_mistake).count()
    }

    /// A file is about to be read of which those who follow the configuration should know when it changes.
    pub(super) fn reads(&self, path: &Path) {
        self.files.borrow_mut().note(path);
    }

    fn note(&self, severity: Severity, span: Option<Range<usize>>, wrong: Wrong) {
        self.found.borrow_mut().push(Diagnostic { severity, span, wrong });
    }

    fn is_unreliable(&self, span: &Range<usize>) -> bool {
        let filled_in = *span == (0..0) && !self.unreliable.is_empty();
        filled_in || self.unreliable.iter().any(|part| span.start <= part.end && part.start <= span.end)
    }
}

/// One value of the file, and where it stands.
#[derive(Clone)]
pub(super) struct Value<'t> {
    pub desk: &'t Desk<'t>,
    pub span: Range<usize>,
    inner: &'t DeValue<'t>,
    path: KeyPath,
    /// Whether it is an element of the list that the path names.
    in_list: bool,
}

impl<'t> Value<'t> {
    /// Notes a mistake about this value.
    pub(super) fn refuse<T>(&self, wrong: Wrong) -> Option<T> {
        self.desk.refuse(self.span.clone(), wrong);
        None
    }

    pub(super) fn is_table(&self) -> bool {
        self.inner.is_table()
    }

    pub(super) fn is_empty_table(&self) -> bool {
        self.inner.as_table().is_some_and(DeTable::is_empty)
    }

    pub(super) fn is_true(&self) -> bool {
        self.inner.as_bool() == Some(true)
    }

    pub(super) fn is_empty_list(&self) -> bool {
        self.inner.as_array().is_some_and(|array| array.is_empty())
    }

    /// The text, if it is one; anything else is not held against it.
    pub(super) fn as_text(&self) -> Option<&'t str> {
        let inner: &'t DeValue<'t> = self.inner;
        inner.as_str()
    }

    /// The first address in a list of upstreams, for advice: text, or `address` of a table.
    pub(super) fn first_address(&self) -> Option<&'t str> {
        let first = self.inner.as_array()?.first()?.get_ref();
        first.as_str().or_else(|| first.as_table()?.get("address")?.get_ref().as_str())
    }

    /// The text, whatever it says.
    pub(super) fn text(&self) -> Option<&'t str> {
        self.as_text().or_else(|| self.expected("text in double quotes", "\"…\""))
    }

    /// The text, as `read` understands it.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&'t str) -> Result<T, Wrong>) -> Option<T> {
        self.accept(read(self.text()?))
    }

    /// A duration with its unit, `least` at least.
    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        match self.number_text() {
            Some(number) => self.refuse(values::duration_without_unit(&number)),
            None => self.parse(|text| values::duration(text, least)),
        }
    }

    /// A size in bytes with its unit.
    pub(super) fn size(&self, least: u64, most: u64) -> Option<u64> {
        match self.number_text() {
            Some(number) => self.refuse(values::size_without_unit(&number)),
            None => self.parse(|text| values::size(text, least, most)),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count<T>(&self, least: u64, most: u64) -> Option<T>
    where
        T: TryFrom<u64>,
    {
        let DeValue::Integer(integer) = self.inner else {
            return self.expected("a whole number", &format!("{least}"));
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let in_range = number.and_then(|number| u64::try_from(number).ok());
        let in_range = in_range.filter(|number| (least..=most).contains(number));
        match in_range.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.refuse(Wrong::new(
                format!("`{}` is out of range", shown(integer.as_str())),
                if number.is_some_and(|number| number < 0) || in_range_below(number, least) {
                    "too small"
                } else {
                    "too large"
                },
                format!("write a whole number from {least} to {most}"),
            )),
        }
    }

    /// A share from 0 to 1.
    pub(super) fn ratio(&self) -> Option<f32> {
        let number = match self.inner {
            DeValue::Float(float) => float.as_str().parse::<f32>().ok(),
            DeValue::Integer(integer) => integer.as_str().parse::<f32>().ok(),
            _ => return self.expected("a number from 0 to 1", "0.5"),
        };
        match number.filter(|number| (0.0..=1.0).contains(number)) {
            Some(ratio) => Some(ratio),
            None => self.refuse(Wrong::new(
                "a ratio lies between 0 and 1",
                "out of range",
                "write a share such as 0.2 for 20 %",
            )),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.inner.as_bool().or_else(|| self.expected("true or false", "true"))
    }

    /// One of a closed set of words.
    pub(super) fn word<T: Copy>(&self, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.refuse(Wrong::new(
            format!("unknown {what} `{}`", shown(text)),
            format!("not a {what}"),
            did_you_mean(text, &known, "Accepted"),
        ))
    }

    /// Every element that `read` understands, at most `most` elements.
    pub(super) fn list<T>(&self, most: usize, read: impl Fn(&Self) -> Option<T>) -> Option<Vec<T>> {
        let Some(array) = self.inner.as_array() else {
            return self.expected("a list", "[\"…\"]");
        };
        if array.len() > most {
            return self.refuse(too_many(array.len(), most, "entries"));
        }
        Some(array.iter().filter_map(|element| read(&self.child(element, self.path.clone(), true))).collect())
    }

    /// A table with known keys. Whatever key `read` did not ask for is noted as unknown.
    pub(super) fn table<T>(&self, what: &'static str, read: impl FnOnce(&Fields<'t>) -> T) -> Option<T> {
        let Some(table) = self.inner.as_table() else {
            return self.expected("a table", "{ … }");
        };
        let fields = Fields::new(self.desk, table, self.span.clone(), self.path.clone(), what);
        let answer = read(&fields);
        fields.refuse_unknown_keys();
        Some(answer)
    }

    /// A table whose keys are names or words of the user's choice, in file order.
    pub(super) fn entries(&self, most: usize) -> Option<Vec<(Key<'t>, Value<'t>)>> {
        let Some(table) = self.inner.as_table() else {
            return self.expected("a table", "{ … }");
        };
        if table.len() > most {
            return self.refuse(too_many(table.len(), most, "entries"));
        }
        #[cfg(test)]
        self.desk.asked.borrow_mut().insert(self.path.below(ANY_NAME).whole);
        let path = self.path.below(ANY_NAME);
        let entry = |(key, value): (&'t Spanned<DeString<'t>>, _)| {
            let key = Key { text: key.get_ref(), span: key.span() };
            (key, self.child(value, path.clone(), false))
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|(key, _)| key.span.start);
        Some(entries)
    }

    /// Turns the refusal of a parser into a mistake about this value.
    pub(super) fn accept<T>(&self, read: Result<T, Wrong>) -> Option<T> {
        read.map_or_else(|wrong| self.refuse(wrong), Some)
    }

    fn child(&self, value: &'t Spanned<DeValue<'t>>, path: KeyPath, in_list: bool) -> Self {
        Self { desk: self.desk, span: value.span(), inner: value.get_ref(), path, in_list }
    }

    fn number_text(&self) -> Option<String> {
        match self.inner {
            DeValue::Integer(integer) => Some(integer.to_string()),
            DeValue::Float(float) => Some(float.to_string()),
            _ => None,
        }
    }

    fn expected<T>(&self, expected: &str, example: &str) -> Option<T> {
        let found = match self.inner {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let key = if self.path.last == ANY_NAME { "name" } else { self.path.last };
        let help = match self.inner {
            DeValue::Integer(number) if example.starts_with('"') => format!("write \"{number}\", in quotes"),
            _ if self.in_list => format!("write each like this: {key} = [{example}]"),
            _ => format!("write it like this: {key} = {example}"),
        };
        self.refuse(Wrong::new(
            format!("expected {expected}, found {found}"),
            format!("not {expected}"),
            help,
        ))
    }
}

/// How a value is reached. Messages need its last step only; a large file has a hundred thousand values.
#[derive(Clone, Default)]
struct KeyPath {
    last: &'static str,
    /// Every step: `pools.*.timeouts`.
    #[cfg(test)]
    whole: String,
}

/// The step to whatever the user has named.
const ANY_NAME: &str = "*";

impl KeyPath {
    fn below(&self, key: &'static str) -> Self {
        let mut path = self.clone();
        path.last = key;
        #[cfg(test)]
        {
            path.whole = if self.whole.is_empty() { key.to_owned() } else { format!("{}.{key}", self.whole) };
        }
        path
    }
}

fn in_range_below(number: Option<i64>, least: u64) -> bool {
    number.and_then(|number| u64::try_from(number).ok()).is_some_and(|number| number < least)
}

pub(super) fn too_many(found: usize, most: usize, what: &str) -> Wrong {
    Wrong::new(
        format!("{found} {what}, but at most {most} are accepted"),
        "too many",
        format!("keep it to {most}; the limits are explained in the reference file"),
    )
}

/// A key of the user's choice, and where it stands.
#[derive(Clone)]
pub(super) struct Key<'t> {
    pub text: &'t str,
    pub span: Range<usize>,
}

/// A table whose keys are being asked for.
pub(super) struct Fields<'t> {
    pub desk: &'t Desk<'t>,
    /// Where the table begins: its heading or its braces.
    pub span: Range<usize>,
    table: &'t DeTable<'t>,
    path: KeyPath,
    /// The table in messages: `a pool`, `timeouts`.
    what: &'static str,
    known: RefCell<Vec<&'static str>>,
}

impl<'t> Fields<'t> {
    /// Reads the whole file as a table.
    pub(super) fn of_file<T>(desk: &'t Desk<'t>, root: &'t DeTable<'t>, read: impl FnOnce(&Self) -> T) -> T {
        let fields = Self::new(desk, root, 0..0, KeyPath::default(), "the file");
        let answer = read(&fields);
        fields.refuse_unknown_keys();
        answer
    }

    fn new(
        desk: &'t Desk<'t>,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        path: KeyPath,
        what: &'static str,
    ) -> Self {
        Self { desk, span, table, path, what, known: RefCell::default() }
    }

    /// The value of this key, as `read` understands it; `None` when the key is not given.
    pub(super) fn read<T>(&self, key: &'static str, read: impl FnOnce(&Value<'t>) -> Option<T>) -> Option<T> {
        read(&self.get(key)?)
    }

    /// Like [`Fields::read`], but the key has to be there.
    pub(super) fn require<T>(
        &self,
        key: &'static str,
        help: &str,
        read: impl FnOnce(&Value<'t>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.get(key) else {
            let message = format!("{} needs `{key}`", self.what);
            self.desk.miss(Some(self.span.clone()), Wrong::new(message, format!("no `{key}` here"), help));
            return None;
        };
        read(&value)
    }

    /// The value of this key, if given.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'t>> {
        #[cfg(test)]
        self.desk.asked.borrow_mut().insert(self.path.below(key).whole);
        if !self.known.borrow().contains(&key) {
            self.known.borrow_mut().push(key);
        }
        let value = self.table.get(key)?;
        let path = self.path.below(key);
        Some(Value { desk: self.desk, span: value.span(), inner: value.get_ref(), path, in_list: false })
    }

    /// Whether this key is not given at all.
    pub(super) fn is_absent(&self, key: &str) -> bool {
        !self.table.contains_key(key)
    }

    /// Keeps the values of all other keys out of every report.
    pub(super) fn hide_all_but(&self, keys: &[&str]) {
        for (_, value) in self.table.iter().filter(|(key, _)| !keys.contains(&key.get_ref().as_ref())) {
            self.desk.hide(value.span());
        }
    }

    fn refuse_unknown_keys(&self) {
        let known = self.known.borrow();
        let strange = |key: &&Spanned<DeString<'_>>| {
            let key: &str = key.get_ref();
            !known.contains(&key)
        };
        for key in self.table.keys().filter(strange) {
            let help = did_you_mean(key.get_ref(), &known, &format!("Keys of {}", self.what));
            let message = format!("unknown key `{}`", shown(key.get_ref()));
            self.desk.refuse(key.span(), Wrong::new(message, format!("not a key of {}", self.what), help));
        }
    }
}
