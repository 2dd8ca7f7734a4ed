//! Ports that nobody else gets.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Below what Linux (32768 up) and macOS (49152 up) hand out by themselves: an outgoing connection, or
/// a `bind` to port 0 elsewhere, can never take a reserved port.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 40;

/// A full run needs some three of these.
const BLOCK: u16 = 500;

/// Blocks of ports that are ours as long as this process lives, and what of the last one is not given out.
///
/// Whoever listens on the first port of a block owns the others: two runs at a time never meet.
struct Reserve {
    claims: Vec<TcpListener>,
    left: std::ops::Range<u16>,
}

static RESERVE: Mutex<Reserve> = Mutex::new(Reserve { claims: Vec::new(), left: 0..0 });

/// A free port on loopback, given out once on this machine while this process lives.
pub(crate) fn reserve_port() -> u16 {
    let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match reserve.left.next() {
            Some(port) if is_free(port) => return port,
            Some(_) => {}
            None => reserve.claim_block(),
        }
    }
}

impl Reserve {
    fn claim_block(&mut self) {
        let bind = |first: u16| TcpListener::bind(("127.0.0.1", first)).ok().map(|claim| (first, claim));
        let claimed = (0..BLOCKS).map(|number| FIRST + number * BLOCK).find_map(bind);
        let (first, claim) = claimed.expect("one of forty blocks of ports is free");
        self.claims.push(claim);
        self.left = first + 1..first + BLOCK;
    }
}

/// An address that takes no connection and refuses none: its queue is full, so a connect never ends.
///
/// The sockets that fill the queue live as long as the process does.
pub(crate) fn unreachable_address() -> SocketAddr {
    let (give, take) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("a runtime").block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            // A connection of an earlier run, long closed, may still be remembered on this port.
            socket.set_reuseaddr(true).expect("reuse the address");
            let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
            socket.bind(address).expect("bind");
            let _listener = socket.listen(1).expect("listen");
            let _queued = fill_queue(address);
            give.send(address).expect("somebody asked");
            std::future::pending::<()>().await;
        });
    });
    take.recv().expect("the thread answers")
}

/// Connects until a connect gets no answer.
fn fill_queue(address: SocketAddr) -> Vec<TcpStream> {
    std::iter::from_fn(|| TcpStream::connect_timeout(&address, PATIENCE).ok()).take(16).collect()
}

/// Whether nobody listens there, on either family. To ask by binding would take the port for a moment, or for
/// longer: a child process that is just being started holds what is bound now until it runs its program.
fn is_free(port: u16) -> bool {
    let answers = |address: SocketAddr| TcpStream::connect_timeout(&address, PATIENCE).is_ok();
    !answers(([127, 0, 0, 1], port).into()) && !answers((Ipv6Addr::LOCALHOST, port).into())
}

/// Loopback answers or refuses at once.
const PATIENCE: Duration = Duration::from_millis(200);
