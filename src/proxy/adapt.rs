//! Where Pingora's types become ours, and ours Pingora's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::client_stream::{Answer, ClientStream};
use super::connection::Connection;
use super::context::{RequestContext, Told};
use super::exchange::Exchange;
use super::head::is_host_and_port;
use super::steps::{self, Outcome, Sent};
use super::trace::Trace;
use super::{grpc, headers, http2, refusal, tells};
use crate::config::UpstreamProtocol;
use crate::observe::{Reason, tls_failure};
use crate::retry::is_idempotent;
use crate::route::RequestHead;

/// How long we read on after refusing a request whose body is still on its way: closing with unread
/// bytes resets the connection, and the client may never read the refusal.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What the loop around a session knows of the request.
fn exchange(session: &Session) -> Option<Arc<Exchange>> {
    match session.as_ref().as_http1() {
        Some(session) => ClientStream::exchange_of(session.stream()).cloned(),
        None => http2::exchange_of(session.digest()?),
    }
}

/// The host that a request names, lower case and without port.
pub(super) fn host(request: &RequestHeader) -> Cow<'_, str> {
    let named = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    named.or_else(|| request.uri.host()).map_or(Cow::Borrowed(""), headers::bare_host)
}

/// What routes match on.
pub(super) fn head<'a>(request: &'a RequestHeader, host: &'a str) -> RequestHead<'a> {
    RequestHead { host, method: &request.method, path: request.uri.path(), headers: &request.headers }
}

/// Whether a head of HTTP/2 is within `max_header_size`, counted as RFC 9113 §6.5.2 does; one of HTTP/1.1 was
/// measured as it was read.
pub(super) fn within_size(request: &RequestHeader, ctx: &RequestContext) -> Result<(), Reason> {
    let Some(max) = ctx.exchange.as_ref().filter(|exchange| exchange.is_stream).and(ctx.header_bytes_max())
    else {
        return Ok(());
    };
    let target = request.uri.authority().map_or(0, |authority| authority.as_str().len())
        + request.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    if target + fields.sum::<usize>() > max { Err(Reason::HeadTooLarge) } else { Ok(()) }
}

/// Whether a head of HTTP/2 can be read in one way only when it goes on as HTTP/1.1. What Pingora and the h2 crate
/// leave to see to: `head.rs` does it, and much else, for HTTP/1.1.
pub(super) fn unambiguous(request: &RequestHeader, ctx: &RequestContext) -> Result<(), Reason> {
    if ctx.exchange.as_ref().is_none_or(|exchange| !exchange.is_stream) {
        return Ok(());
    }
    let host = request.headers.get(header::HOST).map(header::HeaderValue::as_bytes);
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let is_plain = |host: &[u8]| host.is_empty() || is_host_and_port(host);
    let is_target = request.uri.path() != "*" || request.method == http::Method::OPTIONS;
    let lengths = request.headers.get_all(header::CONTENT_LENGTH).iter().count();
    if is_target && lengths <= 1 && host.is_none_or(is_plain) && authority.is_none_or(is_plain) {
        Ok(())
    } else {
        Err(Reason::BadRequest)
    }
}

