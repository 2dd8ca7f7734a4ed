//! What happens in a run: servers, load, the script, and what is expected of whom.

use std::time::Duration;

use super::name::Candidate;

/// A scenario, read and checked: every index names a server, every time lies within the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    /// One sentence for people.
    pub what: String,
    /// What a right order among the candidates is, and why; for people.
    pub expected: String,
    /// Whether `make bench` runs it.
    pub is_short: bool,
    /// App servers, 1 to 2 000.
    pub servers: usize,
    /// Requests that one server works on at a time, 1 to 10 000; more wait in one queue.
    pub workers: usize,
    /// Balancer processes in front of the same servers, each client request at a random one; 1 to 16.
    pub balancers: usize,
    /// Worker threads of one balancer.
    pub threads: usize,
    /// Who asks, and when.
    pub load: Load,
    /// What is asked for.
    pub request: Request,
    /// What happens to which server.
    pub script: Vec<Act>,
    /// The balancer reads a changed configuration that often.
    pub reload_every: Option<Duration>,
    /// Of one turn, warm-up included.
    pub duration: Duration,
    /// The beginning of a turn, not counted.
    pub warmup: Duration,
    /// A client gives up after so long.
    pub timeout: Duration,
    /// Who takes part when nobody says otherwise; other balancers only where installed and asked for.
    pub candidates: Vec<Candidate>,
    /// What should come out.
    pub expectations: Vec<Expectation>,
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Open loop: requests begin when their time has come, however many are under way.
    Rate {
        /// Requests per second in all, above 0.
        per_second: f64,
        /// The time between two of them.
        arrivals: Arrivals,
        /// How long each takes.
        work: Work,
    },
    /// Closed loop: so many clients, each asks again as soon as it was answered. Shows what a request
    /// costs, and says nothing about latency.
    Clients(usize),
    /// So many connections are opened, ask once, and stay open: what an idle connection costs.
    Idle(usize),
}

/// The time between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Independent clients: exponential gaps.
    Poisson,
    /// Equal gaps.
    Even,
}

/// How long requests take at nominal speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Answered at once.
    None,
    /// Exponentially distributed.
    Exponential {
        /// Above zero.
        mean: Duration,
    },
    /// Log-normally distributed.
    LogNormal {
        /// Above zero.
        mean: Duration,
        /// Of the logarithm, 0 to 3.
        sigma: f64,
    },
    /// A share (0 to 1) of long requests among short ones, each log-normal with sigma 0.3.
    TwoClasses {
        /// Mean of the short ones.
        short: Duration,
        /// Mean of the long ones.
        long: Duration,
        /// 0 to 1.
        long_share: f64,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes in the body of a request; 0 is a GET, more is a POST.
    pub body: usize,
    /// Bytes in the body of an answer.
    pub answer: usize,
    /// Whether a connection serves many requests.
    pub is_kept: bool,
    /// What clients speak.
    pub protocol: Protocol,
    /// Requests under way on one connection at a time, 1 to 100; 1 unless [`Protocol::is_multiplexed`].
    pub streams: usize,
}

impl Default for Request {
    fn default() -> Self {
        Self { body: 0, answer: 1_024, is_kept: true, protocol: Protocol::Http1, streams: 1 }
    }
}

/// What clients speak with the balancer. With servers it speaks HTTP/1.1 in clear, but for gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in clear.
    Http1,
    /// HTTP/1.1 over TLS 1.3.
    Https,
    /// HTTP/2 in clear, by prior knowledge.
    H2c,
    /// HTTP/2 over TLS 1.3.
    H2,
    /// Unary gRPC calls, HTTP/2 in clear on both sides.
    Grpc,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Http1, Self::Https, Self::H2c, Self::H2, Self::Grpc];

    /// The word in scenarios and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
            Self::Grpc => "grpc",
        }
    }

    /// Whether the balancer shows a certificate.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    /// Whether one connection carries many requests at a time.
    pub const fn is_multiplexed(self) -> bool {
        matches!(self, Self::H2c | Self::H2 | Self::Grpc)
    }
}

/// Something that happens to a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// Index of the server.
    pub server: usize,
    /// Since the beginning of the turn.
    pub from: Duration,
    /// `Duration::MAX`: for the rest of it.
    pub until: Duration,
    /// What.
    pub fate: Fate,
}

