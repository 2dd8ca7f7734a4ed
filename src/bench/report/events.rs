//! The script in words: what happens to whom, and when.

use std::time::Duration;

use super::words::short;
use crate::bench::scenario::{Act, Fate, Scenario};

/// The same thing, happening to the same servers, once or several times.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    servers: Vec<usize>,
    fate: Fate,
    /// From and until, in seconds within the turn.
    pub(super) spans: Vec<(f64, f64)>,
    /// Whom and what: "server 0: speed 0.2".
    pub(super) words: String,
    /// From the beginning of the turn to its end.
    pub(super) is_throughout: bool,
}

/// The script, like with like.
pub(super) fn events(scenario: &Scenario) -> Vec<Event> {
    let end = scenario.duration;
    let mut events: Vec<Event> = Vec::new();
    for (servers, act) in moments(&scenario.script) {
        let span = (act.from.as_secs_f64(), act.until.min(end).as_secs_f64());
        let same = |event: &&mut Event| event.fate == act.fate && event.servers == servers;
        if let Some(event) = events.iter_mut().find(same) {
            event.spans.push(span);
            continue;
        }
        let words = format!("{}: {}", whom(&servers, scenario.servers), what(act.fate));
        let is_throughout = act.from.is_zero() && act.until >= end;
        events.push(Event { servers, fate: act.fate, spans: vec![span], words, is_throughout });
    }
    events
}

/// Acts that differ in nothing but the server, together.
fn moments(script: &[Act]) -> Vec<(Vec<usize>, &Act)> {
    let mut moments: Vec<(Vec<usize>, &Act)> = Vec::new();
    for act in script {
        let alike = |(_, other): &&mut (Vec<usize>, &Act)| {
            (other.fate, other.from, other.until) == (act.fate, act.from, act.until)
        };
        match moments.iter_mut().find(alike) {
            Some((servers, _)) => servers.push(act.server),
            None => moments.push((vec![act.server], act)),
        }
    }
    for (servers, _) in &mut moments {
        servers.sort_unstable();
        servers.dedup();
    }
    moments
}

/// Those to whom anything happens, in order.
pub(super) fn scripted(scenario: &Scenario) -> Vec<usize> {
    let mut servers: Vec<usize> =
        scenario.script.iter().map(|act| act.server).filter(|&server| server < scenario.servers).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// Servers that are named one by one; more are counted.
const NAMED_MAX: usize = 4;

/// "server 0", "servers 0 to 4", "all servers", "servers 1, 3", "7 of 20 servers"; `servers` in order.
pub(super) fn whom(servers: &[usize], of: usize) -> String {
    let is_run = servers.windows(2).all(|pair| matches!(pair, [one, next] if one + 1 == *next));
    match servers {
        [] => "no server".to_owned(),
        [one] => format!("server {one}"),
        all if all.len() == of => "all servers".to_owned(),
        [first, .., last] if is_run => format!("servers {first} to {last}"),
        few if few.len() <= NAMED_MAX => {
            let names: Vec<String> = few.iter().map(usize::to_string).collect();
            format!("servers {}", names.join(", "))
        }
        many => format!("{} of {of} servers", many.len()),
    }
}

fn what(fate: Fate) -> String {
    match fate {
        Fate::Speed(speed) if speed <= 0.0 => "paused".to_owned(),
        Fate::Speed(speed) => format!("speed {}", short(speed)),
        Fate::Pauses { length, every } => {
            format!("pauses of {} about every {}", time(length), time(every))
        }
        Fate::Fail { status, share, latency } => {
            format!("{} {status} in {}", of_share(share, "answers"), time(latency))
        }
        Fate::Hang => "hangs".to_owned(),
        Fate::Refuse => "refuses connections".to_owned(),
        Fate::Reset { share } => of_share(share, "resets answers"),
        Fate::Down => "down".to_owned(),
        Fate::Away => "not in the pool".to_owned(),
    }
}

fn of_share(share: f64, what: &str) -> String {
    if share >= 1.0 { what.to_owned() } else { format!("{} % of requests: {what}", short(share * 100.0)) }
}

/// `300 ms`, `4 s`.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 { format!("{} s", short(seconds)) } else { format!("{} ms", short(seconds * 1_000.0)) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::outcome;
    use super::*;

    /// Words, spans, whether throughout.
    type Told = (String, Vec<(f64, f64)>, bool);

    fn of(script: &[(usize, u64, u64, Fate)]) -> Vec<Told> {
        let mut scenario = outcome().scenario;
        scenario.duration = Duration::from_secs(20);
        let act = |&(server, from, until, fate)| Act {
            server,
            from: Duration::from_secs(from),
            until: if until == 0 { Duration::MAX } else { Duration::from_secs(until) },
            fate,
        };
        scenario.script = script.iter().map(act).collect();
        events(&scenario).into_iter().map(|event| (event.words, event.spans, event.is_throughout)).collect()
    }

    #[test]
    fn like_goes_with_like() {
        let flapping = of(&[(0, 3, 4, Fate::Down), (0, 6, 7, Fate::Down), (1, 2, 8, Fate::Hang)]);
        assert_eq!(
            flapping,
            [
                ("server 0: down".to_owned(), vec![(3.0, 4.0), (6.0, 7.0)], false),
                ("server 1: hangs".to_owned(), vec![(2.0, 8.0)], false),
            ]
        );
        let slow = of(&[(1, 0, 0, Fate::Speed(0.2)), (0, 0, 0, Fate::Speed(0.2))]);
        assert_eq!(slow, [("servers 0 to 1: speed 0.2".to_owned(), vec![(0.0, 20.0)], true)]);
    }

    #[test]
    fn fates_are_told_with_their_figures() {
        let words = |fate| of(&[(0, 1, 2, fate)]).remove(0).0;
        let fail = |share| Fate::Fail { status: 500, share, latency: Duration::from_millis(1) };
        assert_eq!(words(fail(1.0)), "server 0: answers 500 in 1 ms");
        assert_eq!(words(fail(0.3)), "server 0: 30 % of requests: answers 500 in 1 ms");
        assert_eq!(words(Fate::Speed(0.0)), "server 0: paused");
        let pauses = Fate::Pauses { length: Duration::from_millis(300), every: Duration::from_secs(4) };
        assert_eq!(words(pauses), "server 0: pauses of 300 ms about every 4 s");
    }

    #[test]
    fn servers_are_named_while_they_are_few() {
        assert_eq!(whom(&[1, 3], 10), "servers 1, 3");
        assert_eq!(whom(&[0, 1, 2], 3), "all servers");
        assert_eq!(whom(&[0, 2, 4, 6, 8], 10), "5 of 10 servers");
        assert_eq!(whom(&[], 10), "no server");
    }
}
