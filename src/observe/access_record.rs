//! One request in the access log: what its line says, as JSON or as text.
//!
//! Both are written into one buffer, byte by byte: a line per request is what the log costs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::timestamp::{append_common_log, append_rfc3339};
use super::{AttemptOutcome, AttemptRecord, Format, Reason};

/// What one line says, under the names of the contract. The path comes without its query: queries
/// carry secrets.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // Names of the contract; the ones with a unit or a twist say it.
pub struct AccessRecord<'a> {
    /// When the request was finished.
    pub time: SystemTime,
    pub request_id: &'a str,
    /// Whom the request is from, as far as trusted proxies tell; `None`: not on a network.
    pub client: Option<IpAddr>,
    pub listener: &'a str,
    /// Empty, like the path, when the head was refused before it was understood.
    pub method: &'a str,
    /// Empty when the head names none, or was not understood.
    pub host: &'a str,
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub pool: Option<&'a str>,
    /// Address of the last attempt.
    pub upstream: Option<&'a str>,
    pub status: u16,
    /// Why the answer is ours; `None` when it is the upstream's.
    pub reason: Option<Reason>,
    pub attempts: u32,
    /// What came of each attempt, in their order.
    pub tried: &'a [Tried<'a>],
    /// From request head to the last byte of the response.
    pub duration: Duration,
    /// From sending the request to the first byte of the response, in the last attempt.
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
    /// What the client says where it comes from; without its query.
    pub referer: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// The trace that the request belongs to; left out when it is not traced.
    pub trace_id: Option<u128>,
    /// How a gRPC call ended; left out for all else.
    pub grpc_status: Option<u8>,
}

