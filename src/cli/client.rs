//! Asks the side port. Plain HTTP/1.1, one connection per question, bounded in time and size, never
//! through a proxy and never after a redirect: the token goes to the address that was named, or nowhere.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderValue, Method, Request, Response, Uri};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::{Body, Timeout};

use super::failure::Failure;
use super::output;
use super::refused::Problem;
use crate::config::limits::{DURATION_MAX, SECRET_BYTES_MAX};

/// Where the side port is unless the configuration says otherwise.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9900";
const TOKEN_VARIABLE: &str = "EVENER_ADMIN_TOKEN";

/// For a connection; whoever listens accepts within that, whatever the load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer: every upstream that a configuration may have, and then some.
const ANSWER_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Characters of a reason; the side port keeps as many.
const REASON_CHARACTERS_MAX: usize = 200;

/// Which side port, and how its answers are shown.
#[derive(Args)]
#[command(next_help_heading = "Admin API")]
pub(super) struct Admin {
    // No doc comment: rustdoc wants brackets around a URL, and people would see them.
    #[arg(
        long = "admin",
        env = "EVENER_ADMIN",
        value_name = "URL",
        hide_env_values = true,
        help = "Where the admin API is [default: http://127.0.0.1:9900]"
    )]
    url: Option<String>,
    /// A file that holds the token; without it, the environment variable `EVENER_ADMIN_TOKEN` counts.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,
}

/// What a command that changes something also takes.
#[derive(Args)]
pub(super) struct Writing {
    /// Why; the history keeps it.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: Option<String>,
}

impl Writing {
    /// A reason that nobody had to type.
    pub(super) fn because(why: &str) -> Self {
        Self { why: Some(why.to_owned()) }
    }
}

/// Reads a duration of the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::config::read_duration(text, DURATION_MAX).map_err(|(wrong, help)| format!("{wrong}; {help}"))
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_CHARACTERS_MAX || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(format!("a reason is at most {REASON_CHARACTERS_MAX} printable ASCII characters"));
    }
    Ok(text.trim().to_owned())
}

/// One question.
pub(super) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(http::HeaderName, String)>,
    body: Vec<u8>,
    /// What the answer may take beyond `--timeout`.
    patience: Duration,
    /// What mistakes in a configuration name as their place.
    file: String,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let (headers, body, patience) = (Vec::new(), Vec::new(), Duration::ZERO);
        Self { method, path: path.into(), headers, body, patience, file: "the configuration".to_owned() }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PATCH, path).json(body)
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(super) fn json(self, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..self }.header(CONTENT_TYPE, "application/json")
    }

    /// Sends the text of a configuration, known to people by this name.
    pub(super) fn toml(self, name: &str, text: &str) -> Self {
        let (file, body) = (name.to_owned(), text.as_bytes().to_vec());
        Self { body, file, ..self }.header(CONTENT_TYPE, "application/toml")
    }

    /// Names the configuration that the answer may find mistakes in.
    pub(super) fn about(self, file: &str) -> Self {
        Self { file: file.to_owned(), ..self }
    }

    pub(super) fn if_match(self, tag: &str) -> Self {
        self.header(IF_MATCH, tag)
    }

    pub(super) fn accepting(self, media_type: &str) -> Self {
        self.header(ACCEPT, media_type)
    }

    pub(super) fn because(self, writing: &Writing) -> Self {
        match &writing.why {
            Some(why) if !why.is_empty() => {
                self.header(http::HeaderName::from_static("x-evener-reason"), why)
            }
            _ => self,
        }
    }

    /// The answer may take this much longer than others.
    pub(super) fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn header(mut self, name: http::HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What the side port said yes with.
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) text: String,
    media_type: String,
    /// For saying that it cannot be understood.
    base: String,
}

impl Answer {
    /// The answer as what we expect it to be. Control characters are taken out of its words, since they
    /// end up on a terminal.
    pub(super) fn view<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let value = serde_json::from_str::<Value>(&self.text).map(harmless);
        value.and_then(serde_json::from_value).map_err(|error| {
            let media_type = &self.media_type;
            stranger(
                &self.base,
                &format!("its answer ({media_type}) is not the JSON that we expect: {error}"),
            )
        })
    }

    /// The text of a configuration.
    pub(super) fn toml(&self) -> Result<&str, Failure> {
        if self.media_type.starts_with("application/toml") {
            return Ok(&self.text);
        }
        Err(stranger(&self.base, &format!("its answer is {}, not application/toml", self.media_type)))
    }

    /// The entity tag, which we need for writing.
    pub(super) fn tag(&self) -> Result<&str, Failure> {
        self.etag.as_deref().ok_or_else(|| stranger(&self.base, "its answer has no `ETag`"))
    }
}

/// The answer as it came, on a line of its own.
fn print_json(text: &str) -> Result<(), Failure> {
    output::print(&format!("{}\n", text.trim_end()))
}

