//! Which form of an answer a client would rather have (`Accept`; RFC 9110, 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether this media type is asked for by name, and not less than any other that is named among `forms`.
/// Who takes anything, or says nothing, gets the usual form.
pub(super) fn prefers(headers: &HeaderMap, media_type: &str, forms: &[&str]) -> bool {
    let wish = wish_for(headers, media_type);
    let others = forms.iter().filter(|form| **form != media_type);
    wish > 0.0 && others.map(|form| wish_for(headers, form)).all(|other| other < wish)
}

/// Weight of a media type that is named, 0 to 1; 0 where it is not.
fn wish_for(headers: &HeaderMap, media_type: &str) -> f32 {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).map(|range| weight(range, media_type)).fold(0.0, f32::max)
}

fn weight(range: &str, media_type: &str) -> f32 {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type)) {
        return 0.0;
    }
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_must_be_asked_for() {
        let forms = ["application/toml", "application/json"];
        for (accept, is_json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json, text/plain, */*", true),
            ("text/html, application/json;q=0.1", true),
            ("application/toml;q=0.5, application/json", true),
            ("", false),
            ("*/*", false),
            ("application/*", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("application/toml, application/json", false),
            ("application/json;q=0", false),
            ("application/json;q=nonsense", false),
            ("application/jsonx", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers(&headers, "application/json", &forms), is_json, "{accept}");
        }
        assert!(!prefers(&HeaderMap::new(), "application/json", &forms));
    }
}
