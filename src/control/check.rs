//! A text on trial: what it would say if it ran.

use std::path::Path;

use super::prepare::{parse, said};
use super::{Control, Rejected, Source};

/// A configuration that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// `1 listener, 2 routes, 3 pools`
    pub summary: String,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

impl Control {
    /// Reads and checks a text as if it stood in the configuration file. Changes nothing; may read files,
    /// and ask for host names.
    ///
    /// # Errors
    ///
    /// [`Rejected::Invalid`], with every mistake.
    pub fn check_text(&self, text: &str) -> Result<Checked, Rejected> {
        let path = match self.source() {
            Source::File(path) => path,
            Source::Arguments => Path::new("evener.toml"),
        };
        let (config, warnings) = parse(path, text)?;
        Ok(Checked { summary: config.summary(), warnings: said(&warnings) })
    }
}
