//! `kill -9` at any moment: what lies on the disk is what somebody asked for, and the binary starts from it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Background, Evener, Origin};

/// Kills; and the longest they may take together, on a machine that is busy with other things.
const KILLS: usize = 300;
const KILLING_MAX: Duration = Duration::from_secs(45);

const OVERRIDES: &str = "evener.toml.overrides.toml";

/// One kind of change, counted: number after number, and how far it got.
#[derive(Default)]
struct Series {
    sent: AtomicU64,
    /// The last one that was answered with 200.
    done: AtomicU64,
}

impl Series {
    /// Makes changes until the process is gone.
    fn run(&self, address: SocketAddr, request: impl Fn(u64) -> String) {
        loop {
            let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            match status(address, &request(number)) {
                Some(200) => self.done.store(number, Ordering::SeqCst),
                Some(status) => panic!("change {number} was refused: {status}"),
                None => return,
            }
        }
    }

    /// What may be on the disk: the last that was confirmed, or the one that was under way.
    fn check(&self, found: u64, what: &str) {
        let (done, sent) = (self.done.load(Ordering::SeqCst), self.sent.load(Ordering::SeqCst));
        assert!((done..=sent).contains(&found), "{what}: {found}, confirmed {done}, sent {sent}");
        // Attempts that never arrived are not numbers that the next life may find.
        self.done.store(found, Ordering::SeqCst);
    }
}

/// `None`: the process was gone before it had answered.
fn status(address: SocketAddr, request: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A reset after the answer is an answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn request(method: &str, path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Long enough for a write to be cut in the middle.
fn text_number(base: &str, number: u64) -> String {
    base.to_owned() + &format!("# {number}\n").repeat(3_000)
}

fn number_of(text: &str) -> u64 {
    text.lines().last().and_then(|line| line.strip_prefix("# ")?.parse().ok()).unwrap_or(0)
}

/// In range, and never what the file says.
const fn weight_number(number: u64) -> u64 {
    2 + number % 900
}

#[test]
fn a_kill_at_any_moment_loses_no_confirmed_change() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let origins = [Origin::answering("one"), Origin::answering("two")];
    let upstreams = origins.each_ref().map(|origin| format!("\"{}\"", origin.address())).join(", ");
    let mut evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [{upstreams}]\nhealth_check = {{ enabled = false }}"
    ));
    let base = evener.file("evener.toml").expect("a file");
    let (texts, weights) = (Arc::new(Series::default()), [0, 1].map(|_| Arc::new(Series::default())));

    let began = Instant::now();
    let mut kills = 0;
    while kills < KILLS && began.elapsed() < KILLING_MAX {
        let writers = writers(&evener, &base, &texts, &origins, &weights);
        thread::sleep(Duration::from_micros(random.u64(0..30_000)));
        evener.kill();
        kills += 1;
        writers.into_iter().for_each(Background::join);

        let text = evener.file("evener.toml").expect("a file");
        let number = number_of(&text);
        assert!(number == 0 && text == base || text == text_number(&base, number), "half of text {number}");
        texts.check(number, "text");
        let overrides = evener.file(OVERRIDES).unwrap_or_default();
        let overrides: toml::Table = overrides.parse().expect("whole overrides");
        for (origin, weights) in origins.iter().zip(&weights) {
            let found = weight_in(&overrides, &origin.address());
            let last = weights.sent.load(Ordering::SeqCst);
            let is_it = |number: &u64| found == if *number == 0 { 1 } else { weight_number(*number) };
            let number = (weights.done.load(Ordering::SeqCst)..=last).find(is_it);
            weights.check(number.unwrap_or(u64::MAX), "weight");
        }
        evener.start_again();
        for (origin, weights) in origins.iter().zip(&weights) {
            let shown = evener.admin().upstream("app", origin)["weight"].as_u64();
            let number = weights.done.load(Ordering::SeqCst);
            assert_eq!(shown, Some(if number == 0 { 1 } else { weight_number(number) }));
        }
    }
    let confirmed = texts.done.load(Ordering::SeqCst);
    eprintln!("{kills} kills in {:?}, text {confirmed}", began.elapsed());
    assert!(kills > 10 && confirmed > 10, "{kills} kills, {confirmed} texts: too slow to say anything");
}

/// One after another each, all at a time.
fn writers(
    evener: &Evener,
    base: &str,
    texts: &Arc<Series>,
    origins: &[Origin; 2],
    weights: &[Arc<Series>; 2],
) -> Vec<Background<()>> {
    let address = evener.admin().address();
    let (base, texts) = (base.to_owned(), texts.clone());
    let put = move |number| {
        let headers = "If-Match: *\r\nContent-Type: application/toml\r\n";
        request("PUT", "/v1/config", headers, &text_number(&base, number))
    };
    let mut writers = vec![Background::run(move || texts.run(address, put))];
    for (origin, weights) in origins.iter().zip(weights) {
        let (path, weights) =
            (format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path()), weights.clone());
        let weigh = move |number| {
            let body = format!("{{\"weight\": {}}}", weight_number(number));
            request("PATCH", &path, "Content-Type: application/json\r\n", &body)
        };
        writers.push(Background::run(move || weights.run(address, weigh)));
    }
    writers
}

/// The weight that an upstream has by the overrides file, or 1 as by the configuration.
fn weight_in(overrides: &toml::Table, address: &str) -> u64 {
    let all = overrides.get("overrides").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let of_it = all.iter().find(|one| one["upstream"].as_str() == Some(address));
    of_it.map_or(1, |one| u64::try_from(one["value"].as_integer().expect("a number")).expect("a weight"))
}
