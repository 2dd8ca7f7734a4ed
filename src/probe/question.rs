//! One request of a health check, on a connection of its own, over whatever the pool's requests go over.

use http::Uri;
use http::header::{self, HeaderName, HeaderValue};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::{Answer, is_local};
use crate::config::UpstreamAddress;
use crate::observe::tls_failure;

/// Whom to ask.
pub(super) struct Call<'a> {
    pub connector: &'a Connector<()>,
    pub peer: &'a HttpPeer,
    pub address: &'a UpstreamAddress,
}

impl Call<'_> {
    /// A new connection, and the head of a request sent on it. `Connection: close` is said where it has a
    /// meaning.
    pub(super) async fn begin(&self, mut request: RequestHeader) -> pingora::Result<HttpSession> {
        let (mut session, _) = self.connector.get_http_session(self.peer).await?;
        if session.as_http2().is_some() {
            self.set_uri(&mut request)?;
        } else if self.peer.options.alpn.get_min_http_version() == 2 {
            return Err(Error::explain(ErrorType::TLSHandshakeFailure, "it does not speak HTTP/2 here"));
        } else {
            request.insert_header(header::CONNECTION, "close")?;
        }
        session.set_read_timeout(self.peer.options.read_timeout);
        session.write_request_header(Box::new(request)).await?;
        Ok(session)
    }

    /// A request with `Host` and our name.
    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        host: Option<&str>,
        headers: &[(HeaderName, HeaderValue)],
    ) -> pingora::Result<RequestHeader> {
        let mut request = RequestHeader::build(method, path.as_bytes(), None)?;
        request.insert_header(header::HOST, host.map_or_else(|| self.authority(), str::to_owned))?;
        request.insert_header(
            header::USER_AGENT,
            concat!("evener/", env!("CARGO_PKG_VERSION"), " (health check)"),
        )?;
        for (name, value) in headers {
            request.insert_header(name, value.clone())?;
        }
        Ok(request)
    }

    fn authority(&self) -> String {
        match self.address {
            UpstreamAddress::Tcp(address) => address.to_string(),
            // HTTP/2 servers refuse what is no authority.
            UpstreamAddress::Unix(_) if self.peer.options.alpn.get_max_http_version() == 2 => {
                "localhost".to_owned()
            }
            UpstreamAddress::Unix(_) => self.address.to_string(),
        }
    }

    /// HTTP/2 has the host, and the scheme, in its URI.
    fn set_uri(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let host = request.remove_header(&header::HOST);
        let scheme = if self.peer.is_tls() { "https" } else { "http" };
        let uri =
            Uri::builder().scheme(scheme).authority(host.as_ref().map_or(&b""[..], HeaderValue::as_bytes));
        let path = request.uri.path_and_query().cloned();
        let uri = uri.path_and_query(path.map_or_else(|| "/".to_owned(), |path| path.to_string())).build();
        request.set_uri(uri.map_err(|error| {
            Error::because(ErrorType::InvalidHTTPHeader, "the probe's host cannot be an authority", error)
        })?);
        Ok(())
    }
}

/// An upstream that could not be asked, or gave no answer.
pub(super) fn failed(error: &Error) -> Answer {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    if cause.is_some_and(is_local) {
        return Answer::NotAsked(error.to_string());
    }
    let told = error.to_string();
    if matches!(error.etype(), ErrorType::TLSHandshakeFailure) || told.contains("received fatal alert") {
        return Answer::Sick(format!("TLS: {}", tls_failure(&told)));
    }
    let kind = words(error.etype());
    let h2 = error.root_cause().downcast_ref::<h2::Error>().map(ToString::to_string);
    let cause = cause.map(ToString::to_string).or(h2);
    Answer::Sick(cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}")))
}

/// What went wrong, for people; the engine's own name where we have none.
fn words(kind: &ErrorType) -> &str {
    match kind {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectNoRoute => "no route to it",
        ErrorType::ConnectTimedout => "cannot connect in time",
        ErrorType::ConnectError => "cannot connect",
        ErrorType::ConnectionClosed => "it closed the connection",
        ErrorType::ReadTimedout => "no answer in time",
        ErrorType::ReadError => "its answer broke off",
        ErrorType::WriteTimedout | ErrorType::WriteError => "it does not take the request",
        ErrorType::InvalidHTTPHeader => "its answer is not HTTP",
        other => other.as_str(),
    }
}
