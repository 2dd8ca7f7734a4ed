//! Whatever is saved to the configuration file runs: once for each save, however it is saved.
//!
//! That nothing happens is shown by what happens next: the generation after a further save is exact.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Evener, Origin, wait_until};

/// Looks come every three seconds where no event does; a machine under load may take its time.
const SOON: Duration = Duration::from_secs(30);

/// Less than the time after which a text counts as settled, more than that between an event and a look.
const STEP: Duration = Duration::from_millis(100);

/// A pool of the origin, which answers with its number.
fn pool(origin: &Origin) -> String {
    format!("[pools.app]\nupstreams = [\"{}\"]\nhealth_check = {{ enabled = false }}", origin.address())
}

/// A running Evener, and origins that it can be told to use.
struct Scene {
    evener: Evener,
    origins: Vec<Origin>,
}

impl Scene {
    fn start(start: fn(&str) -> Evener) -> Self {
        let origins: Vec<Origin> =
            ["0", "1", "2", "3"].iter().map(|number| Origin::answering(number)).collect();
        Self { evener: start(&pool(&origins[0])), origins }
    }

    /// The text of a file that says to use this origin.
    fn text(&self, origin: usize) -> String {
        self.evener.text(&pool(&self.origins[origin]))
    }

    /// Puts a new file in the place of the old one, as most editors do.
    fn save(&self, origin: usize) {
        self.save_text(&self.text(origin));
    }

    fn save_text(&self, text: &str) {
        let new = self.beside("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.evener.config_file()).unwrap();
    }

    fn write_in_place(&self, origin: usize) {
        fs::write(self.evener.config_file(), self.text(origin)).unwrap();
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.evener.config_file().with_file_name(name)
    }

    /// Waits until this origin is used, by exactly this generation.
    #[track_caller]
    fn expect(&self, origin: usize, generation: u64) {
        wait_until(SOON, || self.evener.get("/").body() == origin.to_string());
        assert_eq!(self.evener.generation(), generation, "{}", self.evener.log());
    }

    fn log_has(&self, phrase: &str) -> usize {
        self.evener.log().matches(phrase).count()
    }

    fn wait_for_log(&self, phrase: &str) {
        wait_until(SOON, || self.log_has(phrase) > 0);
    }
}

fn watching() -> Scene {
    Scene::start(Evener::start_watching)
}

#[test]
fn a_saved_file_runs_by_itself() {
    let scene = watching();
    scene.write_in_place(1);
    scene.expect(1, 2);
    scene.evener.wait_for_log("file watch");
    scene.write_in_place(2);
    scene.expect(2, 3);
}

/// A watch on the file itself would notice the first one, and then be on a file that nobody has.
#[test]
fn a_file_renamed_over_the_old_one_is_followed_every_time() {
    let scene = watching();
    for (origin, generation) in [(1, 2), (2, 3), (1, 4)] {
        scene.save(origin);
        scene.expect(origin, generation);
    }
}

#[test]
fn a_file_written_in_several_steps_is_loaded_once() {
    let scene = watching();
    let mut generation = 1;
    for turn in 0..20 {
        let origin = 1 + turn % 2;
        let was_in_time = write_in_steps(&scene.evener.config_file(), &scene.text(origin));
        if was_in_time {
            scene.expect(origin, generation + 1);
            assert_eq!(scene.log_has("configuration refused"), 0, "{}", scene.evener.log());
            return;
        }
        // The machine held us up between two steps: half a text may have looked like a whole one.
        wait_until(SOON, || scene.evener.get("/").body() == origin.to_string());
        generation = scene.evener.generation();
        if scene.log_has("configuration refused") > 0 {
            return;
        }
    }
}

/// Empties the file and fills it; whether no step took so long that the text may have seemed settled.
fn write_in_steps(path: &Path, text: &str) -> bool {
    let mut file = File::create(path).unwrap();
    let mut last = Instant::now();
    let mut in_time = true;
    for piece in text.as_bytes().chunks(text.len().div_ceil(4)) {
        thread::sleep(STEP);
        file.write_all(piece).unwrap();
        in_time &= last.elapsed() < STEP + STEP / 2;
        last = Instant::now();
    }
    in_time
}

/// As Kubernetes does it: file → ..data/file, and ..data is made to point to another folder.
#[test]
fn a_swapped_link_is_followed() {
    let scene = watching();
    let file = scene.evener.config_file();
    for (version, origin) in [("..v0", 0), ("..v1", 1), ("..v2", 2)] {
        fs::create_dir(scene.beside(version)).unwrap();
        fs::write(scene.beside(version).join("evener.toml"), scene.text(origin)).unwrap();
    }
    let point_data_to = |version: &str| {
        symlink(version, scene.beside("..data_new")).unwrap();
        fs::rename(scene.beside("..data_new"), scene.beside("..data")).unwrap();
    };
    point_data_to("..v0");
    symlink("..data/evener.toml", scene.beside("link")).unwrap();
    fs::rename(scene.beside("link"), &file).unwrap();

    for (version, origin, generation) in [("..v1", 1, 2), ("..v2", 2, 3)] {
        point_data_to(version);
        scene.expect(origin, generation);
    }
    fs::remove_dir_all(scene.beside("..v1")).unwrap();
    fs::write(scene.beside("..v2/evener.toml"), scene.text(3)).unwrap();
    scene.expect(3, 4);
}

#[test]
fn a_link_to_another_folder_is_followed() {
    let scene = watching();
    let elsewhere = tempfile::tempdir().unwrap();
    let (one, two) = (elsewhere.path().join("one"), elsewhere.path().join("two"));
    for (folder, origin) in [(&one, 1), (&two, 2)] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("evener.toml"), scene.text(origin)).unwrap();
    }
    symlink(&one, elsewhere.path().join("data")).unwrap();
    symlink(elsewhere.path().join("data/evener.toml"), scene.beside("link")).unwrap();
    fs::rename(scene.beside("link"), scene.evener.config_file()).unwrap();
    scene.expect(1, 2);

    symlink(&two, elsewhere.path().join("new")).unwrap();
    fs::rename(elsewhere.path().join("new"), elsewhere.path().join("data")).unwrap();
    scene.expect(2, 3);
}

