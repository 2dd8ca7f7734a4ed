//! What a scenario means: defaults, limits, what excludes what, and indexes that name something.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::super::name::Candidate;
use super::super::scenario::{
    Act, Against, Arrivals, Bound, Expectation, Fate, Load, Protocol, Request, Scenario, Work,
};
use super::Mistake;
use super::shape::{
    ActShape, ExpectShape, FailShape, FileShape, FlapsShape, Given, Number, PausesShape, Servers, Time, Who,
    WorkShape,
};
use crate::balance::StrategyKind;

/// Each listens on a port of its own; 28 000 ephemeral ports are shared with all connections.
pub(super) const SERVERS_MAX: u64 = 2_000;
/// More than any app server has.
const WORKERS_MAX: u64 = 10_000;
/// Processes; more say nothing more about choosing without knowledge of each other.
const BALANCERS_MAX: u64 = 16;
/// As many as a large machine has cores.
const THREADS_MAX: u64 = 64;
/// Each has a connection, which takes two file descriptors of this process.
const CLIENTS_MAX: u64 = 10_000;
/// Connections to one address of loopback; beyond it ephemeral ports run out.
const IDLE_MAX: u64 = 20_000;
/// Requests on a connection of HTTP/2 at a time: all balancers allow that many as they come.
const STREAMS_MAX: u64 = 100;
/// Of an answer that is one gRPC message.
const MESSAGE_MAX: usize = 16 << 20;
/// Requests per second: beyond what one thread of clients can send.
const RATE_MAX: f64 = 100_000.0;
/// One turn; a run has many.
const DURATION_MAX: Duration = Duration::from_secs(600);
/// Of one turn: below it nothing is measured.
const DURATION_MIN: Duration = Duration::from_secs(1);
/// Of `reload_every`, and of one round of `flaps`: quicker than that, one is not over when the next begins.
const AGAIN_MIN: Duration = Duration::from_millis(100);
/// Of a log-normal distribution: beyond it a mean says nothing about what a run will see.
const SIGMA_MAX: f64 = 3.0;
/// Times nominal.
const SPEED_MAX: f64 = 100.0;

/// Who takes part when a file does not say: what the strategies are compared with each other by.
pub(super) const USUAL_CANDIDATES: [Candidate; 8] = [
    Candidate::Evener(StrategyKind::RoundRobin),
    Candidate::Evener(StrategyKind::LeastConnections),
    Candidate::Evener(StrategyKind::LatencyWeighted),
    Candidate::Evener(StrategyKind::RandomTwo),
    Candidate::Perfect,
    Candidate::Nginx,
    Candidate::Haproxy,
    Candidate::Caddy,
];

/// Everything that the shape alone cannot refuse.
pub(super) fn scenario(name: &str, file: FileShape) -> Result<Scenario, Vec<Mistake>> {
    let mut desk = Desk::default();
    let servers = desk.count(&file.servers, 1, SERVERS_MAX);
    let duration = desk.duration_in(&file.duration, DURATION_MIN, DURATION_MAX);
    let load = desk.load(&file);
    let request = desk.request(&file, load);
    let candidates = desk.candidates(file.candidates);
    let script = desk.script(&file.act, servers, duration);
    let scenario = Scenario {
        name: name.to_owned(),
        what: desk.sentence(&file.what),
        expected: desk.sentence(&file.expected),
        is_short: file.short,
        servers,
        workers: desk.count_or(file.workers, 4, 1, WORKERS_MAX),
        balancers: desk.count_or(file.balancers, 1, 1, BALANCERS_MAX),
        threads: desk.count_or(file.threads, 1, 1, THREADS_MAX),
        load,
        request,
        script,
        reload_every: file.reload_every.map(|every| desk.duration_in(&every, AGAIN_MIN, duration)),
        duration,
        warmup: desk.warmup(file.warmup, duration),
        timeout: desk.patience(file.timeout),
        expectations: desk.expectations(file.expect, &candidates),
        candidates,
    };
    if desk.mistakes.is_empty() { Ok(scenario) } else { Err(desk.mistakes) }
}

/// What is wrong so far. Whatever is refused is replaced by something harmless, so that the rest is
/// checked, too.
#[derive(Default)]
struct Desk {
    mistakes: Vec<Mistake>,
}

impl Desk {
    fn refuse(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: &str,
        help: impl Into<String>,
    ) {
        self.mistakes.push((span, [message.into(), label.to_owned(), help.into()]));
    }

