//! OBSERVE: the access log, whose lines are true, and which nobody waits for.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{Background, Client, Evener, Origin, Reply, reserve_port, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// One pool of these origins, without health checks or ejection, and what `[log]` holds.
fn logging(log: &str, route: &str, origins: &[&Origin]) -> Evener {
    Evener::start(&text(log, route, origins))
}

fn text(log: &str, route: &str, origins: &[&Origin]) -> String {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "[log]\n{log}\n[routes.app]\npool = \"app\"\n{route}\n[pools.app]\nupstreams = [{}]\n\
         health_check = {{ enabled = false }}\nejection = {{ enabled = false }}\n",
        addresses.join(", ")
    )
}

const JSON: &str = "access = \"stdout\"\nformat = \"json\"";

/// The lines so far whose path is this; none: of what was not understood.
fn entries<'a>(evener: &Evener, path: impl Into<Option<&'a str>>) -> Vec<Value> {
    let path = path.into();
    let output = evener.standard_output();
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let entries = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries.filter(|entry| entry["path"].as_str() == path).collect()
}

#[track_caller]
fn only_entry<'a>(evener: &Evener, path: impl Into<Option<&'a str>>) -> Value {
    let path = path.into();
    wait_until(SOON, || !entries(evener, path).is_empty());
    entries(evener, path).remove(0)
}

/// A listener of both families hears clients of IPv4 under addresses of IPv6.
#[test]
fn a_client_has_one_address_whether_its_head_was_understood_or_not() {
    let origin = Origin::answering("ok");
    let listener = format!("\n[listeners.http]\naddress = \"[::]:{}\"", reserve_port());
    let evener = logging(&format!("{JSON}{listener}"), "", &[&origin]);
    let over_ipv4 = SocketAddr::from((Ipv4Addr::LOCALHOST, evener.address().port()));
    for (request, path) in
        [("GET /well HTTP/1.1\r\nHost: a\r\n\r\n", Some("/well")), ("GET / HTTP/1.1\r\n\r\n", None)]
    {
        let mut client = Client::connect(over_ipv4);
        client.send(request);
        assert_eq!(only_entry(&evener, path)["client"], "127.0.0.1", "{request}");
    }
}

#[test]
fn what_was_refused_before_it_was_understood_is_told_with_its_bytes_and_its_time() {
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(5_000));
    for (request, status, took_min) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, 0.0),
        ("GET / HT", 408, 400.0),
        (large.as_str(), 431, 0.0),
    ] {
        let origin = Origin::answering("ok");
        let listener = "\n[listeners.http]\nheader_timeout = \"400ms\"\nmax_header_size = \"4KiB\"";
        let evener = logging(&format!("{JSON}{listener}"), "", &[&origin]);
        let answer = evener.request(request).expect_status(status);
        let entry = only_entry(&evener, None);
        assert_eq!((&entry["status"], &entry["bytes_out"]), (&json!(status), &json!(answer.body().len())));
        assert!(entry["duration_ms"].as_f64().unwrap() >= took_min, "{entry}");
        assert_eq!([&entry["method"], &entry["host"], &entry["path"]], [&Value::Null; 3], "{entry}");

        let explained =
            evener.admin().json(&format!("/v1/explain/{}", entry["request_id"].as_str().unwrap()));
        assert_eq!(explained["bytes_out"], entry["bytes_out"], "{explained}");
        assert!(explained["timings"]["duration_ms"].as_f64().unwrap() >= took_min, "{explained}");
    }
}

#[test]
fn each_attempt_is_listed_with_its_upstream_what_came_of_it_and_how_long_it_took() {
    let (gone, broken, busy, other) = (
        Origin::absent(),
        Origin::serving(|_| Reply::reset()),
        Origin::serving(|_| Reply::status(503, "no")),
        Origin::answering("ok"),
    );
    let retry = "retry = { max_retries = 9, on = [\"connect_failure\", \"reset\", \"503\"], budget = 1.0 }";
    let evener = logging(JSON, retry, &[&gone, &broken, &busy, &other]);
    for index in 0..4 {
        evener.get(&format!("/{index}")).expect_status(200);
    }
    let outcome = |address: &str| match address {
        address if address == gone.address() => "connect_failure",
        address if address == broken.address() => "upstream_reset",
        address if address == busy.address() => "503",
        _ => "200",
    };
    let mut longest = 0;
    for index in 0..4 {
        let entry = only_entry(&evener, format!("/{index}").as_str());
        let tried = entry["tried"].as_array().unwrap();
        longest = longest.max(tried.len());
        assert_eq!(entry["attempts"], tried.len(), "{entry}");
        for one in tried {
            assert_eq!(one["outcome"], outcome(one["upstream"].as_str().unwrap()), "{entry}");
            assert!(one["ms"].as_f64().unwrap() <= entry["duration_ms"].as_f64().unwrap(), "{entry}");
        }
        assert_eq!(tried.last().unwrap()["upstream"], entry["upstream"], "{entry}");
    }
    assert!(longest > 1, "no request was ever repeated; the play proves nothing");
}

