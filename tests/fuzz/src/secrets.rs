//! `env:` and `file:`: whatever stands around them, a secret is in no message and in no description.

use std::path::PathBuf;
use std::sync::LazyLock;

use evener::config::{Description, Source, differences, parse_with_warnings};

const SECRET: &str = "hunter2-0123456789abcdef";

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), SECRET).unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    folder
});

/// The first line is the value of a secret header; what follows goes into the file as it is.
pub fn run(bytes: &[u8]) {
    let Some((value, rest)) = crate::first_line(bytes) else { return };
    let rest = String::from_utf8_lossy(rest);
    if value.contains("hunter2")
        || rest.contains("hunter2")
        || value.contains("/dev")
        || rest.contains("/dev")
    {
        return;
    }
    let value = toml::Value::String(value.to_owned());
    let text = format!(
        "[listeners.http]\naddress = \"127.0.0.1:1\"\n[pools.app]\nupstreams = []\n\
         health_check = {{ path = \"/\", headers = {{ authorization = {value}, x-a = {value} }} }}\n\
         [admin.tokens.one]\nscope = \"read\"\nenv = \"E\"\n{rest}"
    );
    let folder = PathBuf::from(FOLDER.path());
    let source = Source { name: "fuzz.toml".into(), text, folder };
    let environment = |name: &str| match name {
        "" => panic!("nobody is called nothing"),
        "EMPTY" => Some(String::new()),
        "LINES" => Some(format!("{SECRET}\r\nx: y")),
        name => name.starts_with('E').then(|| SECRET.to_owned()),
    };
    let said = match parse_with_warnings(&source, &environment) {
        Err(report) => format!("{report}\n{report:?}"),
        Ok((config, warnings)) => {
            let told = |description| format!("{:?}", differences(&Description::default(), &description));
            let pools = config.pools.iter().map(|pool| told(Description::of_pool(pool)));
            let routes = config.routes.iter().map(|route| told(Description::of_route(route, &config)));
            let told: String = pools.chain(routes).collect();
            format!("{warnings}\n{warnings:?}\n{config:?}\n{told}")
        }
    };
    assert!(!said.contains("hunter2"), "{said}");
}
