//! Why a command could not do what it was asked to, and the exit code of that.

use std::fmt;
use std::process::ExitCode;

use super::{EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE};

/// The text says what is wrong and what to do.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration is wrong, or the side port said no.
    Refused(String),
    /// The command line is wrong.
    Usage(String),
    /// Nobody answers at the side port, or nobody whom we understand.
    Unreachable(String),
}

impl Failure {
    /// A wrong command line: what is wrong, and what would be right.
    pub(super) fn usage(wrong: &str, help: &str) -> Self {
        Self::Usage(format!("error: {wrong}\n  = help: {help}"))
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => EXIT_REFUSED,
            Self::Usage(_) => EXIT_USAGE,
            Self::Unreachable(_) => EXIT_UNREACHABLE,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(text) | Self::Usage(text) | Self::Unreachable(text)) = self;
        formatter.write_str(text)
    }
}