/// A side port that can be asked.
pub(super) struct Client {
    /// Without a slash at its end.
    base: String,
    token: Option<HeaderValue>,
    timeout: Duration,
    pub(super) json: bool,
}

impl Client {
    /// Reads address and token; asks nothing yet.
    pub(super) fn new(admin: &Admin) -> Result<Self, Failure> {
        let named = admin.url.as_deref().map(str::trim).filter(|url| !url.is_empty());
        Ok(Self {
            base: base_of(named.unwrap_or(DEFAULT_ADMIN))?,
            token: token(admin.token_file.as_deref())?,
            timeout: admin.timeout,
            json: admin.json,
        })
    }

    /// Where the side port is.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A further command for the same side port.
    pub(super) fn command(&self, command: &str) -> String {
        if self.base == DEFAULT_ADMIN {
            return format!("`evener {command}`");
        }
        format!("`evener {command} --admin {}`", self.base)
    }

    /// Asks, and shows the answer: as it came with `--json`, else as `render` tells it.
    pub(super) fn show<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        render: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let answer = self.ask(ask)?;
        self.show_answer(&answer, render)
    }

    /// As [`Client::show`], of an answer that is here.
    pub(super) fn show_answer<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        render: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let view = answer.view()?;
        if self.json {
            print_json(&answer.text)?;
        } else {
            output::print(&render(&view))?;
        }
        Ok(view)
    }

    /// Asks, and reads the whole answer.
    pub(super) fn ask(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut response = self.exchange(ask)?;
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.trouble(&error, ask))?;
        self.judge(&response, text, ask)
    }

    /// Asks for an answer that comes line by line, the last of which is what counts.
    pub(super) fn follow(&self, ask: &Ask, mut each: impl FnMut(&Answer)) -> Result<Answer, Failure> {
        let mut response = self.exchange(ask)?;
        if !response.status().is_success() {
            let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
            let text = text.map_err(|error| self.trouble(&error, ask))?;
            return self.judge(&response, text, ask);
        }
        let (head, body) = response.into_parts();
        let mut answer = self.answer(&head.headers, String::new());
        let mut lines = BufReader::new(body.into_with_config().limit(ANSWER_BYTES_MAX).reader());
        loop {
            let mut line = String::new();
            match lines.read_line(&mut line) {
                Ok(0) if answer.text.is_empty() => {
                    return Err(self.interrupted("its answer is empty", ask));
                }
                Ok(0) => return Ok(answer),
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => {
                    answer.text = line;
                    each(&answer);
                }
                Err(error) => return Err(self.trouble(&error.into(), ask)),
            }
        }
    }

    fn exchange(&self, ask: &Ask) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(&ask.method).uri(format!("{}{}", self.base, ask.path));
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let agent = self.agent(ask);
        let answer = match ask.method {
            Method::GET | Method::DELETE => {
                request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            _ => {
                request.body(&ask.body[..]).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
        };
        answer.map_err(|error| self.trouble(&error, ask))
    }

    fn agent(&self, ask: &Ask) -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("evener/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(self.timeout)))
            .timeout_global(Some(self.timeout + ask.patience))
            .build()
            .into()
    }

    fn answer(&self, headers: &http::HeaderMap, text: String) -> Answer {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Answer {
            etag: header(ETAG).map(str::to_owned),
            media_type: header(CONTENT_TYPE).unwrap_or("without a media type").to_owned(),
            text,
            base: self.base.clone(),
        }
    }

    /// A yes, a no with its reason, or something that Evener does not say.
    fn judge(&self, response: &Response<Body>, text: String, ask: &Ask) -> Result<Answer, Failure> {
        let answer = self.answer(response.headers(), text);
        let status = response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let Ok(problem) = answer.view::<Problem>() else {
            let Ask { method, path, .. } = ask;
            let media_type = &answer.media_type;
            return Err(stranger(&self.base, &format!("it says {status} ({media_type}) to {method} {path}")));
        };
        if self.json {
            print_json(&answer.text)?;
        }
        Err(Failure::Refused(problem.tell(&ask.file)))
    }

    /// Nobody answered, or not in full.
    fn trouble(&self, error: &ureq::Error, ask: &Ask) -> Failure {
        let waited = || format!("no complete answer within {:?}", self.timeout + ask.patience);
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                self.unreachable("nobody accepts the connection")
            }
            ureq::Error::Timeout(_) => self.interrupted(&waited(), ask),
            ureq::Error::HostNotFound => self.unreachable("no host has this name"),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => self.unreachable("connection refused"),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    self.interrupted("the connection ended before the answer did", ask)
                }
                ErrorKind::InvalidData => stranger(&self.base, "its answer is no text"),
                ErrorKind::TimedOut | ErrorKind::WouldBlock => self.interrupted(&waited(), ask),
                _ => self.unreachable(&error.to_string()),
            },
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
                stranger(&self.base, "its answer is no HTTP")
            }
            ureq::Error::BodyExceedsLimit(_) => stranger(&self.base, "its answer has no end"),
            other => self.unreachable(&other.to_string()),
        }
    }

    fn unreachable(&self, what: &str) -> Failure {
        Failure::Unreachable(format!(
            "error: cannot reach the admin API at {}: {what}\n  = help: check that Evener runs, and that this is the `admin.address` of its file; name another with --admin URL or EVENER_ADMIN",
            self.base
        ))
    }

    fn interrupted(&self, what: &str, ask: &Ask) -> Failure {
        let help = if ask.is_write() {
            "what was asked for may be done all the same: `evener status` and `evener history` show what runs; --timeout waits longer"
        } else {
            "try again; --timeout waits longer"
        };
        let Ask { method, path, .. } = ask;
        Failure::Unreachable(format!(
            "error: the admin API at {} did not answer {method} {path}: {what}\n  = help: {help}",
            self.base
        ))
    }
}

