//! `[admin.tokens.<name>]`: who may use the side port, and for what.

use super::{named, secret};
use crate::config::fields::{Fields, Key, Value};
use crate::config::report::Wrong;
use crate::config::{Scope, TokenConfig, TokenSecret, limits};

/// A token, and where the file says which secret it has.
type Placed<'t> = (TokenConfig, Value<'t>);

pub(super) fn all(value: &Value<'_>) -> Option<Vec<TokenConfig>> {
    let named = named(value, limits::TOKENS_MAX, "a token", one)?;
    let placed: Vec<Placed<'_>> = named.into_iter().filter_map(|(_, token): (Key<'_>, _)| token).collect();
    refuse_twins(&placed);
    Some(placed.into_iter().map(|(token, _)| token).collect())
}

fn one<'t>(name: String, fields: &Fields<'t>) -> Option<Placed<'t>> {
    // Whoever writes the secret itself into the file should not find it in the message about that, too.
    fields.hide_all_but(&["scope", "file", "env"]);
    let help = "add what it allows: scope = \"read\", \"operate\" or \"write\"";
    let scope = fields
        .require("scope", help, |value| value.word("scope", &Scope::ALL.map(|scope| (scope.word(), scope))));
    let (place, secret) = secret(fields)?;
    let secret = place.accept(usable(&secret))?;
    Some((TokenConfig { name, scope: scope?, secret }, place))
}

/// `file = "…"` or `env = "…"`, exactly one of them.
fn secret<'t>(fields: &Fields<'t>) -> Option<(Value<'t>, String)> {
    match (fields.get("file"), fields.get("env")) {
        (Some(file), None) => {
            let path = plausible(&file, |path| path.contains(['/', '.']), "a path such as \"./ops.token\"")?;
            let text = file.accept(secret::of_file(path, file.desk))?;
            warn_of_open_file(&file);
            Some((file, text))
        }
        (None, Some(env)) => {
            let name = plausible(&env, is_variable, "the variable's name alone, such as \"OPS_TOKEN\"")?;
            let text = env.accept(secret::of_environment(name, env.desk, "file = \"PATH\""))?;
            Some((env, text))
        }
        (Some(_), Some(env)) => {
            let help = "keep `file` for a secret in a file, or `env` for one in the environment";
            env.refuse(Wrong::new("a token has either `file` or `env`", "both are given", help))
        }
        (None, None) => {
            let help = "add where its secret is: file = \"/etc/evener/ops.token\", or env = \"OPS_TOKEN\"";
            let wrong = Wrong::new("the token has no secret", "no `file` and no `env` here", help);
            fields.desk.miss(Some(fields.span.clone()), wrong);
            None
        }
    }
}

/// The text, if it looks like a place. If not, it may be the secret itself, so it is not repeated.
fn plausible<'t>(value: &Value<'t>, is_place: impl Fn(&str) -> bool, wanted: &str) -> Option<&'t str> {
    let text = value.text()?;
    if is_place(text) {
        return Some(text);
    }
    value.desk.hide(value.span.clone());
    let message = "this names no place for a secret, and a secret does not stand in this file";
    value.refuse(Wrong::new(message, "its value is not shown", format!("write {wanted}")))
}

fn is_variable(name: &str) -> bool {
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The secret, if it is hard to guess and can be sent. No message repeats any of it.
fn usable(text: &str) -> Result<TokenSecret, Wrong> {
    let wrong = |message: &str, label: &str| {
        let help = "make a new one, such as by `openssl rand -hex 32`";
        Err(Wrong::new(message, label, help))
    };
    let text = text.trim_ascii();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("the secret of a token holds blanks, or what is not ASCII", "cannot be sent");
    }
    match text.len() {
        0 => wrong("the secret of a token is empty", "nothing there"),
        1..limits::TOKEN_BYTES_MIN => wrong(
            &format!("the secret of a token has less than {} characters", limits::TOKEN_BYTES_MIN),
            "too short",
        ),
        limits::TOKEN_BYTES_MIN..=limits::TOKEN_BYTES_MAX => Ok(TokenSecret::of(text.as_bytes())),
        _ => wrong(
            &format!("the secret of a token has more than {} characters", limits::TOKEN_BYTES_MAX),
            "too long",
        ),
    }
}

fn warn_of_open_file(file: &Value<'_>) {
    let Some(path) = file.as_text().filter(|path| secret::is_open_to_all(path, file.desk)) else { return };
    let help = format!("`chmod 600 {path}`, and let it belong to the user that runs Evener");
    let message = "everybody on this machine can read the secret of this token";
    file.desk.warn(file.span.clone(), Wrong::new(message, "readable by all", help));
}

/// With one secret for two names, nobody could tell who did it.
fn refuse_twins(tokens: &[Placed<'_>]) {
    for (index, (token, place)) in tokens.iter().enumerate() {
        let mut before = tokens.iter().take(index);
        if let Some((twin, _)) = before.find(|(other, _)| other.secret == token.secret) {
            place.desk.refuse(
                place.span.clone(),
                Wrong::new(
                    format!("the tokens `{}` and `{}` have the same secret", twin.name, token.name),
                    "the same again",
                    "give each a secret of its own, such as from `openssl rand -hex 32`",
                ),
            );
        }
    }
}
