//! `tls` of a listener: files that are good, and everything that can be wrong with them.

use std::path::Path;

use insta::assert_snapshot;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::certificates::{Authority, Issued, Kind, put};
use super::{names, seconds};
use crate::config::check::{Checked, check};
use crate::config::{
    AlpnProtocol, ClientAuth, Config, Description, ListenerTlsConfig, Source, TlsVersion, differences,
};

/// A folder with a configuration and the files that it names.
struct Desk {
    folder: TempDir,
    authority: Authority,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new("authority") };
        desk.put("site", &desk.authority.issue(&["example.com", "*.example.com"]));
        desk
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn put(&self, name: &str, issued: &Issued) {
        issued.write(self.path(), name);
    }

    fn put_text(&self, name: &str, text: &str) {
        put(&self.path().join(name), text);
    }

    /// Checks a file whose listener has these lines in its `tls`.
    fn check(&self, lines: &str) -> Checked {
        let text = format!(
            "[listeners.https]\naddress = \"0.0.0.0:443\"\n[listeners.https.tls]\n{lines}\n[pools.app]\nupstreams = []\n"
        );
        let source = Source { name: "evener.toml".to_owned(), text, folder: self.path().to_owned() };
        check(&source, &|_| None, &names)
    }

    fn config(&self, lines: &str) -> Config {
        self.check(lines).outcome.unwrap_or_else(|report| panic!("{report}")).0
    }

    fn tls(&self, lines: &str) -> ListenerTlsConfig {
        (**self.config(lines).listeners[0].tls.as_ref().unwrap()).clone()
    }

    /// What is said about the file, be it valid or not.
    fn said(&self, lines: &str) -> String {
        match self.check(lines).outcome {
            Ok((_, warnings)) => warnings.to_string(),
            Err(report) => report.to_string(),
        }
    }
}

const SITE: &str = "certificates = [{ certificate = \"site.crt\", key = \"site.key\" }]";

#[test]
fn a_certificate_and_its_key_are_enough() {
    let tls = Desk::new().tls(SITE);
    let [certificate] = &tls.certificates[..] else { panic!("{tls:?}") };
    assert_eq!((&*certificate.certificate, &*certificate.key), ("site.crt", "site.key"));
    assert_eq!(certificate.names, ["*.example.com", "example.com"]);
    assert_eq!(tls.protocols, [AlpnProtocol::Http2, AlpnProtocol::Http1]);
    assert_eq!((tls.client_ca, tls.min_version), (None, TlsVersion::Tls12));
    assert_eq!(tls.handshake_timeout, seconds(10));
}

#[test]
fn every_key_arrives() {
    let desk = Desk::new();
    desk.authority.write(desk.path(), "clients");
    let tls = desk.tls(&format!(
        "{SITE}\nprotocols = [\"http/1.1\"]\nclient_ca = \"clients.crt\"\nclient_auth = \"optional\"\n\
         min_version = \"1.3\"\nhandshake_timeout = \"3s\""
    ));
    assert_eq!(tls.protocols, [AlpnProtocol::Http1]);
    let client_ca = tls.client_ca.unwrap();
    assert_eq!((&*client_ca.file, client_ca.auth), ("clients.crt", ClientAuth::Optional));
    assert_eq!((tls.min_version, tls.handshake_timeout), (TlsVersion::Tls13, seconds(3)));
}

/// RSA in PKCS#8 and PKCS#1, ECDSA in PKCS#8 and SEC1.
#[test]
fn keys_are_read_in_every_usual_form() {
    let desk = Desk::new();
    for (kind, label) in [(Kind::Ecdsa, "EC PRIVATE KEY"), (Kind::Rsa, "RSA PRIVATE KEY")] {
        let issued = desk.authority.issue_for(&["example.com"], kind);
        desk.put("site", &issued);
        let as_pkcs8 = desk.tls(SITE);
        desk.put_text("site.key", &pem(label, &inside_pkcs8(&issued.key)));
        assert_eq!(desk.tls(SITE), as_pkcs8, "{label}");
    }
}

