//! The PROXY protocol: one header in front of a connection, in which a proxy says for whom it connects.
//!
//! ```text
//!   bytes so far ──► read ──► Partial | Complete { length, told } | Refused      from a proxy before us
//!   client, where it connected to ──► write ──► bytes                            to an upstream behind us
//! ```
//!
//! Version 1 is a line of text, version 2 is binary; a reader takes both, a writer is told which. After
//! "The PROXY protocol, versions 1 & 2" (Willy Tarreau, 2020-03-05).
//!
//! **Why not a crate?** `ppp` 2.3 refuses for good a version 1 header that so far ends in a blank before its
//! last port, and a LOCAL header whose addresses are missing, which the specification says not to look at;
//! `proxy-header` 0.1 takes lines of any length that arrive in one piece. What is left of the work beside
//! such cases is splitting a line. The tests ask `ppp` for a second opinion.
//!
//! **Invariant**: this room uses `std` and nothing else (floor 0; see `tests/architecture.rs`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";

/// A version 1 header with its CRLF is no longer; so says the specification.
pub const V1_BYTES_MAX: usize = 107;

/// What version 2 begins with: nothing that HTTP or TLS could begin with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// A version 2 header is accepted up to this size. It may say up to 64 KiB; what real proxies add to the
/// addresses (TLS facts, ids of cloud endpoints) takes hundreds of bytes, and nginx stops here too.
pub const V2_BYTES_MAX: usize = 4096;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const STREAM_OVER_IPV4: u8 = 0x11;
const STREAM_OVER_IPV6: u8 = 0x21;

/// Which form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// As a configuration spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// What a header says about who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A client, by these addresses.
    Client(Ends),
    /// Somebody whose address the proxy does not know, or who has none that we could use.
    Unknown,
    /// The proxy itself: a health check.
    Itself,
}

/// How far the bytes at hand get us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The header is not complete yet.
    Partial,
    /// The header takes so many bytes; what follows is the client's.
    Complete {
        /// Bytes of the header.
        length: usize,
        /// What it says.
        told: Told,
    },
    /// No header, or none that can be trusted; the phrase is for the log.
    Refused(&'static str),
}

/// Reads a header of either version at the start of a growing buffer.
///
/// Never asks for more than [`V2_BYTES_MAX`] bytes.
pub fn read(bytes: &[u8]) -> Reading {
    if begins_alike(bytes, WORD) {
        read_v1(bytes)
    } else if begins_alike(bytes, SIGNATURE) {
        read_v2(bytes)
    } else {
        Reading::Refused("no PROXY header")
    }
}

/// Whether `bytes` begins with `start`, or may yet do.
fn begins_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

fn read_v1(bytes: &[u8]) -> Reading {
    let looked_at = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(line_feed) = looked_at.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() >= V1_BYTES_MAX {
            Reading::Refused("the line does not end")
        } else {
            Reading::Partial
        };
    };
    let line = bytes.get(WORD.len()..line_feed).and_then(|line| line.strip_suffix(b"\r"));
    match line.and_then(|line| std::str::from_utf8(line).ok()).and_then(told_in_words) {
        Some(told) => Reading::Complete { length: line_feed + 1, told },
        None => Reading::Refused("malformed line"),
    }
}

/// What stands behind the first word of version 1.
fn told_in_words(line: &str) -> Option<Told> {
    let (family, rest) = line.split_once(' ').unwrap_or((line, ""));
    match family {
        "TCP4" => ends_in_words::<std::net::Ipv4Addr>(rest),
        "TCP6" => ends_in_words::<Ipv6Addr>(rest),
        // What follows is to be ignored.
        "UNKNOWN" => Some(Told::Unknown),
        _ => None,
    }
}