/// What happens to a server for some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Works at this speed; 1 is nominal, 0 is paused.
    Speed(f64),
    /// Stands still for `length`, about once in `every`, at random moments of its own.
    Pauses {
        /// Of one pause.
        length: Duration,
        /// Mean time from the end of one to the beginning of the next.
        every: Duration,
    },
    /// Answers `status` after `latency`, without work, to this share of requests.
    Fail {
        /// 400 to 599.
        status: u16,
        /// Of requests, 0 to 1.
        share: f64,
        /// Until it is answered.
        latency: Duration,
    },
    /// Takes requests and never answers them.
    Hang,
    /// Refuses new connections; those that are open go on.
    Refuse,
    /// Resets the connection in the middle of this share of answers.
    Reset {
        /// Of answers, 0 to 1.
        share: f64,
    },
    /// Killed: every connection is reset, new ones are refused, all work is lost. Started again at the end.
    Down,
    /// Is not among the upstreams before the end of this: it joins then.
    Away,
}

/// What should come out.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// Which figure.
    pub measure: Measure,
    /// Whose.
    pub of: Candidate,
    /// What it should be.
    pub bound: Bound,
    /// Counted from what.
    pub against: Against,
    /// Whether it is a goal of the project, and not only an order that must be right.
    pub is_goal: bool,
}

/// What a bound is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The figure itself.
    Nothing,
    /// The figure divided by that of another candidate.
    Times(Candidate),
    /// The figure less that of another candidate.
    Beyond(Candidate),
}

/// From which side a figure is bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not above.
    AtMost(f64),
    /// Not below.
    AtLeast(f64),
}

/// A figure of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Median latency of successful requests, in milliseconds, from the moment when they should have begun.
    P50,
    /// Its 99th percentile.
    P99,
    /// Its 99.9th percentile.
    P999,
    /// The 99th percentile of all requests, failed ones included.
    P99All,
    /// Share of requests that failed, 0 to 1.
    Errors,
    /// The smallest share of requests among servers to which nothing happens, in relation to their mean.
    LeastShare,
    /// The largest.
    MostShare,
    /// The smallest within any second after the warm-up.
    LeastShareOfASecond,
    /// The largest within any second after the warm-up.
    MostShareOfASecond,
    /// The smallest share, in relation to a fair one, of a server that has been well again for ten seconds.
    ShareAfterwards,
    /// Requests per second of CPU time of the balancer.
    PerCpuSecond,
    /// Resident memory of the balancer at the end, in MiB.
    ResidentMib,
    /// Resident memory per idle connection, in KiB.
    ConnectionKib,
    /// The most memory that the balancer ever had resident, in MiB.
    PeakMib,
}

impl Scenario {
    /// Makes a turn take `duration`: warm-up and script stretch with it; pauses stay as long as they are.
    pub fn stretch(&mut self, duration: Duration) {
        let factor = duration.as_secs_f64() / self.duration.as_secs_f64();
        let stretched = |time: Duration| if time == Duration::MAX { time } else { time.mul_f64(factor) };
        self.warmup = stretched(self.warmup);
        for act in &mut self.script {
            act.from = stretched(act.from);
            act.until = stretched(act.until);
        }
        self.duration = duration;
    }

    /// Whether a candidate can take part. Perfect knowledge needs a schedule; `direct` and `bare` know one
    /// server, so that they make sense where requests are no work and only the cost counts. Other protocols than
    /// HTTP/1.1 in clear are for the balancers that are set up for them; servers themselves speak gRPC, too.
    pub fn suits(&self, candidate: Candidate) -> bool {
        match candidate {
            Candidate::Perfect | Candidate::Bare | Candidate::Caddy
                if self.request.protocol != Protocol::Http1 =>
            {
                false
            }
            Candidate::Direct if !matches!(self.request.protocol, Protocol::Http1 | Protocol::Grpc) => false,
            Candidate::Perfect => matches!(self.load, Load::Rate { .. }),
            Candidate::Direct | Candidate::Bare => {
                !matches!(self.load, Load::Rate { work, .. } if work != Work::None)
            }
            _ => true,
        }
    }
}
