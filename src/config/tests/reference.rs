//! The reference file is complete, and everything in it has a meaning.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::certificates::{Authority, Kind};
use super::{MINIMAL, REFERENCE, checked};

#[test]
fn the_shipped_files_are_valid_without_a_warning() {
    for text in [MINIMAL, REFERENCE] {
        match checked(text).outcome {
            Ok((_, warnings)) => assert_eq!(warnings.warnings().count(), 0, "{warnings}"),
            Err(report) => panic!("{report}"),
        }
    }
}

/// The reference with its commented tables, which need a secret or certificates to be valid: here they get
/// them.
fn with_files() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ops.token");
    std::fs::write(&file, "a long enough secret".replace(' ', "-")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let authority = Authority::new("authority");
    authority.issue_for(&["example.com"], Kind::Rsa).write(folder.path(), "site-rsa");
    authority.issue(&["example.com"]).write(folder.path(), "site");
    authority.write(folder.path(), "clients");
    let text = uncommented().replace("/etc/evener", &folder.path().display().to_string());
    let text = super::upstream_tls::with_files(&text, folder.path());
    (folder, text)
}

/// Which lines belong to a commented table.
fn in_commented_tables() -> Vec<bool> {
    let mut is_in = false;
    let note = |line: &str| {
        let bare = line.strip_prefix("# ");
        is_in = bare.is_some_and(|bare| bare.starts_with('[') || is_in && bare.contains(" = "));
        is_in
    };
    REFERENCE.lines().map(note).collect()
}

/// Each line `# [table]`, and the lines `# key = value` below it, without their `# `.
fn uncommented() -> String {
    let mut in_table = false;
    let line = |line: &str| {
        let bare =
            line.strip_prefix("# ").filter(|bare| bare.starts_with('[') || in_table && bare.contains(" = "));
        in_table = bare.is_some();
        bare.unwrap_or(line).to_owned() + "\n"
    };
    REFERENCE.lines().map(line).collect()
}

#[test]
fn the_commented_tables_of_the_reference_are_valid_without_a_warning() {
    let (_folder, text) = with_files();
    let (config, warnings) = checked(&text).outcome.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(warnings.warnings().count(), 0, "{warnings}");
    assert_eq!((config.admin.tokens.len(), config.listeners.len()), (2, 2));
}

/// The keys that the checks ask for are the keys that the reference explains, no more and no fewer.
#[test]
fn the_reference_holds_every_key_and_no_other() {
    let (mut asked, mut written) = (BTreeSet::new(), BTreeSet::new());
    let (_folder, with_files) = with_files();
    let texts: Vec<String> = [REFERENCE.to_owned(), with_files].into_iter().chain(alternatives()).collect();
    for text in &texts {
        asked.extend(checked(text).asked);
    }
    for text in &texts {
        note_keys(&text.parse().unwrap(), "", &asked, &mut written);
    }
    assert!(asked.contains("pools.*.health_check.fast_interval"));
    assert_eq!(asked, written);
}

#[test]
fn every_commented_alternative_in_the_reference_is_valid() {
    let alternatives = alternatives();
    assert!(alternatives.len() >= 4);
    for text in alternatives {
        assert!(checked(&text).outcome.is_ok(), "{}", checked(&text).outcome.unwrap_err());
    }
}

/// The reference once for each line `# key = value`, with that line in place of the same key above it.
fn alternatives() -> Vec<String> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let in_tables = in_commented_tables();
    let alternative = |(index, line): (usize, &&str)| {
        let line = line.strip_prefix("# ").filter(|_| !in_tables[index])?;
        let (key, _) =
            line.split_once(" = ").filter(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase()))?;
        let original = lines[..index].iter().rposition(|above| above.starts_with(&format!("{key} = ")))?;
        let mut lines = lines.clone();
        lines[original] = line;
        Some(lines.join("\n"))
    };
    lines.iter().enumerate().filter_map(alternative).collect()
}

/// Notes the path of every key below `table`; `*` stands for a name of the user's choice.
fn note_keys(table: &Table, path: &str, asked: &BTreeSet<String>, written: &mut BTreeSet<String>) {
    for (key, value) in table {
        let fixed = format!("{path}{key}");
        let path = if asked.contains(&fixed) { fixed } else { format!("{path}*") };
        written.insert(path.clone());
        let inner: Vec<&Value> = match value {
            Value::Array(elements) => elements.iter().collect(),
            other => vec![other],
        };
        for table in inner.into_iter().filter_map(Value::as_table) {
            note_keys(table, &format!("{path}."), asked, written);
        }
    }
}
