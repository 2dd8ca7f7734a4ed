//! `evener check`: reads a file as `run` would, and runs nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::{DEFAULT_FILE, output};
use crate::config;
use crate::control::Start;

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
        let summary = loaded.config.summary();
        // A start would refuse a file whose overrides cannot be read.
        let start = Start::from_file(self.file.clone(), loaded).map_err(Failure::Refused)?;
        output::print(&format!("{} is valid: {summary}\n{}", self.file.display(), overrides(&start)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What was changed at run time under this file, if anything was.
fn overrides(start: &Start) -> String {
    let (holding, ending) = (start.overrides(), start.dropped.len());
    if holding + ending == 0 {
        return String::new();
    }
    let first =
        format!("with what was changed at run time: {holding} in force, {ending} ended by this file\n");
    start.dropped.iter().fold(first, |text, dropped| text + &format!("  ends: {dropped}\n"))
}

pub(super) fn warn(warnings: &config::Report) {
    if warnings.warnings().next().is_some() {
        output::complain(&warnings.to_string());
    }
}
