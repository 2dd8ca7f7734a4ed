//! Small scenarios for tests.

use std::time::Duration;

use crate::bench::scenario::{Act, Load, Request, Scenario};

/// Ten seconds of nothing but this.
pub(crate) fn scenario(servers: usize, workers: usize, script: Vec<Act>) -> Scenario {
    Scenario {
        name: "test".to_owned(),
        what: String::new(),
        expected: String::new(),
        is_short: false,
        servers,
        workers,
        balancers: 1,
        threads: 1,
        load: Load::Clients(1),
        request: Request { answer: 100, ..Request::default() },
        script,
        reload_every: None,
        duration: Duration::from_secs(10),
        warmup: Duration::ZERO,
        timeout: Duration::from_secs(2),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}
