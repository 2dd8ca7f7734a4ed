//! `evener man`: our manual, a page for the whole and one for each command.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::failure::Failure;
use super::{CommandLine, output};

#[derive(Args)]
pub(super) struct Manual {
    /// The command whose page to print [default: the page of `evener` itself].
    command: Option<String>,
    /// Write all pages into this folder instead, such as /usr/local/share/man/man1.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    into: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let pages = pages();
        if let Some(folder) = &self.into {
            write_all(&pages, folder).map_err(|error| cannot_write(folder, &error))?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = self.command.as_ref().map_or_else(|| "evener".to_owned(), |name| format!("evener-{name}"));
        let Some(page) = pages.iter().find(|page| name_of(page) == name) else {
            let command = self.command.as_deref().unwrap_or_default();
            return Err(Failure::usage(
                &format!("there is no command `{command}`"),
                "`evener --help` lists them",
            ));
        };
        let text = render(page).map_err(|error| Failure::Refused(format!("error: {error}")))?;
        output::print(&String::from_utf8_lossy(&text))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The whole first; what is hidden has no page.
fn pages() -> Vec<Command> {
    let mut whole = CommandLine::command().disable_help_subcommand(true);
    // Gives each command its full name.
    whole.build();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<Command> = shown.cloned().collect();
    [vec![whole], commands].concat()
}

/// `evener`, `evener-drain`
fn name_of(page: &Command) -> &str {
    page.get_display_name().unwrap_or_else(|| page.get_name())
}

fn render(page: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(page.clone()).render(&mut text)?;
    Ok(text)
}

fn write_all(pages: &[Command], folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    pages.iter().try_for_each(|page| fs::write(folder.join(format!("{}.1", name_of(page))), render(page)?))
}

fn cannot_write(folder: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!(
        "error: cannot write the manual into {}: {error}\n  = help: name a folder that you may write with --into FOLDER",
        folder.display()
    ))
}
