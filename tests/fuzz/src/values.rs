//! Durations, sizes, addresses, names: what is read and written again is the same.

use std::time::Duration;

use evener::config::{addresses_in, limits, read_address, read_duration, read_size, resolved_address};
use evener::fuzzing::config as read;
use evener::route::{HostPattern, PathPrefix};

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    times_and_sizes(text);
    addresses(text);
    words(text);
}

fn times_and_sizes(text: &str) {
    if let Some(duration) = read::duration(text) {
        assert!(duration <= limits::DURATION_MAX);
        assert_eq!(read::duration(&read::duration_text(duration)), Some(duration));
    }
    let most = Duration::from_secs(60);
    match read_duration(text, most) {
        Ok(duration) => assert!(duration <= most),
        Err((message, help)) => assert!(!message.is_empty() && !help.is_empty()),
    }
    if let Some(bytes) = read::size(text, u64::MAX) {
        assert_eq!(read::size(&read::size_text(bytes), u64::MAX), Some(bytes));
    }
    if let Ok(bytes) = read_size(text, 1 << 20) {
        assert!(bytes <= 1 << 20);
    }
}

fn addresses(text: &str) {
    if let Some(address) = read::own_address(text) {
        assert_ne!(address.port(), 0);
        assert_eq!(read::own_address(&address.to_string()), Some(address));
    }
    if let Some(network) = read::network(text) {
        assert_eq!(network, network.trunc());
        assert_eq!(read::network(&network.to_string()), Some(network));
    }
    if let Ok(address) = read_address(text) {
        let told = address.to_string();
        assert_eq!(resolved_address(&told).as_ref(), Some(&address), "{told}");
        assert_eq!(read_address(&told).as_ref(), Ok(&address), "{told}");
    }
    if let Some(path) = read::unix_path(text) {
        assert!(path.is_absolute() && text.len() < 108);
    }
    for part in addresses_in(text) {
        assert!(!part.is_empty() && part.trim() == part);
    }
}

fn words(text: &str) {
    if let Some(name) = read::name(text) {
        assert_eq!(name, text);
        assert!(name.len() <= limits::NAME_BYTES_MAX);
    }
    if let Some(name) = read::header_name(text) {
        assert_eq!(name, text.to_ascii_lowercase());
    }
    if let Some(value) = read::header_value(text) {
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    if let Ok(host) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&host.to_string()), Ok(host));
    }
    if let Ok(prefix) = PathPrefix::parse(text) {
        assert!(prefix.matches(prefix.as_str()));
        assert_eq!(PathPrefix::parse(prefix.as_str()), Ok(prefix));
    }
    assert!(!read::shown(text).chars().any(char::is_control), "a message cannot steer a terminal");
}
