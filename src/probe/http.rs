//! `GET` of a path whose status must be one of those expected.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::announcing::announce;
use super::{Answer, is_local};
use crate::config::UpstreamAddress;
use crate::proxy_header::Version;

/// What is asked, and which answers are good.
pub(super) struct Question<'a> {
    pub path: &'a str,
    pub host: Option<&'a str>,
    pub status: &'a [u16],
    pub headers: &'a [(HeaderName, HeaderValue)],
    pub proxy_protocol: Option<Version>,
}

/// Asks on a fresh connection: a kept one would not notice that nobody accepts any more.
pub(super) async fn ask(
    connector: &Connector<()>,
    address: &UpstreamAddress,
    question: &Question<'_>,
    timeout: Duration,
) -> Answer {
    match status(connector, address, question, timeout).await {
        Ok(status) if question.status.contains(&status) => Answer::Well,
        Ok(status) => Answer::Sick(format!("status {status}, expected {:?}", question.status)),
        Err(error) => {
            let cause = error.root_cause().downcast_ref::<std::io::Error>();
            if cause.is_some_and(is_local) {
                return Answer::NotAsked(error.to_string());
            }
            let kind = error.etype().as_str();
            Answer::Sick(cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}")))
        }
    }
}

async fn status(
    connector: &Connector<()>,
    address: &UpstreamAddress,
    question: &Question<'_>,
    timeout: Duration,
) -> pingora::Result<u16> {
    let mut peer = match address {
        UpstreamAddress::Tcp(address) => HttpPeer::new(address, false, String::new()),
        UpstreamAddress::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), false, String::new())?,
    };
    peer.options.connection_timeout = Some(timeout);
    peer.options.read_timeout = Some(timeout);
    announce(question.proxy_protocol, &mut peer);
    let (mut session, _) = connector.get_http_session(&peer).await?;
    session.write_request_header(Box::new(request(address, question)?)).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |response| response.status.as_u16());
        if !(100..200).contains(&status) {
            shut(session).await;
            return Ok(status);
        }
    }
}

fn request(address: &UpstreamAddress, question: &Question<'_>) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", question.path.as_bytes(), None)?;
    let host = question.host.map_or_else(|| address.to_string(), str::to_owned);
    request.insert_header(header::HOST, host)?;
    request.insert_header(
        header::USER_AGENT,
        concat!("evener/", env!("CARGO_PKG_VERSION"), " (health check)"),
    )?;
    request.insert_header(header::CONNECTION, "close")?;
    for (name, value) in question.headers {
        request.insert_header(name, value.clone())?;
    }
    Ok(request)
}

async fn shut(mut session: HttpSession) {
    session.shutdown().await;
}
