//! What lies beside the configuration file: garbage there refuses the start with words, or is passed over.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use evener::config;
use evener::control::{Author, Change, Control, Start};
use evener::observe::ChangeOrigin;
use evener::runtime::Runtime;

const TEXT: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n";

/// The name of a text is its SHA-256.
const TEXT_FILE: &str = "a.toml";

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in(crate::pool_edit::in_memory()).unwrap());

/// Three parts, separated by lines of `===`: the overrides file, the journal, a text of the history.
pub fn run(bytes: &[u8]) {
    let mut parts = split(bytes).into_iter();
    let folder = FOLDER.path();
    let file = folder.join("evener.toml");
    let history = folder.join("evener.toml.history");
    let _ = std::fs::remove_dir_all(&history);
    std::fs::create_dir(&history).unwrap();
    std::fs::write(&file, TEXT).unwrap();
    std::fs::write(folder.join("evener.toml.overrides.toml"), parts.next().unwrap_or_default()).unwrap();
    std::fs::write(history.join("journal.jsonl"), parts.next().unwrap_or_default()).unwrap();
    std::fs::write(history.join(TEXT_FILE), parts.next().unwrap_or_default()).unwrap();
    match start(&file) {
        Err(why) => assert!(why.contains("help:"), "{why}"),
        Ok(control) => check(&control),
    }
    // What it wrote is what it can read.
    assert!(start(&file).is_err() || start(&file).is_ok_and(|again| again.history().len() <= 201));
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if line == b"===\n" {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.extend_from_slice(line);
        }
    }
    parts
}

fn start(file: &Path) -> Result<Control, String> {
    let loaded = config::load(file).unwrap();
    let start = Start::from_file(file.to_owned(), loaded)?;
    let runtime = Arc::new(Runtime::new(start.config.clone(), start.generation, 0, None));
    Ok(Control::new(runtime, start))
}

fn check(control: &Control) {
    let author = Author { origin: ChangeOrigin::Admin, who: "me".to_owned(), why: None };
    let running = control.running();
    let members = &control.runtime().snapshot().config.pools[0];
    config::check_members(members, &running.file.listeners).expect("what runs is possible");
    for entry in control.history() {
        let _ = control.apply(&Change::RollBack(Some(entry.generation)), None, &author);
    }
    let _ = control.apply(&Change::RollBack(None), None, &author);
}
