#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config;

fn folder() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("evener.toml.history");
    (outer, inner)
}

fn change(generation: u64, text: &str) -> NewEntry {
    NewEntry {
        generation,
        at: "2026-11-21T08:10:02.123Z".to_owned(),
        origin: "admin",
        who: "müller".to_owned(),
        why: Some("because".to_owned()),
        what: "replace".to_owned(),
        back_to: None,
        overrides: Arc::default(),
        text: text.into(),
    }
}

/// A history of these texts, each saved on its own.
fn written(folder: &Path, texts: &[&str]) -> History {
    let mut history = History::open(Some(folder.to_owned()));
    for text in texts {
        history.push(change(history.latest_generation() + 1, text));
        history.save();
    }
    history
}

fn generations(history: &History) -> Vec<u64> {
    history.entries().map(|entry| entry.generation).collect()
}

fn open(folder: &Path) -> History {
    History::open(Some(folder.to_owned()))
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let (_outer, folder) = folder();
    let before = written(&folder, &["one", "two", "one"]);
    let after = open(&folder);
    assert_eq!(after.entries().collect::<Vec<_>>(), before.entries().collect::<Vec<_>>());
    assert_eq!(after.find(2).map(|entry| &*entry.text), Some("two"));
    assert_eq!(after.latest_generation(), 3);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "the journal, and each text once");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&folder).unwrap()) & 0o777, 0o700);
}

/// Found by a fuzzer: there was no number after it.
#[test]
fn a_number_that_nobody_gave_is_garbage() {
    let (_outer, folder) = folder();
    written(&folder, &["one"]);
    let line = fs::read_to_string(journal_in(&folder)).unwrap();
    append(&journal_in(&folder), &line.replace("\"generation\":1", "\"generation\":18446744073709551615"))
        .unwrap();
    let history = open(&folder);
    assert_eq!((generations(&history), history.latest_generation()), (vec![1], 1));
}

#[test]
fn nothing_is_made_before_the_first_change() {
    let (_outer, folder) = folder();
    let mut history = open(&folder);
    history.push(change(1, "one"));
    history.save_if_begun();
    assert!(!folder.exists());
    history.save();
    let mut history = open(&folder);
    history.push(change(2, "two"));
    history.save_if_begun();
    assert_eq!(generations(&open(&folder)), [1, 2]);
}

/// Cut at every byte: whole lines are read, and what is written afterwards is read again.
#[test]
fn a_torn_last_line_costs_no_other() {
    let (_outer, folder) = folder();
    written(&folder, &["one", "two"]);
    let journal = fs::read(journal_in(&folder)).unwrap();
    let second = journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
    for end in second + 1..journal.len() {
        fs::write(journal_in(&folder), &journal[..end]).unwrap();
        let mut history = open(&folder);
        let whole: &[u64] = if end + 1 == journal.len() { &[1, 2] } else { &[1] };
        assert_eq!(generations(&history), whole, "cut at {end}");
        history.push(change(7, "three"));
        history.save();
        assert_eq!(generations(&open(&folder)).last(), Some(&7), "cut at {end}");
        assert_eq!(generations(&open(&folder)).len(), whole.len() + 1, "cut at {end}");
    }
}

#[test]
fn a_text_that_is_missing_or_another_costs_its_entries_and_no_number() {
    let (_outer, folder) = folder();
    written(&folder, &["one", "two", "three"]);
    fs::remove_file(text_in(&folder, &hash_of("two"))).unwrap();
    fs::write(text_in(&folder, &hash_of("three")), "no longer three").unwrap();
    let mut history = open(&folder);
    assert_eq!(generations(&history), [1]);
    assert_eq!(history.latest_generation(), 3);
    // Said again, it is written again.
    history.push(change(4, "three"));
    history.save();
    assert_eq!(generations(&open(&folder)), [1, 3, 4]);
}

