//! One request in the access log: what its line says, as JSON or as text.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::timestamp::{CommonLog, Rfc3339};
use super::{Format, Reason};

/// What one line says, under the names of the contract. The path comes without its query: queries
/// carry secrets.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // Names of the contract; the ones with a unit or a twist say it.
pub struct AccessRecord<'a> {
    /// When the request was finished.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    pub request_id: &'a str,
    /// Whom the request is from, as far as trusted proxies tell; `None`: not on a network.
    pub client: Option<IpAddr>,
    pub listener: &'a str,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub pool: Option<&'a str>,
    /// Address of the last attempt.
    pub upstream: Option<&'a str>,
    pub status: u16,
    /// Why the answer is ours; `None` when it is the upstream's.
    #[serde(serialize_with = "word")]
    pub reason: Option<Reason>,
    pub attempts: u32,
    /// From request head to the last byte of the response.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// From sending the request to the first byte of the response, in the last attempt.
    #[serde(rename = "upstream_ms", serialize_with = "optional_milliseconds")]
    pub upstream_time: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    pub protocol: &'a str,
    /// Version of TLS, such as `TLSv1.3`; `None`: in clear.
    pub tls: Option<&'a str>,
    /// Of the configuration that the request was answered by.
    pub generation: u64,
    /// How a gRPC call ended; left out for all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
}

impl AccessRecord<'_> {
    /// The line in this format, with its line end.
    pub(super) fn line(&self, format: Format) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_BYTES_USUAL);
        // Cannot fail: memory takes all writes, and every field has a JSON form.
        let _ = match format {
            Format::Text => self.write_text(&mut line),
            Format::Json => serde_json::to_writer(&mut line, self).map_err(io::Error::from),
        };
        line.push(b'\n');
        line
    }

    /// Common Log Format, which every log analyser reads, then the rest as `name=value`.
    fn write_text(&self, line: &mut Vec<u8>) -> io::Result<()> {
        match self.client {
            Some(client) => write!(line, "{client}")?,
            None => line.push(b'-'),
        }
        write!(line, " - - [{}] \"", CommonLog(self.time))?;
        escape(line, self.method);
        line.push(b' ');
        escape(line, self.path);
        line.push(b' ');
        escape(line, self.protocol);
        write!(line, "\" {} {}", self.status, self.bytes_out)?;

        field(line, "host", Some(self.host));
        field(line, "request_id", Some(self.request_id));
        field(line, "listener", Some(self.listener));
        field(line, "route", self.route);
        field(line, "pool", self.pool);
        field(line, "upstream", self.upstream);
        field(line, "reason", self.reason.map(Reason::word));
        write!(line, " attempts={} duration_ms={}", self.attempts, to_milliseconds(self.duration))?;
        match self.upstream_time {
            Some(time) => write!(line, " upstream_ms={}", to_milliseconds(time))?,
            None => field(line, "upstream_ms", None),
        }
        write!(line, " bytes_in={}", self.bytes_in)?;
        field(line, "tls", self.tls);
        write!(line, " generation={}", self.generation)?;
        self.grpc_status.map_or(Ok(()), |code| write!(line, " grpc_status={code}"))
    }
}

/// ` name=value`; quoted when the value could be taken for something else.
fn field(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    line.push(b' ');
    line.extend_from_slice(name.as_bytes());
    line.push(b'=');
    match value {
        None | Some("") => line.push(b'-'),
        Some(value) if value != "-" && value.bytes().all(is_plain) => {
            line.extend_from_slice(value.as_bytes());
        }
        Some(value) => {
            line.push(b'"');
            escape(line, value);
            line.push(b'"');
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

/// Inside quotes: whatever could end them, the line, or the terminal's good manners stands as `\xHH`,
/// as in nginx and Apache.
fn escape(line: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            _ => line.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]),
        }
    }
}

const fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }
}

/// With three decimals: microseconds are what was measured.
fn to_milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Rfc3339(*time))
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn word<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::word).serialize(serializer)
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(to_milliseconds(*duration))
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn optional_milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(to_milliseconds).serialize(serializer)
}

