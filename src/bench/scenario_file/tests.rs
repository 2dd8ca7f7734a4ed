use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::catalogue::built_in;
use super::super::name::Candidate;
use super::super::scenario::{Act, Against, Arrivals, Bound, Fate, Load, Measure, Protocol, Scenario, Work};
use super::check::USUAL_CANDIDATES;
use crate::balance::StrategyKind;

/// The least that a file can say.
const LEAST: &str = "what = \"w\"\nexpected = \"e\"\nservers = 4\nduration = \"10s\"\n";

fn read(rest: &str) -> Scenario {
    Scenario::read("made_up", &format!("{LEAST}{rest}")).expect("it is right")
}

/// What is said about a file that begins with [`LEAST`]; `rest` begins on line 5.
fn said(rest: &str) -> String {
    match Scenario::read("made_up", &format!("{LEAST}{rest}")) {
        Ok(scenario) => panic!("this was read: {scenario:?}"),
        Err(error) => error.to_string(),
    }
}

fn built_in_scenarios() -> Vec<Scenario> {
    let read =
        |(name, text): &(&str, &str)| Scenario::read(name, text).unwrap_or_else(|error| panic!("{error}"));
    built_in().iter().map(read).collect()
}

#[test]
fn every_file_is_in_the_catalogue_and_the_other_way_round() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scenarios");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .expect("the folder of the scenarios")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = built_in().iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(files, listed);
    assert_eq!(listed.len(), built_in().len(), "a name is there twice");
}