/// The key as it stands in the octet string that ends a PKCS#8 document.
fn inside_pkcs8(key: &str) -> Vec<u8> {
    let key = KeyPair::from_pem(key).unwrap();
    let der = key.serialized_der();
    let mut starts = (1..der.len()).filter(|&at| der[at] == 0x30 && der[at - 1..].len() > 1);
    let is_whole = |&at: &usize| {
        let (header, length) = match der[at + 1] {
            short @ ..=0x7f => (2, usize::from(short)),
            0x81 => (3, usize::from(der[at + 2])),
            _ => (4, usize::from(der[at + 2]) << 8 | usize::from(der[at + 3])),
        };
        at + header + length == der.len()
    };
    der[starts.find(is_whole).unwrap()..].to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[index as usize]) });
        }
    }
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn what_compares_is_what_the_files_hold() {
    let desk = Desk::new();
    let first = desk.tls(SITE);
    assert_eq!(desk.tls(SITE), first, "read twice");
    desk.put("site", &desk.authority.issue(&["example.com", "*.example.com"]));
    let renewed = desk.tls(SITE);
    assert_ne!(renewed, first, "another certificate of the same name");
    assert_ne!(desk.tls(&format!("{SITE}\nmin_version = \"1.3\"")), renewed);
}

#[test]
fn no_key_is_shown() {
    let desk = Desk::new();
    let issued = desk.authority.issue(&["example.com"]);
    desk.put("site", &issued);
    let shown = format!("{:?}", desk.config(SITE));
    assert!(shown.contains("site.key") && shown.len() < 4_000, "{shown}");
    for line in issued.key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line) && !shown.contains(line.trim_end_matches('=')), "{shown}");
    }
}

#[test]
fn differences_are_told_with_what_the_files_hold() {
    let desk = Desk::new();
    let described = |lines: &str| Description::of_listener(&desk.config(lines).listeners[0]);
    let keys = |before: &Description, after: &Description| -> Vec<String> {
        differences(before, after).into_iter().map(|setting| setting.key).collect()
    };
    let before = described(SITE);
    desk.put("site", &desk.authority.issue(&["example.com", "*.example.com"]));
    let renewed = described(SITE);
    assert_eq!(keys(&before, &renewed), ["tls.certificates"]);
    desk.authority.write(desk.path(), "clients");
    let asking = described(&format!("{SITE}\nclient_ca = \"clients.crt\"\nhandshake_timeout = \"1s\""));
    assert_eq!(keys(&renewed, &asking), ["tls.client_auth", "tls.client_ca", "tls.handshake_timeout"]);
    let changed = described(&format!("{SITE}\nprotocols = [\"h2\"]\nmin_version = \"1.3\""));
    assert_eq!(keys(&renewed, &changed), ["tls.min_version", "tls.protocols"]);
}

