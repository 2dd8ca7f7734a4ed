//! Hardening: clients that mean harm, or do it anyway. Others are served meanwhile; afterwards all is as before.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::{Client, Evener, Load, Origin, Reply, wait_until};

/// Until connections and requests have gone back to none: what a busy machine takes for that, and more.
const SOON: Duration = Duration::from_secs(60);

fn in_front_of(origin: &Origin, listener: &str, route: &str) -> Evener {
    Evener::start(&format!(
        "[listeners.http]\n{listener}\n[routes.all]\npool = \"app\"\n{route}\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ))
}

/// Does harm while ordinary clients send one request after another: each of those is answered as ever.
#[track_caller]
fn while_others_are_served(evener: &Evener, harm: impl FnOnce()) {
    let others = Load::on(evener.address(), 3);
    // On a busy machine they take their time, and whoever comes late would be among those that harm is done to.
    wait_until(SOON, || evener.admin().metric("evener_connections", &["listener=\"http\""]) > 2.5);
    harm();
    let answers = others.stop();
    assert!(answers.len() == 1 && answers.contains_key(&200), "{answers:?}");
}

/// Nothing is left of it: no connection, no request, and the upstream is owed nothing and not blamed.
#[track_caller]
fn assert_at_rest(evener: &Evener, origin: &Origin) {
    let admin = evener.admin();
    wait_until(SOON, || admin.metric("evener_connections", &["listener=\"http\""]) < 0.5);
    admin.wait_for_rest();
    wait_until(SOON, || admin.upstream("app", origin)["in_flight"] == 0);
    evener.get("/").expect_status(200);
}

fn assert_not_blamed(evener: &Evener, origin: &Origin) {
    let upstream = evener.admin().upstream("app", origin);
    assert_eq!((&upstream["errors"], &upstream["eligible"]), (&0.into(), &true.into()), "{upstream}");
}

fn crowd(evener: &Evener, size: usize) -> Vec<Client> {
    (0..size).map(|_| evener.connect()).collect()
}

/// Room for the sockets of a play.
fn allow_many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("as much as we may");
}

/// One byte from each client whose connection stands, again and again until none does.
fn drip(mut clients: Vec<Client>, byte: &str) {
    let started = Instant::now();
    while !clients.is_empty() {
        clients.retain_mut(|client| client.send_if_open(byte) && !client.is_over());
        assert!(started.elapsed() < SOON, "{} are still open", clients.len());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Slowloris.
#[test]
fn heads_that_drip_in_are_cut_off() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "header_timeout = \"1s\"", "");
    while_others_are_served(&evener, || {
        let mut clients = crowd(&evener, 200);
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "));
        drip(clients, "x");
    });
    assert_at_rest(&evener, &origin);
    assert_not_blamed(&evener, &origin);
}

#[test]
fn bodies_that_drip_in_end_with_their_routes_timeout() {
    let origin = Origin::answering("ok");
    let slow = "timeout = \"60s\"\n[routes.slow]\npath_prefix = \"/slow\"\npool = \"app\"\ntimeout = \"1s\"";
    let evener = in_front_of(&origin, "", slow);
    while_others_are_served(&evener, || {
        let mut clients = crowd(&evener, 100);
        let head = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        clients.iter_mut().for_each(|client| client.send(head));
        drip(clients, "x");
    });
    assert_at_rest(&evener, &origin);
    assert_not_blamed(&evener, &origin);
}

/// The upstream is free again with the route's timeout, though its answer was never read and the clients have
/// not left. It is to blame for nothing but what it did not begin to answer in time, which a busy machine may bring
/// about.
#[test]
fn readers_that_sip_hold_an_upstream_no_longer_than_their_route_allows() {
    // The head at once, and as much of the body as anybody takes.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
    let origin = Origin::serving(move |request| match request.target.as_str() {
        "/large" => Reply::raw(head).then_repeat([b'x'; 16_384], Duration::ZERO),
        _ => Reply::ok("ok"),
    });
    let slow =
        "timeout = \"60s\"\n[routes.large]\npath_prefix = \"/large\"\npool = \"app\"\ntimeout = \"3s\"";
    let evener = in_front_of(&origin, "", slow);
    let mut told_504 = 0;
    while_others_are_served(&evener, || {
        let mut clients = crowd(&evener, 20);
        let mut seen = vec![Vec::new(); clients.len()];
        let mut sip = |clients: &mut [Client]| {
            for (client, seen) in clients.iter_mut().zip(&mut seen) {
                seen.extend(client.try_read_bytes(1).unwrap_or_default());
            }
            seen.clone()
        };
        clients.iter_mut().for_each(|client| client.start("GET", "/large", "", b""));
        let large_in_flight = || evener.admin().metric("evener_requests_in_flight", &["route=\"large\""]);
        wait_until(SOON, || large_in_flight() > 19.5);
        wait_until(SOON, || {
            sip(&mut clients);
            large_in_flight() < 0.5
        });
        // Whoever was told something has a status.
        let status = b"HTTP/1.1 504";
        wait_until(SOON, || {
            let heads = sip(&mut clients);
            let mut all = clients.iter_mut().zip(&heads);
            all.all(|(client, head)| {
                head.len() >= status.len() || client.is_closed_within(Duration::from_millis(1))
            })
        });
        told_504 = sip(&mut clients).iter().filter(|head| head.starts_with(status)).count();
    });
    assert_at_rest(&evener, &origin);
    let upstream = evener.admin().upstream("app", &origin);
    assert_eq!((&upstream["errors"], &upstream["eligible"]), (&told_504.into(), &true.into()), "{upstream}");
}

/// They cost a socket each, and nobody else anything.
#[test]
fn thousands_of_idle_connections_are_only_counted() {
    const MANY: usize = 2_000;
    allow_many_files();
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "keepalive_timeout = \"30m\"", "");
    while_others_are_served(&evener, || {
        let mut clients = crowd(&evener, MANY);
        // Some have asked once, most never say a word.
        clients.iter_mut().step_by(10).for_each(|client| drop(client.get("/").expect_status(200)));
        let open = || evener.admin().metric("evener_connections", &["listener=\"http\""]);
        wait_until(SOON, || open() >= 2_000.0);
        clients.iter_mut().step_by(100).for_each(|client| drop(client.get("/").expect_status(200)));
    });
    assert_at_rest(&evener, &origin);
}