/// What a field of a header list counts beside its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Who asks, by which connection, and under which id.
pub(super) fn identify(session: &Session, ctx: &mut RequestContext) {
    let request = session.req_header();
    ctx.exchange = exchange(session);
    ctx.grpc = grpc::Call::of(request, ctx.started);
    ctx.is_http_1_0 = request.version == Version::HTTP_10;
    if let Some(exchange) = ctx.exchange.as_ref().filter(|exchange| exchange.is_stream)
        && steps::is_event_stream(request.headers.get(header::ACCEPT))
    {
        exchange.note_wants_events();
    }
    let peer = ctx.connection().map(Connection::peer_ip);
    let is_trusted = ctx.trusts_peer();
    ctx.client = match peer {
        Some(peer) if is_trusted => {
            Some(headers::client_behind(peer, &request.headers, |address| ctx.is_trusted(address)))
        }
        peer => peer,
    };
    let given = is_trusted.then(|| headers::request_id_from(&request.headers)).flatten();
    ctx.request_id = given.unwrap_or_else(headers::new_request_id);
    ctx.head.set(request.method.as_str(), &host(request), request.uri.path());
    ctx.trace = ctx.snapshot.config.tracing.as_ref().and_then(|config| Trace::of(&request.headers, config));
    if ctx.runtime.access_log.is_some() || ctx.recorded_trace().is_some() {
        let header = |name| request.headers.get(name).cloned();
        ctx.told = Some(Box::new(Told {
            method: request.method.clone(),
            host: header(header::HOST),
            uri: request.uri.clone(),
            referer: header(header::REFERER),
            user_agent: header(header::USER_AGENT),
        }));
    }
}

/// How far a request has come.
pub(super) fn sent(session: &Session) -> Sent {
    Sent {
        is_harmless: is_idempotent(&session.req_header().method),
        is_replayable: !session.as_ref().retry_buffer_truncated(),
        is_answered: is_answered(session),
    }
}

/// Whether this is a gRPC call whose client may still have something to say: then the time to the head of the
/// answer is its affair, too.
pub(super) fn is_open_call(session: &mut Session, ctx: &RequestContext) -> bool {
    ctx.grpc.is_some() && !session.as_mut().is_body_done()
}

/// Whether the client has seen the head of a final response.
pub(super) fn is_answered(session: &Session) -> bool {
    session
        .response_written()
        .is_some_and(|response| !response.status.is_informational() || response.status == 101)
}

/// Whether a response ends with its head.
pub(super) fn has_no_body(session: &Session, response: &ResponseHeader) -> bool {
    session.req_header().method == http::Method::HEAD
        || matches!(response.status.as_u16(), 204 | 304)
        // Some upstreams say so in a 101, whose connection goes on all the same.
        || (response.status != 101 && is_zero(response.headers.get(header::CONTENT_LENGTH)))
}

fn is_zero(length: Option<&header::HeaderValue>) -> bool {
    length.is_some_and(|length| !length.is_empty() && length.as_bytes().iter().all(|&byte| byte == b'0'))
}

/// What the upstream needs and the client may not have sent.
pub(super) fn prepare_for_upstream(request: &mut RequestHeader, ctx: &RequestContext) -> pingora::Result<()> {
    if let Some(target) = headers::origin_form(request.raw_path(), &request.uri) {
        request.set_raw_path(&target)?;
    }
    if !request.headers.contains_key(header::HOST) {
        // Only HTTP/1.0 clients may leave it out.
        if let Some(upstream) = ctx.upstream() {
            request.insert_header(header::HOST, upstream.config.address.to_string())?;
        }
    }
    if request.version == Version::HTTP_2 {
        // What follows is about connections of one request at a time.
        return Ok(());
    }
    if ctx.is_handshake() {
        // The body that Pingora was told of never comes; see `client_stream.rs`.
        request.remove_header(&header::TRANSFER_ENCODING);
        request.insert_header(header::CONTENT_LENGTH, "0")?;
    } else if request.headers.contains_key(header::UPGRADE) {
        // Pingora takes the word alone for a handshake, whatever the rest of the request says.
        request.remove_header(&header::UPGRADE);
        request.remove_header(&header::CONNECTION);
    }
    let keeps_none = ctx.pool().is_some_and(|pool| pool.config.keepalive.max_idle == 0);
    if (keeps_none || ctx.needs_fresh_connection) && !ctx.is_handshake() {
        request.insert_header(header::CONNECTION, "close")?;
    }
    Ok(())
}

