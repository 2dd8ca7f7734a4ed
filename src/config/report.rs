//! Every mistake of one file at once, each with line, column, the source line and help.

use std::fmt;
use std::ops::Range;

use super::files::Files;
use super::limits::MISTAKES_MAX;

/// What is wrong with a configuration, ordered by position.
///
/// `Display` shows all of it for people, in the manner of rustc; [`Report::mistakes`] is for programs.
/// Neither shows a value that was marked as secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    file: String,
    entries: Vec<Entry>,
    /// All mistakes, those beyond [`MISTAKES_MAX`] entries included.
    mistakes: usize,
    /// Entries beyond [`MISTAKES_MAX`].
    unseen: usize,
    /// What a mistake leads to.
    consequence: &'static str,
    files: Files,
}

/// One mistake, for the `errors[]` of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mistake<'report> {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: &'report str,
    /// What to do about it.
    pub help: &'report str,
}

impl Report {
    /// What refuses the file.
    pub fn mistakes(&self) -> impl Iterator<Item = Mistake<'_>> {
        self.of(Severity::Error)
    }

    /// What is odd but allowed.
    pub fn warnings(&self) -> impl Iterator<Item = Mistake<'_>> {
        self.of(Severity::Warning)
    }

    /// How many mistakes there are, those beyond [`MISTAKES_MAX`] included.
    pub fn len(&self) -> usize {
        self.mistakes
    }

    /// Whether nothing refuses the file; there may be warnings.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Files that the text names and that were read to check it.
    pub fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn having_read(self, files: Files) -> Self {
        Self { files, ..self }
    }

    pub(super) fn new(
        file: &str,
        text: &str,
        mut hidden: Vec<Range<usize>>,
        mut found: Vec<Diagnostic>,
    ) -> Self {
        hidden.sort_by_key(|range| range.start);
        found.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
        let mistakes = found.iter().filter(|found| found.severity == Severity::Error).count();
        let unseen = found.len().saturating_sub(MISTAKES_MAX);
        found.truncate(MISTAKES_MAX);
        let page = Page::new(text, &hidden);
        let entries = found.into_iter().map(|diagnostic| page.entry(diagnostic)).collect();
        let (file, files) = (file.to_owned(), Files::default());
        Self { file, entries, mistakes, unseen, consequence: NOTHING_APPLIED, files }
    }

    /// Mistakes in a file that is no configuration: where each stands, what is wrong, a few words beside the
    /// underline, and help. `consequence` is what the mistakes lead to.
    pub fn about(
        file: &str,
        text: &str,
        mistakes: Vec<(Range<usize>, [String; 3])>,
        consequence: &'static str,
    ) -> Self {
        let found = mistakes.into_iter().map(|(span, [message, label, help])| Diagnostic {
            severity: Severity::Error,
            span: Some(span),
            wrong: Wrong { message, label, help },
        });
        Self { consequence, ..Self::new(file, text, Vec::new(), found.collect()) }
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = Mistake<'_>> {
        self.entries.iter().filter(move |entry| entry.severity == severity).map(Entry::mistake)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            entry.write(&self.file, formatter)?;
            writeln!(formatter)?;
        }
        if self.unseen > 0 {
            writeln!(formatter, "… and {} more\n", self.unseen)?;
        }
        if self.is_empty() {
            return write!(
                formatter,
                "{} in {}",
                counted(self.entries.len() + self.unseen, "warning"),
                self.file
            );
        }
        let Self { file, consequence, .. } = self;
        write!(formatter, "{} in {file}; {consequence}", counted(self.len(), "mistake"))
    }
}

impl std::error::Error for Report {}

/// The last line of every refusal: half a file is never applied.
const NOTHING_APPLIED: &str = "nothing was applied";

/// `1 pool`, `2 pools`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// One mistake or oddity, as the checks say it. `help` is not optional: nobody is left without a next step.
#[derive(Debug)]
pub(super) struct Diagnostic {
    pub severity: Severity,
    /// Bytes of the text that are meant; `None`: something is missing from the file as a whole.
    pub span: Option<Range<usize>>,
    pub wrong: Wrong,
}

/// What a check found, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong, in one phrase.
    pub message: String,
    /// A few words beside the underline.
    pub label: String,
    /// The next step.
    pub help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), label: label.into(), help: help.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// A diagnostic with its place in the text and its source line, independent of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    severity: Severity,
    line: usize,
    column: usize,
    excerpt: Option<Excerpt>,
    wrong: Wrong,
}

