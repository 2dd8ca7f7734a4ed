//! `[tracing]`: where spans go.

use http::Uri;

use crate::config::fields::{Fields, Value};
use crate::config::report::Wrong;
use crate::config::values::shown;
use crate::config::{TracingConfig, defaults, limits};

/// `None` without an endpoint, which is a mistake that was said.
pub(super) fn tracing(fields: &Fields<'_>) -> Option<TracingConfig> {
    let help = "name the collector: endpoint = \"http://127.0.0.1:4318\"";
    let endpoint = fields.require("endpoint", help, |value| value.parse(endpoint));
    let (sample, service_name) =
        (fields.read("sample", Value::ratio), fields.read("service_name", service_name));
    Some(TracingConfig {
        endpoint: endpoint?,
        sample: sample.unwrap_or(defaults::TRACING_SAMPLE),
        service_name: service_name.unwrap_or_else(|| defaults::SERVICE_NAME.to_owned()),
    })
}

/// Without a slash at its end, which would be doubled by the path that follows.
fn endpoint(text: &str) -> Result<String, Wrong> {
    let wrong = |label, help: &str| {
        Err(Wrong::new(format!("`{}` is no collector that spans can be sent to", shown(text)), label, help))
    };
    let example = "write \"http://HOST:PORT\", such as \"http://127.0.0.1:4318\"";
    let Ok(uri) = text.parse::<Uri>() else { return wrong("not a URL", example) };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            let help =
                "collectors are spoken to in clear: run one on this machine, which passes spans on over TLS";
            return wrong("https", help);
        }
        _ => return wrong("no http:// in front", example),
    }
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if uri.host().is_none_or(str::is_empty) || has_user || uri.query().is_some() || text.contains('#') {
        return wrong("neither user nor query may be there", example);
    }
    if !has_good_port(&uri) {
        return wrong("no port", "write a port from 1 to 65535, or leave it out: then it is 80");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// None, or one that can be connected to; the parser of URLs lets anything stand there.
fn has_good_port(uri: &Uri) -> bool {
    let has_none = uri.authority().map(http::uri::Authority::as_str) == uri.host();
    has_none || uri.port_u16().is_some_and(|port| port > 0)
}

fn service_name(value: &Value<'_>) -> Option<String> {
    value.parse(|text| {
        let length = text.chars().count();
        if (1..=limits::SERVICE_NAME_CHARACTERS_MAX).contains(&length) && !text.chars().any(char::is_control)
        {
            return Ok(text.to_owned());
        }
        let help = "write 1 to 128 characters, such as \"evener\"";
        Err(Wrong::new(format!("`{}` is no name of a service", shown(text)), "not accepted", help))
    })
}