#[test]
fn the_files_that_were_read_are_known_even_when_they_are_refused() {
    let desk = Desk::new();
    let files = |lines: &str| {
        let report = match desk.check(lines).outcome {
            Ok((_, warnings)) => warnings,
            Err(report) => report,
        };
        let names = report.files().paths().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(files(&format!("{SITE}\nclient_ca = \"none.crt\"")), ["site.crt", "site.key", "none.crt"]);
}

#[test]
fn files_that_are_of_no_use_are_named_with_the_reason() {
    let desk = Desk::new();
    let said = |certificate: &str, key: &str| {
        desk.said(&format!("certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]"))
    };
    desk.put_text("empty.pem", "");
    desk.put_text("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    desk.put_text("noise.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    desk.put_text("locked.key", locked);
    desk.put_text("noise.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_snapshot!(said("none.crt", "site.key"), @r#"
    error: the certificate file `none.crt` does not exist
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "none.crt", key = "site.key" }]
      |                                 ^^^^^^^^^^ of no use
      |
      = help: name a file; a relative path starts at the folder of the configuration file

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said(".", "site.key"), @r#"
    error: the certificate file `.` is no ordinary file
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = ".", key = "site.key" }]
      |                                 ^^^ of no use
      |
      = help: name a file in PEM

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("empty.pem", "site.key"), @r#"
    error: the certificate file `empty.pem` has no certificate in it
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "empty.pem", key = "site.key" }]
      |                                 ^^^^^^^^^^^ of no use
      |
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("cut.pem", "site.key"), @r#"
    error: the certificate file `cut.pem` is not PEM: its end is missing
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "cut.pem", key = "site.key" }]
      |                                 ^^^^^^^^^ of no use
      |
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("noise.crt", "site.key"), @r#"
    error: the certificate file `noise.crt` has a certificate (number 1) that cannot be read
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "noise.crt", key = "site.key" }]
      |                                 ^^^^^^^^^^^ of no use
      |
      = help: download it again, or have it issued anew

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("site.crt", "empty.pem"), @r#"
    error: the key file `empty.pem` has no private key in it
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "empty.pem" }]
      |                                                   ^^^^^^^^^^^ of no use
      |
      = help: it should hold the private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`), SEC1 (`BEGIN EC PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`)

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("site.crt", "site.crt"), @r#"
    error: the key file `site.crt` has no private key in it
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "site.crt" }]
      |                                                   ^^^^^^^^^^ of no use
      |
      = help: it should hold the private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`), SEC1 (`BEGIN EC PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`)

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("site.crt", "locked.key"), @r#"
    error: the key file `locked.key` holds an encrypted key
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "locked.key" }]
      |                                                   ^^^^^^^^^^^^ of no use
      |
      = help: nobody is there to type its password: write it without, `openssl pkey -in KEY -out PLAIN_KEY`, for the eyes of Evener's user only

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said("site.crt", "noise.key"), @r#"
    error: the key file `noise.key` holds a key of no use here
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "noise.key" }]
      |                                                   ^^^^^^^^^^^ of no use
      |
      = help: it should be RSA with 2048 to 8192 bits, ECDSA on the curves P-256 or P-384, or Ed25519

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_certificate_and_a_key_that_do_not_fit_are_refused() {
    let desk = Desk::new();
    desk.put("other", &desk.authority.issue(&["example.com"]));
    assert_snapshot!(desk.said("certificates = [{ certificate = \"site.crt\", key = \"other.key\" }]"), @r#"
    error: the key file `other.key` does not belong to the certificate in `site.crt`
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "other.key" }]
      |                                                   ^^^^^^^^^^^ of no use
      |
      = help: give the key that the certificate was made for; `openssl x509 -noout -pubkey -in CERTIFICATE` and `openssl pkey -pubout -in KEY` say the same when they fit

    1 mistake in evener.toml; nothing was applied
    "#);

    let issued = desk.authority.issue(&["example.com"]);
    desk.put_text("chain.crt", &format!("{}{}", desk.authority.certificate, issued.certificate));
    desk.put_text("chain.key", &issued.key);
    assert_snapshot!(desk.said("certificates = [{ certificate = \"chain.crt\", key = \"chain.key\" }]"), @r#"
    error: the key file `chain.key` belongs to certificate number 2 in `chain.crt`, not to the first
     --> evener.toml:4:52
      |
    4 | certificates = [{ certificate = "chain.crt", key = "chain.key" }]
      |                                                    ^^^^^^^^^^^ of no use
      |
      = help: the certificate of the key stands first in its file, then the one that signed it, and so on

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn an_authority_lets_clients_in_in_its_time_only() {
    let desk = Desk::new();
    let authority = |until: i32| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 3, 31));
        params.self_signed(&key).unwrap().pem()
    };
    let asking = format!("{SITE}\nclient_ca = \"clients.crt\"");
    desk.put_text("clients.crt", &authority(2021));
    let said = desk.said(&asking);
    assert!(said.contains("the file `clients.crt` has expired on 2021-03-31"), "{said}");
    desk.put_text("clients.crt", &(authority(2021) + &authority(2999)));
    assert!(desk.tls(&asking).client_ca.is_some());
}