    fn in_range<T: Copy + PartialOrd>(
        &mut self,
        span: Range<usize>,
        value: T,
        [least, most]: [T; 2],
        text: impl Fn(T) -> String,
    ) -> T {
        if (least..=most).contains(&value) {
            return value;
        }
        let label = if value < least { "too small" } else { "too large" };
        let help = format!("write a value from {} to {}", text(least), text(most));
        self.refuse(span, format!("`{}` is out of range", text(value)), label, help);
        least
    }

    fn count(&mut self, given: &Spanned<u64>, least: u64, most: u64) -> usize {
        let count = self.in_range(given.span(), *given.get_ref(), [least, most], |count| count.to_string());
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn count_or(&mut self, given: Given<u64>, usual: usize, least: u64, most: u64) -> usize {
        given.map_or(usual, |given| self.count(&given, least, most))
    }

    fn number(&mut self, given: &Spanned<Number>, least: f64, most: f64) -> f64 {
        self.in_range(given.span(), given.get_ref().0, [least, most], |number| number.to_string())
    }

    fn duration_in(&mut self, given: &Spanned<Time>, least: Duration, most: Duration) -> Duration {
        self.in_range(given.span(), given.get_ref().0, [least, most], |time| format!("{time:?}"))
    }

    /// Above zero.
    fn some_time(&mut self, given: &Spanned<Time>) -> Duration {
        self.duration_in(given, Duration::from_millis(1), DURATION_MAX)
    }

    fn sentence(&mut self, given: &Spanned<String>) -> String {
        let text = given.get_ref().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().any(char::is_control) {
            self.refuse(given.span(), "control characters are not for people", "here", "leave them out");
        }
        if text.is_empty() {
            self.refuse(given.span(), "this says nothing", "empty", "write a sentence for people");
        }
        text
    }

    fn warmup(&mut self, given: Given<Time>, duration: Duration) -> Duration {
        let Some(given) = given else { return WARMUP.min(duration / 2) };
        let warmup = given.get_ref().0;
        if warmup >= duration {
            let message = "the warm-up is as long as the turn";
            self.refuse(given.span(), message, "nothing is measured", "write less than `duration`");
        }
        warmup
    }

    fn patience(&mut self, given: Given<Time>) -> Duration {
        given.map_or(TIMEOUT, |given| self.duration_in(&given, Duration::from_millis(10), TIMEOUT_MAX))
    }
}

/// Strategies have seen every server by then.
const WARMUP: Duration = Duration::from_secs(2);
/// As in the simulation.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of a client: a turn ends that much later.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Who asks, and for what.
impl Desk {
    fn load(&mut self, file: &FileShape) -> Load {
        let given = [
            file.rate.as_ref().map(|rate| ("rate", rate.span())),
            file.clients.as_ref().map(|clients| ("clients", clients.span())),
            file.idle.as_ref().map(|idle| ("idle", idle.span())),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (None, _) => self.refuse(
                file.servers.span(),
                "nobody asks: there is no load",
                "in this file",
                "add one of `rate`, `clients`, `idle`",
            ),
            (Some((one, _)), Some((other, span))) => self.refuse(
                span,
                format!("`{one}` and `{other}` exclude each other"),
                "a second load",
                "keep `rate` (requests come at their own times), `clients` (each asks again when it was \
                 answered) or `idle` (connections that stay open)",
            ),
            _ => {}
        }
        match (&file.rate, &file.clients, &file.idle) {
            (Some(rate), ..) => self.open_loop(rate, file),
            (None, clients, idle) => {
                self.only_with_a_rate(file);
                match (clients, idle) {
                    (Some(clients), _) => Load::Clients(self.count(clients, 1, CLIENTS_MAX)),
                    (None, Some(idle)) => Load::Idle(self.count(idle, 0, IDLE_MAX)),
                    (None, None) => Load::Idle(0),
                }
            }
        }
    }

    fn open_loop(&mut self, rate: &Spanned<Number>, file: &FileShape) -> Load {
        let per_second = self.number(rate, 0.1, RATE_MAX);
        let arrivals = file.arrivals.as_ref().map_or(Arrivals::Poisson, |given| given.get_ref().0);
        let work = file.work.as_ref().map_or(Work::None, |work| self.work(work));
        Load::Rate { per_second, arrivals, work }
    }