#[test]
fn those_who_leave_in_any_phase_leave_nothing_behind() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/late" => Reply::raw("").then_sleep(Duration::from_millis(300)).then(Reply::ok("late")),
        "/long" => Reply::ok(&"x".repeat(1 << 20)),
        _ => Reply::ok("ok"),
    });
    let evener = in_front_of(&origin, "header_timeout = \"2s\"\nkeepalive_timeout = \"2s\"", "");
    let phases = [
        "",
        "GE",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /long HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf of it",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /long HTT",
    ];
    while_others_are_served(&evener, || {
        for round in 0..200 {
            let mut client = evener.connect();
            client.send(phases[round % phases.len()]);
            match round % 3 {
                0 => client.reset(),
                1 => drop(client),
                // Half-open: nothing more will be said, and nobody says good-bye.
                _ => {
                    client.finish_sending();
                    std::mem::forget(client);
                }
            }
        }
    });
    assert_at_rest(&evener, &origin);
    assert_not_blamed(&evener, &origin);
}

#[test]
fn floods_of_header_fields_are_refused_one_by_one() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "", "");
    let many: String = (0..300).map(|number| format!("X-{number}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(100_000));
    while_others_are_served(&evener, || {
        for fields in [&many, &long].into_iter().cycle().take(200) {
            let mut client = evener.connect();
            client.send_if_open(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            client.read("GET").expect_status(431);
        }
    });
    assert_at_rest(&evener, &origin);
    assert_not_blamed(&evener, &origin);
}

/// Whoever is in is served; whoever comes too late is told so, or finds the door closed.
#[test]
fn a_flood_of_connections_does_not_reach_those_within_the_limit() {
    allow_many_files();
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "max_connections = 20", "");
    // Evener has tried its listener itself.
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
    while_others_are_served(&evener, || {
        let mut within = crowd(&evener, 10);
        within.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
        for _ in 0..5 {
            let flood = crowd(&evener, 100);
            within.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
            drop(flood);
        }
    });
    let listener = evener.admin();
    wait_until(SOON, || listener.metric("evener_connections", &["listener=\"http\""]) < 0.5);
    wait_until(SOON, || evener.connect().try_get("/").is_some_and(|answer| answer.status() == 200));
    assert_at_rest(&evener, &origin);
}

/// The accept loop waits rather than spin, and goes on by itself when there are descriptors again.
#[test]
fn without_file_descriptors_it_waits_and_recovers() {
    let origin = Origin::answering("ok");
    let evener = Evener::start_with_few_files(
        &format!("[listeners.http]\n[pools.app]\nupstreams = [\"{}\"]", origin.address()),
        96,
    );
    let process = evener.process_id();
    let clients = crowd(&evener, 300);
    wait_until(SOON, || evener.log().contains("Too many open files") || open_files(process) >= 95);
    let (begun, before) = (Instant::now(), cpu_time(process));
    thread::sleep(Duration::from_secs(3));
    let (passed, spent) = (begun.elapsed(), cpu_time(process).saturating_sub(before));
    assert!(spent < passed / 4, "{spent:?} of work in {passed:?} of waiting");

    drop(clients);

    wait_until(SOON, || evener.connect().try_get("/").is_some_and(|answer| answer.status() == 200));
    for _ in 0..20 {
        evener.get("/").expect_status(200);
    }
    assert_at_rest(&evener, &origin);
    assert_not_blamed(&evener, &origin);
}

fn open_files(process_id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process_id}/fd")).expect("Linux").count()
}

