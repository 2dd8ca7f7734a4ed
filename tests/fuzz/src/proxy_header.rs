//! A PROXY header: the same however it is cut, the same client as ppp sees, and the same when written again.

use std::net::SocketAddr;

use evener::proxy_header::{Ends, Reading, Told, V2_BYTES_MAX, Version, read, write};
use ppp::{HeaderResult, v1, v2};

pub fn run(bytes: &[u8]) {
    let reading = read(bytes);
    check_growth(bytes, &reading);
    match reading {
        Reading::Partial => assert!(bytes.len() < V2_BYTES_MAX, "asks for more than it will look at"),
        Reading::Refused(_) => {}
        Reading::Complete { length, told } => {
            let client = match told {
                Told::Client(ends) => Some(ends),
                Told::Itself | Told::Unknown => None,
            };
            assert_eq!(by_ppp(&bytes[..length]), client);
            if let Some(ends) = client {
                check_written(&ends);
            }
        }
    }
}

/// A verdict comes when all that it needs is there, and stays.
fn check_growth(bytes: &[u8], reading: &Reading) {
    for end in 0..bytes.len() {
        let early = read(&bytes[..end]);
        assert!(early == Reading::Partial || early == *reading, "{end} bytes: {early:?}, all: {reading:?}");
        assert!(!matches!(early, Reading::Complete { length, .. } if length > end));
    }
}

fn check_written(ends: &Ends) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    for version in [Version::V1, Version::V2] {
        let header = write(version, ends);
        let Reading::Complete { length, told: Told::Client(again) } = read(&header) else {
            panic!("{version:?} of {ends:?} cannot be read")
        };
        assert_eq!(length, header.len());
        assert_eq!(
            (plain(again.source), plain(again.destination)),
            (plain(ends.source), plain(ends.destination))
        );
    }
}

/// The client of a connection over TCP.
fn by_ppp(header: &[u8]) -> Option<Ends> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(found) => Some(over_ipv4(&found)),
            v1::Addresses::Tcp6(found) => Some(over_ipv6(&found)),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(Ok(header)) if is_stream_of_client(&header) => match header.addresses {
            v2::Addresses::IPv4(found) => Some(over_ipv4(&found)),
            v2::Addresses::IPv6(found) => Some(over_ipv6(&found)),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        },
        _ => None,
    }
}

fn is_stream_of_client(header: &v2::Header<'_>) -> bool {
    header.command == v2::Command::Proxy && header.protocol == v2::Protocol::Stream
}

fn over_ipv4(found: &v2::IPv4) -> Ends {
    Ends {
        source: (found.source_address, found.source_port).into(),
        destination: (found.destination_address, found.destination_port).into(),
    }
}

fn over_ipv6(found: &v2::IPv6) -> Ends {
    Ends {
        source: (found.source_address, found.source_port).into(),
        destination: (found.destination_address, found.destination_port).into(),
    }
}
