//! What the plays need: a real Evener, upstreams that can misbehave, and a client that sees every byte.
//!
//! ```text
//!   Client ──raw bytes──► Evener (the binary, a child process) ──► Origin (threads and sockets, here)
//!     ▲                        │
//!     └── message.rs: the HTTP/1.1 reader that both ends share, strict about framing and line ends
//! ```
//!
//! Nothing of HTTP/1.1 here uses a library: it would repair, or hide, what the plays want to see. HTTP/2 has both:
//! `h2.rs` is a client by the h2 crate, `frames.rs` sends and reads frames byte by byte.

mod certificates;
mod client;
mod default_ports;
mod evener;
pub(crate) mod frames;
pub(crate) mod h2;
mod message;
mod modern;
mod origin;
mod ports;
mod secure;
mod tests;
mod tls;
mod wire;

pub(crate) use certificates::{Authority, Issued, Kind, put};
pub(crate) use client::{Background, Client, Load, wait_until};
pub(crate) use default_ports::DefaultPorts;
pub(crate) use evener::{Evener, run_to_end, run_to_end_with_environment};
pub(crate) use message::Response;
pub(crate) use modern::{Act, Call, Modern, Setup, mute_server};
pub(crate) use origin::{Origin, Reply, Request};
pub(crate) use ports::{reserve_port, unreachable_address};
pub(crate) use secure::{AuthorityFolder, Pair, quoted};
pub(crate) use tls::{TlsClient, certificate_of};
pub(crate) use wire::Socket;
