//! A scenario as written: keys, single values, and where they stand.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::super::name::Candidate;
use super::super::scenario::{Arrivals, Measure, Protocol};
use crate::config::{read_duration, read_size};

/// A value that may be left out, and where it stands.
pub(super) type Given<T> = Option<Spanned<T>>;

/// The whole file. Meaning, limits and defaults: `benches/README.md`, section Scenarios.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileShape {
    pub what: Spanned<String>,
    pub expected: Spanned<String>,
    #[serde(default)]
    pub short: bool,
    pub servers: Spanned<u64>,
    pub workers: Given<u64>,
    pub balancers: Given<u64>,
    pub threads: Given<u64>,
    pub rate: Given<Number>,
    pub arrivals: Given<ArrivalsWord>,
    pub work: Given<WorkShape>,
    pub clients: Given<u64>,
    pub idle: Given<u64>,
    pub answer: Given<LongBytes>,
    pub body: Given<Bytes>,
    pub keep_alive: Option<bool>,
    pub protocol: Given<ProtocolWord>,
    pub streams: Given<u64>,
    pub duration: Spanned<Time>,
    pub warmup: Given<Time>,
    pub timeout: Given<Time>,
    pub reload_every: Given<Time>,
    pub candidates: Option<Vec<Spanned<Who>>>,
    #[serde(default)]
    pub act: Vec<Spanned<ActShape>>,
    #[serde(default)]
    pub expect: Vec<Spanned<ExpectShape>>,
}

/// `work = { … }`: the keys tell which distribution is meant.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkShape {
    pub exponential: Given<Time>,
    pub log_normal: Given<Time>,
    pub sigma: Given<Number>,
    pub short: Given<Time>,
    pub long: Given<Time>,
    pub long_share: Option<Share>,
}

/// `[[act]]`
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActShape {
    pub server: Given<u64>,
    pub servers: Given<Servers>,
    pub from: Given<Time>,
    pub until: Given<Time>,
    pub speed: Given<Number>,
    pub pauses: Option<PausesShape>,
    pub fail: Option<FailShape>,
    pub hang: Option<Yes>,
    pub refuse: Option<Yes>,
    pub reset: Option<ResetShape>,
    pub down: Option<Yes>,
    pub away: Option<Yes>,
    pub flaps: Option<FlapsShape>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PausesShape {
    pub length: Spanned<Time>,
    pub every: Spanned<Time>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailShape {
    pub status: Spanned<u64>,
    pub share: Option<Share>,
    pub latency: Option<Time>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetShape {
    pub share: Share,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlapsShape {
    pub up: Spanned<Time>,
    pub down: Spanned<Time>,
}

/// `[[expect]]`
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectShape {
    pub measure: MeasureWord,
    pub of: OneOrMore<Spanned<Who>>,
    pub at_most: Given<Number>,
    pub at_least: Given<Number>,
    pub times: Option<OneOrMore<Spanned<Who>>>,
    pub beyond: Option<OneOrMore<Spanned<Who>>>,
    #[serde(default)]
    pub goal: bool,
}

/// A mistake in a single value. The TOML reader knows its place; our help travels behind a line end, for
/// which [`help_in`] looks.
fn wrong<E: de::Error>(message: impl fmt::Display, help: impl fmt::Display) -> E {
    E::custom(format!("{message}{HELP_FOLLOWS}{help}"))
}

/// What is wrong and, if one of our own values said it, the help.
pub(super) fn help_in(message: &str) -> Option<(&str, &str)> {
    message.split_once(HELP_FOLLOWS)
}

/// No message of the TOML reader has one.
const HELP_FOLLOWS: char = '\n';

/// A length of time with its unit.
#[derive(Clone, Copy)]
pub(super) struct Time(pub Duration);

/// Far beyond any run; single limits are checked where their meaning is.
pub(super) const TIME_MAX: Duration = Duration::from_secs(3_600);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text("a duration such as \"10ms\"", |text: &str| {
            read_duration(text, TIME_MAX).map(Self)
        }))
    }
}

/// A number of bytes with its unit.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub usize);

/// Of a request's body: it is held in memory for each request under way.
pub(super) const BYTES_MAX: u64 = 16 << 20;

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text("a size such as \"64KiB\"", |text: &str| {
            read_size(text, BYTES_MAX).map(|bytes| Self(usize::try_from(bytes).unwrap_or(usize::MAX)))
        }))
    }
}

/// A size that nobody has to hold in memory.
#[derive(Clone, Copy)]
pub(super) struct LongBytes(pub usize);

/// Of an answer's body: a download that takes a second or so.
pub(super) const LONG_BYTES_MAX: u64 = 1 << 30;

