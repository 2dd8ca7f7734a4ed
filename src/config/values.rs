//! Reads single values: durations, sizes, addresses, names. Text in, value or advice out.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::limits::{DURATION_MAX, NAME_BYTES_MAX, UNIX_PATH_BYTES_MAX};
use super::report::Wrong;

/// Reads a duration written with its unit: `250ms`, `2s`, `1m`, `1h`, or several of them, `1m30s`.
///
/// # Errors
///
/// Refuses a bare number (seconds or milliseconds?), anything below `least`, and anything above
/// [`DURATION_MAX`] (24 h), each with the spelling that would be accepted.
pub(super) fn duration(text: &str, least: Duration) -> Result<Duration, Wrong> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(duration_without_unit(text));
    }
    let duration = sum_of_parts(text, &DURATION_UNITS).map(Duration::from_millis).ok_or_else(|| {
        Wrong::new(
            format!("`{}` is no duration", shown(text)),
            "not a whole number with a unit",
            "write whole numbers with `ms`, `s`, `m` or `h`: \"500ms\", \"30s\", \"1m30s\", \"2h\"",
        )
    })?;
    in_range(duration, least, DURATION_MAX, duration_text)
}

/// What is said about `timeout = 30`.
pub(super) fn duration_without_unit(number: &str) -> Wrong {
    Wrong::new(
        format!("the duration `{}` has no unit", shown(number)),
        "seconds or milliseconds?",
        format!("write \"{0}s\" for seconds or \"{0}ms\" for milliseconds", shown(number)),
    )
}

/// Reads a size written with its unit: `512B`, `64KiB`, `8MiB`, `1GiB`; zero needs none.
///
/// # Errors
///
/// Refuses bare numbers, decimal units (`KB` means 1000 to some and 1024 to others), and what is outside
/// of `least..=most` bytes.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, Wrong> {
    if text == "0" && least == 0 {
        return Ok(0);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(size_without_unit(text));
    }
    if let Some(wrong) = decimal_unit(text) {
        return Err(wrong);
    }
    let bytes = sum_of_parts(text, &SIZE_UNITS).ok_or_else(|| {
        Wrong::new(
            format!("`{}` is no size", shown(text)),
            "not a whole number with a unit",
            "write a whole number with `B`, `KiB`, `MiB` or `GiB`: \"64KiB\", \"8MiB\"",
        )
    })?;
    in_range(bytes, least, most, size_text)
}

/// What is said about `max_header_size = 65536`.
pub(super) fn size_without_unit(number: &str) -> Wrong {
    if number == "0" {
        return Wrong::new("a size stands in quotes, even 0", "no quotes", "write \"0\"");
    }
    let nice = number.parse().ok().filter(|&bytes| bytes > 0).map(size_text);
    let nice = nice.unwrap_or_else(|| format!("{}B", shown(number)));
    let help = format!("write \"{nice}\" if bytes are meant, or another unit: `KiB`, `MiB`, `GiB`");
    Wrong::new(format!("the size `{}` has no unit", shown(number)), "bytes or something else?", help)
}

/// Reads `IP:port` of a socket of our own.
///
/// # Errors
///
/// Refuses host names (which of their addresses?), a missing port and port 0.
pub(super) fn own_address(text: &str) -> Result<SocketAddr, Wrong> {
    let help = |better: String| format!("write an IP address and a port, such as {better}");
    let address: SocketAddr = text.parse().map_err(|_| {
        let better = nearby_address(text).unwrap_or_else(|| "\"0.0.0.0:8080\" or \"[::1]:8080\"".to_owned());
        Wrong::new(format!("`{}` is no address to listen on", shown(text)), "not IP:port", help(better))
    })?;
    if address.port() == 0 {
        let message = "port 0 would be another port at each start";
        return Err(Wrong::new(
            message,
            "no fixed port",
            help(format!("\"{}:8080\"", bracketed(address.ip()))),
        ));
    }
    Ok(address)
}

/// Reads a network in CIDR notation, or one address. Host bits are cut off: `10.1.2.3/8` is `10.0.0.0/8`.
///
/// # Errors
///
/// Refuses everything else.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let net = text.parse::<IpNet>().map(|net| net.trunc());
    net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        Wrong::new(
            format!("`{}` is no network", shown(text)),
            "neither an IP address nor a CIDR block",
            "write \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\"",
        )
    })
}

/// Checks the name of a listener, route or pool.
///
/// # Errors
///
/// Refuses what would need escaping in a URL, a metrics label or a log line.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && text.bytes().all(plain) && text.len() <= NAME_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("`{}` cannot be a name", shown(text)),
        "it stands in URLs and metrics",
        format!("use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`, a letter or digit first"),
    ))
}

/// Reads the name of a header field.
///
/// # Errors
///
/// Refuses what is no token of RFC 9110.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new(
            format!("`{}` is no header name", shown(text)),
            "not a token (RFC 9110, 5.6.2)",
            "use letters, digits and `-`, without colon or blanks: \"x-served-by\"",
        )
    })
}

/// Reads the value of a header field. The message never repeats the value, which may be secret.
///
/// # Errors
///
/// Refuses control characters, line ends among them, and leading or trailing blanks.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, Wrong> {
    let help = "use one line of visible characters, without blanks at its ends";
    let wrong = |message: &str, label: &str| Wrong::new(message, label, help);
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return Err(wrong("blanks around a header value are lost on the way", "blank at an end"));
    }
    HeaderValue::from_str(text)
        .map_err(|_| wrong("a header value cannot hold control characters", "control character"))
}