#[test]
fn a_certificate_is_served_in_its_time_only() {
    let desk = Desk::new();
    let said = |from: (i32, u8, u8), to: (i32, u8, u8)| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["example.com".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from.0, from.1, from.2), date_time_ymd(to.0, to.1, to.2));
        desk.put_text("site.crt", &params.self_signed(&key).unwrap().pem());
        desk.put_text("site.key", &key.serialize_pem());
        desk.said(SITE)
    };
    assert_snapshot!(said((2020, 1, 1), (2021, 3, 31)), @r#"
    error: the certificate file `site.crt` has expired on 2021-03-31
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "site.crt", key = "site.key" }]
      |                                 ^^^^^^^^^^ of no use
      |
      = help: renew it, such as by `certbot renew`; then check again

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said((2990, 1, 1), (2999, 1, 1)), @r#"
    error: the certificate file `site.crt` is not valid yet: it begins on 2990-01-01
     --> evener.toml:4:33
      |
    4 | certificates = [{ certificate = "site.crt", key = "site.key" }]
      |                                 ^^^^^^^^^^ of no use
      |
      = help: compare the clock of this machine (`date -u`), or wait

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_certificate_that_ends_within_a_month_is_odd() {
    let desk = Desk::new();
    desk.put("site", &desk.authority.issue_from_to(&["example.com"], -60, 31));
    assert_eq!(desk.check(SITE).outcome.unwrap().1.warnings().count(), 0);
    desk.put("site", &desk.authority.issue_from_to(&["example.com"], -60, 29));
    let (_, report) = desk.check(SITE).outcome.unwrap();
    let warnings: Vec<_> = report.warnings().collect();
    assert_eq!(warnings.len(), 1, "{report}");
    assert!(warnings[0].message.starts_with("the certificate in `site.crt` expires on 20"), "{report}");
    assert_eq!((warnings[0].line, warnings[0].column), (4, 33));
}

