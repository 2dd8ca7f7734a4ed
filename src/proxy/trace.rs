//! To which trace a request belongs, and what the upstream is told of it.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::config::TracingConfig;
use crate::observe::{TEXT_BYTES_MAX, TraceParent};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace of one request.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub id: u128,
    /// The client's span.
    pub parent: Option<u64>,
    /// Of the request; those of attempts follow it.
    pub span: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
    /// What the client sent along.
    pub state: String,
}

impl Trace {
    /// `None`: the client does not record its trace, so nobody should; its headers go on as they are.
    pub(super) fn of(headers: &HeaderMap, config: &TracingConfig) -> Option<Self> {
        let span = fastrand::u64(1..);
        let Some(parent) = parent_in(headers) else {
            let is_sampled = fastrand::f32() < config.sample;
            return Some(Self {
                id: fastrand::u128(1..),
                parent: None,
                span,
                is_sampled,
                state: String::new(),
            });
        };
        let TraceParent { trace_id, span_id, is_sampled } = parent;
        is_sampled.then(|| Self {
            id: trace_id,
            parent: Some(span_id),
            span,
            is_sampled,
            state: state_in(headers),
        })
    }

    /// The span of an attempt, counted from 1.
    pub(super) fn span_of(&self, attempt: u32) -> u64 {
        // Zero would be nobody's.
        self.span.wrapping_add(attempt.into()).max(1)
    }

    /// What the upstream is told: to be a child of this attempt.
    pub(super) fn tell(&self, attempt: u32, request: &mut RequestHeader) -> pingora::Result<()> {
        let &Self { id, is_sampled, .. } = self;
        let parent = TraceParent { trace_id: id, span_id: self.span_of(attempt), is_sampled };
        request.insert_header("traceparent", parent.text())?;
        if self.parent.is_none() {
            // It belonged to a trace that could not be read.
            request.remove_header(&TRACESTATE);
        }
        Ok(())
    }
}

/// As one list; half of one would be none, so what is too long is left out.
fn state_in(headers: &HeaderMap) -> String {
    let lines = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let joined = lines.collect::<Vec<_>>().join(",");
    if joined.len() <= TEXT_BYTES_MAX { joined } else { String::new() }
}

/// Of two of them, none counts.
fn parent_in(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes);
    let only = values.next().filter(|_| values.next().is_none())?;
    TraceParent::parse(only.trim_ascii())
}