#[test]
fn a_client_that_goes_leaves_a_line_with_its_attempt() {
    let origin = Origin::serving(|_| Reply::hang());
    let evener = logging(JSON, "", &[&origin]);
    let mut client = evener.connect();
    client.start("GET", "/gone", "", b"");
    origin.wait_for_request();
    drop(client);
    let entry = only_entry(&evener, "/gone");
    assert_eq!((&entry["status"], &entry["reason"]), (&json!(499), &json!("client_closed")), "{entry}");
    assert_eq!(entry["tried"][0]["upstream"], origin.address(), "{entry}");
    assert_eq!(entry["tried"][0]["outcome"], "client_closed", "{entry}");
}

/// Nor is what the client sends the upstream's fault, nor has this client gone.
#[test]
fn an_attempt_ends_for_the_reason_that_its_request_does() {
    let origin = Origin::serving(|_| Reply::hang());
    let keys = "\n[listeners.http]\nmax_body_size = \"1KiB\"";
    let chunk = format!("800\r\n{}\r\n", "x".repeat(0x800));
    for (path, body, timeout, status, reason) in [
        ("/large", chunk.as_str(), "60s", 413, "body_too_large"),
        ("/malformed", "no chunk\r\n", "60s", 400, "bad_request"),
        ("/slow", "5\r\nhello\r\n", "2s", 408, "request_timeout"),
    ] {
        let evener = logging(&format!("{JSON}{keys}"), &format!("timeout = \"{timeout}\""), &[&origin]);
        let mut client = evener.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send_if_open(body);
        client.read("POST").expect_status(status);
        let entry = only_entry(&evener, path);
        assert_eq!((&entry["status"], &entry["reason"]), (&json!(status), &json!(reason)), "{entry}");
        assert_eq!(
            (&entry["attempts"], &entry["tried"][0]["outcome"]),
            (&json!(1), &json!(reason)),
            "{entry}"
        );
    }
}

#[test]
fn an_answer_that_breaks_off_is_no_success() {
    let broken = Origin::serving(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.").then_reset()
    });
    let evener = logging(JSON, "", &[&broken]);
    let mut client = evener.connect();
    client.start("GET", "/half", "", b"");
    let _ = client.try_read("GET");
    let entry = only_entry(&evener, "/half");
    assert_eq!(entry["reason"], "upstream_reset", "{entry}");
    assert_eq!(entry["tried"][0]["outcome"], "upstream_reset", "{entry}");
}

/// As Apache's and nginx's `combined`: what analysers look for stands where they look.
#[test]
fn a_line_of_text_is_in_the_combined_format() {
    let origin = Origin::answering("four");
    let evener = logging("access = \"stdout\"", "", &[&origin]);
    let headers =
        "Referer: https://a.example/page?token=s3cret#s3cret\r\nUser-Agent: curl/8 \"x\" \\\t(y)\r\n";
    evener.get_with("/there?token=s3cret", headers).expect_status(200);
    wait_until(SOON, || evener.standard_output().contains("/there"));
    let output = evener.standard_output();
    let line = output.lines().find(|line| line.contains("/there")).unwrap();
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let (_, rest) = line.split_once("] ").unwrap();
    let expected = r#""GET /there HTTP/1.1" 200 4 "https://a.example/page" "curl/8 \"x\" \\\x09(y)" host="#;
    assert!(rest.starts_with(expected), "{line}");
    let tried = format!(" tried={}|200|", origin.address());
    assert!(rest.contains(&tried), "{line}");
    assert!(!output.contains("s3cret"), "{output}");
}