/// What came of connecting, or of opening a stream on a shared connection.
pub(super) fn connect_outcome(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Outcome::ConnectTimeout,
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert => Outcome::TlsFailure,
        // A connection ended in the moment in which it was to be shared once more.
        ErrorType::H2Error => Outcome::GoneAway,
        // Pingora reports trouble with our own sockets as this.
        ErrorType::InternalError | ErrorType::BindError | ErrorType::SocketError => Outcome::LocalTrouble,
        _ if is_local(error) => Outcome::LocalTrouble,
        _ => Outcome::ConnectFailure,
    }
}

/// Out of descriptors, ports or buffers: errors of our own machine.
fn is_local(error: &Error) -> bool {
    let code = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM))
}

/// What came of an attempt after the connection stood. `is_reused`: on a kept connection.
pub(super) fn outcome(error: &Error, is_reused: bool, ctx: &RequestContext) -> Outcome {
    let is_client = *error.esource() == ErrorSource::Downstream
        || ctx.exchange.as_ref().is_some_and(|exchange| exchange.has_bad_body());
    if is_client {
        return Outcome::ClientTrouble;
    }
    if is_refused_by_alert(error) {
        return Outcome::TlsFailure;
    }
    let broken = if is_reused { Outcome::StaleConnection } else { Outcome::Reset };
    if let Some(cause) = error.root_cause().downcast_ref::<h2::Error>() {
        return stream_outcome(cause, broken, ctx);
    }
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Outcome::Timeout,
        ErrorType::TLSHandshakeFailure => Outcome::TlsFailure,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => broken,
        _ if *error.esource() == ErrorSource::Upstream => Outcome::Garbage,
        _ => Outcome::LocalTrouble,
    }
}

/// What came of a stream; `broken` if its connection broke.
fn stream_outcome(cause: &h2::Error, broken: Outcome, ctx: &RequestContext) -> Outcome {
    if cause.is_io() {
        return broken;
    }
    if !cause.is_remote() {
        // Either end may have broken the rules; our own library checks what we send.
        return Outcome::Garbage;
    }
    let may_step_down = ctx.pool().is_some_and(|pool| pool.config.protocol == UpstreamProtocol::Auto);
    match cause.reason() {
        // Streams that it had begun on are not ended by this.
        Some(h2::Reason::NO_ERROR) if cause.is_go_away() => Outcome::GoneAway,
        Some(h2::Reason::REFUSED_STREAM) => Outcome::Refused,
        Some(h2::Reason::HTTP_1_1_REQUIRED) if may_step_down => Outcome::GoneAway,
        Some(h2::Reason::HTTP_1_1_REQUIRED) => Outcome::Garbage,
        _ => Outcome::Reset,
    }
}

/// In TLS 1.3 a server judges the client's certificate when we already believe to be connected.
fn is_refused_by_alert(error: &Error) -> bool {
    let told = error.root_cause().to_string();
    let alert = told.split_once(FATAL_ALERT).map(|(_, alert)| alert);
    alert.is_some_and(|alert| ALERTS_ABOUT_CERTIFICATES.iter().any(|word| alert.contains(word)))
}

/// How rustls begins to tell of an alert.
const FATAL_ALERT: &str = "received fatal alert: ";

/// Alerts about the client's certificate (RFC 8446, 6.2), as rustls spells them; after them, nothing that was
/// sent has been read.
const ALERTS_ABOUT_CERTIFICATES: [&str; 4] = ["Certificate", "UnknownCA", "AccessDenied", "DecryptError"];

/// An upstream that was to speak HTTP/2 chose HTTP/1.1 when we had not offered it.
pub(super) fn not_http2() -> Box<Error> {
    Error::explain(ErrorType::TLSHandshakeFailure, "it does not speak HTTP/2 here: ALPN settled on nothing")
        .into_up()
}

