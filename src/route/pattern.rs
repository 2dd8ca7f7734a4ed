//! The two patterns that a file may write: hosts and leading paths.

use std::net::Ipv6Addr;

/// `example.com` or `*.example.com` (one label).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, lower case.
    Exact(String),
    /// One label, then this suffix (without the `*.`), lower case.
    Wildcard(String),
}

impl HostPattern {
    /// Reads a host as a file writes it; upper case becomes lower case.
    ///
    /// # Errors
    ///
    /// Refuses ports, empty labels, a `*` that is not the whole first label, and characters that no host
    /// name has, each with what would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let host = text.to_ascii_lowercase();
        if host == "*" {
            return Err("`*` would be every host; leave `hosts` out for that".to_owned());
        }
        if host.starts_with('[') {
            return check_ipv6(&host).map(|()| Self::Exact(host));
        }
        match host.strip_prefix("*.") {
            Some(suffix) => check_name(suffix).map(|()| Self::Wildcard(suffix.to_owned())),
            None => check_name(&host).map(|()| Self::Exact(host)),
        }
    }

    /// Whether a request for `host` (lower case, no port) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == without_root_dot(host),
            Self::Wildcard(suffix) => parent_of(without_root_dot(host)) == Some(suffix),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Wildcard(suffix) => write!(formatter, "*.{suffix}"),
        }
    }
}

/// `/v1` matches `/v1` and `/v1/users`, not `/v10`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Reads a path as a file writes it; `/v1/` means `/v1`.
    ///
    /// # Errors
    ///
    /// Refuses what could never match or would match something else than it seems to: no leading slash, a
    /// query or fragment, `.`, `..` and empty segments, blanks, and a `*` at the end, each with what would
    /// be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("a path starts with a slash: write `/{text}`"));
        };
        if text.len() > PATH_PREFIX_BYTES_MAX {
            return Err(format!("at most {PATH_PREFIX_BYTES_MAX} bytes are accepted, found {}", text.len()));
        }
        check_path_characters(text)?;
        if rest.is_empty() {
            return Ok(Self::default());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        rest.split('/').try_for_each(check_segment)?;
        Ok(Self(format!("/{rest}")))
    }

    /// With leading slash; without trailing slash, unless it is `/` itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` begins with these whole segments. `/` matches every path, also the `*` of
    /// `OPTIONS *`.
    pub fn matches(&self, path: &str) -> bool {
        self.0 == "/"
            || path.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What is left of `path` without these segments: `/v1` leaves `/users` of `/v1/users`, and `/` of `/v1`.
    ///
    /// `None` when they do not lead `path`. The rest begins with exactly one slash, or else `/v1//evil.com`
    /// would reach the upstream as `//evil.com`, which looks like another host.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.0 == "/" {
            return Some(path);
        }
        let rest = path.strip_prefix(self.as_str())?;
        if rest.is_empty() {
            return Some("/");
        }
        let slashes = rest.len() - rest.trim_start_matches('/').len();
        rest.get(slashes.checked_sub(1)?..)
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl std::fmt::Display for PathPrefix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `example.com.` names the same host as `example.com`; some clients send the dot of the root.
pub(super) fn without_root_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// `b.example.com` without its first label. `None` when nothing would be left, or the label is empty.
pub(super) fn parent_of(host: &str) -> Option<&str> {
    host.split_once('.')
        .filter(|(label, parent)| !label.is_empty() && !parent.is_empty())
        .map(|(_, parent)| parent)
}

fn check_ipv6(host: &str) -> Result<(), String> {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address.map(str::parse::<Ipv6Addr>) {
        Some(Ok(_)) => Ok(()),
        _ => {
            Err(format!("expected an IPv6 address in brackets without port, such as `[::1]`; found `{host}`"))
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address is written in brackets: `[{name}]`"));
    }
    if let Some((host, _)) = name.split_once(':') {
        return Err(format!("a host has no port or scheme here (listeners have ports): write `{host}`"));
    }
    if name.contains('*') {
        return Err("`*` stands for the whole first label only, as in `*.example.com`".to_owned());
    }
    if name.len() > HOST_BYTES_MAX {
        return Err(format!("at most {HOST_BYTES_MAX} bytes are accepted, found {}", name.len()));
    }
    name.split('.').try_for_each(|label| check_label(label, name))
}

fn check_label(label: &str, name: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err(format!(
            "a label of `{name}` is empty; write it like `example.com`, without dots at the ends"
        ));
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(format!("the label `{label}` is longer than {LABEL_BYTES_MAX} bytes"));
    }
    match label.chars().find(|character| !may_be_in_label(*character)) {
        None => Ok(()),
        Some(character) if character.is_ascii() => Err(format!(
            "`{}` cannot be in a host; letters, digits, `-` and `_` can, as in `api.example.com`",
            character.escape_default()
        )),
        Some(character) => Err(format!(
            "`{character}` is not sent as it is in a host; write its ASCII form, as in `xn--bcher-kva.example`"
        )),
    }
}