/// One attempt in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried<'a> {
    /// Where it went.
    pub upstream: &'a str,
    /// What came of it.
    pub outcome: TriedOutcome,
    /// From the pick to the first byte of the answer, or to the failure.
    pub time: Duration,
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriedOutcome {
    /// The upstream answered with this status.
    Answered(u16),
    /// It did not, or not in full, for this reason: its own, or that of the request's end.
    Failed(&'static str),
}

impl TriedOutcome {
    /// Of an attempt of a request that is over; `reason`: why the request was refused, if it was.
    pub fn of(attempt: &AttemptRecord, reason: Option<Reason>) -> Self {
        match (attempt.outcome, attempt.status) {
            (AttemptOutcome::Answered, Some(status)) => Self::Answered(status),
            // An upstream that has neither answered nor failed has nothing to do with it: what ended the request,
            // such as too large a body, ended its attempt.
            (AttemptOutcome::Unfinished, _) => Self::Failed(reason.unwrap_or(Reason::ClientClosed).word()),
            (outcome, _) => Self::Failed(outcome.word()),
        }
    }
}

impl AccessRecord<'_> {
    /// Appends the line in this format, with its line end.
    pub(super) fn append_to(&self, line: &mut Vec<u8>, format: Format) {
        match format {
            Format::Text => self.append_text(line),
            Format::Json => self.append_json(line),
        }
        line.push(b'\n');
    }

    #[cfg(test)]
    pub(super) fn line(&self, format: Format) -> Vec<u8> {
        let mut line = Vec::new();
        self.append_to(&mut line, format);
        line
    }

    fn append_json(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"time\":\"");
        append_rfc3339(line, self.time);
        line.push(b'"');
        member(line, "request_id", Some(self.request_id));
        line.extend_from_slice(b",\"client\":");
        match self.client {
            Some(client) => {
                line.push(b'"');
                append_address(line, client);
                line.push(b'"');
            }
            None => line.extend_from_slice(b"null"),
        }
        member(line, "listener", Some(self.listener));
        // Empty when the head was not understood, or names no host.
        for (name, text) in [("method", self.method), ("host", self.host), ("path", self.path)] {
            member(line, name, Some(text).filter(|text| !text.is_empty()));
        }
        member(line, "route", self.route);
        member(line, "pool", self.pool);
        member(line, "upstream", self.upstream);
        number(line, ",\"status\":", self.status.into());
        member(line, "reason", self.reason.map(Reason::word));
        number(line, ",\"attempts\":", self.attempts.into());
        line.extend_from_slice(b",\"tried\":[");
        for (index, tried) in self.tried.iter().enumerate() {
            line.extend_from_slice(if index == 0 { b"{\"upstream\":" } else { b",{\"upstream\":" });
            append_json_text(line, tried.upstream);
            line.extend_from_slice(b",\"outcome\":\"");
            append_outcome(line, tried.outcome);
            line.extend_from_slice(b"\",\"ms\":");
            append_milliseconds(line, tried.time);
            line.push(b'}');
        }
        line.extend_from_slice(b"],\"duration_ms\":");
        append_milliseconds(line, self.duration);
        line.extend_from_slice(b",\"upstream_ms\":");
        match self.upstream_time {
            Some(time) => append_milliseconds(line, time),
            None => line.extend_from_slice(b"null"),
        }
        number(line, ",\"bytes_in\":", self.bytes_in);
        number(line, ",\"bytes_out\":", self.bytes_out);
        member(line, "protocol", Some(self.protocol));
        member(line, "tls", self.tls);
        number(line, ",\"generation\":", self.generation);
        member(line, "referer", self.referer);
        member(line, "user_agent", self.user_agent);
        if let Some(trace_id) = self.trace_id {
            line.extend_from_slice(b",\"trace_id\":\"");
            append_hexadecimal(line, &trace_id.to_be_bytes());
            line.push(b'"');
        }
        if let Some(code) = self.grpc_status {
            number(line, ",\"grpc_status\":", code.into());
        }
        line.push(b'}');
    }

    /// Combined Log Format, which every log analyser reads, then the rest as `name=value`.
    fn append_text(&self, line: &mut Vec<u8>) {
        match self.client {
            Some(client) => append_address(line, client),
            None => line.push(b'-'),
        }
        line.extend_from_slice(b" - - [");
        append_common_log(line, self.time);
        line.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            // A head that was not understood; Apache writes the same.
            line.push(b'-');
        } else {
            escape(line, self.method);
            line.push(b' ');
            escape(line, self.path);
            line.push(b' ');
            escape(line, self.protocol);
        }
        number(line, "\" ", self.status.into());
        number(line, " ", self.bytes_out);
        for said in [self.referer, self.user_agent] {
            line.extend_from_slice(b" \"");
            escape(line, said.filter(|said| !said.is_empty()).unwrap_or("-"));
            line.push(b'"');
        }

        field(line, "host", Some(self.host));
        field(line, "request_id", Some(self.request_id));
        field(line, "listener", Some(self.listener));
        field(line, "route", self.route);
        field(line, "pool", self.pool);
        field(line, "upstream", self.upstream);
        field(line, "reason", self.reason.map(Reason::word));
        number(line, " attempts=", self.attempts.into());
        line.extend_from_slice(b" tried=");
        if self.tried.is_empty() {
            line.push(b'-');
        }
        for (index, tried) in self.tried.iter().enumerate() {
            if index > 0 {
                line.push(b',');
            }
            append_plainly(line, tried.upstream);
            line.push(b'|');
            append_outcome(line, tried.outcome);
            line.push(b'|');
            append_milliseconds(line, tried.time);
        }
        line.extend_from_slice(b" duration_ms=");
        append_milliseconds(line, self.duration);
        line.extend_from_slice(b" upstream_ms=");
        match self.upstream_time {
            Some(time) => append_milliseconds(line, time),
            None => line.push(b'-'),
        }
        number(line, " bytes_in=", self.bytes_in);
        field(line, "tls", self.tls);
        number(line, " generation=", self.generation);
        if let Some(trace_id) = self.trace_id {
            line.extend_from_slice(b" trace_id=");
            append_hexadecimal(line, &trace_id.to_be_bytes());
        }
        if let Some(code) = self.grpc_status {
            number(line, " grpc_status=", code.into());
        }
    }
}

/// `,"name":"value"`
fn member(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    match value {
        Some(value) => append_json_text(line, value),
        None => line.extend_from_slice(b"null"),
    }
}

/// A text with its quotes (RFC 8259 §7). What a terminal could take for an order is escaped, too: DEL, and the
/// controls from U+0080 on, which are two bytes with 0xC2 in front.
fn append_json_text(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    let bytes = text.as_bytes();
    let is_plain = |&byte: &u8| byte >= b' ' && !matches!(byte, b'"' | b'\\' | 0x7f | 0xc2);
    if bytes.iter().all(is_plain) {
        line.extend_from_slice(bytes);
    } else {
        append_json_characters(line, text);
    }
    line.push(b'"');
}