/// Gives a request that came as HTTP/2, and goes on as such, the `Host` that others have: what is done to the
/// path leaves no authority in the URI. Pingora turns it back.
pub(super) fn name_host(request: &mut RequestHeader) -> pingora::Result<()> {
    if request.headers.contains_key(header::HOST) {
        return Ok(());
    }
    let authority = request.uri.authority().map(|authority| authority.as_str().to_owned());
    authority.map_or(Ok(()), |authority| request.insert_header(header::HOST, authority))
}

/// Lets a client that waits for `100 Continue` send its body.
pub(super) async fn invite_body(session: &mut Session) -> pingora::Result<()> {
    let is_first = session.response_written().is_none();
    // HTTP/2 clients may wait as well, and Pingora drops what is not a final answer to them.
    if is_first && session.req_header().version == Version::HTTP_11 {
        session.as_mut().write_continue_response().await.map_err(Error::into_down)?;
    }
    Ok(())
}

/// Says why there is no secure connection to an upstream, if that is news.
pub(super) fn tell_tls_failure(outcome: Outcome, error: &Error, now: Duration, ctx: &RequestContext) {
    let (Some(pool), Some(upstream)) = (ctx.pool(), ctx.upstream()) else { return };
    if outcome != Outcome::TlsFailure {
        return;
    }
    let reason = tls_failure(&error.to_string());
    if upstream.state.note_trouble(pool.key, &reason, now) {
        tracing::warn!(
            pool = %pool.config.name,
            upstream = %upstream.state.address,
            server_name = pool.config.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            reason,
            "no secure connection to upstream"
        );
    }
}

/// Whether an upstream did not answer because we still owe it a body that the client is slow to send.
pub(super) fn waits_for_the_client(error: &Error, session: &mut Session) -> bool {
    *error.etype() == ErrorType::ReadTimedout && !is_answered(session) && !session.as_mut().is_body_done()
}

/// Why a request failed for good.
pub(super) fn reason(error: &Error, ctx: &RequestContext) -> Reason {
    if ctx.exchange.as_ref().is_some_and(|exchange| exchange.has_bad_body()) {
        return Reason::BadRequest;
    }
    if *error.esource() == ErrorSource::Downstream {
        return match error.etype() {
            ErrorType::ReadTimedout => Reason::RequestTimeout,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::ConnectionClosed
            | ErrorType::WriteTimedout
            // What Pingora calls a stream that was reset, or whose connection is gone.
            | ErrorType::H2Error
            | ErrorType::ConnectError => Reason::ClientClosed,
            _ => ctx.refusal.unwrap_or(Reason::BadRequest),
        };
    }
    ctx.refusal.unwrap_or(Reason::BadResponse)
}

/// An error that carries a refusal to [`refuse`]; the reason itself travels in the context.
pub(super) fn error(reason: Reason) -> Box<Error> {
    Error::new_in(ErrorType::HTTPStatus(reason.status()))
}

/// An answer of the upstream that is discarded in favour of another attempt.
pub(super) fn discarded(status: u16) -> Box<Error> {
    let mut error = Error::new_up(ErrorType::HTTPStatus(status));
    error.set_retry(true);
    error
}

/// Whether a request came over TLS, to us or to a proxy that we trust and that says so.
pub(super) fn is_https(request: &RequestHeader, ctx: &RequestContext) -> bool {
    ctx.connection().is_some_and(|connection| connection.tls.is_some())
        || (ctx.trusts_peer() && headers::says_https(&request.headers))
}

/// Tells the client to come again over TLS, to the host that it asked for.
pub(super) async fn redirect(port: u16, session: &mut Session, ctx: &mut RequestContext) {
    let request = session.req_header();
    let location = headers::https_location(request.raw_path(), &request.uri, &request.headers, port);
    let Some(location) = location else {
        refuse(Reason::BadRequest, session, ctx).await;
        return;
    };
    ctx.answer_handshake(Answer::Refused);
    let answer = refusal::redirect(location, &ctx.request_id);
    let is_whole = session.as_mut().is_body_done();
    if !is_whole {
        session.set_keepalive(None);
    }
    ctx.status = Some(refusal::REDIRECT);
    if write_answer(answer, session, ctx).await.is_ok() && !is_whole && !session.is_http2() {
        linger(session).await;
    }
}

