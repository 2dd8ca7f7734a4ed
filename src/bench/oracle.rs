//! Perfect knowledge: where each request is served soonest.
//!
//! Requests are dealt out in the order of their arrival, each to the server that finishes it first, by the
//! same [`Station`]s that the servers run on. Not a bound in the strict sense: who knows the requests to
//! come as well could sometimes let one wait for the good of others. Within the noise it is one.

use std::time::Duration;

use super::scenario::Scenario;
use super::schedule::Arrival;
use super::server::script::{Life, speeds_of};
use super::server::station::Station;

/// The server for each arrival that finishes it first, knowing queues, jobs and the script; never one that
/// is away, down, refusing, hanging or failing then, as long as there is another. Of those that finish at
/// the same moment, the one that was chosen the longest time ago.
///
/// `seed` is that of the fleet.
pub fn homes(scenario: &Scenario, schedule: &[Arrival], seed: u64) -> Vec<usize> {
    let mut servers: Vec<Server> =
        (0..scenario.servers).map(|index| Server::new(scenario, index, seed)).collect();
    let mut deaths: Vec<(Duration, usize)> = servers
        .iter()
        .enumerate()
        .flat_map(|(index, server)| server.life.deaths().map(move |at| (at, index)))
        .collect();
    deaths.sort_unstable();
    let mut deaths = deaths.into_iter().peekable();

    let choices = schedule.iter().enumerate().map(|(number, arrival)| {
        let now = arrival.at + LEAD;
        while let Some((at, index)) = deaths.next_if(|death| death.0 <= now) {
            servers[index].station.forget(at);
        }
        let home = soonest(&servers, now, arrival.work);
        if let Some(server) = servers.get_mut(home) {
            server.take(now, arrival.work, number + 1);
        }
        home
    });
    choices.collect()
}

/// A request reaches its server so much after it was to begin: client, balancer and two connections over
/// loopback. It matters where something happens to a server at that very moment; that all requests are
/// later by the same time changes nothing.
const LEAD: Duration = Duration::from_micros(200);

/// So long before and after a trouble its server is left alone: on a busy machine, doors open and shut late
/// and requests come late. Work that would be lost at the death of its server is never given to it.
const MARGIN: Duration = Duration::from_millis(50);

/// The end of work that is never done.
const NEVER: Duration = Duration::MAX;

struct Server {
    station: Station,
    life: Life,
    /// The number of the last request that it got, from 1.
    last: usize,
}

impl Server {
    fn new(scenario: &Scenario, index: usize, seed: u64) -> Self {
        let station = Station::new(scenario.workers, speeds_of(scenario, index, seed));
        Self { station, life: Life::of(scenario, index), last: 0 }
    }

    /// How likely it is that a request that would be done at `done` fails.
    fn risk(&self, now: Duration, done: Duration) -> f64 {
        if done == NEVER {
            1.0
        } else if self.life.is_quiet() {
            0.0
        } else {
            self.life.risk(now, done, MARGIN)
        }
    }

    fn peek(&self, now: Duration, work: Duration) -> Duration {
        self.station.peek(now, work).unwrap_or(NEVER)
    }

    /// A server that is sure to fail does no work, wherever the request goes.
    fn take(&mut self, now: Duration, work: Duration, number: usize) {
        self.last = number;
        if self.risk(now, self.peek(now, work)) < 1.0 {
            self.station.take(now, work);
        }
    }
}

