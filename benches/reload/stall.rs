//! Whether a reload holds requests up: latency under a steady load, without reloads and with one every
//! half a second.
//!
//! The load is open: each request has its time, and one that could not be sent then because the answer
//! before it was late counts from that time, so that a stall is not seen by one request only. The kinds of
//! reload take turns, so that what else the machine does falls on all.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::text::{Large, host};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const POOLS: usize = 1_000;
const UPSTREAMS_EACH: usize = 10;

/// Pools that get requests: so many that most upstreams' connections stay warm.
const BUSY_POOLS: usize = 50;

/// Requests per second, over so many connections: far below what saturates.
const RATE: u32 = 2_000;
const CLIENTS: u32 = 32;

const EVERY: Duration = Duration::from_millis(500);

/// What a reload may add at p99.9.
const GOAL: Duration = Duration::from_millis(5);

const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 3;

/// The first round of ten thousand health checks takes its time on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What each reload changes.
#[derive(Clone, Copy)]
enum Kind {
    None,
    OneWeight,
    EveryWeight,
    /// Of one upstream in ten. A pool whose upstreams are all new has to wait for the first health check.
    SomeAddresses,
}

impl Kind {
    const ALL: [(Self, &str); 4] = [
        (Self::None, "no reload"),
        (Self::OneWeight, "of one upstream's weight"),
        (Self::EveryWeight, "of every weight"),
        (Self::SomeAddresses, "of every tenth address"),
    ];

    fn other(self, base: Large) -> Option<Large> {
        match self {
            Self::None => None,
            Self::OneWeight => Some(Large { first_weight: base.weight + 1, ..base }),
            Self::EveryWeight => Some(Large { weight: base.weight + 1, ..base }),
            Self::SomeAddresses => Some(Large { moved: Some(UPSTREAMS_EACH), ..base }),
        }
    }
}

pub(crate) fn measure(is_quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let (turn, turns) = if is_quick { (TURN / 4, 1) } else { (TURN, TURNS) };
    try_measure(turn, turns).map_err(|failure| failure as Box<dyn std::error::Error>)
}

fn try_measure(turn: Duration, turns: usize) -> Result<(), Failure> {
    let base = Large { port: start_origin()?, ..Large::new(POOLS, UPSTREAMS_EACH) };
    let evener = Evener::start(base)?;
    run_load(evener.address, turn)?;
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); Kind::ALL.len()];
    let mut reloads = vec![0; Kind::ALL.len()];
    for _ in 0..turns {
        for (index, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            let address = evener.address;
            let load = thread::spawn(move || run_load(address, turn));
            reloads[index] += evener.reload_for(turn, base, kind)?;
            times[index].extend(load.join().map_err(|_| "the load failed")??);
            evener.load(base)?;
        }
    }
    tell(times, &reloads);
    Ok(())
}

fn tell(times: Vec<Vec<Duration>>, reloads: &[usize]) {
    println!(
        "{POOLS} pools x {UPSTREAMS_EACH} upstreams, {RATE} requests/s, a reload every {EVERY:?}: latency in ms"
    );
    println!("{:28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}", "", "reloads", "requests", "p50", "p99", "p99.9", "max");
    let mut quiet = Duration::ZERO;
    for ((mut times, (kind, name)), reloads) in times.into_iter().zip(Kind::ALL).zip(reloads) {
        times.sort_unstable();
        let at = |thousandths: usize| {
            let index = times.len() * thousandths / 1_000;
            times.get(index).or(times.last()).copied().unwrap_or_default()
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [p50, p99, p999, max] = [500, 990, 999, 1_000].map(at);
        print!(
            "{name:28}{reloads:>9}{:>9}{:9.2}{:9.2}{:9.2}{:9.2}",
            times.len(),
            ms(p50),
            ms(p99),
            ms(p999),
            ms(max)
        );
        match kind {
            Kind::None => quiet = p999,
            _ if p999 <= quiet + GOAL => print!("  goal: at most {GOAL:?} more at p99.9, reached"),
            _ => print!("  goal: at most {GOAL:?} more at p99.9, missed"),
        }
        println!();
    }
}

/// The binary; killed on drop.
struct Evener {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Evener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Evener {
    fn start(base: Large) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("evener.toml");
        let (address, admin) = (free_address()?, free_address()?);
        fs::write(&file, base.with_listeners(address, admin))?;
        let process = Command::new(env!("CARGO_BIN_EXE_evener"))
            .args(["run", "--no-watch", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()?;
        let evener = Self { process, address, admin, file, _folder: folder };
        let started = Instant::now();
        while ask(admin, "GET", "/readyz").map_or(true, |answer| !answer.starts_with("HTTP/1.1 200")) {
            if started.elapsed() > START_DEADLINE {
                return Err("Evener does not get ready".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(evener)
    }

    /// Changes the file and has it reloaded, to and fro; answers with how often.
    fn reload_for(&self, time: Duration, base: Large, kind: Kind) -> Result<usize, Failure> {
        let until = Instant::now() + time;
        let Some(other) = kind.other(base) else {
            thread::sleep(time);
            return Ok(0);
        };
        let mut reloads = 0;
        while Instant::now() + EVERY < until {
            let next = Instant::now() + EVERY;
            self.load(if reloads % 2 == 0 { other } else { base })?;
            reloads += 1;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(reloads)
    }

    fn load(&self, large: Large) -> Result<(), Failure> {
        replace(&self.file, &large.with_listeners(self.address, self.admin))?;
        let answer = ask(self.admin, "POST", "/v1/reload")?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer.into()) }
    }
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(START_DEADLINE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// One process that is every upstream, for as long as this one runs.
fn start_origin() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            }
        });
    });
    Ok(port)
}

async fn serve(mut stream: tokio::net::TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut head = Vec::with_capacity(4096);
    while stream.read_buf(&mut head).await.is_ok_and(|length| length > 0) {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// Latency of every request.
fn run_load(address: SocketAddr, time: Duration) -> Result<Vec<Duration>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(client(address, number, began, began + time));
        }
        let mut all = Vec::new();
        while let Some(times) = clients.join_next().await {
            all.extend(times??);
        }
        Ok(all)
    })
}

async fn client(
    address: SocketAddr,
    number: u32,
    began: Instant,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let pause = Duration::from_secs(1) * CLIENTS / RATE;
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut due = began + pause * number / CLIENTS;
    let (mut times, mut answer) = (Vec::new(), Vec::with_capacity(4096));
    while due < until {
        let from = if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            Instant::now()
        } else {
            due
        };
        let pool = NUMBER.fetch_add(1, Ordering::Relaxed) % BUSY_POOLS * (POOLS / BUSY_POOLS);
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(pool));
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(b"\r\n\r\nok") {
            if stream.read_buf(&mut answer).await? == 0 || answer.len() > 4000 {
                return Err(format!("unexpected answer: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(format!("unexpected answer: {}", String::from_utf8_lossy(&answer)).into());
        }
        times.push(from.elapsed());
        due += pause;
    }
    Ok(times)
}
