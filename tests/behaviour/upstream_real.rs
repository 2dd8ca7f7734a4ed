//! TLS and HTTP/2 to servers that no one here wrote: nginx, and gRPC's own library for Python.

use std::env;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::rig::{AuthorityFolder, Background, Client, Evener, Pair, quoted, reserve_port, wait_until};

/// To start, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "app.internal";

/// A child process, ended with the play.
struct Server {
    process: Child,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(mut command: Command, folder: TempDir, port: u16) -> Self {
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        wait_until(PATIENCE, || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
        Self { process, _folder: folder }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().expect("a pipe"), "{line}").expect("write");
    }
}

/// Ports of an nginx: HTTP/2 in clear, over TLS, and a TLS that knows HTTP/1.1 only.
struct Ports {
    clear: u16,
    secure: u16,
    old: u16,
}

fn nginx(pair: &Pair) -> Option<(Server, Ports)> {
    let program =
        found(&["/usr/sbin/nginx", "/usr/bin/nginx"], "apt-get install nginx-light (or `make setup`)")?;
    let ports = Ports { clear: reserve_port(), secure: reserve_port(), old: reserve_port() };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = fs::read_to_string(scripts().join("nginx.conf")).expect("read");
    let text = [
        ("FOLDER", folder.path().display().to_string()),
        ("CERTIFICATE", pair.certificate.display().to_string()),
        ("KEY", pair.key.display().to_string()),
        ("CLEAR", ports.clear.to_string()),
        ("SECURE", ports.secure.to_string()),
        ("OLD", ports.old.to_string()),
    ]
    .iter()
    .fold(text, |text, (word, value)| text.replace(word, value));
    let file = folder.path().join("nginx.conf");
    fs::write(&file, text).expect("write");
    let mut command = Command::new(program);
    // Without its master, one signal ends all of it.
    command.args(["-g", "master_process off;", "-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(file);
    Some((Server::start(command, folder, ports.clear), ports))
}

fn grpc_server(pair: &Pair, port: u16, more: &[&str]) -> Option<Server> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/grpc/bin/python");
    let python = found(&[&python.display().to_string()], "`make setup`")?;
    let mut command = Command::new(python);
    command.arg(scripts().join("grpc_server.py")).arg(port.to_string());
    command.arg(&pair.certificate).arg(&pair.key).args(more);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(Server::start(command, tempfile::tempdir().expect("a temporary folder"), port))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/upstream_real")
}

/// If it is not there, the play fails with what to do; where `CI_ALLOW_MISSING` is set, it is left out, and
/// says so.
#[track_caller]
fn found(places: &[&str], advice: &str) -> Option<PathBuf> {
    let program = places.iter().map(PathBuf::from).find(|place| place.is_file());
    if program.is_none() {
        assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "{} is missing: {advice}", places[0]);
        eprintln!("!!! LEFT OUT, {} is missing: {advice}", places[0]);
    }
    program
}

fn pool(name: &str, port: u16, protocol: &str, tls: &str) -> String {
    format!(
        "[routes.{name}]\npath_prefix = \"/{name}\"\npool = \"{name}\"\n[pools.{name}]\n\
         upstreams = [\"127.0.0.1:{port}\"]\nprotocol = \"{protocol}\"\n{tls}\n\
         ejection = {{ consecutive_failures = 1 }}\n"
    )
}

/// nginx leaves its connections again and again, in the middle of the traffic.
#[test]
fn nginx_is_spoken_to_in_whatever_it_understands() {
    let authority = AuthorityFolder::new();
    let Some((_nginx, ports)) = nginx(&authority.certificate(NAME)) else { return };
    let tls = format!("tls = {{ server_name = \"{NAME}\", ca = {} }}", quoted(&authority.file()));
    let pools = [
        ("clear", ports.clear, "http2", "", "HTTP/2.0 \n"),
        ("two", ports.secure, "http2", &*tls, "HTTP/2.0 app.internal\n"),
        ("auto", ports.secure, "auto", &tls, "HTTP/2.0 app.internal\n"),
        ("one", ports.secure, "http1", &tls, "HTTP/1.1 app.internal\n"),
        ("old", ports.old, "auto", &tls, "HTTP/1.1 app.internal\n"),
    ];
    let text: String =
        pools.iter().map(|(name, port, protocol, tls, _)| pool(name, *port, protocol, tls)).collect();
    let evener = Evener::start(&text);
    let address = evener.address();
    let clients: Vec<Background<()>> = pools
        .iter()
        .flat_map(|&(name, _, _, _, expected)| {
            (0..4).map(move |_| {
                let (path, expected) = (format!("/{name}"), expected.to_owned());
                Background::run(move || {
                    let mut client = Client::connect(address);
                    (0..200).for_each(|_| {
                        let answer = client.get(&path).expect_status(200);
                        assert_eq!(answer.body(), expected, "{path}");
                    });
                })
            })
        })
        .collect();
    clients.into_iter().for_each(Background::join);
    evener.admin().expect_metric("evener_upstream_ejections_total", &[], 0.0);
    evener.admin().wait_for_rest();
}

#[test]
fn the_health_service_of_grpcs_own_library_is_understood() {
    let (authority, port) = (AuthorityFolder::new(), reserve_port());
    let pair = authority.certificate(NAME);
    let Some(mut server) = grpc_server(&pair, port, &[]) else { return };
    let checked = |port: u16, service: &str| {
        Evener::start(&format!(
            "[pools.app]\nupstreams = [\"127.0.0.1:{port}\"]\nprotocol = \"http2\"\n\
             tls = {{ server_name = \"{NAME}\", ca = {} }}\n\
             health_check = {{ grpc = true, service = \"{service}\", interval = \"200ms\", \
             fast_interval = \"100ms\", rise = 1, fall = 1 }}",
            quoted(&authority.file())
        ))
    };
    let wait_for = |evener: &Evener, port: u16, health: &str, error: &str| {
        wait_until(PATIENCE, || {
            let upstream = evener.admin().json(&format!("/v1/pools/app/upstreams/127.0.0.1:{port}"));
            let told = upstream["last_check"]["error"].as_str().unwrap_or_default().to_owned();
            upstream["health"] == health && told.contains(error)
        });
    };
    let evener = checked(port, "orders.v1.Orders");
    wait_for(&evener, port, "up", "");
    server.tell("orders.v1.Orders NOT_SERVING");
    wait_for(&evener, port, "down", "NOT_SERVING");
    server.tell("orders.v1.Orders SERVING");
    wait_for(&evener, port, "up", "");

    wait_for(&checked(port, ""), port, "up", "");
    wait_for(&checked(port, "nobody"), port, "down", "the server knows no service `nobody`");
    let port = reserve_port();
    let _bare = grpc_server(&pair, port, &["bare"]);
    wait_for(&checked(port, ""), port, "down", "does not implement grpc.health.v1.Health");
}