/// A network file system tells nothing of what another machine writes; neither does a second name of the
/// file in a folder that nobody watches.
#[test]
fn a_change_without_an_event_is_found_by_looking() {
    let scene = watching();
    let elsewhere = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
    let second_name = elsewhere.path().join("second");
    fs::hard_link(scene.evener.config_file(), &second_name).unwrap();
    fs::write(second_name, scene.text(1)).unwrap();
    scene.expect(1, 2);
}

#[test]
fn a_text_that_stays_the_same_changes_nothing() {
    let scene = watching();
    File::options()
        .append(true)
        .open(scene.evener.config_file())
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    thread::sleep(4 * STEP);
    scene.save(0);
    thread::sleep(4 * STEP);
    fs::write(scene.beside("somebody-elses"), "").unwrap();
    scene.save(1);
    scene.expect(1, 2);
    wait_until(SOON, || scene.log_has("configuration applied") == 1);
}

#[test]
fn a_wrong_text_is_refused_once() {
    let scene = watching();
    let wrong = format!("{}\n[pools.app.nonsense]\n", scene.text(1));
    scene.save_text(&wrong);
    scene.wait_for_log("configuration refused");
    for _ in 0..3 {
        scene.save_text(&wrong);
        thread::sleep(5 * STEP);
    }
    assert_eq!(scene.evener.get("/").body(), "0");
    scene.evener.admin().expect_metric("evener_config_changes_total", &["result=\"refused\""], 1.0);

    scene.save(2);
    scene.expect(2, 2);
    assert_eq!(scene.log_has("configuration refused"), 1, "{}", scene.evener.log());

    scene.save_text(&wrong);
    wait_until(SOON, || scene.log_has("configuration refused") == 2);
    scene.save(2);
    thread::sleep(5 * STEP);
    scene.save(1);
    scene.expect(1, 3);
}