fn stranger(base: &str, what: &str) -> Failure {
    Failure::Unreachable(format!(
        "error: what answers at {base} is not Evener's admin API: {what}\n  = help: the admin API has a port of its own, apart from the traffic: `admin.address` of the file, else 127.0.0.1:9900; name it with --admin URL or EVENER_ADMIN"
    ))
}

/// `http://host:port`, with what stands before `/v1` if somebody put it below a path.
fn base_of(url: &str) -> Result<String, Failure> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |what: &str| {
        Failure::usage(
            &format!("`{}` cannot be the admin API: {what}", without_user(url)),
            "write --admin http://HOST:PORT, or the same in EVENER_ADMIN",
        )
    };
    let uri: Uri = whole.parse().map_err(|_| wrong("it is no URL"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if authority.as_str().contains('@') => {
            Err(wrong("a URL is no place for a password; tokens go into EVENER_ADMIN_TOKEN or --token-file"))
        }
        (Some("http"), Some(_)) if uri.query().is_some() => Err(wrong("it has a query")),
        (Some("http"), Some(authority)) => {
            Ok(format!("http://{authority}{}", uri.path().trim_end_matches('/')))
        }
        (Some("https"), _) => Err(wrong(
            "it speaks plain HTTP; reach it on its own machine, or through a tunnel (`ssh -L 9900:127.0.0.1:9900 HOST`)",
        )),
        _ => Err(wrong("it is no http:// URL")),
    }
}

/// What somebody took for the place of a password is not repeated.
fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

/// From the file, or else the environment. Never from the command line, which every process can read.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, Failure> {
    let (place, text) = match file {
        Some(file) => (file.display().to_string(), read_token(file)?),
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(text) if text.trim().is_empty() => return Ok(None),
            Ok(text) => (TOKEN_VARIABLE.to_owned(), text),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => (TOKEN_VARIABLE.to_owned(), String::new()),
        },
    };
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| is_token);
    let mut header = header.ok_or_else(|| {
        Failure::usage(
            &format!("{place} holds no token"),
            "a token is one word of printable ASCII, the one that `admin.tokens` of the file names",
        )
    })?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn read_token(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::usage(
            &format!("cannot read the token in {}: {error}", file.display()),
            "name a file that holds the token with --token-file, or put it into EVENER_ADMIN_TOKEN",
        )),
    }
}

/// Percent-encoded, for one segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// Without control characters other than line ends.
fn harmless(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(harmless_text(&text)),
        Value::Array(values) => values.into_iter().map(harmless).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (harmless_text(&name), harmless(value))).collect()
        }
        other => other,
    }
}

fn harmless_text(text: &str) -> String {
    let shown = |letter: char| {
        if letter.is_control() && letter != '\n' { char::REPLACEMENT_CHARACTER } else { letter }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (url, base) in [
            ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
            ("http://[::1]:9900/", "http://[::1]:9900"),
            ("localhost:9900", "http://localhost:9900"),
            ("http://host/evener/", "http://host/evener"),
        ] {
            assert_eq!(base_of(url).unwrap(), base);
        }
        for url in ["https://127.0.0.1", "ftp://a", "http://", "http://a/?b=c", "http://me:secret@a", "a b"] {
            let told = base_of(url).unwrap_err();
            assert!(matches!(told, Failure::Usage(_)), "{url}");
            assert!(!told.to_string().contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_has_a_meaning_in_a_path_is_encoded() {
        assert_eq!(encoded("unix:/run/app.sock"), "unix:%2Frun%2Fapp.sock");
        assert_eq!(encoded("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(encoded("a?b&c=ä%"), "a%3Fb%26c%3D%C3%A4%25");
    }

    #[test]
    fn answers_cannot_steer_the_terminal() {
        let value = harmless(serde_json::json!({"a\u{1b}": ["red \u{1b}[31m\nnext"]}));
        assert_eq!(value, serde_json::json!({"a\u{fffd}": ["red \u{fffd}[31m\nnext"]}));
    }
}