    fn only_with_a_rate(&mut self, file: &FileShape) {
        let given = [
            file.work.as_ref().map(|work| ("work", work.span())),
            file.arrivals.as_ref().map(|arrivals| ("arrivals", arrivals.span())),
        ];
        for (key, span) in given.into_iter().flatten() {
            self.refuse(
                span,
                format!("`{key}` has a meaning with `rate` only"),
                "without `rate`",
                "leave it out: with `clients` or `idle` requests are answered at once",
            );
        }
    }

    fn request(&mut self, file: &FileShape, load: Load) -> Request {
        let usual = Request::default();
        let protocol = file.protocol.as_ref().map_or(usual.protocol, |given| given.get_ref().0);
        if let Some(given) = &file.protocol
            && protocol.is_multiplexed()
            && matches!(load, Load::Idle(_))
        {
            let help = "write \"http1\" or \"https\", or a load of `clients` or `rate`";
            self.refuse(given.span(), "idle connections speak HTTP/1.1", "here", help);
        }
        if let Some(given) = file.streams.as_ref().filter(|_| !protocol.is_multiplexed()) {
            let help = "leave it out, or write `protocol = \"h2c\"`, \"h2\" or \"grpc\"";
            self.refuse(given.span(), "a connection of HTTP/1.1 carries one request at a time", "here", help);
        }
        if let Some(given) = &file.answer
            && protocol == Protocol::Grpc
            && given.get_ref().0 > MESSAGE_MAX
        {
            self.refuse(
                given.span(),
                "a gRPC message is held in memory",
                "too large",
                "write at most \"16MiB\"",
            );
        }
        Request {
            body: file.body.as_ref().map_or(usual.body, |body| body.get_ref().0),
            answer: file.answer.as_ref().map_or(usual.answer, |answer| answer.get_ref().0),
            is_kept: file.keep_alive.unwrap_or(usual.is_kept),
            protocol,
            streams: file.streams.as_ref().map_or(usual.streams, |given| self.count(given, 1, STREAMS_MAX)),
        }
    }

    fn work(&mut self, given: &Spanned<WorkShape>) -> Work {
        let WorkShape { exponential, log_normal, sigma, short, long, long_share } = given.get_ref();
        match (exponential, log_normal, sigma, short, long, long_share) {
            (Some(mean), None, None, None, None, None) => Work::Exponential { mean: self.some_time(mean) },
            (None, Some(mean), Some(sigma), None, None, None) => {
                Work::LogNormal { mean: self.some_time(mean), sigma: self.number(sigma, 0.0, SIGMA_MAX) }
            }
            (None, None, None, Some(short), Some(long), Some(share)) => Work::TwoClasses {
                short: self.some_time(short),
                long: self.some_time(long),
                long_share: share.0,
            },
            _ => {
                let help = "write one of { exponential = \"10ms\" }, { log_normal = \"10ms\", sigma = 0.5 }, \
                            { short = \"2ms\", long = \"200ms\", long_share = 0.05 }";
                self.refuse(given.span(), "this is no kind of work", "keys that do not go together", help);
                Work::None
            }
        }
    }

    fn candidates(&mut self, given: Option<Vec<Spanned<Who>>>) -> Vec<Candidate> {
        let Some(given) = given else { return USUAL_CANDIDATES.to_vec() };
        let mut candidates = Vec::new();
        for who in given {
            let candidate = who.get_ref().0;
            if candidates.contains(&candidate) {
                self.refuse(who.span(), format!("{candidate} stands here twice"), "again", "remove one");
            } else {
                candidates.push(candidate);
            }
        }
        candidates
    }
}

/// What happens to whom.
impl Desk {
    fn script(&mut self, acts: &[Spanned<ActShape>], servers: usize, duration: Duration) -> Vec<Act> {
        let mut script = Vec::new();
        let mut last = 0..0;
        for act in acts {
            last = act.span();
            self.act(act, servers, duration, &mut script);
        }
        let is_away = |server| {
            let away = |act: &Act| act.server == server && act.fate == Fate::Away && act.from.is_zero();
            script.iter().any(away)
        };
        if (0..servers).all(is_away) {
            let help = "leave one server alone: balancers start with those that are not away";
            self.refuse(last, "every server is away at the beginning", "the last of them", help);
        }
        script
    }

