//! `evener check`: reads a file as `run` would, and runs nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::{DEFAULT_FILE, output};
use crate::config;

#[derive(Args)]
pub(super) struct Check {
    /// The file to check.
    #[arg(default_value = DEFAULT_FILE)]
    file: PathBuf,
}

impl Check {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let loaded = config::load(&self.file).map_err(|error| Failure::Refused(error.to_string()))?;
        warn(&loaded.warnings);
        output::print(&format!("{} is valid: {}\n", self.file.display(), loaded.config.summary()))?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn warn(warnings: &config::Report) {
    if warnings.warnings().next().is_some() {
        output::complain(&warnings.to_string());
    }
}
