//! Who can be measured.

use std::fmt;
use std::str::FromStr;

use crate::balance::StrategyKind;

/// A way to spread requests, or to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// Evener, with this strategy and its defaults otherwise.
    Evener(StrategyKind),
    /// Evener with `round_robin` and an access log: a line of JSON for every request, in a file.
    Logged,
    /// Evener, told by the bench where each request is served soonest: it knows every queue, every job and
    /// the script. It decides request by request, so that one that plans ahead could do better; no balancer
    /// knows as much, and everybody is compared with it.
    Perfect,
    /// No balancer: clients ask the first server themselves. What the others add is counted from here.
    Direct,
    /// The smallest proxy that Pingora can be, in front of the first server.
    Bare,
    /// nginx with `least_conn`.
    Nginx,
    /// `HAProxy` with `leastconn`.
    Haproxy,
    /// Caddy with `least_conn`.
    Caddy,
}

impl Candidate {
    /// The balancers that a machine may have installed beside us.
    pub const OTHERS: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Caddy];

    /// The word on the command line, in scenarios and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evener(kind) => kind.name(),
            Self::Logged => "logged",
            Self::Perfect => "perfect",
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// All there are, in the order of reports.
    pub fn all() -> impl Iterator<Item = Self> {
        let ours = StrategyKind::ALL.into_iter().map(Self::Evener);
        ours.chain([Self::Logged, Self::Perfect, Self::Direct, Self::Bare]).chain(Self::OTHERS)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Candidate {
    type Err = String;

    /// # Errors
    ///
    /// Says which names there are.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all().find(|candidate| candidate.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(Self::name).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }
}
