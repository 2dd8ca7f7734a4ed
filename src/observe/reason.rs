//! Why a request got an answer of ours instead of an upstream's: one row per reason.

/// Why we refused a request, or gave up on it.
///
/// One word per reason, the same in log, metrics, answers and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // `what` says it, per row.
pub enum Reason {
    NoRoute,
    BadRequest,
    HeadTooLarge,
    BodyTooLarge,
    RequestTimeout,
    RateLimited,
    NoEligibleUpstream,
    QueueFull,
    Draining,
    TooManyConnections,
    ConnectFailure,
    UpstreamReset,
    TlsFailure,
    BadResponse,
    ConnectTimeout,
    UpstreamTimeout,
    UpgradeUnsupported,
    GrpcNeedsHttp2,
    ClientClosed,
}

impl Reason {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 19] = [
        Self::NoRoute,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::RequestTimeout,
        Self::RateLimited,
        Self::NoEligibleUpstream,
        Self::QueueFull,
        Self::Draining,
        Self::TooManyConnections,
        Self::ConnectFailure,
        Self::UpstreamReset,
        Self::TlsFailure,
        Self::BadResponse,
        Self::ConnectTimeout,
        Self::UpstreamTimeout,
        Self::UpgradeUnsupported,
        Self::GrpcNeedsHttp2,
        Self::ClientClosed,
    ];

    /// Status of the answer. 499 stands in log and metrics only: nobody is left to read it.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The word in log, metrics, answers and `explain`.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// What happened, for the client: nothing about what stands behind us.
    pub const fn what(self) -> &'static str {
        self.row().what
    }

    /// What to do about it, for the operator: log and admin API carry it, answers to clients do not.
    pub const fn next(self) -> &'static str {
        self.row().next
    }

    #[expect(clippy::too_many_lines, reason = "a table: one row per reason")]
    const fn row(self) -> Row {
        match self {
            Self::NoRoute => Row {
                status: 404,
                word: "no_route",
                what: "no route matches this host and path",
                next: "compare with `evener explain --host HOST PATH`, or add a route without `hosts` and `path_prefix`",
            },
            Self::BadRequest => Row {
                status: 400,
                word: "bad_request",
                what: "the request is malformed or ambiguous",
                next: "`log.level = \"debug\"` names the offending part; the client has to send it differently",
            },
            Self::HeadTooLarge => Row {
                status: 431,
                word: "head_too_large",
                what: "the request line and headers are too large",
                next: "raise `max_header_size` of the listener, or find out who sends such large cookies",
            },
            Self::BodyTooLarge => Row {
                status: 413,
                word: "body_too_large",
                what: "the request body is too large",
                next: "raise `max_body_size` of the listener, if bodies of this size are meant to pass",
            },
            Self::RequestTimeout => Row {
                status: 408,
                word: "request_timeout",
                what: "the request took too long to arrive",
                next: "raise `header_timeout` of the listener, if clients are slow rather than hostile",
            },
            Self::RateLimited => Row {
                status: 429,
                word: "rate_limited",
                what: "too many requests; wait as long as Retry-After says",
                next: "raise the rate limit of the route, if clients are meant to send this much",
            },
            Self::NoEligibleUpstream => Row {
                status: 503,
                word: "no_eligible_upstream",
                what: "the service is not available at the moment",
                next: "GET /v1/pools/POOL on the admin address says of each upstream why not; see also evener_upstream_eligible",
            },
            Self::QueueFull => Row {
                status: 503,
                word: "queue_full",
                what: "the service is busy at the moment",
                next: "add upstreams, or raise `max_connections` of the upstreams or `queue` of the pool; see evener_upstream_in_flight",
            },
            Self::Draining => Row {
                status: 503,
                word: "draining",
                what: "the service is shutting down; try again",
                next: "raise `server.pre_stop_delay`, so that traffic is sent elsewhere before the listeners close",
            },
            Self::TooManyConnections => Row {
                status: 503,
                word: "too_many_connections",
                what: "too many connections at the moment",
                next: "raise `max_connections` of the listener, or lower its `keepalive_timeout`; see evener_connections",
            },
            Self::ConnectFailure => Row {
                status: 502,
                word: "connect_failure",
                what: "the service could not be reached",
                next: "check that the upstreams listen on the configured addresses; see evener_upstream_connects_total",
            },
            Self::UpstreamReset => Row {
                status: 502,
                word: "upstream_reset",
                what: "the service broke off before it answered",
                next: "look for crashes in the upstream's log, or add `reset` to `retry.on` of the route if a repeat does no harm",
            },
            Self::TlsFailure => Row {
                status: 502,
                word: "tls_failure",
                what: "no secure connection to the service could be made",
                next: "compare `tls` of the pool (`server_name`, `ca`) with the certificate that the upstream shows",
            },
            Self::BadResponse => Row {
                status: 502,
                word: "bad_response",
                what: "the service gave an answer that is not valid HTTP",
                next: "check `protocol` of the pool, and ask the upstream directly with `curl -v`",
            },
            Self::ConnectTimeout => Row {
                status: 504,
                word: "connect_timeout",
                what: "the service could not be reached in time",
                next: "check firewalls and the upstream's listen queue, or raise `timeouts.connect` of the pool",
            },
            Self::UpstreamTimeout => Row {
                status: 504,
                word: "upstream_timeout",
                what: "the service did not answer in time",
                next: "raise `timeout` of the route or `timeouts.read` of the pool, or look at evener_upstream_response_seconds",
            },
            Self::UpgradeUnsupported => Row {
                status: 501,
                word: "upgrade_unsupported",
                what: "the service does not switch protocols, so there are no WebSockets here",
                next: "HTTP/2 has no upgrades: write protocol = \"auto\" or \"http1\" in the pool, or route WebSockets to a pool of their own",
            },
            Self::GrpcNeedsHttp2 => Row {
                status: 501,
                word: "grpc_needs_http2",
                what: "gRPC needs HTTP/2 all the way, which is not spoken here",
                next: "write protocol = \"http2\" in the pool, and http2_cleartext = true in a listener without TLS; a proxy in front of Evener has to pass gRPC on in HTTP/2, too",
            },
            Self::ClientClosed => Row {
                status: 499,
                word: "client_closed",
                what: "the client closed the connection before it had its answer",
                next: "if many: compare evener_request_duration_seconds with how long the clients are willing to wait",
            },
        }
    }
}

