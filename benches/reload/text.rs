//! A large configuration: a route for each pool, by host.

use std::fmt::Write;
use std::net::SocketAddr;

/// Who is behind the pools, and what is said of them.
#[derive(Clone, Copy)]
pub(crate) struct Large {
    pub pools: usize,
    pub upstreams_each: usize,
    /// Upstreams have addresses of their own in 127.0.0.0/8, all on this port: one process can be them all.
    pub port: u16,
    /// Each so-manieth upstream has another address than usual; `None`: none has.
    pub moved: Option<usize>,
    /// Of every upstream; another one changes every pool.
    pub weight: u16,
    /// The same, of the very first upstream.
    pub first_weight: u16,
}

impl Large {
    pub(crate) const fn new(pools: usize, upstreams_each: usize) -> Self {
        Self { pools, upstreams_each, port: 9001, moved: None, weight: 10, first_weight: 10 }
    }

    /// Pools and routes, without listeners.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for pool in 0..self.pools {
            let _ = write!(text, "[routes.r{pool}]\nhosts = [\"{}\"]\npool = \"p{pool}\"\n", host(pool));
            let _ = write!(text, "[pools.p{pool}]\nstrategy = \"least_connections\"\nupstreams = [\n");
            for upstream in 0..self.upstreams_each {
                let number = pool * self.upstreams_each + upstream;
                let weight = if number == 0 { self.first_weight } else { self.weight };
                let _ = writeln!(text, "  {{ address = \"{}\", weight = {weight} }},", self.address(number));
            }
            text.push_str("]\n");
        }
        text
    }

    pub(crate) fn with_listeners(&self, listener: SocketAddr, admin: SocketAddr) -> String {
        format!(
            "[server]\nthreads = 2\n[log]\nlevel = \"warn\"\n[admin]\naddress = \"{admin}\"\n[listeners.http]\naddress = \"{listener}\"\n{}",
            self.text()
        )
    }

    /// Of one upstream, by its number among all.
    pub(crate) fn address(&self, number: usize) -> String {
        let is_moved = self.moved.is_some_and(|each| number.is_multiple_of(each));
        let (network, high, low) = (1 + u8::from(is_moved), number / 250, 1 + number % 250);
        format!("127.{network}.{high}.{low}:{}", self.port)
    }
}

/// What a request for this pool names.
pub(crate) fn host(pool: usize) -> String {
    format!("p{pool}.example")
}
