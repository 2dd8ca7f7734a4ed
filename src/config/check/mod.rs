//! Turns a file into a [`Config`]: one file per kind of table, each key read where its meaning is.

mod headers;
mod health_check;
pub(super) mod listener;
mod named_file;
pub(super) mod pool;
mod process;
pub(super) mod route;
mod secret;
mod tls;
mod tokens;
mod tracing;
pub(super) mod upstream;
mod upstream_tls;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::fields::{Desk, Fields, Key, Resolve, Value};
use super::file::ConfigFile;
use super::report::{Diagnostic, Severity, Wrong};
use super::{Config, Report, Source, values};

pub(super) use headers::is_sensitive;

/// Reads and checks a text. `environment` looks up a variable; host names are resolved now.
///
/// # Errors
///
/// Returns every mistake that could be found, not only the first.
pub fn parse(source: &Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Report> {
    parse_with_warnings(source, environment).map(|(config, _)| config)
}

/// Like [`parse`], and says what is odd about a text that is valid.
///
/// # Errors
///
/// Returns every mistake that could be found, and the oddities among them.
pub fn parse_with_warnings(
    source: &Source,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Report), Report> {
    check(source, environment, &by_system()).outcome
}

/// What came out of one check.
pub(super) struct Checked {
    pub outcome: Result<(Config, Report), Report>,
    #[cfg(test)]
    pub asked: std::collections::BTreeSet<String>,
}

/// The whole way from text to [`Config`], with the world as arguments.
pub(super) fn check(
    source: &Source,
    environment: &dyn Fn(&str) -> Option<String>,
    resolve: &Resolve<'_>,
) -> Checked {
    let (file, root) = ConfigFile::read(&source.text);
    let root = root.unwrap_or_else(|| file.root());
    let desk = Desk {
        text: &source.text,
        line_starts: OnceCell::new(),
        folder: &source.folder,
        environment,
        resolve,
        unreliable: &file.unreliable,
        found: RefCell::new(syntax_mistakes(&file)),
        files: RefCell::default(),
        hidden: RefCell::new(file.hidden_in(&source.text)),
        #[cfg(test)]
        asked: RefCell::default(),
    };
    let config = Fields::of_file(&desk, &root, config);
    let refused = desk.has_mistakes();
    let report = Report::new(&source.name, &source.text, desk.hidden.take(), desk.found.take());
    let report = report.having_read(desk.files.take());
    Checked {
        outcome: if refused { Err(report) } else { Ok((config, report)) },
        #[cfg(test)]
        asked: desk.asked.take(),
    }
}

/// The system's resolver, asked once per name.
pub(super) fn by_system() -> impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> {
    let answers: RefCell<HashMap<String, Vec<SocketAddr>>> = RefCell::default();
    move |host, port| {
        if cfg!(feature = "fuzzing") {
            // Whatever a fuzzer makes up is nobody's business out there.
            return Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]);
        }
        let mut answers = answers.borrow_mut();
        if !answers.contains_key(host) {
            let answer = (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            answers.insert(host.to_owned(), answer);
        }
        let mut addresses = answers.get(host).cloned().unwrap_or_default();
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }
}

fn syntax_mistakes(file: &ConfigFile<'_>) -> Vec<Diagnostic> {
    let diagnostic = |(span, wrong): &(std::ops::Range<usize>, Wrong)| Diagnostic {
        severity: Severity::Error,
        span: Some(span.clone()),
        wrong: wrong.clone(),
    };
    file.mistakes.iter().map(diagnostic).collect()
}

fn config(file: &Fields<'_>) -> Config {
    let server = file.read("server", |value| value.table("`server`", process::server)).unwrap_or_default();
    let admin = file.read("admin", process::admin).unwrap_or_default();
    let log = file.read("log", |value| value.table("`log`", process::log)).unwrap_or_default();
    let tracing =
        file.read("tracing", |value| value.table("`tracing`", tracing::tracing)).flatten().map(Arc::new);
    let listeners = listener::all(file, admin.address);
    let (pools, pool_names) = pool::all(file, &listeners);
    let routes = route::all(file, &pool_names);
    let (routes, pools) = (shared(routes), shared(pools));
    Config { server, admin, log, tracing, listeners, routes, pools }
}

/// Each by itself, so that one can change without a copy of the others.
pub(super) fn shared<T>(all: Vec<T>) -> Vec<Arc<T>> {
    all.into_iter().map(Arc::new).collect()
}

/// Reads each table of a table of tables, such as `[pools.<name>]`. One that cannot be read is `None`, and
/// the report says why; its name is known all the same.
fn named<'t, T>(
    value: &Value<'t>,
    most: usize,
    what: &'static str,
    read: impl Fn(String, &Fields<'t>) -> Option<T>,
) -> Option<Vec<(Key<'t>, Option<T>)>> {
    let read_one = |(key, value): (Key<'t>, Value<'t>)| {
        let name = name_of(&key, value.desk);
        let made = value.table(what, |fields| read(name, fields)).flatten();
        (key, made)
    };
    Some(value.entries(most)?.into_iter().map(read_one).collect())
}

/// The name, or nothing if it is refused: what stands below it is still worth checking.
fn name_of(key: &Key<'_>, desk: &Desk<'_>) -> String {
    values::name(key.text).unwrap_or_else(|wrong| {
        desk.refuse(key.span.clone(), wrong);
        String::new()
    })
}

/// Says that a whole kind of table is missing, with the lines that would do.
fn miss_section(file: &Fields<'_>, what: &str, lines: &str) {
    let help = format!("add these lines:\n{lines}");
    file.desk.miss(None, Wrong::new(format!("the file has no {what}"), "", help));
}
