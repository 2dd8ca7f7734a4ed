//! The stand-in for wrk: as many clients as asked for, each with one request under way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::exchange::{REQUEST, is_whole};

/// What one client saw: the time of each answer, and whether it had to give up.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    has_failed: bool,
}

/// Loads as the arguments say (`ADDRESS CONNECTIONS SECONDS`), and prints what `load` wants to know.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Option<()> {
    let address: SocketAddr = arguments.next()?.parse().ok()?;
    let connections: usize = arguments.next()?.parse().ok()?;
    let time = Duration::from_secs(arguments.next()?.parse().ok()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;

    let started = Instant::now();
    let clients = runtime.block_on(all_clients(address, connections, started + time));
    let elapsed = started.elapsed();

    let errors = clients.iter().filter(|seen| seen.has_failed).count();
    let mut latencies: Vec<Duration> = clients.into_iter().flat_map(|seen| seen.latencies).collect();
    latencies.sort_unstable();
    let percentile =
        |percent: usize| latencies.get(latencies.len() * percent / 100).map_or(0, Duration::as_micros);
    let (p50, p99) = (percentile(50), percentile(99));
    println!("figures {} {} {errors} {p50} {p99}", latencies.len(), elapsed.as_micros());
    Some(())
}

async fn all_clients(address: SocketAddr, connections: usize, until: Instant) -> Vec<Seen> {
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(client(address, until));
    }
    clients.join_all().await
}

async fn client(address: SocketAddr, until: Instant) -> Seen {
    let mut seen = Seen::default();
    seen.has_failed = ask_until(address, until, &mut seen.latencies).await.is_none();
    seen
}

async fn ask_until(address: SocketAddr, until: Instant, latencies: &mut Vec<Duration>) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut answer = Vec::with_capacity(4096);
    while Instant::now() < until {
        let asked = Instant::now();
        stream.write_all(REQUEST).await.ok()?;
        answer.clear();
        while !is_whole(&answer) {
            if stream.read_buf(&mut answer).await.ok()? == 0 || answer.len() >= 4096 {
                return None;
            }
        }
        latencies.push(asked.elapsed());
    }
    Some(())
}