#[test]
fn a_journal_of_something_else_is_no_reason_to_stop() {
    let (_outer, folder) = folder();
    fs::create_dir(&folder).unwrap();
    for nonsense in [&b"\xff\xfe\n\n{}\n[1]\n"[..], b"{\"generation\":1}", b"\0\0\0\0\0\0"] {
        fs::write(journal_in(&folder), nonsense).unwrap();
        assert!(generations(&open(&folder)).is_empty());
        written(&folder, &["one"]);
        assert_eq!(generations(&open(&folder)), [1]);
    }
    let names_a_path = serde_json::to_string(&open(&folder).entries().next().unwrap()).unwrap();
    let names_a_path = names_a_path.replace(&hash_of("one"), "../../../etc/passwd");
    fs::write(journal_in(&folder), names_a_path).unwrap();
    assert!(generations(&open(&folder)).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_leaves_the_memory() {
    let (outer, folder) = folder();
    fs::write(&folder, "a file is in the way").unwrap();
    let mut history = written(&folder, &["one", "two"]);
    assert!(history.has_failed);
    assert_eq!(generations(&history), [1, 2]);
    // Once it can be, nothing is missing.
    fs::remove_file(outer.path().join("evener.toml.history")).unwrap();
    history.push(change(3, "three"));
    history.save();
    assert!(!history.has_failed);
    assert_eq!(generations(&open(&folder)), [1, 2, 3]);
}

#[test]
fn a_long_journal_is_written_anew_and_forgotten_texts_go() {
    let (_outer, folder) = folder();
    let mut history = open(&folder);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".left over.new"), "").unwrap();
    for generation in 1..=1_000 {
        history.push(change(generation, &format!("{}", generation / 2)));
        history.save();
    }
    assert_eq!(generations(&open(&folder)), generations(&history));
    assert_eq!(history.entries().count(), ENTRIES_MAX);
    let lines = fs::read_to_string(journal_in(&folder)).unwrap().lines().count();
    assert!(lines <= LINES_MAX, "{lines} lines");
    let files = fs::read_dir(&folder).unwrap().count();
    assert!(files < LINES_MAX, "{files} files");
    assert!(!folder.join(".left over.new").exists());
    assert_eq!(open(&folder).latest_generation(), 1_000);
}

#[test]
fn large_texts_are_bounded_by_their_bytes() {
    let mut history = History::open(None);
    for generation in 1..=40 {
        history.push(change(generation, &format!("{generation:04}").repeat(1024 * 1024)));
    }
    assert!(history.text_bytes() <= TEXT_BYTES_MAX);
    assert_eq!(history.entries().count(), 16);
    assert_eq!(history.last().map(|entry| entry.generation), Some(40));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever comes: bounded, in order, the present one is there, and the last generation of each of the
    /// latest texts, as many as are promised.
    #[test]
    fn enough_is_remembered_and_no_more(texts in prop::collection::vec(0_u8..40, 1..600), burst in 0_usize..400) {
        let mut history = History::open(None);
        let last = *texts.last().unwrap();
        let all: Vec<u8> = texts.into_iter().chain(std::iter::repeat_n(last, burst)).collect();
        for (generation, text) in (1..).zip(&all) {
            history.push(change(generation, &text.to_string()));
        }
        let kept = generations(&history);
        prop_assert!(kept.len() == all.len().min(ENTRIES_MAX));
        prop_assert!(kept.is_sorted());
        prop_assert_eq!(kept.last(), Some(&(all.len() as u64)));
        let mut latest: Vec<u8> = Vec::new();
        for text in all.iter().rev() {
            if !latest.contains(text) {
                latest.push(*text);
            }
        }
        for text in latest.into_iter().take(TEXTS_MIN) {
            prop_assert!(history.entries().any(|entry| *entry.text == text.to_string()), "{text} is forgotten");
        }
    }
}

#[test]
fn going_back_twice_goes_further_back() {
    let mut history = History::default();
    for (generation, text) in [(1, "a"), (2, "b"), (3, "b"), (4, "bad")] {
        history.push(change(generation, text));
    }
    let before = |history: &History, generation, text: &str| {
        history.before(&running(generation, text)).map(|entry| entry.generation)
    };
    assert_eq!(before(&history, 3, "b"), Some(1), "2 said the same");
    assert_eq!(before(&history, 4, "bad"), Some(3));
    history.push(NewEntry { back_to: Some(3), ..change(5, "b") });
    assert_eq!(before(&history, 5, "b"), Some(1), "not 4, which somebody did not want");
    history.push(NewEntry { back_to: Some(1), ..change(6, "a") });
    assert_eq!(before(&history, 6, "a"), None);
    history.push(change(7, "c"));
    assert_eq!(before(&history, 7, "c"), Some(6));
    history.push(NewEntry { back_to: Some(9), ..change(8, "b") });
    assert_eq!(before(&history, 8, "b"), Some(7), "a nonsensical journal is not followed");
}

fn running(generation: u64, text: &str) -> Running {
    let file =
        config::from_addresses("127.0.0.1:8080".parse().unwrap(), &["127.0.0.1:9001".to_owned()], None);
    let (text, file) = (text.into(), Arc::new(file.unwrap()));
    Running { generation, text, file, overrides: Arc::default(), files: crate::config::Files::default() }
}