#[test]
fn a_file_that_is_gone_is_told_once_and_followed_when_it_is_back() {
    let scene = watching();
    let file = scene.evener.config_file();
    fs::remove_file(&file).unwrap();
    scene.wait_for_log("configuration file cannot be read");
    // Something else in its place is still the same trouble.
    fs::create_dir(&file).unwrap();
    thread::sleep(2 * STEP);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, [0xff, 0xfe]).unwrap();
    thread::sleep(2 * STEP);
    assert_eq!(scene.evener.get("/").body(), "0");

    scene.save(1);
    scene.expect(1, 2);
    assert_eq!(scene.log_has("configuration file cannot be read"), 1, "{}", scene.evener.log());
    wait_until(SOON, || scene.log_has("configuration file is back") == 1);
    assert_eq!(scene.log_has("configuration refused"), 0, "{}", scene.evener.log());

    fs::remove_file(&file).unwrap();
    wait_until(SOON, || scene.log_has("configuration file cannot be read") == 2);
    scene.save(1);
    wait_until(SOON, || scene.log_has("configuration file is back") == 2);
    scene.save(2);
    scene.expect(2, 3);
}

#[test]
fn a_folder_or_a_pipe_in_the_place_of_the_file_does_no_harm() {
    let scene = watching();
    let file = scene.evener.config_file();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    scene.wait_for_log("it is a folder");
    fs::remove_dir(&file).unwrap();
    // Who opens it waits for a writer, for ever.
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    thread::sleep(5 * STEP);
    fs::remove_file(&file).unwrap();
    scene.save(1);
    scene.expect(1, 2);
}

#[test]
fn a_file_that_may_not_be_read_is_told_of_and_followed_when_it_may() {
    let mut scene = watching();
    let file = scene.evener.config_file();
    fs::write(scene.beside("new"), scene.text(1)).unwrap();
    fs::set_permissions(scene.beside("new"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(scene.beside("new")).is_ok() {
        // Root may read everything.
        return;
    }
    fs::rename(scene.beside("new"), &file).unwrap();
    scene.wait_for_log("permission denied");
    assert!(scene.evener.ends_within(Duration::from_millis(1)).is_none());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    scene.expect(1, 2);
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_followed() {
    let scene = watching();
    let folder = scene.beside("conf");
    let put = |origin| {
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("evener.toml"), scene.text(origin)).unwrap();
    };
    put(1);
    symlink("conf/evener.toml", scene.beside("link")).unwrap();
    fs::rename(scene.beside("link"), scene.evener.config_file()).unwrap();
    scene.expect(1, 2);

    for (origin, generation) in [(2, 3), (1, 4)] {
        fs::remove_dir_all(&folder).unwrap();
        put(origin);
        scene.expect(origin, generation);
    }
    fs::remove_dir_all(&folder).unwrap();
    scene.wait_for_log("configuration file cannot be read");
    put(3);
    scene.expect(3, 5);
    // One that takes the folder's place, file and all.
    fs::rename(&folder, scene.beside("old")).unwrap();
    put(2);
    scene.expect(2, 6);
    fs::write(folder.join("evener.toml"), scene.text(1)).unwrap();
    scene.expect(1, 7);
}

#[test]
fn a_save_and_a_hangup_at_once_are_one_change_or_two_and_never_an_old_text() {
    let scene = watching();
    for turn in 0..4 {
        let origin = 1 + turn % 3;
        scene.save(origin);
        scene.evener.signal("HUP");
        wait_until(SOON, || scene.evener.get("/").body() == origin.to_string());
    }
    assert_eq!(scene.log_has("configuration refused"), 0, "{}", scene.evener.log());
}

#[test]
fn what_we_write_ourselves_is_not_loaded_again() {
    let scene = watching();
    for (origin, generation) in [(1, 2), (2, 3)] {
        let put = scene.evener.admin().send_body_with(
            "PUT",
            "/v1/config",
            "If-Match: *\r\nContent-Type: application/toml\r\n",
            scene.text(origin).as_bytes(),
        );
        put.expect_status(200);
        scene.expect(origin, generation);
        thread::sleep(5 * STEP);
    }
    scene.save(3);
    scene.expect(3, 4);
    wait_until(SOON, || scene.log_has("configuration applied") == 3);
}

#[test]
fn no_watch_waits_for_a_signal() {
    let scene = Scene::start(Evener::start);
    scene.save(1);
    thread::sleep(10 * STEP);
    scene.save(2);
    scene.evener.signal("HUP");
    scene.expect(2, 2);
}

#[test]
fn a_watch_does_not_hold_up_the_end() {
    let mut scene = watching();
    scene.save(1);
    scene.evener.signal("TERM");
    let status = scene.evener.ends_within(SOON);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", scene.evener.log());
}