/// In user and kernel, by ticks of ten milliseconds.
fn cpu_time(process_id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// While it takes nothing, Pingora reads nothing, and does not find out that time is up.
#[test]
fn an_upload_that_the_upstream_does_not_take_is_a_504_in_time() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let evener = Evener::start(&format!(
        "[log]\naccess = \"stdout\"\nformat = \"json\"\n[routes.all]\npool = \"app\"\ntimeout = \"2s\"\n\
         [pools.app]\nupstreams = [\"{}\"]",
        deaf.local_addr().expect("an address")
    ));
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let mut sender = client.another_sender();
    let sending =
        thread::spawn(move || while std::io::Write::write_all(&mut sender, &[b'x'; 8_192]).is_ok() {});
    let answer = client.read("POST").expect_status(504);
    assert!(answer.body().contains("upstream_timeout"), "{answer}");
    assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 32), "{answer}");
    let told = format!(r#""bytes_out":{},"#, answer.body().len());
    wait_until(Duration::from_secs(20), || evener.standard_output().contains(&told));
    drop(client);
    sending.join().expect("the sender ends");
    let admin = evener.admin();
    admin.expect_metric("evener_refusals_total", &["route=\"all\"", "reason=\"upstream_timeout\""], 1.0);
    admin.wait_for_rest();
}

#[test]
fn idle_connections_to_the_side_port_keep_no_probe_out() {
    allow_many_files();
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "", "");
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(evener.admin().connect());
        if idle.len() % 50 == 0 {
            evener.admin().get("/livez").expect_status(200);
        }
    }
    evener.admin().get("/readyz").expect_status(200);
    let refusals = evener.admin().metric("evener_admin_refusals_total", &["reason=\"too_many_connections\""]);
    assert!(refusals > 40.0, "{refusals} had to leave");
}