/// A JSON line with a path of a hundred bytes has about this many; longer ones grow once.
const LINE_BYTES_USUAL: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(in crate::observe) fn record() -> AccessRecord<'static> {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_millis(951_782_399_042),
            request_id: "01HF",
            client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            listener: "http",
            method: "GET",
            host: "api.example.com",
            path: "/v1/users",
            route: Some("users"),
            pool: Some("app"),
            upstream: Some("10.0.0.1:8080"),
            status: 200,
            reason: None,
            attempts: 1,
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_millis(11)),
            bytes_in: 0,
            bytes_out: 512,
            protocol: "HTTP/1.1",
            tls: Some("TLSv1.3"),
            generation: 3,
            grpc_status: None,
        }
    }

    pub(in crate::observe) fn refused() -> AccessRecord<'static> {
        AccessRecord {
            client: None,
            host: "",
            route: None,
            pool: None,
            upstream: None,
            status: 404,
            reason: Some(Reason::NoRoute),
            attempts: 0,
            upstream_time: None,
            tls: None,
            ..record()
        }
    }

    fn line(record: &AccessRecord<'_>, format: Format) -> String {
        String::from_utf8(record.line(format)).unwrap()
    }

    #[test]
    fn a_json_line_has_the_words_of_the_contract_in_its_order() {
        assert_eq!(
            line(&record(), Format::Json),
            concat!(
                r#"{"time":"2000-02-28T23:59:59.042Z","request_id":"01HF","client":"127.0.0.1","#,
                r#""listener":"http","method":"GET","host":"api.example.com","path":"/v1/users","#,
                r#""route":"users","pool":"app","upstream":"10.0.0.1:8080","status":200,"reason":null,"#,
                r#""attempts":1,"duration_ms":12.345,"upstream_ms":11.0,"bytes_in":0,"bytes_out":512,"#,
                r#""protocol":"HTTP/1.1","tls":"TLSv1.3","generation":3}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_does_not_apply_is_null_in_json_and_a_dash_in_text() {
        let json: serde_json::Value = serde_json::from_str(&line(&refused(), Format::Json)).unwrap();
        assert_eq!(json["reason"], "no_route");
        for name in ["client", "route", "pool", "upstream", "upstream_ms", "tls"] {
            assert!(json[name].is_null(), "{name}");
        }
        assert_eq!(
            line(&refused(), Format::Text),
            concat!(
                r#"- - - [28/Feb/2000:23:59:59 +0000] "GET /v1/users HTTP/1.1" 404 512 host=- request_id=01HF "#,
                "listener=http route=- pool=- upstream=- reason=no_route attempts=0 duration_ms=12.345 ",
                "upstream_ms=- bytes_in=0 tls=- generation=3\n"
            )
        );
    }

    #[test]
    fn a_grpc_call_tells_its_status_too() {
        let call = AccessRecord { grpc_status: Some(14), ..record() };
        assert!(line(&call, Format::Json).ends_with(",\"generation\":3,\"grpc_status\":14}\n"));
        assert!(line(&call, Format::Text).ends_with(" generation=3 grpc_status=14\n"));
    }

    #[test]
    fn a_text_line_is_common_log_format_and_the_rest() {
        assert_eq!(
            line(&record(), Format::Text),
            concat!(
                r#"127.0.0.1 - - [28/Feb/2000:23:59:59 +0000] "GET /v1/users HTTP/1.1" 200 512 "#,
                "host=api.example.com request_id=01HF listener=http route=users pool=app ",
                "upstream=10.0.0.1:8080 reason=- attempts=1 duration_ms=12.345 upstream_ms=11 bytes_in=0 ",
                "tls=TLSv1.3 generation=3\n"
            )
        );
    }

    #[test]
    fn hostile_paths_stay_inside_their_line_and_their_field() {
        let path = "/\"\n\\ \u{1b}[2J\u{0}\u{7f}\u{9b}ü\u{2028}";
        let hostile = AccessRecord { path, host: "a b=c\"", request_id: "-", ..record() };

        let json = line(&hostile, Format::Json);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((parsed["path"].as_str(), parsed["host"].as_str()), (Some(path), Some("a b=c\"")));
        assert_eq!(json.lines().count(), 1);

        let text = line(&hostile, Format::Text);
        assert!(
            text.contains(r#""GET /\"\x0A\\ \x1B[2J\x00\x7F\xC2\x9B\xC3\xBC\xE2\x80\xA8 HTTP/1.1""#),
            "{text}"
        );
        assert!(text.contains(r#" host="a b=c\"" request_id="-" "#), "{text}");
        assert!(text.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }
}