#[test]
fn a_filter_leaves_ordinary_requests_out_and_keeps_failed_ones() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/failing" => Reply::status(500, "no"),
        "/missing" => Reply::status(404, "no"),
        _ => Reply::ok("ok"),
    });
    let filter = "access_filter = { sample = 0, slower_than = \"24h\" }";
    let evener = logging(&format!("{JSON}\n{filter}"), "path_prefix = \"/\"\nhosts = [\"a\"]", &[&origin]);
    let ask = |path: &str, host: &str| {
        evener.request(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    for _ in 0..20 {
        ask("/fine", "a").expect_status(200);
        ask("/missing", "a").expect_status(404);
    }
    ask("/failing", "a").expect_status(500);
    ask("/no-route", "b").expect_status(404);
    // Lines stand in the order in which requests ended.
    let entry = only_entry(&evener, "/no-route");
    assert_eq!(entry["reason"], "no_route", "{entry}");
    assert_eq!(entries(&evener, "/failing").len(), 1);
    assert_eq!((entries(&evener, "/fine").len(), entries(&evener, "/missing").len()), (0, 0));
}

#[test]
fn a_reload_changes_the_filter_and_nothing_else_of_the_log() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/failing" => Reply::status(500, "no"),
        _ => Reply::ok("ok"),
    });
    let with = |filter: &str| text(&format!("{JSON}\n{filter}"), "", &[&origin]);
    let evener =
        Evener::start(&with("access_filter = { sample = 0, errors = false, slower_than = \"24h\" }"));
    evener.get("/failing").expect_status(500);
    evener.get("/before").expect_status(200);
    // Everything is slower than nothing.
    evener.reload(&with("access_filter = { sample = 0, slower_than = \"0s\" }"));
    evener.get("/after").expect_status(200);
    only_entry(&evener, "/after");
    assert_eq!((entries(&evener, "/failing").len(), entries(&evener, "/before").len()), (0, 0));

    evener.reload(&with("access_filter = { sample = 0.5, slower_than = \"24h\" }"));
    let mut client = evener.connect();
    for _ in 0..400 {
        client.get("/sampled").expect_status(200);
    }
    evener.get("/failing").expect_status(500);
    only_entry(&evener, "/failing");
    let sampled = entries(&evener, "/sampled").len();
    assert!((100..=300).contains(&sampled), "{sampled} of 400");

    evener.reload_in_vain(&text("access = \"off\"", "", &[&origin]));
}

/// Every line of these files, each of which has to be whole.
fn ids_in<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    let mut ids = Vec::new();
    for file in files {
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            ids.extend(entry["request_id"].as_str().map(str::to_owned));
        }
    }
    ids
}

/// logrotate: rename, then HUP; under load, again and again.
#[test]
fn rotating_under_load_loses_no_line_and_splits_none() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let evener = logging(&format!("access = \"{}\"\nformat = \"json\"", file.display()), "", &[&origin]);
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..4)
        .map(|_| {
            Background::run(move || {
                let mut client = Client::connect(address);
                (0..500).for_each(|_| drop(client.get("/").expect_status(200)));
            })
        })
        .collect();
    let mut rotated = Vec::new();
    for turn in 0..5 {
        wait_until(SOON, || fs::metadata(&file).is_ok_and(|file| file.len() > 0));
        let away = folder.path().join(format!("access.log.{turn}"));
        fs::rename(&file, &away).unwrap();
        rotated.push(away);
        evener.signal("HUP");
        wait_until(SOON, || file.exists());
        // So that there is something to rotate next time, whatever the clients have left to do.
        evener.get("/").expect_status(200);
    }
    clients.into_iter().for_each(Background::join);
    rotated.push(file);
    let ids = || ids_in(rotated.iter().map(AsRef::as_ref));
    wait_until(SOON, || ids().len() >= 2_005);
    let ids = ids();
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (2_005, 2_005));
    assert!(evener.admin().metric("evener_access_log_dropped_total", &[]).abs() < f64::EPSILON);
}

#[test]
fn a_disk_without_room_is_named_as_the_reason_of_losses() {
    let origin = Origin::answering("ok");
    let evener = logging("access = \"/dev/full\"", "", &[&origin]);
    evener.get("/").expect_status(200);
    evener.wait_for_log("No space left on device");
    assert!(evener.log().contains("access log lines lost"), "{}", evener.log());
}

/// A pipe that somebody opened and does not read: traffic goes on, what is lost is counted, and the rest comes whole.
#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_traffic() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Whoever opens it for both does not wait for another end.
    let reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let evener = logging(&format!("access = \"{}\"\nformat = \"json\"", pipe.display()), "", &[&origin]);
    assert_eq!(evener.admin().json("/v1/status")["access_log"]["dropped"], 0);

    // Lines of 60 KiB fill what is kept for the reader soon.
    let path = format!("/{}", "x".repeat(60 * 1024));
    let mut sent = 0_u64;
    let mut client = evener.connect();
    let dropped = || evener.admin().metric("evener_access_log_dropped_total", &[]);
    while dropped() < 50.0 {
        assert!(sent < 5_000, "nothing is ever lost: memory has no bound");
        (0..20).for_each(|_| drop(client.get(&path).expect_status(200)));
        sent += 20;
    }
    drop(client);

    let (lines, came) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    // Until the queue has room again, the last line may be lost as well.
    let mut kept = 0_u64;
    evener.get("/last").expect_status(200);
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < SOON, "the last line never comes");
        let Ok(line) = came.recv_timeout(Duration::from_secs(1)) else {
            evener.get("/last").expect_status(200);
            continue;
        };
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if entry["path"] == "/last" {
            break;
        }
        kept += 1;
    }
    let dropped = evener.admin().json("/v1/status")["access_log"]["dropped"].as_u64().unwrap();
    assert!(kept + dropped >= sent && dropped >= 50, "{kept} came, {dropped} are lost, of {sent}");
    // Whoever writes the lines tells it, as soon as it can.
    evener.wait_for_log("access log lines lost");
}