impl<'de> Deserialize<'de> for LongBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text("a size such as \"64KiB\"", |text: &str| {
            read_size(text, LONG_BYTES_MAX).map(|bytes| Self(usize::try_from(bytes).unwrap_or(usize::MAX)))
        }))
    }
}

/// Text that a function understands, or says what is wrong with it and what would be right. A bare number
/// goes the same way, so that it is told about its missing unit.
struct Text<F>(&'static str, F);

impl<T, F: Fn(&str) -> Result<T, (String, String)>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(|(message, help)| wrong(message, help))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// A number, whole or not; TOML's `nan` and `inf` are none.
#[derive(Clone, Copy)]
pub(super) struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(from)?;
        if number.is_finite() { Ok(Self(number)) } else { Err(wrong("not a number", "write one: 1.25")) }
    }
}

/// A part of a whole, 0 to 1.
#[derive(Clone, Copy)]
pub(super) struct Share(pub f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        if (0.0..=1.0).contains(&share) {
            return Ok(Self(share));
        }
        Err(wrong(format!("`{share}` is no share"), "write a share from 0 to 1, such as 0.3 for 30 %"))
    }
}

/// `hang = true`; false would say nothing.
pub(super) struct Yes;

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let nothing = "`false` says nothing here";
        if bool::deserialize(from)? { Ok(Self) } else { Err(wrong(nothing, "write true, or leave it out")) }
    }
}

/// Who can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Who(pub Candidate);

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("the name of a candidate", |text: &str| {
            one_of(text, "candidate", Candidate::all().map(|one| (one.name(), Self(one))))
        }))
    }
}

/// A figure of a turn.
#[derive(Clone, Copy)]
pub(super) struct MeasureWord(pub Measure);

impl<'de> Deserialize<'de> for MeasureWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("the name of a measure", |text: &str| {
            one_of(text, "measure", Measure::ALL.into_iter().map(|one| (one.name(), Self(one))))
        }))
    }
}

/// What clients speak.
#[derive(Clone, Copy)]
pub(super) struct ProtocolWord(pub Protocol);

impl<'de> Deserialize<'de> for ProtocolWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("the name of a protocol", |text: &str| {
            one_of(text, "protocol", Protocol::ALL.into_iter().map(|one| (one.name(), Self(one))))
        }))
    }
}

/// `poisson` or `even`.
#[derive(Clone, Copy)]
pub(super) struct ArrivalsWord(pub Arrivals);

impl<'de> Deserialize<'de> for ArrivalsWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let words = [("poisson", Self(Arrivals::Poisson)), ("even", Self(Arrivals::Even))];
        from.deserialize_str(Text("\"poisson\" or \"even\"", |text: &str| {
            one_of(text, "kind of arrivals", words)
        }))
    }
}

/// The meaning of a word, or which words there are.
fn one_of<T>(
    text: &str,
    what: &str,
    words: impl IntoIterator<Item = (&'static str, T)>,
) -> Result<T, (String, String)> {
    let mut known = Vec::new();
    for (word, meaning) in words {
        if word == text {
            return Ok(meaning);
        }
        known.push(word);
    }
    Err((format!("`{}` is no {what}", text.escape_debug()), format!("write one of {}", known.join(", "))))
}

/// `servers = [0, 1]` or `servers = "all"`.
pub(super) enum Servers {
    All,
    These(Vec<Spanned<u64>>),
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Servers;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list such as [0, 1], or \"all\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Servers, E> {
                match text {
                    "all" => Ok(Servers::All),
                    _ => Err(wrong(
                        format!("`{}` names no servers", text.escape_debug()),
                        "write a list such as [0, 1], or \"all\"",
                    )),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Servers, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Servers::These)
            }
        }
        from.deserialize_any(Either)
    }
}

/// `of = "a"` or `of = ["a", "b"]`.
pub(super) struct OneOrMore<T>(pub Vec<T>);

impl<'de> Deserialize<'de> for OneOrMore<Spanned<Who>> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let whole = Spanned::<NameOrNames>::deserialize(from)?;
        let span = whole.span();
        Ok(Self(match whole.into_inner() {
            NameOrNames::Name(name) => vec![Spanned::new(span, name)],
            NameOrNames::Names(names) => names,
        }))
    }
}

enum NameOrNames {
    Name(Who),
    Names(Vec<Spanned<Who>>),
}

impl<'de> Deserialize<'de> for NameOrNames {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = NameOrNames;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a candidate, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameOrNames, E> {
                Who::deserialize(de::value::StrDeserializer::new(text)).map(NameOrNames::Name)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<NameOrNames, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(NameOrNames::Names)
            }
        }
        from.deserialize_any(Either)
    }
}