/// Checks the path of a Unix socket (without the `unix:`).
///
/// # Errors
///
/// Refuses relative paths and those that no socket address can hold.
pub(super) fn unix_path(text: &str) -> Result<&Path, Wrong> {
    let help =
        format!("write \"unix:/run/app.sock\", an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes");
    if !text.starts_with('/') {
        return Err(Wrong::new("the path of a Unix socket must be absolute", "no leading slash", help));
    }
    if text.len() > UNIX_PATH_BYTES_MAX || text.contains('\0') {
        return Err(Wrong::new("no socket can have this path", "too long, or a zero byte", help));
    }
    Ok(Path::new(text))
}

/// Refuses what lies outside of `least..=most`, with both limits as `text` writes them.
pub(super) fn in_range<T: Copy + PartialOrd>(
    value: T,
    least: T,
    most: T,
    text: impl Fn(T) -> String,
) -> Result<T, Wrong> {
    if (&least..=&most).contains(&&value) {
        return Ok(value);
    }
    let label = if value < least { "too small" } else { "too large" };
    let message = format!("`{}` is out of range", text(value));
    Err(Wrong::new(message, label, format!("write a value from {} to {}", text(least), text(most))))
}

/// What the file says, made safe to repeat: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    clean(text, SHOWN_CHARACTERS_MAX)
}

/// As much of it as may be shown, without what would steer a terminal.
pub(super) fn clean(text: &str, characters_max: usize) -> String {
    let clean =
        |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    let mut shown: String = text.chars().take(characters_max).map(clean).collect();
    if text.chars().nth(characters_max).is_some() {
        shown.push('…');
    }
    shown
}

/// The shortest spelling that [`duration`] reads back: `90s` becomes `1m30s`.
pub(super) fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let part = |(unit, millis)| {
        let number = rest / millis;
        rest %= millis;
        (number > 0).then(|| format!("{number}{unit}"))
    };
    let parts: Vec<String> = DURATION_UNITS.into_iter().filter_map(part).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// The largest unit that divides evenly: 65 536 becomes `64KiB`.
pub(super) fn size_text(bytes: u64) -> String {
    let even = SIZE_UNITS.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    let (unit, size) = even.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Adds up numbers with units, the units from large to small and each at most once; `None` if it is anything else.
fn sum_of_parts(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (mut rest, mut units, mut sum) = (text, units, 0_u64);
    while !rest.is_empty() {
        let number = digits_of(rest);
        let unit = letters_of(&rest[number.len()..]);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        let (_, size) = units.get(index)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*size)?)?;
        units = &units[index + 1..];
        rest = &rest[number.len() + unit.len()..];
    }
    (!text.is_empty()).then_some(sum)
}

/// The ASCII digits at the start.
fn digits_of(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// What comes before the next digit.
fn letters_of(text: &str) -> &str {
    let end = text.find(|character: char| character.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// Milliseconds of each unit, the largest first.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of each unit, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Enough of a wrong value to recognise it.
const SHOWN_CHARACTERS_MAX: usize = 80;

fn decimal_unit(text: &str) -> Option<Wrong> {
    let number = digits_of(text);
    let binary = match text[number.len()..].trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "b" | "byte" | "bytes" => "B",
        _ => return None,
    };
    if number.is_empty() || text.ends_with(binary) && text.len() == number.len() + binary.len() {
        return None;
    }
    let help = format!("write \"{}{binary}\" (1 KiB = 1024 B)", shown(number));
    Some(Wrong::new(format!("`{}` has a unit that is not used here", shown(text)), "1000 or 1024?", help))
}

/// What was probably meant by an address that does not parse.
fn nearby_address(text: &str) -> Option<String> {
    if let Some(port) = text.strip_prefix("localhost:").filter(|port| port.parse::<u16>().is_ok()) {
        return Some(format!("\"127.0.0.1:{port}\""));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(format!("\"{}:8080\"", bracketed(ip)));
    }
    let port = text.trim_start_matches("*:").trim_start_matches(':');
    port.parse::<u16>().ok().map(|port| format!("\"0.0.0.0:{port}\""))
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Duration> {
        duration(text, Duration::ZERO).ok()
    }

    #[test]
    fn durations_have_units_and_may_have_several() {
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(read("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("24h"), Some(DURATION_MAX));
        assert_eq!(read("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_not_exactly_a_duration_is_refused() {
        for text in [
            "",
            "s",
            "5",
            "5 s",
            "1.5s",
            "-1s",
            "5s3m",
            "5s5s",
            "24h1ms",
            "5d",
            "99999999999999999999h",
            "٣s",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("64KiB", 0, u64::MAX), Ok(65_536));
        assert_eq!(size("0", 0, u64::MAX), Ok(0));
        for text in ["", "64KB", "64K", "64kib", "64", "0", "1.5MiB", "99999999999GiB"] {
            assert!(size(text, 1, u64::MAX).is_err(), "{text}");
        }
        assert!(size("64KB", 0, u64::MAX).unwrap_err().help.contains("\"64KiB\""));
    }

    #[test]
    fn a_network_loses_its_host_bits() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert!(network("10.0.0.0/33").is_err());
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(millis in 0_u64..=86_400_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(read(&duration_text(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = duration(&text, Duration::ZERO);
            let _ = size(&text, 0, 10);
            let _ = own_address(&text);
            let _ = network(&text);
            let _ = header_name(&text);
            let _ = header_value(&text);
            let _ = unix_path(&text);
            prop_assert!(name(&text).is_ok_and(|name| name == text) || name(&text).is_err());
        }
    }
}