/// Underscores are not in the standard for hosts, but in the names that container platforms give.
fn may_be_in_label(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

fn check_path_characters(path: &str) -> Result<(), String> {
    match path.chars().find(|&character| !character.is_ascii_graphic() || matches!(character, '?' | '#')) {
        None => Ok(()),
        Some(character @ ('?' | '#')) => {
            let (path, _) = path.split_once(character).unwrap_or((path, ""));
            Err(format!("a path prefix ends before `{character}`: write `{path}`"))
        }
        Some(character) => Err(format!(
            "`{}` is not sent as it is in a path; write it percent-encoded, such as `%20` for a blank",
            character.escape_default()
        )),
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => Err("a path segment is empty; write one slash between segments, as in `/v1/users`".to_owned()),
        "." | ".." => {
            Err(format!("the segment `{segment}` is compared as sent; write the path it would lead to"))
        }
        "*" | "**" => Err(format!("leave `{segment}` out: `/v1` already matches everything below `/v1/`")),
        _ => Ok(()),
    }
}

/// The longest host name that DNS can carry (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// The longest label that DNS can carry (RFC 1035, section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// More than any route needs; it bounds what one request with a path full of slashes can cost.
pub const PATH_PREFIX_BYTES_MAX: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_lower_cased_and_a_leading_star_is_a_wildcard() {
        assert_eq!(
            HostPattern::parse("API.Example.com"),
            Ok(HostPattern::Exact("api.example.com".to_owned()))
        );
        assert_eq!(HostPattern::parse("*.Example.com"), Ok(HostPattern::Wildcard("example.com".to_owned())));
        assert_eq!(HostPattern::parse("10.0.0.1"), Ok(HostPattern::Exact("10.0.0.1".to_owned())));
        assert_eq!(HostPattern::parse("[::1]"), Ok(HostPattern::Exact("[::1]".to_owned())));
        assert_eq!(HostPattern::parse("*.a.b").unwrap().to_string(), "*.a.b");
    }

    #[test]
    fn a_wrong_host_is_refused_with_what_would_be_accepted() {
        for (wrong, advice) in [
            ("*", "leave `hosts` out"),
            ("example.com:8080", "write `example.com`"),
            ("http://example.com", "no port or scheme"),
            ("", "write it like `example.com`"),
            ("*.", "write it like `example.com`"),
            ("example..com", "write it like `example.com`"),
            ("example.com.", "without dots at the ends"),
            ("a.*.com", "`*.example.com`"),
            ("*.*.com", "`*.example.com`"),
            ("a*.com", "`*.example.com`"),
            ("exa mple.com", "letters, digits"),
            ("a/b", "letters, digits"),
            ("bücher.example", "xn--bcher-kva"),
            ("::1", "`[::1]`"),
            ("[::1]:80", "without port"),
            ("[nonsense]", "such as `[::1]`"),
        ] {
            let said = HostPattern::parse(wrong).unwrap_err();
            assert!(said.contains(advice), "`{wrong}`: {said}");
        }
        assert!(HostPattern::parse(&"a".repeat(64)).is_err());
        assert!(HostPattern::parse(&"a.".repeat(127)).is_err());
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let pattern = HostPattern::parse("*.example.com").unwrap();
        assert!(pattern.matches("a.example.com"));
        assert!(pattern.matches("a.example.com."));
        for other in ["example.com", "a.b.example.com", ".example.com", "aexample.com", ""] {
            assert!(!pattern.matches(other), "{other}");
        }
    }

    #[test]
    fn a_trailing_slash_is_not_part_of_a_prefix() {
        assert_eq!(PathPrefix::parse("/v1/").unwrap().as_str(), "/v1");
        assert_eq!(PathPrefix::parse("/v1").unwrap().as_str(), "/v1");
        assert_eq!(PathPrefix::parse("/").unwrap(), PathPrefix::default());
    }

    #[test]
    fn a_wrong_path_is_refused_with_what_would_be_accepted() {
        for (wrong, advice) in [
            ("", "write `/`"),
            ("v1", "write `/v1`"),
            ("/v1?x=1", "write `/v1`"),
            ("/v1#top", "write `/v1`"),
            ("/a/../b", "as sent"),
            ("/./b", "as sent"),
            ("/a b", "%20"),
            ("/a\tb", "percent-encoded"),
            ("/ü", "percent-encoded"),
            ("//", "one slash"),
            ("/a//b", "one slash"),
            ("/a//", "one slash"),
            ("/v1/*", "already matches everything below"),
        ] {
            let said = PathPrefix::parse(wrong).unwrap_err();
            assert!(said.contains(advice), "`{wrong}`: {said}");
        }
        assert!(PathPrefix::parse(&format!("/{}", "a".repeat(PATH_PREFIX_BYTES_MAX))).is_err());
        assert!(PathPrefix::parse("/..a/b..").is_ok(), "dots inside a segment are plain characters");
    }

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let prefix = PathPrefix::parse("/v1").unwrap();
        assert!(["/v1", "/v1/", "/v1/users", "/v1//users"].iter().all(|path| prefix.matches(path)));
        assert!(!["/v10", "/", "", "*", "/V1", "/%761", "//v1"].iter().any(|path| prefix.matches(path)));
        assert!(["/", "", "*", "/x"].iter().all(|path| PathPrefix::default().matches(path)));
    }

    #[test]
    fn stripping_leaves_a_path_with_one_leading_slash() {
        let prefix = PathPrefix::parse("/v1").unwrap();
        assert_eq!(prefix.strip("/v1"), Some("/"));
        assert_eq!(prefix.strip("/v1/"), Some("/"));
        assert_eq!(prefix.strip("/v1/users/1"), Some("/users/1"));
        assert_eq!(prefix.strip("/v1//evil.com"), Some("/evil.com"));
        assert_eq!(prefix.strip("/v1///"), Some("/"));
        assert_eq!(prefix.strip("/v10"), None);
        assert_eq!(prefix.strip("/other"), None);
        assert_eq!(PathPrefix::default().strip("/users"), Some("/users"));
    }
}
