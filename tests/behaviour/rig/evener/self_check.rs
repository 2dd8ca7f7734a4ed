//! What every play ends with: do the figures of the process agree with each other?

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Admin, Evener};

/// How long figures may take to come to rest, after requests that were cut off by the play.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// A process that does not answer in this time has been stopped, or starved, by its play.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

impl Evener {
    /// What does not agree, by the process itself; `None`: all does, or nobody is there who could say so.
    pub(super) fn disagreement(&self) -> Option<String> {
        if thread::panicking() {
            return None;
        }
        let started = Instant::now();
        loop {
            let answer = self.admin().self_check()?;
            if answer["ok"] == true {
                return None;
            }
            if started.elapsed() > SETTLED_WITHIN {
                let failed = |check: &&Value| check["ok"] != true;
                let failed: Vec<&Value> =
                    answer["checks"].as_array().into_iter().flatten().filter(failed).collect();
                return Some(format!("figures do not agree: {failed:#?}"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Admin {
    /// The answer, if there is one and we may see it. Not by the rig's client, which fails the play when a
    /// server behaves badly: this one may be on its way out.
    fn self_check(&self) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWERS_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
        let head = self.with_token("Host: localhost\r\nConnection: close\r\n");
        stream.write_all(format!("GET /v1/self-check HTTP/1.1\r\n{head}\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return None;
        }
        // The body may come in chunks; it is one line of JSON.
        let json = body.lines().find(|line| line.starts_with('{'))?;
        Some(serde_json::from_str(json).expect("JSON"))
    }
}
