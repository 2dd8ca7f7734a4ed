//! `tls` of a pool: files to certificates, and every way in which they can be wrong.

// Files look the same with and without quotes in them.
#![allow(clippy::needless_raw_string_hashes)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insta::assert_snapshot;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::certificates::put;
use super::{PoolConfig, SECRET, Source, names};
use crate::config::check::check;
use crate::config::{Config, Description, Report, differences};

/// The reference with these names of files, which then exist.
pub(super) fn with_files(text: &str, folder: &Path) -> String {
    write_material(folder);
    let file = |name: &str| format!("\"{}\"", folder.join(name).display());
    ["ca.pem", "client.crt", "client.key"]
        .iter()
        .fold(text.to_owned(), |text, name| text.replace(&format!("\"{name}\""), &file(name)))
}

fn write_material(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for (name, from, to) in [("client", 2020, 4000), ("old", 2019, 2020), ("future", 3000, 4000)] {
        let mut params = CertificateParams::new(vec!["client.internal".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let key = KeyPair::generate().unwrap();
        put(&folder.join(format!("{name}.crt")), &params.signed_by(&key, &ca).unwrap().pem());
        put(&folder.join(format!("{name}.key")), &key.serialize_pem());
    }
    hide(folder);
}

/// From other users: a key that they can read is odd.
fn hide(folder: &Path) {
    for file in fs::read_dir(folder).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_material(folder.path());
        for (name, text) in [
            ("empty.pem", String::new()),
            ("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
            ("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned()),
            (
                "locked.key",
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
                    .to_owned(),
            ),
            ("large.pem", "x".repeat(1024 * 1024 + 1)),
        ] {
            put(&folder.path().join(name), &text);
        }
        hide(folder.path());
        Self(folder)
    }

    /// A file whose pool `app` has these lines.
    fn check(&self, lines: &str) -> Result<(Config, Report), Report> {
        let text = format!("[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\n{lines}\n");
        let source = Source { name: "evener.toml".to_owned(), text, folder: self.0.path().to_owned() };
        check(&source, &|_| None, &names).outcome
    }

    fn pool(&self, lines: &str) -> PoolConfig {
        let (config, _) = self.check(lines).unwrap_or_else(|report| panic!("{report}"));
        (*config.pools[0]).clone()
    }

    /// What is said about `tls` with these keys, without the folder.
    fn told(&self, keys: &str) -> String {
        let lines = format!("upstreams = [\"app.internal:8443\"]\ntls = {{ {keys} }}");
        let report = self.check(&lines).map_or_else(|report| report.to_string(), |(_, odd)| odd.to_string());
        report.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const OURS: &str = "server_name = \"app.internal\", ca = \"ca.pem\"";

#[test]
fn tls_holds_what_is_in_the_files() {
    let pool = Folder::new().pool(&format!(
        "upstreams = []\nprotocol = \"http2\"\ntls = {{ {OURS}, certificate = \"client.crt\", key = \"client.key\" }}"
    ));
    let tls = pool.tls.unwrap();
    assert_eq!((tls.server_name.as_deref(), tls.verify), (Some("app.internal"), true));
    assert_eq!(tls.ca.as_ref().unwrap().ders.len(), 1);
    let client = tls.client.as_ref().unwrap();
    assert_eq!((client.chain.ders.len(), client.key_file.as_str()), (1, "client.key"));
    let debug = format!("{tls:?}");
    assert!(debug.contains("PrivateKey(…)") && debug.len() < 500, "{debug}");
}

/// So a file that is replaced is read again, and one that was missing once it is there.
#[test]
fn the_files_that_were_read_are_known_even_when_they_are_refused() {
    let files = |keys: &str| {
        let lines = format!("upstreams = []\ntls = {{ {OURS}, {keys} }}");
        let report = match Folder::new().check(&lines) {
            Ok((_, odd)) => odd,
            Err(report) => report,
        };
        let names = report.files().paths().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    for key in ["client.key", "none.key"] {
        let keys = format!("certificate = \"client.crt\", key = \"{key}\"");
        assert_eq!(files(&keys), ["ca.pem", "client.crt", key]);
    }
}

#[test]
fn a_key_for_all_eyes_is_odd() {
    let folder = Folder::new();
    let keys = format!("{OURS}, certificate = \"client.crt\", key = \"client.key\"");
    assert!(!folder.told(&keys).contains("private key"), "{}", folder.told(&keys));
    fs::set_permissions(folder.0.path().join("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = folder.told(&keys);
    assert!(told.contains("everybody on this machine can read this private key"), "{told}");
}

#[test]
fn the_same_words_with_other_files_are_another_configuration() {
    let (one, other) = (Folder::new(), Folder::new());
    let lines = format!("upstreams = []\ntls = {{ {OURS} }}");
    assert_eq!(one.pool(&lines), one.pool(&lines));
    let (one, other) = (one.pool(&lines), other.pool(&lines));
    assert_ne!(one, other);
    let found = differences(&Description::of_pool(&one), &Description::of_pool(&other));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, "tls.ca");
    assert!(found[0].to.as_str().unwrap().starts_with("ca.pem (SHA-256 "), "{found:?}");
}

#[test]
fn every_key_of_tls_and_of_a_grpc_check_shows_up_when_it_changes() {
    let folder = Folder::new();
    let pool = |tls: &str, check: &str| {
        Description::of_pool(&folder.pool(&format!(
            "upstreams = []\nprotocol = \"http2\"\ntls = {{ {tls} }}\nhealth_check = {{ {check} }}"
        )))
    };
    let keys = |one: (&str, &str), other: (&str, &str)| {
        let found = differences(&pool(one.0, one.1), &pool(other.0, other.1));
        assert!(found.iter().all(|setting| setting.from != SECRET), "{found:?}");
        found.into_iter().map(|setting| setting.key).collect::<Vec<_>>()
    };
    let (plain, asked) = ((OURS, ""), "grpc = true, service = \"a\"");
    assert_eq!(keys(plain, ("server_name = \"b\", ca = \"ca.pem\"", "")), ["tls.server_name"]);
    assert_eq!(keys(plain, ("server_name = \"app.internal\", verify = false", "")), ["tls.ca", "tls.verify"]);
    let with_client = format!("{OURS}, certificate = \"client.crt\", key = \"client.key\"");
    assert_eq!(keys(plain, (&with_client, "")), ["tls.certificate", "tls.key"]);
    assert_eq!(keys(plain, (OURS, asked)), ["health_check.grpc", "health_check.service"]);
    assert_eq!(keys((OURS, asked), (OURS, "grpc = true, service = \"b\"")), ["health_check.service"]);
}

#[test]
fn without_a_name_nobody_could_be_verified() {
    let folder = Folder::new();
    assert_snapshot!(folder.told("ca = \"ca.pem\""), @r#"
    error: `tls` needs `server_name`: whom should the certificates be for?
     --> evener.toml:5:7
      |
    5 | tls = { ca = "ca.pem" }
      |       ^^^^^^^^^^^^^^^^^ no `server_name` here
      |
      = help: add the name in the upstreams' certificates: server_name = "app.internal"; verify = false would trust whoever answers

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(folder.told("server_name = \"app.internal:443\", ca = \"ca.pem\""), @r#"
    error: `app.internal:443` is no server name
     --> evener.toml:5:23
      |
    5 | tls = { server_name = "app.internal:443", ca = "ca.pem" }
      |                       ^^^^^^^^^^^^^^^^^^ not a host name or IP address
      |
      = help: write the name in the upstreams' certificates, without port: server_name = "app.internal"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_pool_that_verifies_nobody_is_pointed_out() {
    let folder = Folder::new();
    assert_snapshot!(folder.told("verify = false"), @r#"
    warning: the upstreams of this pool are not verified
     --> evener.toml:5:18
      |
    5 | tls = { verify = false }
      |                  ^^^^^ whoever answers is believed
      |
      = help: name their CA instead: ca = "ca.pem", and `server_name`

    1 warning in evener.toml
    "#);
    assert_snapshot!(folder.told("verify = false, ca = \"ca.pem\""), @r#"
    error: `ca` has no meaning with `verify = false`
     --> evener.toml:5:30
      |
    5 | tls = { verify = false, ca = "ca.pem" }
      |                              ^^^^^^^^ nobody would ask it
      |
      = help: remove `verify = false`, or `ca`

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn files_that_hold_no_certificate_say_why() {
    let folder = Folder::new();
    let told = |file: &str| {
        let told = folder.told(&format!("server_name = \"a\", ca = \"{file}\""));
        told.lines()
            .filter(|line| line.contains("error: ") || line.contains("help: "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_snapshot!(folder.told("server_name = \"a\", ca = \"nowhere.pem\""), @r#"
    error: the file `nowhere.pem` does not exist
     --> evener.toml:5:33
      |
    5 | tls = { server_name = "a", ca = "nowhere.pem" }
      |                                 ^^^^^^^^^^^^^ of no use
      |
      = help: name a file; a relative path starts at the folder of the configuration file

    1 mistake in evener.toml; nothing was applied
    "#);
    let files =
        ["empty.pem", "broken.pem", "cut.pem", "client.key", "large.pem", ".", "old.crt", "future.crt"];
    assert_snapshot!(files.map(told).join("\n"), @r"
    error: the file `empty.pem` has no certificate in it
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`
    error: the file `broken.pem` has a certificate (number 1) that cannot be read
      = help: download it again, or have it issued anew
    error: the file `cut.pem` is not PEM: its end is missing
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`
    error: the file `client.key` has no certificate in it
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`
    error: the file `large.pem` is too large
      = help: a file in PEM has at most 1048576 bytes here
    error: the file `.` is no ordinary file
      = help: name a file in PEM
    error: the file `old.crt` has expired on 2020-01-01
      = help: ask whoever runs the CA for its current certificate
    error: the file `future.crt` is not valid yet: it begins on 3000-01-01
      = help: ask whoever runs the CA for its current certificate
    ");
}

#[test]
fn a_client_certificate_needs_its_own_key() {
    let folder = Folder::new();
    let told = |certificate: &str, key: &str| {
        let told = folder.told(&format!("{OURS}, certificate = \"{certificate}\", key = \"{key}\""));
        told.lines()
            .filter(|line| line.contains("error: ") || line.contains("help: "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_snapshot!(folder.told(&format!("{OURS}, certificate = \"client.crt\", key = \"old.key\"")), @r#"
    error: the key file `old.key` does not belong to the certificate in `client.crt`
     --> evener.toml:5:88
      |
    5 | tls = { server_name = "app.internal", ca = "ca.pem", certificate = "client.crt", key = "old.key" }
      |                                                                                        ^^^^^^^^^ of no use
      |
      = help: give the key that the certificate was made for; `openssl x509 -noout -pubkey -in CERTIFICATE` and `openssl pkey -pubout -in KEY` say the same when they fit

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(folder.told(&format!("{OURS}, certificate = \"client.crt\"")), @r#"
    error: `certificate` needs `key`
     --> evener.toml:5:68
      |
    5 | tls = { server_name = "app.internal", ca = "ca.pem", certificate = "client.crt" }
      |                                                                    ^^^^^^^^^^^^ no `key` beside it
      |
      = help: add key = "client-key.pem", or remove `certificate`

    1 mistake in evener.toml; nothing was applied
    "#);
    let pairs = [
        ("client.crt", "client.crt"),
        ("client.crt", "locked.key"),
        ("old.crt", "old.key"),
        ("future.crt", "future.key"),
    ];
    assert_snapshot!(pairs.map(|(certificate, key)| told(certificate, key)).join("\n"), @r"
    error: the key file `client.crt` has no private key in it
      = help: it should hold the private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`), SEC1 (`BEGIN EC PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`)
    error: the key file `locked.key` holds an encrypted key
      = help: nobody is there to type its password: write it without, `openssl pkey -in KEY -out PLAIN_KEY`, for the eyes of Evener's user only
    error: the certificate file `old.crt` has expired on 2020-01-01
      = help: renew it, such as by `certbot renew`; then check again
    error: the certificate file `future.crt` is not valid yet: it begins on 3000-01-01
      = help: compare the clock of this machine (`date -u`), or wait
    ");
}

#[test]
fn a_ca_that_has_expired_is_pointed_out_among_others() {
    let folder = Folder::new();
    let read = |name: &str| fs::read_to_string(folder.0.path().join(name)).unwrap();
    fs::write(folder.0.path().join("both.pem"), read("ca.pem") + &read("old.crt")).unwrap();
    assert_snapshot!(folder.told("server_name = \"a\", ca = \"both.pem\""), @r#"
    warning: a certificate in `both.pem` has expired on 2020-01-01
     --> evener.toml:5:33
      |
    5 | tls = { server_name = "a", ca = "both.pem" }
      |                                 ^^^^^^^^^^ left out
      |
      = help: remove it from the file, unless a clock is wrong

    1 warning in evener.toml
    "#);
}
