//! Ports of loopback that stay a server's own while it is down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port on which somebody listens.
pub(super) struct Port {
    pub address: SocketAddr,
    pub listener: TcpListener,
    /// Holds the port when nobody listens: without it, any outgoing connection could be given the port, and
    /// keep it from the server for as long as it lives.
    pub reserve: Option<Socket>,
}

impl Port {
    /// A free port, for one that will stop listening at times or not.
    ///
    /// # Errors
    ///
    /// When there is no port or no file descriptor left.
    pub(super) fn take(is_shut_at_times: bool) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        if !(is_shut_at_times && CAN_SHARE) {
            let listener = listen(any)?;
            return Ok(Self { address: listener.local_addr()?, listener, reserve: None });
        }
        let reserve = bind(any)?;
        let address = reserve.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { address, listener: listen(address)?, reserve: Some(reserve) })
    }
}

/// Whether two sockets may be bound to one port while at most one of them listens. Elsewhere the port is
/// free while its server is down, and the server waits until it can have it again.
const CAN_SHARE: bool = cfg!(target_os = "linux");

/// Listens there, without blocking.
///
/// # Errors
///
/// When somebody else has the port.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connections of before, which the kernel remembers for a while, are no hindrance.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Enough for a balancer that opens all its connections at once; the kernel may allow fewer.
const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reserved_port_refuses_stays_ours_and_comes_back() {
        let Port { address, listener, reserve } = Port::take(true).expect("a port");
        assert!(TcpStream::connect(address).is_ok());
        drop(listener);
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("another port");
        assert_ne!(taken.local_addr().expect("an address"), address);
        let _listener = listen(address).expect("it is ours");
        assert!(TcpStream::connect(address).is_ok());
        drop(reserve);
    }
}