#[test]
fn a_key_for_all_eyes_is_odd() {
    let desk = Desk::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(desk.path().join("site.key"), open).unwrap();
    assert_snapshot!(desk.said(SITE), @r#"
    warning: everybody on this machine can read this private key
     --> evener.toml:4:51
      |
    4 | certificates = [{ certificate = "site.crt", key = "site.key" }]
      |                                                   ^^^^^^^^^^ readable by all
      |
      = help: `chmod 600 site.key`, and let it belong to the user that runs Evener

    1 warning in evener.toml
    "#);
}

#[test]
fn every_certificate_can_be_asked_for() {
    let desk = Desk::new();
    let entry = |name: &str| format!("{{ certificate = \"{name}.crt\", key = \"{name}.key\" }}");
    let said = |names: &[&str]| {
        let entries: Vec<String> = names.iter().map(|name| entry(name)).collect();
        desk.said(&format!("certificates = [\n{}\n]", entries.join(",\n")))
    };
    desk.put("nameless", &desk.authority.issue(&[]));
    desk.put("address", &desk.authority.issue(&["192.0.2.7"]));
    desk.put("rsa", &desk.authority.issue_for(&["example.com"], Kind::Rsa));
    desk.put("twin", &desk.authority.issue(&["other.org", "example.com"]));
    assert_snapshot!(said(&["nameless"]), @r#"
    error: the certificate file `nameless.crt` names no host that clients could ask for
     --> evener.toml:5:17
      |
    5 | { certificate = "nameless.crt", key = "nameless.key" }
      |                 ^^^^^^^^^^^^^^ of no use
      |
      = help: have it issued with the host names as subject alternative names (openssl: `-addext subjectAltName=DNS:example.com`); browsers ignore the common name

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said(&["site", "rsa", "twin"]), @r#"
    error: two ECDSA certificates for `example.com`: `site.crt` and `twin.crt`
     --> evener.toml:7:1
      |
    7 | { certificate = "twin.crt", key = "twin.key" }
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the same name and type again
      |
      = help: keep one of them; of each type (ECDSA, RSA) there may be one for a name

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(said(&["site", "address"]), @r#"
    error: nobody would ever see `address.crt`: it is for addresses alone
     --> evener.toml:6:1
      |
    6 | { certificate = "address.crt", key = "address.key" }
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no host name
      |
      = help: put it first in the list: who asks for an address is shown the first certificate

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_eq!(said(&["address", "site", "rsa"]), "0 warnings in evener.toml");
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let desk = Desk::new();
    desk.put_text("clients.crt", "nobody");
    assert_snapshot!(desk.said(""), @r#"
    error: `tls` needs `certificates`
     --> evener.toml:3:1
      |
    3 | [listeners.https.tls]
      | ^^^^^^^^^^^^^^^^^^^^^ no `certificates` here
      |
      = help: add the server's certificate and its key: certificates = [{ certificate = "site.crt", key = "site.key" }]

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said("certificates = []"), @r#"
    error: a listener cannot speak TLS without a certificate
     --> evener.toml:4:16
      |
    4 | certificates = []
      |                ^^ empty
      |
      = help: name one at least: { certificate = "site.crt", key = "site.key" }

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said("certificates = [{ certificate = \"site.crt\", password = \"x\" }]"), @r#"
    error: an entry of `certificates` needs `key`
     --> evener.toml:4:17
      |
    4 | certificates = [{ certificate = "site.crt", password = "x" }]
      |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no `key` here
      |
      = help: add the file of its private key: key = "site.key"

    error: unknown key `password`
     --> evener.toml:4:45
      |
    4 | certificates = [{ certificate = "site.crt", password = "x" }]
      |                                             ^^^^^^^^ not a key of an entry of `certificates`
      |
      = help: Keys of an entry of `certificates`: certificate, key

    2 mistakes in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said(&format!("{SITE}\nclient_auth = \"required\"")), @r#"
    error: `client_auth` needs `client_ca`
     --> evener.toml:5:15
      |
    5 | client_auth = "required"
      |               ^^^^^^^^^^ whose certificates?
      |
      = help: add the authorities whose certificates clients have: client_ca = "clients.crt"

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said(&format!("{SITE}\nclient_ca = \"clients.crt\"\nclient_auth = \"maybe\"")), @r#"
    error: the file `clients.crt` has no certificate in it
     --> evener.toml:5:13
      |
    5 | client_ca = "clients.crt"
      |             ^^^^^^^^^^^^^ of no use
      |
      = help: it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`

    error: unknown way to treat clients `maybe`
     --> evener.toml:6:15
      |
    6 | client_auth = "maybe"
      |               ^^^^^^^ not a way to treat clients
      |
      = help: Accepted: required, optional

    2 mistakes in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said(&format!("{SITE}\nprotocols = []\nmin_version = \"1.1\"")), @r#"
    error: a listener without a protocol serves nobody
     --> evener.toml:5:13
      |
    5 | protocols = []
      |             ^^ empty
      |
      = help: leave it out for ["h2", "http/1.1"], or name one

    error: unknown version `1.1`
     --> evener.toml:6:15
      |
    6 | min_version = "1.1"
      |               ^^^^^ not a version
      |
      = help: did you mean `1.3`? Accepted: 1.2, 1.3

    2 mistakes in evener.toml; nothing was applied
    "#);
    assert_snapshot!(desk.said(&format!("{SITE}\nprotocols = [\"h3\"]\nhandshake_timeout = 10")), @r#"
    error: unknown protocol `h3`
     --> evener.toml:5:14
      |
    5 | protocols = ["h3"]
      |              ^^^^ not a protocol
      |
      = help: Accepted: h2, http/1.1

    error: the duration `10` has no unit
     --> evener.toml:6:21
      |
    6 | handshake_timeout = 10
      |                     ^^ seconds or milliseconds?
      |
      = help: write "10s" for seconds or "10ms" for milliseconds

    2 mistakes in evener.toml; nothing was applied
    "#);
}
