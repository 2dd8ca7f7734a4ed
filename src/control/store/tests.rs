#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::super::overrides::Setting;
use super::*;

/// A folder with a configuration file in it.
fn store(text: &str) -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store { file: folder.path().join("evener.toml") };
    fs::write(&store.file, text).unwrap();
    (folder, store)
}

fn weight(upstream: &str, weight: u16) -> Override {
    Override {
        pool: "app".to_owned(),
        upstream: Some(upstream.to_owned()),
        setting: Setting::Weight,
        value: weight.into(),
        file: Some(1.into()),
        by: "ops".to_owned(),
        at: "2026-11-21T08:10:02.123Z".to_owned(),
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_replaced_file_keeps_its_mode_and_owner() {
    let (folder, store) = store("old");
    for mode in [0o600, 0o644, 0o664] {
        fs::set_permissions(&store.file, fs::Permissions::from_mode(mode)).unwrap();
        // Only root may give files away; the rest holds for everybody.
        let is_given_away = chown(&store.file, Some(1234), Some(2345)).is_ok();
        store.write(Some("new"), None).unwrap();
        assert_eq!((store.text_as_it_is().unwrap().as_str(), mode_of(&store.file)), ("new", mode));
        let owner = fs::metadata(&store.file).unwrap();
        assert!(!is_given_away || (owner.uid(), owner.gid()) == (1234, 2345));
    }
    assert_eq!(names_in(folder.path()), ["evener.toml"]);
    assert_eq!(fs::metadata(folder.path()).unwrap().nlink(), 2);
}

#[test]
fn a_symlink_stays_and_its_file_is_replaced() {
    let (folder, store) = store("old");
    let link = Store { file: folder.path().join("link.toml") };
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    fs::rename(&store.file, folder.path().join("elsewhere/real.toml")).unwrap();
    symlink("elsewhere/real.toml", &link.file).unwrap();
    link.write(Some("new"), Some(&[weight("127.0.0.1:9001", 5)])).unwrap();
    assert!(link.file.is_symlink());
    assert_eq!(fs::read_to_string(folder.path().join("elsewhere/real.toml")).unwrap(), "new");
    assert_eq!(names_in(folder.path()), ["elsewhere", "link.toml", "link.toml.overrides.toml"]);
    assert_eq!(names_in(&folder.path().join("elsewhere")), ["real.toml"]);
}

#[test]
fn a_file_that_is_gone_is_made_again_and_a_link_to_nowhere_is_not() {
    let (folder, store) = store("old");
    fs::remove_file(&store.file).unwrap();
    store.write(Some("new"), None).unwrap();
    assert_eq!((store.text_as_it_is().unwrap().as_str(), mode_of(&store.file)), ("new", MODE_OF_NEW_FILES));

    fs::remove_file(&store.file).unwrap();
    symlink("nowhere/real.toml", &store.file).unwrap();
    assert!(store.write(Some("new"), None).is_err());
    symlink("nowhere", store.overrides_file()).unwrap();
    assert!(store.overrides().is_err(), "somebody put it there");
    assert_eq!(names_in(folder.path()), ["evener.toml", "evener.toml.overrides.toml"]);
}

/// What a crash leaves behind: half a file, one that nobody may write, a symlink to something precious.
#[test]
fn what_a_crash_left_behind_is_overwritten() {
    let (folder, store) = store("old");
    let (left_over, precious) = (folder.path().join(".evener.toml.new"), folder.path().join("precious"));
    fs::write(&precious, "precious").unwrap();
    fs::write(&left_over, "ha").unwrap();
    fs::set_permissions(&left_over, fs::Permissions::from_mode(0o400)).unwrap();
    store.write(Some("new"), None).unwrap();
    symlink(&precious, &left_over).unwrap();
    store.write(Some("newer"), None).unwrap();
    assert_eq!(store.text_as_it_is().unwrap(), "newer");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(names_in(folder.path()), ["evener.toml", "precious"]);
}

#[track_caller]
fn refused(result: Result<(), Rejected>) -> String {
    let rejected = result.expect_err("it cannot be written");
    format!("{rejected}; {}", rejected.help())
}

#[test]
fn what_stands_in_the_way_refuses_the_change_and_changes_nothing() {
    let (folder, store) = store("old");
    let overrides = [weight("127.0.0.1:9001", 5)];
    for (in_the_way, says) in [
        (".evener.toml.new", ".evener.toml.new beside it"),
        (".evener.toml.overrides.toml.new", "remove what stands in the way"),
        ("evener.toml.overrides.toml", "is a directory"),
    ] {
        fs::create_dir(folder.path().join(in_the_way)).unwrap();
        let said = refused(store.write(Some("new"), Some(&overrides)));
        assert!(said.contains(says), "{said}");
        assert_eq!(
            names_in(folder.path()),
            [in_the_way, "evener.toml"]
                .map(str::to_owned)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!(store.text_as_it_is().unwrap(), "old");
        fs::remove_dir(folder.path().join(in_the_way)).unwrap();
    }
    fs::remove_file(&store.file).unwrap();
    fs::create_dir(&store.file).unwrap();
    assert!(refused(store.write(Some("new"), None)).contains("is a directory"));
    fs::remove_dir(&store.file).unwrap();
    fs::remove_dir(folder.path()).unwrap();
    assert!(refused(store.write(Some("new"), None)).contains("cannot write"));
}

#[test]
fn what_is_staged_is_neither_in_place_nor_left_behind() {
    let (folder, store) = store("old");
    let text = Staged::write(&store.file, b"new").unwrap();
    let overrides = store.stage_overrides(&[weight("127.0.0.1:9001", 5)]).unwrap();
    assert_eq!(store.text_as_it_is().unwrap(), "old", "staged is not replaced");
    drop((text, overrides));
    assert_eq!(names_in(folder.path()), ["evener.toml"]);
}

#[test]
fn no_overrides_are_no_file() {
    let (folder, store) = store("");
    let overrides = vec![weight("127.0.0.1:9001", 5), weight("127.0.0.1:9002", 7)];
    store.write(None, Some(&overrides)).unwrap();
    assert_eq!(store.overrides(), Ok(overrides));
    store.write(None, Some(&[])).unwrap();
    store.write(None, Some(&[])).unwrap();
    assert_eq!(store.overrides(), Ok(Vec::new()));
    assert_eq!(names_in(folder.path()), ["evener.toml"]);
}

#[test]
fn an_overrides_file_looks_so() {
    let (_folder, store) = store("");
    let strategy = Override {
        upstream: None,
        setting: Setting::Strategy,
        value: json!({ "strategy": "consistent_hash", "hash": { "header": "x-user" } }),
        file: Some(json!({ "strategy": "round_robin" })),
        ..weight("", 0)
    };
    let added = Override {
        setting: Setting::Added,
        value: json!({ "weight": 1, "max_connections": 20, "backup": true }),
        file: None,
        ..weight("unix:/run/app.sock", 0)
    };
    let overrides = vec![strategy, weight("127.0.0.1:9001", 5), added];
    store.write(None, Some(&overrides)).unwrap();
    insta::assert_snapshot!(fs::read_to_string(store.overrides_file()).unwrap(), @r#"
    # Written by Evener: what was changed at run time and differs from the configuration file, each with the
    # value in the file (`file`) that it replaced. It holds until the file says something new there.
    # `DELETE /v1/overrides` on the side port ends them all.

    [[overrides]]
    pool = "app"
    setting = "strategy"
    by = "ops"
    at = "2026-11-21T08:10:02.123Z"

    [overrides.value]
    strategy = "consistent_hash"

    [overrides.value.hash]
    header = "x-user"

    [overrides.file]
    strategy = "round_robin"

    [[overrides]]
    pool = "app"
    upstream = "127.0.0.1:9001"
    setting = "weight"
    value = 5
    file = 1
    by = "ops"
    at = "2026-11-21T08:10:02.123Z"

    [[overrides]]
    pool = "app"
    upstream = "unix:/run/app.sock"
    setting = "added"
    by = "ops"
    at = "2026-11-21T08:10:02.123Z"

    [overrides.value]
    backup = true
    max_connections = 20
    weight = 1
    "#);
    assert_eq!(store.overrides(), Ok(overrides));
}

#[test]
fn a_broken_overrides_file_is_refused_with_what_to_do() {
    let (folder, store) = store("");
    let good = text_of(&[weight("127.0.0.1:9001", 5)]).unwrap();
    let half = &good[..good.len() - 20];
    for broken in [
        "overrides = 5".to_owned(),
        "[[overrides]]".to_owned(),
        "[[override]]\n".to_owned(),
        half.to_owned(),
        "\0\0\0\0".to_owned(),
        good.replace("weight", "wieght"),
        good.replace("value = 5", "value = 5000"),
        good.replace("value = 5", "value = 2026-11-21"),
        good.replace("by =", "more = 1\nby ="),
        good.replace("127.0.0.1:9001", "nowhere"),
        format!("{good}{}", good.trim_start_matches(OVERRIDES_HEADING)),
    ] {
        fs::write(store.overrides_file(), &broken).unwrap();
        let said = store.overrides().expect_err(&broken);
        assert!(said.starts_with("error: cannot use ") && said.contains("help: mend it, or"), "{said}");
        assert_eq!(fs::read_to_string(store.overrides_file()).unwrap(), broken, "nothing is lost");
    }
    fs::write(store.overrides_file(), b"by = \"\xff\"").unwrap();
    assert!(store.overrides().is_err());
    fs::remove_file(store.overrides_file()).unwrap();
    fs::create_dir(store.overrides_file()).unwrap();
    assert!(store.overrides().is_err());
    assert_eq!(names_in(folder.path()), ["evener.toml", "evener.toml.overrides.toml"]);
}

/// Set for the child that [`a_kill_leaves_the_old_files_or_the_new_ones`] starts: where it writes.
const CHILD_FOLDER: &str = "EVENER_TEST_STORE";

/// Kills; and the longest they may take together, on a machine that is busy with other things.
const KILLS: u64 = 150;
const KILLING_MAX: Duration = Duration::from_secs(20);

/// Long enough for a write to be cut in the middle.
fn text_number(number: u64) -> String {
    format!("# {number}\n").repeat(20_000)
}

fn number_of(text: &str) -> u64 {
    text.lines().next().and_then(|line| line.strip_prefix("# ")?.parse().ok()).expect("a number")
}

fn overrides_number(number: u64) -> Vec<Override> {
    (0..number % 300).map(|port| weight(&format!("127.0.0.1:{}", 9000 + port), 5)).collect()
}

#[test]
#[ignore = "the child of another test"]
fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let store = Store { file: Path::new(&folder).join("evener.toml") };
    let first = number_of(&store.text_as_it_is().unwrap()) + 1;
    for number in first..first + 10_000 {
        store.write(Some(&text_number(number)), Some(&overrides_number(number))).unwrap();
    }
}

#[test]
fn a_kill_leaves_the_old_files_or_the_new_ones() {
    let (folder, store) = store(&text_number(0));
    let this = std::env::current_exe().unwrap();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let began = Instant::now();
    let (mut number, mut overrides) = (0, Vec::new());
    for _ in 0..KILLS {
        let mut child = Command::new(&this)
            .args(["--exact", "--ignored", "control::store::tests::writes_until_it_is_killed"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It writes from here on.
        while number_of(&store.text_as_it_is().unwrap()) == number {
            assert!(
                child.try_wait().unwrap().is_none() && began.elapsed() < 3 * KILLING_MAX,
                "nobody writes"
            );
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..8_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = store.text_as_it_is().unwrap();
        number = number_of(&text);
        assert!(text == text_number(number), "half of text {number}");
        // The text comes first: the overrides are of the same change, or of the one before, be it of another
        // child that was killed between the two.
        let possible = [overrides_number(number), overrides_number(number - 1), overrides];
        overrides = store.overrides().expect("whole overrides");
        assert!(possible.contains(&overrides), "overrides of another text than {number}");
        if began.elapsed() > KILLING_MAX {
            break;
        }
    }
}