fn ends_in_words<Address: FromStr + Into<IpAddr>>(words: &str) -> Option<Told> {
    let mut words = words.split(' ');
    let mut address = || words.next()?.parse::<Address>().ok().map(Into::into);
    let (source, destination): (IpAddr, IpAddr) = (address()?, address()?);
    let mut port = || words.next().and_then(port_in_words);
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then_some(Told::Client(Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// Decimal digits only, without a sign and without leading zeros.
fn port_in_words(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_plain.then(|| word.parse().ok()).flatten()
}

fn read_v2(bytes: &[u8]) -> Reading {
    let Some(&[command, family, high, low]) = bytes.get(SIGNATURE.len()..V2_FIXED_BYTES) else {
        return Reading::Partial;
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Reading::Refused("too long");
    }
    if command != LOCAL && command != PROXY {
        return Reading::Refused("unknown version or command");
    }
    let Some(block) = bytes.get(V2_FIXED_BYTES..length) else { return Reading::Partial };
    let told = if command == LOCAL { Ok(Told::Itself) } else { told_in_bytes(family, block) };
    match told {
        Ok(told) => Reading::Complete { length, told },
        Err(why) => Reading::Refused(why),
    }
}

/// What a version 2 header says of a client; whatever follows the addresses is passed over.
fn told_in_bytes(family: u8, block: &[u8]) -> Result<Told, &'static str> {
    let ends = match family {
        STREAM_OVER_IPV4 => ends_in_bytes::<4>(block),
        STREAM_OVER_IPV6 => ends_in_bytes::<16>(block),
        // Of no known family, a Unix socket, or datagrams: valid, but no address of ours.
        _ if family >> 4 <= 3 && family & 15 <= 2 => return Ok(Told::Unknown),
        _ => return Err("unknown family"),
    };
    ends.map(Told::Client).ok_or("addresses are missing")
}

/// Source, destination, source port, destination port.
fn ends_in_bytes<const BYTES: usize>(block: &[u8]) -> Option<Ends>
where
    [u8; BYTES]: Into<IpAddr>,
{
    let (source, rest) = block.split_first_chunk::<BYTES>()?;
    let (destination, rest) = rest.split_first_chunk::<BYTES>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(Ends {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

/// A header for a connection on behalf of a client.
///
/// Addresses of IPv4 in the clothes of IPv6 are written as what they are; if only one end is of IPv4, it is
/// dressed, since a header knows one family.
pub fn write(version: Version, ends: &Ends) -> Vec<u8> {
    let (source, destination) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    let ports = [ends.source.port(), ends.destination.port()];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => match version {
            Version::V1 => line("TCP4", source, destination, ports),
            Version::V2 => block(STREAM_OVER_IPV4, &source.octets(), &destination.octets(), ports),
        },
        (source, destination) => {
            let (source, destination) = (dressed(source), dressed(destination));
            match version {
                Version::V1 => line("TCP6", source, destination, ports),
                Version::V2 => block(STREAM_OVER_IPV6, &source.octets(), &destination.octets(), ports),
            }
        }
    }
}

/// A header for a connection of our own: a health check.
pub const fn write_own(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n",
        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

const fn dressed(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn line<Address: std::fmt::Display>(
    family: &str,
    source: Address,
    destination: Address,
    [source_port, destination_port]: [u16; 2],
) -> Vec<u8> {
    format!("PROXY {family} {source} {destination} {source_port} {destination_port}\r\n").into_bytes()
}

fn block(family: u8, source: &[u8], destination: &[u8], ports: [u16; 2]) -> Vec<u8> {
    let ports = ports.map(u16::to_be_bytes);
    // An address has 4 or 16 bytes.
    let length = u16::try_from(source.len() + destination.len() + ports.as_flattened().len());
    let length = length.unwrap_or_default().to_be_bytes();
    [SIGNATURE, &[PROXY, family], &length, source, destination, ports.as_flattened()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn told(header: impl AsRef<[u8]>) -> Told {
        match read(header.as_ref()) {
            Reading::Complete { length, told } if length == header.as_ref().len() => told,
            other => panic!("{other:?}"),
        }
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    #[test]
    fn a_line_tells_the_client() {
        for (header, source, destination) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", "192.0.2.7:4711", "198.51.100.1:443"),
            ("PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", "[2001:db8::7]:0", "[::1]:65535"),
        ] {
            assert_eq!(told(header), Told::Client(ends(source, destination)), "{header}");
        }
        assert_eq!(told("PROXY UNKNOWN\r\n"), Told::Unknown);
        assert_eq!(told("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Told::Unknown);
    }

    #[test]
    fn a_line_that_could_mean_two_things_means_none() {
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n",
            "PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.1.1.1 ::1 1 1\r\n",
            "PROXY TCP6 fe80::1%1 ::1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n",
            "PROXY TCP4\t1.1.1.1 1.1.1.1 1 1\r\n",
            "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        ] {
            assert!(matches!(read(line.as_bytes()), Reading::Refused(_)), "{line:?}");
        }
        assert!(matches!(read(b"PROXY UNKNOWN \xff\r\n"), Reading::Refused(_)));
    }

    #[test]
    fn a_line_has_an_end() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
        assert_eq!((longest.len(), told(&longest)), (V1_BYTES_MAX, Told::Unknown));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
        assert_eq!(read(longer.as_bytes()), Reading::Refused("the line does not end"));
        assert_eq!(read(&longer.as_bytes()[..V1_BYTES_MAX - 1]), Reading::Partial);
    }

    #[test]
    fn a_binary_header_tells_the_client() {
        let block = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let expected = Told::Client(ends("192.0.2.7:4711", "198.51.100.1:443"));
        assert_eq!(told(v2(PROXY, 0x11, &block)), expected);
        let mut with_more = block.to_vec();
        with_more.extend([0x04, 0, 3, 0, 0, 0, 0xEA, 0, 1, 7]);
        assert_eq!(told(v2(PROXY, 0x11, &with_more)), expected);
        let mut block = [0; 36];
        (block[15], block[31], block[33], block[35]) = (1, 2, 3, 4);
        assert_eq!(told(v2(PROXY, 0x21, &block)), Told::Client(ends("[::1]:3", "[::2]:4")));
    }

    /// Health checks by proxies, and proxies of what has no address.
    #[test]
    fn a_binary_header_may_tell_of_no_client() {
        assert_eq!(told(v2(LOCAL, 0, &[])), Told::Itself);
        assert_eq!(told(v2(LOCAL, 0x11, &[])), Told::Itself);
        assert_eq!(told(v2(LOCAL, 0xFF, &[1, 2, 3])), Told::Itself);
        for family in [0x00, 0x01, 0x12, 0x22, 0x31, 0x32] {
            assert_eq!(told(v2(PROXY, family, &[0; 216])), Told::Unknown, "{family:#x}");
        }
    }

    #[test]
    fn a_binary_header_of_another_kind_is_refused() {
        for header in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(PROXY, 0x41, &[0; 216]),
            v2(PROXY, 0x13, &[0; 12]),
            v2(PROXY, 0x11, &[0; 11]),
            v2(PROXY, 0x21, &[0; 35]),
        ] {
            assert!(matches!(read(&header), Reading::Refused(_)), "{header:?}");
        }
    }

    #[test]
    fn a_binary_header_is_bounded() {
        let most = V2_BYTES_MAX - V2_FIXED_BYTES;
        assert_eq!(told(v2(LOCAL, 0, &vec![0; most])), Told::Itself);
        let announced = v2(LOCAL, 0, &vec![0; most + 1]);
        assert_eq!(read(&announced[..V2_FIXED_BYTES]), Reading::Refused("too long"));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_byte() {
        for bytes in
            ["G", "POST / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\n", "\x16\x03\x01", "\r\n\r\nG", "PROXX"]
        {
            assert_eq!(read(bytes.as_bytes()), Reading::Refused("no PROXY header"), "{bytes:?}");
        }
        assert_eq!(read(b""), Reading::Partial);
    }

    #[test]
    fn a_header_of_our_own_tells_of_no_client() {
        assert_eq!(told(write_own(Version::V1)), Told::Unknown);
        assert_eq!(told(write_own(Version::V2)), Told::Itself);
    }

    #[test]
    fn one_family_holds_for_both_ends() {
        let mapped = ends("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.8]:2");
        assert_eq!(write(Version::V1, &mapped), b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n");
        let mixed = ends("192.0.2.7:1", "[2001:db8::1]:2");
        assert_eq!(write(Version::V1, &mixed), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n");
        assert_eq!(
            told(write(Version::V2, &mixed)),
            Told::Client(ends("[::ffff:192.0.2.7]:1", "[2001:db8::1]:2"))
        );
    }

    fn any_ends() -> impl Strategy<Value = Ends> {
        let v4 =
            any::<([u8; 4], [u8; 4])>().prop_map(|(one, other)| (IpAddr::from(one), IpAddr::from(other)));
        let v6 =
            any::<([u8; 16], [u8; 16])>().prop_map(|(one, other)| (IpAddr::from(one), IpAddr::from(other)));
        (prop_oneof![v4, v6], any::<u16>(), any::<u16>()).prop_map(|((source, destination), one, other)| {
            Ends { source: SocketAddr::new(source, one), destination: SocketAddr::new(destination, other) }
        })
    }

    fn opinion_of_ppp(bytes: &[u8]) -> Option<usize> {
        match ppp::HeaderResult::parse(bytes) {
            ppp::HeaderResult::V1(header) => header.ok().map(|header| header.header.len()),
            ppp::HeaderResult::V2(header) => header.ok().map(|header| header.as_bytes().len()),
        }
    }

    proptest! {
        /// Whatever is cut off, and whatever follows: the same header, or not complete yet.
        #[test]
        fn a_header_is_read_however_it_comes(ends in any_ends(), is_v1: bool, more: Vec<u8>) {
            let version = if is_v1 { Version::V1 } else { Version::V2 };
            let header = write(version, &ends);
            prop_assert_eq!(opinion_of_ppp(&header), Some(header.len()));
            for cut in 0..header.len() {
                prop_assert_eq!(read(&header[..cut]), Reading::Partial, "cut at {}", cut);
            }
            let expected = Reading::Complete { length: header.len(), told: Told::Client(ends) };
            prop_assert_eq!(read(&[header, more].concat()), expected);
        }

        /// What we read is never longer than what there is, and more bytes change no verdict.
        #[test]
        fn no_bytes_are_too_odd(start in 0..4, bytes: Vec<u8>, more: Vec<u8>) {
            let starts: [&[u8]; 4] = [b"", b"PROXY ", b"PROXY TCP4 1.1.1.1 ", SIGNATURE];
            let bytes = [starts[usize::try_from(start).unwrap()], &bytes].concat();
            let reading = read(&bytes);
            if let Reading::Complete { length, .. } = reading {
                prop_assert!(length <= bytes.len());
            }
            if reading != Reading::Partial {
                prop_assert_eq!(read(&[bytes, more].concat()), reading);
            }
        }
    }
}