#[test]
fn every_scenario_of_ours_reads_and_begins_with_its_question() {
    for (name, text) in built_in() {
        let scenario = Scenario::read(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert!(text.starts_with("# Question: "), "{name}");
        assert!(!scenario.expectations.is_empty(), "{name} expects nothing");
    }
}

/// Clients, servers and balancer share two cores: some 65 µs of them for each request.
#[test]
fn no_scenario_of_ours_asks_for_more_than_two_cores_carry() {
    for scenario in built_in_scenarios() {
        if let Load::Rate { per_second, .. } = scenario.load {
            let most = if scenario.script.is_empty() && scenario.name == "latency_added" {
                // Requests without work, and five candidates that do nothing else.
                10_000.0
            } else {
                3_000.0
            };
            assert!(per_second <= most, "{}: {per_second}", scenario.name);
        }
    }
}

/// `make bench` is to end within ten minutes, and builds first; a turn takes two seconds to begin and end.
#[test]
fn one_round_of_the_short_set_takes_less_than_nine_minutes() {
    let turn = |scenario: &Scenario| scenario.duration + Duration::from_secs(2);
    let scenario = |scenario: &Scenario| turn(scenario) * u32::try_from(scenario.candidates.len()).unwrap();
    let short = built_in_scenarios().into_iter().filter(|one| one.is_short);
    let all: Duration = short.map(|one| scenario(&one)).sum();
    assert!(all < Duration::from_secs(9 * 60), "{all:?}");
    assert!(all > Duration::from_secs(60), "there is a short set: {all:?}");
}

#[test]
fn every_goal_of_the_project_is_expected_somewhere() {
    let goals: Vec<_> = built_in_scenarios()
        .into_iter()
        .flat_map(|scenario| scenario.expectations)
        .filter(|expectation| expectation.is_goal)
        .map(|goal| (goal.measure, goal.bound, goal.against))
        .collect();
    let against = |candidate| Against::Times(candidate);
    for goal in [
        (Measure::P99, Bound::AtMost(1.10), against(Candidate::Perfect)),
        (Measure::P99, Bound::AtMost(1.25), against(Candidate::Perfect)),
        (Measure::P99, Bound::AtMost(0.7), against(Candidate::Caddy)),
        (Measure::P99, Bound::AtMost(1.05), against(Candidate::Nginx)),
        (Measure::P99, Bound::AtMost(1.05), against(Candidate::Haproxy)),
        (Measure::Errors, Bound::AtMost(0.01), Against::Nothing),
        (Measure::LeastShare, Bound::AtLeast(0.5), Against::Nothing),
        (Measure::MostShare, Bound::AtMost(2.0), Against::Nothing),
        (Measure::PerCpuSecond, Bound::AtLeast(0.97), against(Candidate::Bare)),
        (Measure::PerCpuSecond, Bound::AtLeast(2.0), against(Candidate::Caddy)),
        (Measure::P50, Bound::AtMost(0.1), Against::Beyond(Candidate::Direct)),
        (Measure::P99, Bound::AtMost(0.4), Against::Beyond(Candidate::Direct)),
        (Measure::ResidentMib, Bound::AtMost(30.0), Against::Nothing),
        (Measure::ConnectionKib, Bound::AtMost(8.0), Against::Nothing),
        (Measure::PerCpuSecond, Bound::AtLeast(0.8), against(Candidate::Nginx)),
        (Measure::PeakMib, Bound::AtMost(64.0), Against::Nothing),
    ] {
        assert!(goals.contains(&goal), "{goal:?}");
    }
}

#[test]
fn what_a_file_leaves_out_has_a_default() {
    let scenario = read("rate = 100\n");
    assert_eq!(
        scenario.load,
        Load::Rate { per_second: 100.0, arrivals: Arrivals::Poisson, work: Work::None }
    );
    assert_eq!((scenario.workers, scenario.balancers, scenario.threads), (4, 1, 1));
    assert_eq!((scenario.request.body, scenario.request.answer), (0, 1_024));
    assert!(scenario.request.is_kept && !scenario.is_short);
    assert_eq!([scenario.warmup, scenario.timeout], [Duration::from_secs(2); 2]);
    assert_eq!(scenario.candidates, USUAL_CANDIDATES);
}

#[test]
fn each_kind_of_load_and_work_is_read() {
    let millis = Duration::from_millis;
    let work = |text: &str| match read(&format!("rate = 1.5\nwork = {text}\n")).load {
        Load::Rate { work, .. } => work,
        load => panic!("{load:?}"),
    };
    assert_eq!(work("{ exponential = \"10ms\" }"), Work::Exponential { mean: millis(10) });
    let log_normal = Work::LogNormal { mean: millis(10), sigma: 0.5 };
    assert_eq!(work("{ log_normal = \"10ms\", sigma = 0.5 }"), log_normal);
    let classes = Work::TwoClasses { short: millis(2), long: millis(200), long_share: 0.05 };
    assert_eq!(work("{ short = \"2ms\", long = \"200ms\", long_share = 0.05 }"), classes);
    assert_eq!(read("clients = 3\n").load, Load::Clients(3));
    assert_eq!(read("idle = 0\n").load, Load::Idle(0));
}

fn fates(act: &str) -> Vec<Fate> {
    read(&format!("rate = 1\n[[act]]\n{act}\n")).script.into_iter().map(|act| act.fate).collect()
}

#[test]
fn each_kind_of_act_is_read() {
    let millis = Duration::from_millis;
    assert_eq!(fates("server = 3\nspeed = 0"), [Fate::Speed(0.0)]);
    let pauses = Fate::Pauses { length: millis(300), every: millis(4_000) };
    assert_eq!(fates("servers = \"all\"\npauses = { length = \"300ms\", every = \"4s\" }"), [pauses; 4]);
    let fail = Fate::Fail { status: 503, share: 1.0, latency: millis(1) };
    assert_eq!(fates("servers = [1, 2]\nfail = { status = 503 }"), [fail; 2]);
    assert_eq!(fates("server = 0\nhang = true"), [Fate::Hang]);
    assert_eq!(fates("server = 0\nrefuse = true"), [Fate::Refuse]);
    assert_eq!(fates("server = 0\nreset = { share = 0.5 }"), [Fate::Reset { share: 0.5 }]);
    assert_eq!(fates("server = 0\ndown = true"), [Fate::Down]);
    assert_eq!(fates("server = 0\nuntil = \"5s\"\naway = true"), [Fate::Away]);
}

#[test]
fn a_flapping_server_is_up_first_and_is_down_in_turns_until_the_end() {
    let text = "rate = 1\n[[act]]\nserver = 1\nfrom = \"1s\"\nflaps = { up = \"2s\", down = \"1500ms\" }\n";
    let downs = read(text).script.into_iter().map(|Act { server, from, until, fate }| {
        assert_eq!((server, fate), (1, Fate::Down));
        (from.as_millis(), until.as_millis())
    });
    assert_eq!(downs.collect::<Vec<_>>(), [(3_000, 4_500), (6_500, 8_000)]);
}

#[test]
fn an_expectation_may_name_several_at_once() {
    let text = "rate = 1\n[[expect]]\nmeasure = \"p99\"\nof = [\"least_connections\", \"random_two\"]\n\
                at_most = 1.1\ntimes = [\"nginx\", \"caddy\"]\n";
    let expectations = read(text).expectations;
    let pairs: Vec<_> = expectations.iter().map(|one| (one.of.name(), one.against)).collect();
    let [nginx, caddy] = [Candidate::Nginx, Candidate::Caddy].map(Against::Times);
    assert_eq!(
        pairs,
        [
            ("least_connections", nginx),
            ("least_connections", caddy),
            ("random_two", nginx),
            ("random_two", caddy),
        ]
    );
}

#[test]
fn a_mistake_is_shown_with_its_line_and_help() {
    insta::assert_snapshot!(said("rate = 100\n\n[[act]]\nserver = 4\nspeed = 0.2\n"), @r"
    error: there is no server 4
     --> made_up.toml:8:10
      |
    8 | server = 4
      |          ^ out of range
      |
      = help: servers are numbered from 0 to 3, see `servers`

    1 mistake in made_up.toml; nothing was measured
    ");
}

/// Each with the place and some words of what is said about it.
const WRONG: [(&str, &str, &str); 30] = [
    ("rate = 1\nspeling = 1\n", ":6:1", "unknown field `speling`"),
    ("rate = 1\n[[act]]\nserver = 0\nsped = 1\n", ":8:1", "unknown field `sped`"),
    ("rate = 1\ntimeout = 2\n", ":6:11", "write \"2s\" for seconds"),
    ("rate = 1\ntimeout = 1.5\n", ":6:11", "no duration"),
    ("rate = 1\nanswer = 1024\n", ":6:10", "write \"1KiB\""),
    ("rate = 1\nanswer = \"2GiB\"\n", ":6:10", "1GiB"),
    ("rate = 1\nbody = \"1GiB\"\n", ":6:8", "16MiB"),
    ("rate = \n", ":5:8", "TOML"),
    ("rate = nan\n", ":5:8", "not a number"),
    ("rate = 0\n", ":5:8", "out of range"),
    ("rate = 1\nclients = 2\n", ":6:11", "`rate` and `clients` exclude each other"),
    ("", ":3:11", "add one of `rate`, `clients`, `idle`"),
    ("clients = 2\nwork = { exponential = \"1ms\" }\n", ":6:8", "with `rate` only"),
    ("rate = 1\nwork = { exponential = \"1ms\", sigma = 1 }\n", ":6:8", "no kind of work"),
    ("rate = 1\nwarmup = \"10s\"\n", ":6:10", "nothing is measured"),
    ("rate = 1\narrivals = \"odd\"\n", ":6:12", "poisson, even"),
    ("rate = 1\ncandidates = [\"perfekt\"]\n", ":6:15", "`perfekt` is no candidate"),
    ("rate = 1\ncandidates = [\"bare\", \"bare\"]\n", ":6:23", "twice"),
    ("rate = 1\n[[act]]\nserver = 4\nspeed = 1\n", ":7:10", "no server 4"),
    ("rate = 1\n[[act]]\nservers = [0, 9]\nspeed = 1\n", ":7:15", "no server 9"),
    ("rate = 1\n[[act]]\nservers = \"some\"\nspeed = 1\n", ":7:11", "names no servers"),
    ("rate = 1\n[[act]]\nserver = 0\n", ":6:1", "nothing happens here"),
    ("rate = 1\n[[act]]\nserver = 0\nspeed = 1\ndown = true\n", ":6:1", "two things"),
    ("rate = 1\n[[act]]\nserver = 0\nfrom = \"10s\"\ndown = true\n", ":8:8", "begins after the end"),
    ("rate = 1\n[[act]]\nserver = 0\nuntil = \"11s\"\ndown = true\n", ":8:9", "ends after the end"),
    ("rate = 1\n[[act]]\nservers = \"all\"\nuntil = \"5s\"\naway = true\n", ":6:1", "every server is away"),
    ("rate = 1\n[[act]]\nserver = 0\nreset = { share = 1.5 }\n", ":8:19", "0.3 for 30 %"),
    ("rate = 1\n[[expect]]\nmeasure = \"p98\"\nof = \"nginx\"\nat_most = 1\n", ":7:11", "p99"),
    ("rate = 1\n[[expect]]\nmeasure = \"p99\"\nof = \"bare\"\nat_most = 1\n", ":8:6", "takes no part"),
    ("rate = 1\n[[expect]]\nmeasure = \"p99\"\nof = \"nginx\"\n", ":6:1", "one bound"),
];

#[test]
fn every_mistake_has_its_place_and_a_next_step() {
    for (rest, place, words) in WRONG {
        let said = said(rest);
        assert!(said.contains(&format!("made_up.toml{place}\n")), "{rest}\n{said}");
        assert!(said.contains(words), "{rest}\n{said}");
        assert!(said.contains("= help: "), "{rest}\n{said}");
        assert!(said.starts_with("error: ") && said.contains("1 mistake in"), "{rest}\n{said}");
    }
}

#[test]
fn mistakes_in_meaning_are_said_all_at_once() {
    let said = said("rate = 1\nworkers = 0\n[[act]]\nserver = 7\nspeed = 1000\n");
    assert!(said.contains("3 mistakes in made_up.toml"), "{said}");
}

#[test]
fn what_is_missing_is_named() {
    let said = Scenario::read("made_up", "what = \"w\"\n").unwrap_err().to_string();
    assert!(said.contains("missing field `expected`") && said.contains("add `expected = …`"), "{said}");
}

#[test]
fn others_are_usual_candidates_and_so_are_all_strategies_but_hashing() {
    let ours = StrategyKind::ALL.into_iter().filter(|&kind| kind != StrategyKind::ConsistentHash);
    for candidate in ours.map(Candidate::Evener).chain(Candidate::OTHERS) {
        assert!(USUAL_CANDIDATES.contains(&candidate), "{candidate}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(rest in "[a-z\\[\\]{}=\" 0-9.\\n]{0,60}") {
        let _ = Scenario::read("made_up", &format!("{LEAST}{rest}"));
        let _ = Scenario::read("made_up", &rest);
    }
}

#[test]
fn a_protocol_and_its_streams_belong_together() {
    let request = read("clients = 8\nprotocol = \"h2\"\nstreams = 4\nanswer = \"1GiB\"\n").request;
    assert_eq!((request.protocol, request.streams, request.answer), (Protocol::H2, 4, 1 << 30));
    for (rest, words) in [
        ("clients = 8\nprotocol = \"spdy\"\n", "write one of http1, https, h2c, h2, grpc"),
        ("clients = 8\nprotocol = \"https\"\nstreams = 4\n", "carries one request at a time"),
        ("clients = 8\nprotocol = \"h2\"\nstreams = 101\n", "out of range"),
        ("idle = 8\nprotocol = \"h2c\"\n", "idle connections speak HTTP/1.1"),
        ("clients = 8\nprotocol = \"grpc\"\nanswer = \"1GiB\"\n", "a gRPC message is held in memory"),
    ] {
        assert!(said(rest).contains(words), "{}", said(rest));
    }
}

#[test]
fn only_who_is_set_up_for_a_protocol_takes_part() {
    let takers = |rest: &str| {
        let scenario = read(rest);
        Candidate::all()
            .filter(|candidate| scenario.suits(*candidate))
            .map(Candidate::name)
            .collect::<Vec<_>>()
    };
    assert!(takers("clients = 8\n").ends_with(&["direct", "bare", "nginx", "haproxy", "caddy"]));
    assert!(takers("clients = 8\nprotocol = \"https\"\n").ends_with(&["logged", "nginx", "haproxy"]));
    assert!(takers("rate = 8\nprotocol = \"grpc\"\n").ends_with(&["direct", "nginx", "haproxy"]));
}
