//! Plays: the real binary between real sockets, one file per subject, sentences for names.
//!
//! A play that speaks raw bytes does so because a client library would hide the bug. Where a play comes
//! from a bug that another load balancer shipped, its doc comment names the thread.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Here a line that reads well is worth more than an allocation.
#![allow(clippy::needless_for_each, clippy::format_collect, clippy::format_push_string)]

mod access_log;
mod admin;
mod bad_input;
mod balancing;
#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod bench_candidates;
mod cli;
mod clients;
mod config_api;
mod crash;
mod dashboard;
mod events;
mod explain;
mod failover;
mod forwarding;
mod grpc;
mod guard;
mod hardening;
mod health;
mod http2;
mod http2_abuse;
mod http2_conformance;
mod lifecycle;
mod limits;
mod openapi;
mod plan;
mod pool_api;
mod prometheus;
mod protocol;
mod proxy_protocol;
mod real_servers;
mod reload;
mod rig;
mod routing;
mod scripted;
mod state;
mod stats_history;
mod streams;
mod tells;
mod timeline;
mod tls;
mod tokens;
mod top;
mod traces;
mod upgrade;
mod upstream_grpc;
mod upstream_http2;
mod upstream_real;
mod upstream_tls;
mod watch;
mod websocket;