/// The code with which the upstream has ended a stream, where the client is to see the same: when it has seen
/// part of the answer, and in gRPC always, where each code has a meaning.
pub(super) fn reset_to_pass_on(error: &Error, session: &Session, ctx: &RequestContext) -> Option<h2::Reason> {
    let cause = error.root_cause().downcast_ref::<h2::Error>()?;
    let is_meant = cause.is_reset() && cause.is_remote() && *error.esource() == ErrorSource::Upstream;
    cause.reason().filter(|_| is_meant && (is_answered(session) || ctx.is_grpc_stream()))
}

/// Whether a client has ended its stream when it had its answer in full: as it may, if it has no more to say.
pub(super) fn has_its_answer(error: &Error, session: &Session, ctx: &RequestContext) -> bool {
    let is_stream = ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_stream);
    let is_from_reading = matches!(error.etype(), ErrorType::ReadError | ErrorType::H2Error);
    is_stream
        && ctx.attempt.as_ref().is_some_and(|attempt| attempt.lease.is_none())
        && is_answered(session)
        && is_from_reading
        && *error.esource() == ErrorSource::Downstream
}

/// Tells the client, unless it is gone or has seen part of another answer.
pub(super) async fn refuse(reason: Reason, session: &mut Session, ctx: &mut RequestContext) -> FailToProxy {
    ctx.refusal = Some(reason);
    ctx.answer_handshake(Answer::Refused);
    let status = reason.status();
    if reason == Reason::ClientClosed || is_answered(session) {
        ctx.status.get_or_insert(status);
        if ctx.is_grpc_stream() && reason != Reason::ClientClosed {
            // An answer that just breaks off leaves the client to guess.
            let _ = session.write_response_trailers(grpc::trailers(reason)).await;
        }
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
    ctx.status = Some(status);
    if let Some(exchange) = &ctx.exchange {
        exchange.note_answer();
    }
    let is_whole = session.as_mut().is_body_done();
    if !is_whole || reason == Reason::BadRequest {
        session.set_keepalive(None);
    }
    let written = if ctx.is_grpc_stream() {
        if let Some(call) = &mut ctx.grpc {
            call.is_refused = true;
        }
        write_grpc_refusal(reason, session, ctx).await
    } else {
        let answer = refusal::answer(reason, &session.req_header().headers, &ctx.request_id);
        write_answer(answer, session, ctx).await
    };
    if written.is_err() {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
    if !is_whole && !session.is_http2() {
        linger(session).await;
    }
    FailToProxy { error_code: status, can_reuse_downstream: is_whole }
}

/// In one frame: clients take the end of a stream in a frame of its own for an end without trailers.
async fn write_grpc_refusal(
    reason: Reason,
    session: &mut Session,
    ctx: &RequestContext,
) -> pingora::Result<()> {
    let mut head = grpc::refusal(reason, &ctx.request_id)?;
    tells::annotate(&mut head, ctx)?;
    let head = HttpTask::Header(Box::new(head), true);
    session.as_mut().response_duplex_vec(vec![head]).await.map(drop)
}

async fn write_answer(
    answer: pingora::Result<(ResponseHeader, Bytes)>,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> pingora::Result<()> {
    let (mut response, body) = answer?;
    tells::annotate(&mut response, ctx)?;
    if ctx.is_http_1_0 {
        response.set_version(http::Version::HTTP_10);
    }
    let is_head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(response), is_head).await?;
    if !is_head {
        ctx.response_bytes += body.len() as u64;
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

async fn linger(session: &mut Session) {
    let drain = async {
        let mut drained = 0;
        while let Ok(Some(bytes)) = session.as_mut().read_body_or_idle(false).await {
            drained += bytes.len();
            if drained > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}