/// How a [`Reason`] is told to the client, the log and the metrics.
struct Row {
    status: u16,
    word: &'static str,
    what: &'static str,
    next: &'static str,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn statuses_and_words_are_those_of_the_contract() {
        let told: Vec<(u16, &str)> =
            Reason::ALL.iter().map(|reason| (reason.status(), reason.word())).collect();
        assert_eq!(
            told,
            [
                (404, "no_route"),
                (400, "bad_request"),
                (431, "head_too_large"),
                (413, "body_too_large"),
                (408, "request_timeout"),
                (429, "rate_limited"),
                (503, "no_eligible_upstream"),
                (503, "queue_full"),
                (503, "draining"),
                (503, "too_many_connections"),
                (502, "connect_failure"),
                (502, "upstream_reset"),
                (502, "tls_failure"),
                (502, "bad_response"),
                (504, "connect_timeout"),
                (504, "upstream_timeout"),
                (501, "upgrade_unsupported"),
                (501, "grpc_needs_http2"),
                (499, "client_closed"),
            ]
        );
    }

    #[test]
    fn reasons_stand_in_all_in_the_order_of_their_discriminants() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?} counts in another reason's place");
        }
        assert_eq!(Reason::ALL.iter().collect::<HashSet<_>>().len(), Reason::ALL.len());
    }

    #[test]
    fn strangers_read_no_internals() {
        for reason in Reason::ALL {
            for internal in ["upstream", "pool", "evener", "config", "`", "/v1"] {
                assert!(!reason.what().contains(internal), "{reason:?} tells clients of `{internal}`");
            }
        }
    }

    #[test]
    fn operators_get_a_next_step_that_differs_from_what_the_client_reads() {
        for reason in Reason::ALL {
            assert!(!reason.what().is_empty() && reason.next().len() > reason.what().len() / 2);
            assert_ne!(reason.what(), reason.next());
        }
    }
}