impl Entry {
    fn mistake(&self) -> Mistake<'_> {
        Mistake { line: self.line, column: self.column, message: &self.wrong.message, help: &self.wrong.help }
    }

    fn write(&self, file: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(formatter, "{severity}: {}", self.wrong.message)?;
        let gutter = " ".repeat(self.line.to_string().len());
        match &self.excerpt {
            None => writeln!(formatter, "{gutter}--> {file}")?,
            Some(excerpt) => {
                writeln!(formatter, "{gutter}--> {file}:{}:{}", self.line, self.column)?;
                excerpt.write(self.line, &gutter, &self.wrong.label, formatter)?;
            }
        }
        writeln!(formatter, "{gutter} |")?;
        let help = self.wrong.help.replace('\n', &format!("\n{gutter}           "));
        writeln!(formatter, "{gutter} = help: {help}")
    }
}

/// The source line of a mistake and what to underline in it, both in shown characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    indent: usize,
    underline: usize,
}

impl Excerpt {
    fn write(
        &self,
        number: usize,
        gutter: &str,
        label: &str,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        writeln!(formatter, "{gutter} |")?;
        writeln!(formatter, "{number} | {}", self.line)?;
        let marks = "^".repeat(self.underline);
        writeln!(formatter, "{gutter} | {}{marks} {label}", " ".repeat(self.indent))
    }
}

/// The text, prepared for finding lines.
struct Page<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    /// Bytes that are shown as `*`, sorted.
    hidden: &'a [Range<usize>],
}

impl<'a> Page<'a> {
    fn new(text: &'a str, hidden: &'a [Range<usize>]) -> Self {
        Self { text, line_starts: line_starts(text), hidden }
    }

    fn entry(&self, diagnostic: Diagnostic) -> Entry {
        let Diagnostic { severity, span, wrong } = diagnostic;
        let Some(span) = span else {
            return Entry { severity, line: 1, column: 1, excerpt: None, wrong };
        };
        let line = line_of(&self.line_starts, span.start);
        let (start, source) = self.source_line(line);
        let column = 1 + characters_before(source, span.start.saturating_sub(start));
        let excerpt = Some(self.excerpt(start, source, &span));
        Entry { severity, line, column, excerpt, wrong }
    }

    /// Where a line starts, and the line without its end.
    fn source_line(&self, line: usize) -> (usize, &'a str) {
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        (start, rest.lines().next().unwrap_or(""))
    }

    /// Shows the part of the line around the span; the underline ends with the line.
    fn excerpt(&self, start: usize, source: &str, span: &Range<usize>) -> Excerpt {
        let mut excerpt = Excerpt { line: String::new(), indent: 0, underline: 0 };
        let from = window_start(source, span.start.saturating_sub(start));
        if from > 0 {
            excerpt.line.push('…');
            excerpt.indent = 1;
        }
        let shown = source.get(from..).unwrap_or("");
        for (index, (offset, character)) in shown.char_indices().enumerate() {
            if index == LINE_CHARACTERS_MAX {
                excerpt.line.push('…');
                break;
            }
            let byte = start + from + offset;
            let width = push_shown(&mut excerpt.line, character, self.hides(byte));
            if byte < span.start {
                excerpt.indent += width;
            } else if byte < span.end {
                excerpt.underline += width;
            }
        }
        excerpt.underline = excerpt.underline.max(1);
        excerpt
    }

    fn hides(&self, byte: usize) -> bool {
        let before = self.hidden.partition_point(|range| range.start <= byte);
        let last = before.checked_sub(1).and_then(|index| self.hidden.get(index));
        last.is_some_and(|range| range.contains(&byte))
    }
}

/// The bytes at which the lines of a text begin.
pub(super) fn line_starts(text: &str) -> Vec<usize> {
    let breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
    std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
}

/// The line that holds this byte, from 1.
pub(super) fn line_of(line_starts: &[usize], byte: usize) -> usize {
    line_starts.partition_point(|&start| start <= byte).max(1)
}

/// Characters of a source line that are shown: two ordinary lines, even on a narrow terminal.
const LINE_CHARACTERS_MAX: usize = 160;

/// Bytes of context before a mistake on a line too long to be shown whole.
const CONTEXT_BYTES: usize = 60;

/// The byte from which a line is shown, so that the mistake is in sight.
fn window_start(source: &str, mistake: usize) -> usize {
    if source.len() <= LINE_CHARACTERS_MAX || mistake < LINE_CHARACTERS_MAX / 2 {
        return 0;
    }
    let mut from = mistake.saturating_sub(CONTEXT_BYTES).min(source.len());
    while !source.is_char_boundary(from) {
        from -= 1;
    }
    from
}

/// Appends one character as it can safely be shown on a terminal; returns how many cells it takes.
fn push_shown(line: &mut String, character: char, hide: bool) -> usize {
    match character {
        _ if hide => line.push('*'),
        '\t' => {
            line.push_str("    ");
            return 4;
        }
        control if control.is_control() => line.push(char::REPLACEMENT_CHARACTER),
        plain => line.push(plain),
    }
    1
}

fn characters_before(source: &str, byte: usize) -> usize {
    source.char_indices().take_while(|&(at, _)| at < byte).count()
}