/// The least risk first, then the earliest end, then whoever was not chosen for the longest time.
fn soonest(servers: &[Server], now: Duration, work: Duration) -> usize {
    let mut best = (0, f64::INFINITY, NEVER, usize::MAX);
    for (index, server) in servers.iter().enumerate() {
        let done = server.peek(now, work);
        // Most are too late, which is told without a look at their lives.
        if best.1 <= 0.0 && (done, server.last) >= (best.2, best.3) {
            continue;
        }
        let risk = server.risk(now, done);
        if risk < best.1 || (risk <= best.1 && (done, server.last) < (best.2, best.3)) {
            best = (index, risk, done, server.last);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scenario::{Act, Arrivals, Fate, Load, Work};
    use crate::bench::schedule::schedule;
    use crate::bench::server::testing;
    use proptest::prelude::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Requests of 10 ms each, every `gap`.
    fn arrivals(count: usize, gap: Duration) -> Vec<Arrival> {
        let mut at = Duration::ZERO;
        std::iter::repeat_with(|| {
            at += gap;
            Arrival { at, work: ms(10), balancer: 0 }
        })
        .take(count)
        .collect()
    }

    fn scenario(servers: usize, script: Vec<Act>) -> Scenario {
        testing::scenario(servers, 1, script)
    }

    fn act(server: usize, from: Duration, until: Duration, fate: Fate) -> Act {
        Act { server, from, until, fate }
    }

    #[test]
    fn equal_and_idle_servers_take_turns() {
        let homes = homes(&scenario(4, Vec::new()), &arrivals(40, ms(100)), 1);
        for round in homes.chunks(4) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_slow_server_gets_what_it_would_finish_first() {
        let slow = act(0, ms(0), Duration::MAX, Fate::Speed(0.2));
        let homes = homes(&scenario(2, vec![slow]), &arrivals(12, ms(1)), 1);
        // 50 ms at the slow one, 10 ms at the other: the slow one is first when five wait there.
        let at_the_slow_one: Vec<usize> = (0..12).filter(|&number| homes[number] == 0).collect();
        assert_eq!(at_the_slow_one.len(), 2, "{homes:?}");
        assert!(at_the_slow_one[0] >= 4, "{homes:?}");
    }

    #[test]
    fn trouble_is_avoided_before_while_and_after() {
        let fail = Fate::Fail { status: 500, share: 0.01, latency: ms(1) };
        for fate in [fail, Fate::Hang, Fate::Refuse, Fate::Reset { share: 1.0 }, Fate::Down, Fate::Away] {
            let trouble = act(0, ms(1_000), ms(2_000), fate);
            let arrivals = arrivals(300, ms(10));
            let homes = homes(&scenario(2, vec![trouble]), &arrivals, 1);
            for (home, arrival) in homes.iter().zip(&arrivals) {
                assert!(*home == 1 || !(ms(960)..ms(2_040)).contains(&arrival.at), "{fate:?} {arrival:?}");
            }
            let early = homes.iter().zip(&arrivals).filter(|(_, arrival)| arrival.at < ms(900));
            assert!(early.filter(|(home, _)| **home == 0).count() > 30, "it has its share before");
            assert!(homes[250..].contains(&0), "and after");
        }
    }

    #[test]
    fn where_all_are_in_trouble_the_lesser_evil_is_chosen() {
        let fail = |server, share| {
            let fate = Fate::Fail { status: 500, share, latency: ms(1) };
            act(server, ms(0), Duration::MAX, fate)
        };
        let script = vec![fail(0, 0.5), fail(1, 0.02), act(2, ms(0), Duration::MAX, Fate::Speed(0.0))];
        let homes = homes(&scenario(3, script), &arrivals(50, ms(1)), 1);
        assert_eq!(homes, [1; 50]);
        let nobody = scenario(1, vec![act(0, ms(0), Duration::MAX, Fate::Down)]);
        assert_eq!(super::homes(&nobody, &arrivals(2, ms(1)), 1), [0, 0]);
    }

    /// It is killed at 1 s and has a queue of 900 ms before.
    #[test]
    fn work_that_would_be_lost_at_a_death_goes_elsewhere() {
        let script =
            vec![act(0, ms(1_000), ms(1_100), Fate::Down), act(1, ms(0), Duration::MAX, Fate::Speed(0.001))];
        let arrivals = arrivals(200, Duration::from_micros(2_500));
        let homes = homes(&scenario(2, script), &arrivals, 1);
        let at_the_mortal = homes.iter().filter(|home| **home == 0).count();
        // 95 requests of 10 ms end before the margin.
        assert!((90..=95).contains(&at_the_mortal), "{at_the_mortal}");
    }

    #[test]
    fn a_server_that_was_killed_has_no_queue_afterwards() {
        let script = vec![act(0, ms(100), ms(200), Fate::Down), act(1, ms(0), Duration::MAX, Fate::Down)];
        let mut arrivals = arrivals(90, ms(1));
        arrivals.push(Arrival { at: ms(300), work: ms(10), balancer: 0 });
        assert_eq!(homes(&scenario(2, script), &arrivals, 1).last(), Some(&0));
    }

    #[test]
    fn pauses_are_foreseen_and_the_same_as_the_fleets() {
        let pauses = Fate::Pauses { length: ms(300), every: ms(700) };
        let scenario = scenario(2, (0..2).map(|server| act(server, ms(0), Duration::MAX, pauses)).collect());
        let arrivals = arrivals(250, ms(20));
        let homes = homes(&scenario, &arrivals, 9);
        let mut stations = [0, 1].map(|server| Station::new(1, speeds_of(&scenario, server, 9)));
        let mut slow = 0;
        for (&home, arrival) in homes.iter().zip(&arrivals) {
            let done = stations[home].take(arrival.at + LEAD, arrival.work).expect("it ends");
            slow += usize::from(done > arrival.at + ms(100));
        }
        // Nobody waits but when both pause.
        assert!(slow < 60, "{slow} of 250");
    }

    proptest! {
        /// No other server would have finished a request sooner, on the same history.
        #[test]
        fn nobody_would_have_been_sooner(
            seed in 0..1_000_u64, servers in 1..6_usize, workers in 1..4_usize, speeds in prop::collection::vec(0.1..2.0_f64, 5)
        ) {
            let script = (0..servers)
                .map(|server| act(server, ms(0), Duration::MAX, Fate::Speed(speeds[server])))
                .collect();
            let mut scenario = testing::scenario(servers, workers, script);
            let work = Work::Exponential { mean: ms(10) };
            scenario.load = Load::Rate { per_second: 400.0, arrivals: Arrivals::Poisson, work };
            let schedule = schedule(&scenario, seed);
            let homes = homes(&scenario, &schedule, seed);
            prop_assert_eq!(homes.len(), schedule.len());
            let mut stations: Vec<Station> =
                (0..servers).map(|server| Station::new(workers, speeds_of(&scenario, server, seed))).collect();
            for (&home, arrival) in homes.iter().zip(&schedule) {
                let now = arrival.at + LEAD;
                let soonest = stations.iter().filter_map(|station| station.peek(now, arrival.work)).min();
                prop_assert_eq!(stations[home].take(now, arrival.work), soonest);
            }
        }
    }
}
