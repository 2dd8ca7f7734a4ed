//! Header fields: conditions, edits, and what a probe sends.

use http::header::{self, HeaderName, HeaderValue};

use super::secret;
use crate::config::fields::{Key, Value};
use crate::config::report::Wrong;
use crate::config::{HeaderEdits, limits, values};

/// Which way an edited message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToUpstream,
    ToClient,
}

/// `request_headers` or `response_headers`.
pub(super) fn edits(value: &Value<'_>, direction: Direction) -> Option<HeaderEdits> {
    value.table("header edits", |edits| HeaderEdits {
        set: edits.read("set", |value| set(value, direction)).unwrap_or_default(),
        remove: edits.read("remove", |value| remove(value, direction)).unwrap_or_default(),
    })
}

/// A table of names and values, each name once; values may be `env:NAME` or `file:PATH`.
pub(super) fn fields(value: &Value<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    fields_allowed(value, |_| None)
}

/// Whether a literal value of this header is better not shown to anyone.
pub(in crate::config) fn is_sensitive(name: &HeaderName) -> bool {
    const WORDS: [&str; 9] =
        ["auth", "cookie", "token", "secret", "pass", "key", "credential", "session", "signature"];
    WORDS.iter().any(|word| name.as_str().contains(word))
}

fn set(value: &Value<'_>, direction: Direction) -> Option<Vec<(HeaderName, HeaderValue)>> {
    fields_allowed(value, |name| protected(name, direction, "set"))
}

fn remove(value: &Value<'_>, direction: Direction) -> Option<Vec<HeaderName>> {
    value.list(limits::LIST_ENTRIES_MAX, |element| {
        let name = element.parse(values::header_name)?;
        match protected(&name, direction, "removed").or_else(|| hostless(&name, direction)) {
            Some(wrong) => element.refuse(wrong),
            None => Some(name),
        }
    })
}

/// Reads the fields that `refusal` has nothing against.
fn fields_allowed(
    value: &Value<'_>,
    refusal: impl Fn(&HeaderName) -> Option<Wrong>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, value) in value.entries(limits::LIST_ENTRIES_MAX)? {
        let name = values::header_name(key.text).and_then(|name| match refusal(&name) {
            None if fields.iter().any(|(other, _)| *other == name) => Err(given_twice(&name)),
            None => Ok(name),
            Some(wrong) => Err(wrong),
        });
        if let Some(field) = field(&key, name, &value) {
            fields.push(field);
        }
    }
    Some(fields)
}

fn field(
    key: &Key<'_>,
    name: Result<HeaderName, Wrong>,
    value: &Value<'_>,
) -> Option<(HeaderName, HeaderValue)> {
    let name = name.map_err(|wrong| value.desk.refuse(key.span.clone(), wrong)).ok()?;
    let hide = is_sensitive(&name);
    if hide && !value.as_text().is_some_and(secret::is_reference) {
        value.desk.hide(value.span.clone());
    }
    let secret = secret::read(value)?;
    let mut field = value.accept(values::header_value(&secret.text))?;
    // Sensitive values print as `Sensitive` in every `Debug`.
    field.set_sensitive(hide || secret.from_elsewhere);
    Some((name, field))
}

fn given_twice(name: &HeaderName) -> Wrong {
    let help = "upper and lower case do not matter in header names; keep one";
    Wrong::new(format!("the header `{name}` is given twice"), "again", help)
}

fn hostless(name: &HeaderName, direction: Direction) -> Option<Wrong> {
    (direction == Direction::ToUpstream && *name == header::HOST).then(|| {
        let message = "a request without `host` is no valid HTTP/1.1";
        Wrong::new(message, "cannot be removed", "leave it out, or give another one in `set`")
    })
}

/// Refuses fields that say where a message ends or belong to one connection: a wrong one corrupts the
/// message, and lets a stranger smuggle a second one into it.
fn protected(name: &HeaderName, direction: Direction, verb: &str) -> Option<Wrong> {
    const OF_THE_CONNECTION: [&str; 8] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let expect = direction == Direction::ToUpstream && *name == header::EXPECT;
    (expect || OF_THE_CONNECTION.contains(&name.as_str())).then(|| {
        Wrong::new(
            format!("`{name}` cannot be {verb}: it frames the message or belongs to the connection"),
            "managed by Evener",
            "leave it out; Evener writes it as each connection needs it",
        )
    })
}
