//! Why there is no result.

use std::fmt;
use std::io;

/// Why a run ended without figures.
#[derive(Debug)]
pub enum BenchError {
    /// A scenario, a candidate or an option is not what it should be: what, and what to do.
    Wrong(String),
    /// A balancer or a server did not do what it is there for.
    Broken(String),
    /// The system refused something.
    Io(io::Error),
    /// Ctrl-C. Everything that was started has ended.
    Interrupted,
}

impl BenchError {
    /// The same, with what was under way.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        match self {
            Self::Wrong(text) => Self::Wrong(format!("{what}: {text}")),
            Self::Broken(text) => Self::Broken(format!("{what}: {text}")),
            Self::Io(error) => Self::Io(io::Error::new(error.kind(), format!("{what}: {error}"))),
            Self::Interrupted => Self::Interrupted,
        }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) | Self::Broken(what) => formatter.write_str(what),
            Self::Io(error) => error.fmt(formatter),
            Self::Interrupted => formatter.write_str("interrupted, everything that was started has ended"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<io::Error> for BenchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
