//! `/openapi.json` against the side port, by a client that no one here wrote: schemathesis sends what the
//! document allows and what it forbids, and compares each answer with the document.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Evener, Origin};

/// Requests per operation: enough to meet each parameter and member wrong at least once, and bounded.
const EXAMPLES: &str = "30";

/// The same requests in every run. `EVENER_SEED` gives others.
const SEED: &str = "1";

#[test]
fn nothing_that_is_sent_to_the_side_port_breaks_it_or_its_document() {
    let Some(schemathesis) = find() else { return };
    let (one, two) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&format!(
        r#"[routes.app]
        pool = "app"
        [routes.other]
        path_prefix = "/other"
        pool = "other"
        [pools.app]
        upstreams = ["{}"]
        [pools.other]
        upstreams = ["{}"]"#,
        one.address(),
        two.address()
    ));
    let url = format!("http://{}", evener.admin().address());
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/openapi/schemathesis.toml");
    // It leaves notes where it runs.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = Command::new(schemathesis)
        .arg("--config-file")
        .arg(settings)
        .arg("run")
        .arg(format!("{url}/openapi.json"))
        .args(["--url", &url, "--max-examples", EXAMPLES])
        .args(["--seed", &env::var("EVENER_SEED").unwrap_or_else(|_| SEED.to_owned())])
        .current_dir(folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("schemathesis runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    evener.admin().get("/livez").expect_status(200);
}

/// Where `make setup` puts it. If it is not there, the play fails with what to do; where
/// `CI_ALLOW_MISSING` is set, it is left out, and says so.
fn find() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis");
    if program.is_file() {
        return Some(program);
    }
    assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "schemathesis is missing: run `make setup`");
    eprintln!("!!! LEFT OUT, schemathesis is missing: run `make setup`");
    None
}