fn append_json_characters(line: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            '\n' => line.extend_from_slice(b"\\n"),
            '\r' => line.extend_from_slice(b"\\r"),
            '\t' => line.extend_from_slice(b"\\t"),
            _ => match u8::try_from(character) {
                Ok(byte) if character.is_control() => {
                    line.extend_from_slice(b"\\u00");
                    append_hexadecimal(line, &[byte]);
                }
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            },
        }
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

/// Inside a list, without quotes: what could end an entry, or the list, stands as `\xHH`.
fn append_plainly(line: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        if is_plain(byte) && byte != b',' && byte != b'|' {
            line.push(byte);
        } else {
            line.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
        }
    }
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

fn append_hexadecimal(line: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        line.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)].map(|digit| digit.to_ascii_lowercase()));
    }
}

fn append_outcome(line: &mut Vec<u8>, outcome: TriedOutcome) {
    match outcome {
        TriedOutcome::Answered(status) => append_number(line, status.into()),
        TriedOutcome::Failed(word) => line.extend_from_slice(word.as_bytes()),
    }
}

fn append_address(line: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                append_number(line, octet.into());
            }
        }
        // Memory takes all writes.
        IpAddr::V6(address) => drop(write!(line, "{address}")),
    }
}

/// With up to three decimals: microseconds are what was measured.
fn append_milliseconds(line: &mut Vec<u8>, duration: Duration) {
    let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    append_number(line, microseconds / 1_000);
    let rest = u16::try_from(microseconds % 1_000).unwrap_or_default();
    if rest == 0 {
        return;
    }
    let decimals = [rest / 100, rest / 10 % 10, rest % 10];
    let significant = if !rest.is_multiple_of(10) {
        3
    } else if !rest.is_multiple_of(100) {
        2
    } else {
        1
    };
    line.push(b'.');
    line.extend(decimals.iter().take(significant).map(|&decimal| digit(decimal.into())));
}

fn number(line: &mut Vec<u8>, before: &str, number: u64) {
    line.extend_from_slice(before.as_bytes());
    append_number(line, number);
}

