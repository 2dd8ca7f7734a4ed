//! Ports that nobody else gets.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

/// Below what Linux (32768 up) and macOS (49152 up) hand out by themselves: an outgoing connection, or
/// a `bind` to port 0 elsewhere, can never take a reserved port.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A free port on loopback, given out once in this process.
pub(crate) fn reserve_port() -> u16 {
    (0..COUNT).map(|_| candidate()).find(|&port| is_free(port)).expect("one of twenty thousand ports is free")
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
    let patience = std::time::Duration::from_millis(200);
    std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).take(16).collect()
}

/// Starts at a place that depends on the process, so that two runs at a time seldom meet.
fn candidate() -> u16 {
    let process = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    let start = u32::from(process) * 37;
    let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
    FIRST + u16::try_from(offset).unwrap_or(0)
}

/// On both families, though a machine may lack the second.
fn is_free(port: u16) -> bool {
    let taken =
        |bound: io::Result<TcpListener>| bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    TcpListener::bind(("127.0.0.1", port)).is_ok() && !taken(TcpListener::bind(("::1", port)))
}
