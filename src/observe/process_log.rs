//! The process log: what Evener says about itself, on standard error.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How lines look, in the process log and in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object to the line.
    Json,
}

/// Starts the process log on standard error, with RFC 3339 timestamps in UTC.
///
/// What libraries say through the `log` crate comes along, of the chatty ones only what matters.
/// A second call changes nothing: the first one stays in force.
pub fn init_log(level: Level, format: Format) {
    let colours = io::stderr().is_terminal();
    // Fails only when a log was started before, by an earlier call or by a test harness.
    let _ = tracing_subscriber::registry()
        .with(lines(format, colours, io::stderr))
        .with(targets(level))
        .try_init();
}

fn lines<W>(format: Format, colours: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        Format::Text => layer.with_ansi(colours).boxed(),
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

/// Everything down to `level`; of [`QUIETED`] libraries less, unless the operator is debugging.
fn targets(level: Level) -> Targets {
    let all = Targets::new().with_default(level);
    if level >= Level::DEBUG {
        return all;
    }
    all.with_targets(QUIETED.map(|(target, cap)| (target, cap.min(LevelFilter::from_level(level)))))
}

/// Libraries whose everyday is not worth a line, and what may still be heard of them.
///
/// Pingora reports each request that fails, and each client that speaks no HTTP/2, at `error`: strangers
/// could fill the disk, and what matters of it stands in our own log and metrics, with a reason. Its
/// trouble with sockets (`accept` out of file descriptors) must be heard. The others explain
/// themselves at `info` at every start.
const QUIETED: [(&str, LevelFilter); 8] = [
    ("pingora_proxy", LevelFilter::OFF),
    ("pingora_core::apps", LevelFilter::OFF),
    // It reports every kept connection that two threads reach for in the same moment.
    ("pingora_core::connectors", LevelFilter::OFF),
    ("pingora_core", LevelFilter::WARN),
    ("pingora", LevelFilter::WARN),
    // It warns of every PING that answers none of ours: a client could fill the disk with them.
    ("h2", LevelFilter::ERROR),
    ("hyper", LevelFilter::WARN),
    // It warns of each host name that a client should not have asked for.
    ("rustls", LevelFilter::ERROR),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `say` leaves in a log of this level and format.
    fn written(level: Level, format: Format, say: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry()
            .with(lines(format, false, move || writer.clone()))
            .with(targets(level));
        tracing::subscriber::with_default(subscriber, say);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_lines_begin_with_a_utc_timestamp_and_carry_the_fields() {
        let line = written(Level::INFO, Format::Text, || tracing::warn!(pool = "app", "upstream ejected"));
        let (timestamp, rest) = line.split_once(' ').unwrap();
        assert!(timestamp.ends_with('Z') && timestamp.contains('T'), "{timestamp}");
        assert!(
            rest.contains("WARN") && rest.contains("upstream ejected") && rest.contains("pool=\"app\""),
            "{rest}"
        );
        assert!(!line.contains('\u{1b}'), "colour codes in a file: {line:?}");
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_at_the_top() {
        let line = written(Level::INFO, Format::Json, || tracing::info!(pool = "a\"\n", "upstream ejected"));
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["message"], "upstream ejected");
        assert_eq!(object["pool"], "a\"\n");
        assert!(object["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn what_is_below_the_level_is_not_written() {
        let text = written(Level::WARN, Format::Text, || {
            tracing::info!("quiet");
            tracing::error!("loud");
        });
        assert!(!text.contains("quiet") && text.contains("loud"), "{text}");
    }

    #[test]
    fn pingora_is_quiet_unless_the_operator_is_debugging() {
        let usual = targets(Level::INFO);
        assert!(!usual.would_enable("pingora_proxy", &Level::ERROR));
        assert!(!usual.would_enable("pingora_proxy::proxy_h1", &Level::ERROR));
        assert!(!usual.would_enable("pingora_core::apps::http_app", &Level::ERROR));
        assert!(usual.would_enable("pingora_core::services::listening", &Level::ERROR));
        assert!(!usual.would_enable("pingora_core::server", &Level::INFO));
        assert!(usual.would_enable("pingora_core::server", &Level::WARN));
        assert!(!usual.would_enable("rustls::msgs::handshake", &Level::WARN), "clients choose what it says");
        assert!(usual.would_enable("evener::probe", &Level::INFO));

        let debugging = targets(Level::DEBUG);
        assert!(debugging.would_enable("pingora_proxy", &Level::DEBUG));
    }

    #[test]
    fn a_cap_does_not_raise_a_lower_level() {
        assert!(!targets(Level::ERROR).would_enable("hyper", &Level::WARN));
    }

    #[test]
    fn what_libraries_say_through_the_log_crate_comes_along() {
        init_log(Level::ERROR, Format::Text);
        log::set_max_level(log::LevelFilter::Trace);
        let line = written(Level::INFO, Format::Json, || {
            log::info!(target: "pingora_core::server", "chatter");
            log::error!(target: "pingora_proxy", "one client left");
            log::error!(target: "pingora_core::services::listening", "accept failed");
        });
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["target"], "pingora_core::services::listening");
        assert_eq!(
            (object["level"].as_str(), object["message"].as_str()),
            (Some("ERROR"), Some("accept failed"))
        );
    }

    #[test]
    fn starting_the_log_twice_is_harmless() {
        init_log(Level::ERROR, Format::Text);
        init_log(Level::ERROR, Format::Json);
    }
}