fn append_number(line: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has twenty digits.
    let mut digits = [0; 20];
    let mut length = 0;
    for place in digits.iter_mut().rev() {
        *place = digit(number % 10);
        length += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

const fn digit(value: u64) -> u8 {
    let value = (value % 10) as u8;
    b'0' + value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use super::*;

    const TRIED: [Tried<'static>; 1] = [Tried {
        upstream: "10.0.0.1:8080",
        outcome: TriedOutcome::Answered(200),
        time: Duration::from_millis(11),
    }];

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
            tried: &TRIED,
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_millis(11)),
            bytes_in: 0,
            bytes_out: 512,
            protocol: "HTTP/1.1",
            tls: Some("TLSv1.3"),
            generation: 3,
            referer: Some("https://example.com/"),
            user_agent: Some("curl/8.5 (x)"),
            trace_id: None,
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
            tried: &[],
            referer: None,
            user_agent: None,
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
                r#""attempts":1,"tried":[{"upstream":"10.0.0.1:8080","outcome":"200","ms":11}],"#,
                r#""duration_ms":12.345,"upstream_ms":11,"bytes_in":0,"bytes_out":512,"#,
                r#""protocol":"HTTP/1.1","tls":"TLSv1.3","generation":3,"#,
                r#""referer":"https://example.com/","user_agent":"curl/8.5 (x)"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_does_not_apply_is_null_in_json_and_a_dash_in_text() {
        let json: serde_json::Value = serde_json::from_str(&line(&refused(), Format::Json)).unwrap();
        assert_eq!(json["reason"], "no_route");
        for name in ["client", "host", "route", "pool", "upstream", "upstream_ms", "tls"] {
            assert!(json[name].is_null(), "{name}");
        }
        assert_eq!(
            line(&refused(), Format::Text),
            concat!(
                r#"- - - [28/Feb/2000:23:59:59 +0000] "GET /v1/users HTTP/1.1" 404 512 "-" "-" host=- request_id=01HF "#,
                "listener=http route=- pool=- upstream=- reason=no_route attempts=0 tried=- duration_ms=12.345 ",
                "upstream_ms=- bytes_in=0 tls=- generation=3\n"
            )
        );
    }

    #[test]
    fn a_request_that_was_not_understood_has_a_dash_for_its_line() {
        let refused = AccessRecord { method: "", path: "", ..refused() };
        let json: serde_json::Value = serde_json::from_str(&line(&refused, Format::Json)).unwrap();
        for name in ["method", "host", "path"] {
            assert!(json[name].is_null(), "{name}");
        }
        let line = line(&refused, Format::Text);
        assert!(line.contains(r#" +0000] "-" 404 512 "-" "-" host=- "#), "{line}");
    }

    #[test]
    fn a_grpc_call_tells_its_status_too() {
        let call = AccessRecord { grpc_status: Some(14), ..record() };
        assert!(line(&call, Format::Json).ends_with(",\"grpc_status\":14}\n"));
        assert!(line(&call, Format::Text).ends_with(" generation=3 grpc_status=14\n"));
    }

    #[test]
    fn a_text_line_is_combined_log_format_and_the_rest() {
        assert_eq!(
            line(&record(), Format::Text),
            concat!(
                r#"127.0.0.1 - - [28/Feb/2000:23:59:59 +0000] "GET /v1/users HTTP/1.1" 200 512 "#,
                r#""https://example.com/" "curl/8.5 (x)" "#,
                "host=api.example.com request_id=01HF listener=http route=users pool=app ",
                "upstream=10.0.0.1:8080 reason=- attempts=1 tried=10.0.0.1:8080|200|11 ",
                "duration_ms=12.345 upstream_ms=11 bytes_in=0 ",
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
        assert!(!json.trim_end().chars().any(char::is_control), "{json:?}");

        let text = line(&hostile, Format::Text);
        assert!(
            text.contains(r#""GET /\"\x0A\\ \x1B[2J\x00\x7F\xC2\x9B\xC3\xBC\xE2\x80\xA8 HTTP/1.1""#),
            "{text}"
        );
        assert!(text.contains(r#" host="a b=c\"" request_id="-" "#), "{text}");
        assert!(text.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }

    #[test]
    fn every_attempt_is_listed_with_upstream_outcome_and_time() {
        let tried = [
            Tried {
                upstream: "unix:/a,b|c d\"",
                outcome: TriedOutcome::Failed("connect_failure"),
                time: Duration::from_micros(250),
            },
            Tried {
                upstream: "[::1]:80",
                outcome: TriedOutcome::Answered(503),
                time: Duration::from_micros(1_070),
            },
        ];
        let retried = AccessRecord { tried: &tried, attempts: 2, ..record() };
        let text = line(&retried, Format::Text);
        let expected = r" tried=unix:/a\x2Cb\x7Cc\x20d\x22|connect_failure|0.25,[::1]:80|503|1.07 ";
        assert!(text.contains(expected), "{text}");
        let json: serde_json::Value = serde_json::from_str(&line(&retried, Format::Json)).unwrap();
        assert_eq!(
            json["tried"],
            serde_json::json!([
                { "upstream": "unix:/a,b|c d\"", "outcome": "connect_failure", "ms": 0.25 },
                { "upstream": "[::1]:80", "outcome": "503", "ms": 1.07 },
            ])
        );
    }

    #[test]
    fn a_traced_request_names_its_trace() {
        let traced = AccessRecord { trace_id: Some(0xabc), ..record() };
        let id = "00000000000000000000000000000abc";
        assert!(line(&traced, Format::Json).contains(&format!(",\"trace_id\":\"{id}\"")));
        assert!(line(&traced, Format::Text).ends_with(&format!(" trace_id={id}\n")));
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 999, 65_535, u64::MAX] {
            let mut line = Vec::new();
            append_number(&mut line, number);
            assert_eq!(String::from_utf8(line).unwrap(), number.to_string());
        }
        for (microseconds, expected) in [(0, "0"), (1, "0.001"), (10, "0.01"), (100, "0.1"), (1_020, "1.02")]
        {
            let mut line = Vec::new();
            append_milliseconds(&mut line, Duration::from_micros(microseconds));
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back_from_json(text in ".+") {
            let hostile = AccessRecord { path: &text, user_agent: Some(&text), ..record() };
            let json: serde_json::Value = serde_json::from_str(&line(&hostile, Format::Json)).unwrap();
            proptest::prop_assert_eq!(json["path"].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(json["user_agent"].as_str(), Some(text.as_str()));
        }
    }
}