    fn act(&mut self, given: &Spanned<ActShape>, servers: usize, duration: Duration, script: &mut Vec<Act>) {
        let shape = given.get_ref();
        let whom = self.whom(given, servers);
        let [from, until] = self.times(shape, duration);
        let Some(fate) = self.fate(given) else { return };
        let spans = match fate {
            What::Fate(Fate::Away) => self.absence(given, from, until),
            What::Fate(fate) => vec![(from, until, fate)],
            What::Flaps { up, down } => downs(from, until.min(duration), up, down),
        };
        for server in whom {
            script.extend(spans.iter().map(|&(from, until, fate)| Act { server, from, until, fate }));
        }
    }

    fn whom(&mut self, given: &Spanned<ActShape>, servers: usize) -> Vec<usize> {
        let shape = given.get_ref();
        let named: Vec<&Spanned<u64>> = match (&shape.server, shape.servers.as_ref().map(Spanned::get_ref)) {
            (Some(one), None) => vec![one],
            (None, Some(Servers::All)) => return (0..servers).collect(),
            (None, Some(Servers::These(these))) => these.iter().collect(),
            _ => {
                let help = "write `server = 0`, `servers = [0, 1]` or `servers = \"all\"`, one of them";
                self.refuse(given.span(), "to whom does this happen?", "in this act", help);
                return Vec::new();
            }
        };
        let last = servers.saturating_sub(1) as u64;
        let mut whom: Vec<usize> = Vec::new();
        for server in named {
            let index = *server.get_ref();
            if index > last {
                let message = format!("there is no server {index}");
                let help = format!("servers are numbered from 0 to {last}, see `servers`");
                self.refuse(server.span(), message, "out of range", help);
            }
            whom.push(usize::try_from(index.min(last)).unwrap_or(0));
        }
        whom
    }

    fn times(&mut self, shape: &ActShape, duration: Duration) -> [Duration; 2] {
        let from = shape.from.as_ref().map_or(Duration::ZERO, |from| from.get_ref().0);
        let until = shape.until.as_ref().map_or(Duration::MAX, |until| until.get_ref().0);
        if let Some(given) = shape.from.as_ref().filter(|_| from >= duration) {
            let help = format!("write less than {duration:?}, or raise `duration`");
            self.refuse(given.span(), "this begins after the end of the turn", "too late", help);
        } else if let Some(given) = &shape.until {
            if until > duration {
                let help = format!("write at most {duration:?}, or leave it out: for the rest of the turn");
                self.refuse(given.span(), "this ends after the end of the turn", "too late", help);
            } else if until <= from {
                let help = format!("write more than {from:?}");
                self.refuse(given.span(), "this ends before it begins", "too early", help);
            }
        }
        [from, until]
    }

    /// A server that joins has been away from the beginning, and joins before the end.
    fn absence(
        &mut self,
        given: &Spanned<ActShape>,
        from: Duration,
        until: Duration,
    ) -> Vec<(Duration, Duration, Fate)> {
        let shape = given.get_ref();
        if let Some(span) = shape.from.as_ref().filter(|_| !from.is_zero()).map(Spanned::span) {
            let help = "leave `from` out; to take a server away later, use `down`";
            self.refuse(span, "a server is away from the beginning on", "later", help);
        }
        if until == Duration::MAX {
            let help = "add `until`, the moment when it joins";
            self.refuse(given.span(), "a server that never joins takes no part", "in this act", help);
        }
        vec![(Duration::ZERO, until, Fate::Away)]
    }

    fn fate(&mut self, given: &Spanned<ActShape>) -> Option<What> {
        let shape = given.get_ref();
        let fates = [
            shape.speed.as_ref().map(|speed| What::Fate(Fate::Speed(self.number(speed, 0.0, SPEED_MAX)))),
            shape.pauses.as_ref().map(|pauses| What::Fate(self.pauses(pauses))),
            shape.fail.as_ref().map(|fail| What::Fate(self.failing(fail))),
            shape.hang.as_ref().map(|_| What::Fate(Fate::Hang)),
            shape.refuse.as_ref().map(|_| What::Fate(Fate::Refuse)),
            shape.reset.as_ref().map(|reset| What::Fate(Fate::Reset { share: reset.share.0 })),
            shape.down.as_ref().map(|_| What::Fate(Fate::Down)),
            shape.away.as_ref().map(|_| What::Fate(Fate::Away)),
            shape.flaps.as_ref().map(|flaps| self.flaps(flaps)),
        ];
        let mut fates = fates.into_iter().flatten();
        match (fates.next(), fates.next()) {
            (Some(fate), None) => Some(fate),
            (found, _) => {
                let message = if found.is_some() { "two things in one act" } else { "nothing happens here" };
                let help = "write one of speed, pauses, fail, hang, refuse, reset, down, away, flaps in each \
                            [[act]]";
                self.refuse(given.span(), message, "in this act", help);
                None
            }
        }
    }

    fn pauses(&mut self, given: &PausesShape) -> Fate {
        Fate::Pauses { length: self.some_time(&given.length), every: self.some_time(&given.every) }
    }

    fn failing(&mut self, given: &FailShape) -> Fate {
        let status =
            self.in_range(given.status.span(), *given.status.get_ref(), [400, 599], |code| code.to_string());
        Fate::Fail {
            status: u16::try_from(status).unwrap_or(500),
            share: given.share.map_or(1.0, |share| share.0),
            latency: given.latency.map_or(Duration::from_millis(1), |latency| latency.0),
        }
    }

    fn flaps(&mut self, given: &FlapsShape) -> What {
        let up = self.duration_in(&given.up, AGAIN_MIN, DURATION_MAX);
        What::Flaps { up, down: self.duration_in(&given.down, AGAIN_MIN, DURATION_MAX) }
    }
}

/// What an act says, before it is spread over time.
enum What {
    Fate(Fate),
    Flaps { up: Duration, down: Duration },
}

/// Up, down, up, down …; the last one is cut at the end.
fn downs(from: Duration, until: Duration, up: Duration, down: Duration) -> Vec<(Duration, Duration, Fate)> {
    let mut spans = Vec::new();
    let mut begins = from + up;
    while begins < until {
        spans.push((begins, (begins + down).min(until), Fate::Down));
        begins += down + up;
    }
    spans
}

/// What should come out.
impl Desk {
    fn expectations(
        &mut self,
        given: Vec<Spanned<ExpectShape>>,
        candidates: &[Candidate],
    ) -> Vec<Expectation> {
        given.into_iter().flat_map(|one| self.expectation(&one, candidates)).collect()
    }

    /// One for each pair that a file names at once.
    fn expectation(&mut self, given: &Spanned<ExpectShape>, candidates: &[Candidate]) -> Vec<Expectation> {
        let shape = given.get_ref();
        let Some(bound) = self.bound(given) else { return Vec::new() };
        let against: Vec<Against> = match (&shape.times, &shape.beyond) {
            (None, None) => vec![Against::Nothing],
            (Some(others), None) => self.taking_part(&others.0, candidates).map(Against::Times).collect(),
            (None, Some(others)) => self.taking_part(&others.0, candidates).map(Against::Beyond).collect(),
            (Some(_), Some(_)) => {
                let message = "`times` and `beyond` exclude each other";
                let help = "`times` divides by the other's figure, `beyond` takes it away; keep one";
                self.refuse(given.span(), message, "in this expectation", help);
                Vec::new()
            }
        };
        let (measure, is_goal) = (shape.measure.0, shape.goal);
        let whose = self.taking_part(&shape.of.0, candidates);
        let each = whose.flat_map(|of| against.iter().map(move |&against| (of, against)));
        each.map(|(of, against)| Expectation { measure, of, bound, against, is_goal }).collect()
    }

    fn bound(&mut self, given: &Spanned<ExpectShape>) -> Option<Bound> {
        match (&given.get_ref().at_most, &given.get_ref().at_least) {
            (Some(most), None) => Some(Bound::AtMost(most.get_ref().0)),
            (None, Some(least)) => Some(Bound::AtLeast(least.get_ref().0)),
            _ => {
                let help = "write `at_most` or `at_least`; for both, write two [[expect]]";
                self.refuse(given.span(), "an expectation has one bound", "in this one", help);
                None
            }
        }
    }

    fn taking_part(
        &mut self,
        named: &[Spanned<Who>],
        candidates: &[Candidate],
    ) -> std::vec::IntoIter<Candidate> {
        let takers = || candidates.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
        for who in named.iter().filter(|who| !candidates.contains(&who.get_ref().0)) {
            let message = format!("{} takes no part in this scenario", who.get_ref().0);
            let help = format!("add it to `candidates`, which are {}", takers());
            self.refuse(who.span(), message, "not a candidate", help);
        }
        named.iter().map(|who| who.get_ref().0).collect::<Vec<_>>().into_iter()
    }
}
