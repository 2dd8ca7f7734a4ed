//! The commands that ask the side port: what they send, what they show, the code they end with.
//!
//! Where the answer matters more than how it came about, the side port is an origin that answers as the
//! contract says; the rest is asked of the real one.

use std::process::{Command, Stdio};

use crate::rig::{Evener, Origin, Reply, Request, reserve_port, run_to_end, run_to_end_with_environment};

const APPLIED: &str = r#""generation":8,"etag":"\"t-8\"","changed":true,"carried":12,"added":[{"pool":"app","address":"127.0.0.1:9003"}],"removed":[{"pool":"app","address":"unix:/run/app.sock"}],"reset":[{"pool":"app","what":"rotation","why":"its strategy changed"}],"overrides_dropped":[{"pool":"app","upstream":"127.0.0.1:9001","setting":"weight","value":"5","why":"the file says 3 now"}],"warnings":["line 3: odd; mend it"],"persisted":true"#;

const GUARD: &str = r#""guard":{"outcome":"OUTCOME","why":WHY,"generation":8,"previous_generation":7,"now_generation":9,"pools":["app"],"started":"2026-01-02T03:04:05Z","until":"2026-01-02T03:05:05Z","max_error_ratio":0.02,"confirm":CONFIRM,"before":{"seconds":300,"requests":1000,"errors":2,"error_ratio":0.002,"p99_ms":12.5},"after":{"seconds":4,"requests":60,"errors":30,"error_ratio":0.5,"p99_ms":null}}"#;

fn guard(outcome: &str, why: &str, confirm: &str) -> String {
    GUARD.replace("OUTCOME", outcome).replace("WHY", why).replace("CONFIRM", confirm)
}

fn upstream(address: &str, state: &str, more: &str) -> String {
    format!(
        r#"{{"address":"{address}","pool":"app","weight":1,"state":"{state}","health":"up","ejected_until":null,"eligible":true,"why_not":null,"why_not_detail":null,"in_flight":2,"max_connections":null,"requests":1200,"errors":3,"latency_ms":{{"ewma":1.0,"p50":1.25,"p99":34.5}},"last_check":null,"consecutive_failures":0,"backup":false,"source":"file"{more}}}"#
    )
}

fn json(status: u16, body: &str) -> Reply {
    let media_type = if status < 400 { "application/json" } else { "application/problem+json" };
    Reply::with_headers(status, &format!("Content-Type: {media_type}\r\n"), body)
}

fn problem(status: u16, kind: &str, more: &str) -> Reply {
    let body = format!(
        r#"{{"type":"urn:evener:problem:{kind}","title":"what it is","status":{status},"detail":"what happened","help":"what to do"{more}}}"#
    );
    json(status, &body)
}

/// A side port that answers these requests, such as `GET /v1/status`.
fn side_port(answers: Vec<(&'static str, Reply)>) -> Origin {
    Origin::serving(move |request| {
        let asked = format!("{} {}", request.method, request.target);
        let answer = answers.iter().find(|(known, _)| *known == asked);
        answer
            .map_or_else(|| problem(404, "unexpected", &format!(r#","asked":"{asked}""#)), |it| it.1.clone())
    })
}

/// Configuration with its tag, as `apply` reads it before it writes.
fn config() -> (&'static str, Reply) {
    let headers = "Content-Type: application/toml\r\nETag: \"t-7\"\r\n";
    ("GET /v1/config", Reply::with_headers(200, headers, "# the text\n"))
}

/// All that a command says, and its exit code.
fn told(port: &Origin, arguments: &[&str]) -> String {
    told_of(port, arguments, &[("new.toml", "# new\n")], &[])
}

fn told_of(
    port: &Origin,
    arguments: &[&str],
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> String {
    let admin = format!("http://{}", port.address());
    let environment = [&[("EVENER_ADMIN", admin.as_str())], environment].concat();
    let finished = run_to_end_with_environment(arguments, files, &environment);
    let text = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!text.contains('\u{1b}'), "no colours but on a terminal: {text}");
    let stdout = finished.stdout.replace(&port.address(), "SIDE-PORT");
    let stderr = finished.stderr.replace(&port.address(), "SIDE-PORT");
    let code = finished.code.expect("an exit code");
    format!("{stdout}--- exit code {code}\n{stderr}")
}

/// The only request with this method.
fn sent(port: &Origin, method: &str) -> Request {
    let requests = port.requests();
    requests.into_iter().find(|request| request.method == method).expect("such a request")
}

/// Its header lines that matter, and its body.
fn writing(request: &Request) -> String {
    let mut lines = vec![format!("{} {}", request.method, request.target)];
    for name in ["if-match", "x-evener-reason", "authorization", "content-type", "accept", "content-length"] {
        lines.extend(request.header(name).map(|value| format!("{name}: {value}")));
    }
    lines.push(String::from_utf8_lossy(&request.body).into_owned());
    lines.join("\n")
}

// ── Each command's words ────────────────────────────────────────────────────────────────────────────────

const STATUS: &str = r#"{"version":"0.1.0","status":"degraded","uptime_seconds":7380.5,"generation":7,"etag":"\"t-7\"","config":"/etc/evener.toml","pid":4711,"listeners":[{"name":"http","address":"127.0.0.1:8080","connections":12,"upgraded_connections":3}],"routes":2,"pools":1,"upstreams":3,"totals":{"requests":1200,"errors":3,"error_rate":0.0025,"in_flight":4,"latency_ms":{"min":0.1,"avg":2.0,"p50":1.25,"p90":9.0,"p99":34.5,"max":120.0},"bytes":{"request":1,"response":2}},"overrides":2,"last_refusal":{"at":"2026-01-02T03:04:05Z","who":"SIGHUP","reason":"error: one\n  = help: two"},GUARD}"#;

#[test]
fn status_tells_what_runs() {
    let status = STATUS.replace("GUARD", &guard("watching", "null", "true"));
    let port = side_port(vec![("GET /v1/status", json(200, &status))]);
    insta::assert_snapshot!(told(&port, &["status"]), @r"
    Evener 0.1.0 is degraded, up 2h 3m, process 4711
      config    /etc/evener.toml, generation 7, 2 overrides (`evener overrides`)
      serves    2 routes, 1 pool, 3 upstreams
      requests  1200, 4 in flight, 3 errors (0.25%)
      latency   p50 1.25 ms, p99 34 ms, max 120 ms
      guard     watching generation 8 until 2026-01-02T03:05:05Z: rolled back to 7 if nobody confirms, or more than 2% of its requests fail, or if it is much slower
      refused   the last change, 2026-01-02T03:04:05Z by SIGHUP:
                error: one
                  = help: two

    LISTENER  ADDRESS         CONNECTIONS  UPGRADED
    http      127.0.0.1:8080           12         3
    --- exit code 0
    ");
}

#[test]
fn pools_tells_who_serves_and_who_does_not() {
    let drained = upstream("[::1]:9002", "drain", "")
        .replace("\"eligible\":true", "\"eligible\":false")
        .replace("\"why_not_detail\":null", "\"why_not_detail\":\"it is drained\"")
        .replace("\"file\"", "\"override\"");
    let pool = format!(
        r#"{{"name":"app","strategy":"round_robin","eligible":1,"in_flight":4,"queue":{{"waiting":0,"max":0,"timeout_ms":1000.0}},"slow_start_ms":0.0,"ejection":null,"health_check":null,"upstreams":[{},{drained}]}}"#,
        upstream("127.0.0.1:9001", "ready", "")
    );
    let all = format!(r#"{{"pools":[{pool}]}}"#);
    let port = side_port(vec![("GET /v1/pools", json(200, &all)), ("GET /v1/pools/app", json(200, &pool))]);
    insta::assert_snapshot!(told(&port, &["pools"]), @r"
    app: round_robin, 1 of 2 eligible, 4 in flight
      UPSTREAM        STATE  HEALTH  WEIGHT  IN FLIGHT  REQUESTS  ERRORS      P50    P99  NOTE
      127.0.0.1:9001  ready  up           1          2      1200       3  1.25 ms  34 ms
      [::1]:9002      drain  up           1          2      1200       3  1.25 ms  34 ms  changed at run time; it is drained
    --- exit code 0
    ");
    assert_eq!(told(&port, &["pools"]), told(&port, &["pools", "app"]));
}

#[test]
fn explain_tells_the_route_and_the_next_upstream() {
    let answer = r#"{"request":{"host":"a.example","method":"POST","path":"/v1/a b"},"generation":1,"route":{"name":"users","why":["it takes every host","the path begins with `/v1`"],"timeout_ms":60000.0,"strip_prefix":false},"reason":null,"help":null,"pools":[{"share":0.95,"pool":"app","strategy":"round_robin","next":"127.0.0.1:9001","reason":null,"note":null,"candidates":[{"address":"127.0.0.1:9001","eligible":true,"why_not":null,"why_not_detail":null,"weight":1,"in_flight":0,"max_connections":null,"latency_ms":null,"backup":false},{"address":"127.0.0.1:9002","eligible":false,"why_not":"down","why_not_detail":"health checks fail","weight":1,"in_flight":0,"max_connections":null,"latency_ms":null,"backup":false}]}],"other_routes":[{"name":"rest","why_not":"less_specific","why_not_detail":"it would take the request, but the chosen route is more specific"}],"other_routes_omitted":0}"#;
    let asked = "GET /v1/explain?path=%2Fv1%2Fa%20b&host=a.example&method=POST&header=x-canary:1";
    let port = side_port(vec![(asked, json(200, answer))]);
    let arguments =
        ["explain", "/v1/a b", "--host", "a.example", "--method", "POST", "--header", "x-canary:1"];
    insta::assert_snapshot!(told(&port, &arguments), @r"
    POST a.example/v1/a b takes the route users
      it takes every host
      the path begins with `/v1`

    pool app: round_robin, 95% of its requests; the next is 127.0.0.1:9001
      UPSTREAM        ELIGIBLE  WEIGHT  IN FLIGHT  NOTE
      127.0.0.1:9001  yes            1          0
      127.0.0.1:9002  no             1          0  health checks fail

    other routes
      rest: it would take the request, but the chosen route is more specific
    --- exit code 0
    ");
}

#[test]
fn reload_tells_what_came_of_it() {
    let status = STATUS.replace("GUARD", "\"guard\":null");
    let reload = ("POST /v1/reload", json(200, &format!("{{{APPLIED}}}")));
    let port = side_port(vec![("GET /v1/status", json(200, &status)), reload]);
    insta::assert_snapshot!(told(&port, &["reload", "--why", "new certificates"]), @r"
    reloaded /etc/evener.toml: generation 8
      carried   12 upstreams
      added     app/127.0.0.1:9003
      removed   app/unix:/run/app.sock
      reset     app rotation: its strategy changed
      dropped   override of app/127.0.0.1:9001 weight 5: the file says 3 now
      warning   line 3: odd; mend it
    --- exit code 0
    ");
    insta::assert_snapshot!(writing(&sent(&port, "POST")), @r"
    POST /v1/reload
    x-evener-reason: new certificates
    accept: */*
    content-length: 0
    ");
}

const PLAN: &str = r#"{"valid":true,"summary":"1 listener, 2 routes, 2 pools","warnings":["line 3: odd; mend it"],"plan":{"generation":7,"etag":"\"t-7\"","restart_required":["server.threads"],"changes":9,"listeners":{"changed":[{"name":"http","settings":[{"key":"header_timeout","from":"10s","to":"5s"}]}]},"routes":{"added":["new"],"removed":["old"],"changed":[{"name":"users","settings":[{"key":"timeout","from":null,"to":"5s"}]}]},"pools":{"added":["canary"],"removed":[{"name":"gone","upstreams":2,"in_flight":1,"traffic_share":0.01}],"changed":[{"name":"app","settings":[{"key":"strategy","from":"round_robin","to":"consistent_hash"},{"key":"keepalive.max_idle","from":512,"to":64}],"upstreams":{"added":["127.0.0.1:9003"],"removed":[{"address":"unix:/run/app.sock","in_flight":3,"traffic_share":0.2}],"changed":[{"address":"127.0.0.1:9001","settings":[{"key":"weight","from":1,"to":5},{"key":"backup","from":false,"to":true}]}]},"in_flight":12,"traffic_share":0.42,"hash_keys_moved":0.24,"resets":["rotation"]}]},"overrides_dropped":[{"pool":"app","upstream":null,"setting":"strategy","value":"random_two","why":"the file says something new"}],"impact":{"in_flight":13,"traffic_share":0.43,"window_seconds":300,"upstreams_added":1,"upstreams_removed":3,"upstreams_changed":1}}}"#;

#[test]
fn plan_tells_the_difference_and_whom_it_touches() {
    let port = side_port(vec![("POST /v1/config/check", json(200, PLAN))]);
    insta::assert_snapshot!(told(&port, &["plan", "new.toml"]), @r"
    new.toml is valid: 1 listener, 2 routes, 2 pools
      warning: line 3: odd; mend it
    9 changes to generation 7

    ~ listener http
        ~ header_timeout: 10s → 5s
    + route new
    - route old
    ~ route users
        ~ timeout: (nothing) → 5s
    + pool canary
    - pool gone: 2 upstreams, 1 in flight, 1% of the traffic
    ~ pool app: 12 in flight, 42% of the traffic
        ~ strategy: round_robin → consistent_hash
        ~ keepalive.max_idle: 512 → 64
        + 127.0.0.1:9003
        - unix:/run/app.sock: 3 in flight, 20% of the traffic
        ~ 127.0.0.1:9001: weight: 1 → 5, backup: false → true
        ~ 24% of the hash keys move
        ~ forgets: rotation
    ~ the override of app strategy random_two: the file says something new
    ! server.threads cannot change while running: it needs a restart

    touches 13 requests in flight and 43% of the traffic of the last 5m
    upstreams: 1 added, 3 removed, 1 changed
    --- exit code 0
    ");
    insta::assert_snapshot!(writing(&sent(&port, "POST")), @r"
    POST /v1/config/check
    content-type: application/toml
    accept: */*
    content-length: 6
    # new
    ");
}

#[test]
fn a_plan_that_changes_nothing_says_so() {
    let nothing = r#"{"valid":true,"summary":"1 listener, 1 route, 1 pool","warnings":[],"plan":{"generation":7,"etag":"","restart_required":[],"changes":0,"listeners":{"changed":[]},"routes":{"added":[],"removed":[],"changed":[]},"pools":{"added":[],"removed":[],"changed":[]},"overrides_dropped":[],"impact":{"in_flight":0,"traffic_share":0,"window_seconds":300,"upstreams_added":0,"upstreams_removed":0,"upstreams_changed":0}}}"#;
    let port = side_port(vec![("POST /v1/config/check", json(200, nothing))]);
    insta::assert_snapshot!(told(&port, &["plan", "new.toml"]), @r"
    new.toml is valid: 1 listener, 1 route, 1 pool
    it changes nothing: generation 7 is the same
    --- exit code 0
    ");
}

#[test]
fn apply_writes_on_the_condition_of_what_it_read() {
    let put = ("PUT /v1/config", json(200, &format!("{{{APPLIED}}}")));
    let port = side_port(vec![config(), put]);
    insta::assert_snapshot!(told(&port, &["apply", "new.toml", "--why", "more room"]), @r"
    applied new.toml: generation 8
      carried   12 upstreams
      added     app/127.0.0.1:9003
      removed   app/unix:/run/app.sock
      reset     app rotation: its strategy changed
      dropped   override of app/127.0.0.1:9001 weight 5: the file says 3 now
      warning   line 3: odd; mend it
    --- exit code 0
    ");
    insta::assert_snapshot!(writing(&sent(&port, "PUT")), @r#"
    PUT /v1/config
    if-match: "t-7"
    x-evener-reason: more room
    content-type: application/toml
    accept: */*
    content-length: 6
    # new
    "#);
    drop(told(&port, &["apply", "new.toml", "--overwrite"]));
    let last = port.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.header("if-match")), ("PUT", Some("*")));
}

#[test]
fn what_somebody_else_changed_meanwhile_is_explained() {
    let put = ("PUT /v1/config", problem(412, "changed_meanwhile", ",\"etag\":\"\\\"t-8\\\"\""));
    insta::assert_snapshot!(told(&side_port(vec![config(), put]), &["apply", "new.toml"]), @r"
    --- exit code 1
    error: what it is: what happened
      = help: what to do
      = help: somebody was faster: `evener history` shows who; `evener plan FILE` shows what FILE would change now, then apply it again
    ");
}

#[test]
fn a_guarded_change_shows_that_it_is_watched_and_how_it_ended() {
    let kept = json(200, &format!("{{{APPLIED},{}}}", guard("kept", "null", "false")));
    let port = side_port(vec![config(), ("PUT /v1/config?guard=60s&max_error_ratio=0.02", kept)]);
    let arguments = ["apply", "new.toml", "--guard", "60s", "--max-error-ratio", "0.02"];
    insta::assert_snapshot!(told(&port, &arguments), @r"
    applied new.toml: generation 8
      carried   12 upstreams
      added     app/127.0.0.1:9003
      removed   app/unix:/run/app.sock
      reset     app rotation: its strategy changed
      dropped   override of app/127.0.0.1:9001 weight 5: the file says 3 now
      warning   line 3: odd; mend it
    kept generation 8
      watched pools: app
                   BEFORE  AFTER
      watched for   300 s    4 s
      requests       1000     60
      errors            2     30
      error ratio    0.2%    50%
      p99           12 ms      -
    --- exit code 0
    watching new.toml for 60s: rolled back if more than 2% of its requests fail, or if it is much slower
    ");
}

#[test]
fn a_change_that_was_rolled_back_is_refused_with_its_figures() {
    let more = format!(",{}", guard("rolled_back", "\"error_ratio\"", "false"));
    let put = ("PUT /v1/config?guard=60s", problem(409, "rolled_back", &more));
    let port = side_port(vec![config(), put]);
    insta::assert_snapshot!(told(&port, &["apply", "new.toml", "--guard", "60s"]), @r"
    --- exit code 1
    watching new.toml for 60s: rolled back if more than 5% of its requests fail, or if it is much slower
    error: what it is: what happened
      watched pools: app
                   BEFORE  AFTER
      watched for   300 s    4 s
      requests       1000     60
      errors            2     30
      error ratio    0.2%    50%
      p99           12 ms      -
      = help: what to do
    ");
}

#[test]
fn a_change_that_waits_for_a_yes_says_how_to_give_it() {
    let watching = json(202, &format!("{{{APPLIED},{}}}", guard("watching", "null", "true")));
    let confirm = json(200, &format!("{{{}}}", guard("kept", "null", "true")));
    let port = side_port(vec![
        config(),
        ("PUT /v1/config?guard=60s&confirm=true", watching),
        ("POST /v1/config/confirm", confirm),
    ]);
    insta::assert_snapshot!(told(&port, &["apply", "new.toml", "--guard", "60s", "--confirm"]), @r"
    applied new.toml: generation 8
      carried   12 upstreams
      added     app/127.0.0.1:9003
      removed   app/unix:/run/app.sock
      reset     app rotation: its strategy changed
      dropped   override of app/127.0.0.1:9001 weight 5: the file says 3 now
      warning   line 3: odd; mend it
    watching generation 8 until 2026-01-02T03:05:05Z: rolled back to 7 if nobody confirms, or more than 2% of its requests fail, or if it is much slower
      watched pools: app
                   BEFORE  AFTER
      watched for   300 s    4 s
      requests       1000     60
      errors            2     30
      error ratio    0.2%    50%
      p99           12 ms      -
    to keep it: `evener confirm --admin http://SIDE-PORT`; to end it now: `evener rollback --admin http://SIDE-PORT`
    --- exit code 0
    ");
    insta::assert_snapshot!(told(&port, &["confirm"]), @r"
    kept generation 8
      watched pools: app
                   BEFORE  AFTER
      watched for   300 s    4 s
      requests       1000     60
      errors            2     30
      error ratio    0.2%    50%
      p99           12 ms      -
    --- exit code 0
    ");
}

#[test]
fn guard_tells_how_the_last_one_ended() {
    let all = guard("rolled_back", "\"not_confirmed\"", "true");
    let body = all.strip_prefix("\"guard\":").unwrap();
    let port = side_port(vec![("GET /v1/config/guard", json(200, body))]);
    insta::assert_snapshot!(told(&port, &["guard"]), @r"
    rolled back generation 8 to 7, which runs as 9: nobody confirmed it
      watched pools: app
                   BEFORE  AFTER
      watched for   300 s    4 s
      requests       1000     60
      errors            2     30
      error ratio    0.2%    50%
      p99           12 ms      -
    --- exit code 0
    ");
}

#[test]
fn history_lists_who_changed_what_and_why() {
    let history = r#"{"generation":8,"entries":[{"generation":8,"at":"2026-01-02T03:04:05Z","origin":"admin","who":"ops","why":"more room","what":"replace","overrides":1,"current":true},{"generation":0,"at":"2026-01-02T03:04:04Z","origin":"file","who":"unknown","why":null,"what":"edit of the file that never ran","overrides":0,"current":false},{"generation":1,"at":"2026-01-01T00:00:00Z","origin":"start","who":"start","why":null,"what":"start","overrides":0,"current":false}]}"#;
    let text = Reply::with_headers(200, "Content-Type: application/toml\r\n", "# seven\n");
    let port =
        side_port(vec![("GET /v1/config/history", json(200, history)), ("GET /v1/config/history/7", text)]);
    insta::assert_snapshot!(told(&port, &["history"]), @r"
    GENERATION  AT                    BY       WHAT                             OVERRIDES  WHY
             8  2026-01-02T03:04:05Z  ops      replace (runs now)                       1  more room
             -  2026-01-02T03:04:04Z  unknown  edit of the file that never ran          0
             1  2026-01-01T00:00:00Z  start    start                                    0
    --- exit code 0
    ");
    insta::assert_snapshot!(told(&port, &["history", "--last", "1"]), @r"
    GENERATION  AT                    BY   WHAT                OVERRIDES  WHY
             8  2026-01-02T03:04:05Z  ops  replace (runs now)          1  more room
    … and 2 older (--last 3)
    --- exit code 0
    ");
    insta::assert_snapshot!(told(&port, &["history", "7"]), @r"
    # seven
    --- exit code 0
    ");
}

#[test]
fn rollback_goes_back_to_a_generation_or_the_one_before() {
    let port = side_port(vec![("POST /v1/config/rollback", json(200, &format!("{{{APPLIED}}}")))]);
    insta::assert_snapshot!(told(&port, &["rollback", "7"]), @r"
    rolled back to generation 7: generation 8
      carried   12 upstreams
      added     app/127.0.0.1:9003
      removed   app/unix:/run/app.sock
      reset     app rotation: its strategy changed
      dropped   override of app/127.0.0.1:9001 weight 5: the file says 3 now
      warning   line 3: odd; mend it
    --- exit code 0
    ");
    assert!(told(&port, &["rollback"]).starts_with("rolled back: generation 8\n"));
    let bodies: Vec<Vec<u8>> = port.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"{\"generation\":7}".to_vec(), b"{}".to_vec()]);
}

#[test]
fn overrides_are_listed_and_dropped() {
    let list = r#"{"overrides":[{"pool":"app","upstream":"127.0.0.1:9001","setting":"weight","value":5,"file":1,"by":"ops","at":"2026-01-02T03:04:05Z"},{"pool":"app","upstream":null,"setting":"strategy","value":{"strategy":"random_two"},"file":null,"by":"loopback","at":"2026-01-02T03:04:06Z"}]}"#;
    let same = APPLIED.replace("\"changed\":true", "\"changed\":false").replace("true", "false");
    let port = side_port(vec![
        ("GET /v1/overrides", json(200, list)),
        ("DELETE /v1/overrides", json(200, &format!("{{{same}}}"))),
    ]);
    insta::assert_snapshot!(told(&port, &["overrides"]), @r#"
    POOL  UPSTREAM        SETTING   NOW                        FILE  BY        AT
    app   127.0.0.1:9001  weight    5                          1     ops       2026-01-02T03:04:05Z
    app   -               strategy  {"strategy":"random_two"}  -     loopback  2026-01-02T03:04:06Z
    --- exit code 0
    "#);
    insta::assert_snapshot!(told(&port, &["overrides", "--drop"]), @r"
    nothing to change: generation 8 is the same
      warning   line 3: odd; mend it
      note      not on the disk: there is no file, or a guard has yet to keep it
    --- exit code 0
    ");
    let none = side_port(vec![("GET /v1/overrides", json(200, r#"{"overrides":[]}"#))]);
    insta::assert_snapshot!(told(&none, &["overrides"]), @r"
    no overrides: the file alone counts
    --- exit code 0
    ");
}

#[test]
fn a_drain_shows_its_progress_and_ends_with_safe_to_stop() {
    let line = |in_flight: u32, safe: bool| {
        format!(
            "{{\"pool\":\"app\",\"address\":\"127.0.0.1:9001\",\"in_flight\":{in_flight},\"safe_to_stop\":{safe},\"waited_ms\":1,\"also_in\":[]}}\n"
        )
    };
    let (two, still_two, none) = (line(2, false), line(2, false), line(0, true));
    let reply = Reply::chunked(&[&two, &still_two, &none], "");
    let port = side_port(vec![("POST /v1/pools/app/upstreams/127.0.0.1:9001/drain?wait=30s", reply)]);
    let arguments = ["drain", "app/127.0.0.1:9001", "--wait", "30s"];
    insta::assert_snapshot!(told(&port, &arguments), @r"
    app/127.0.0.1:9001: safe to stop
    --- exit code 0
    draining app/127.0.0.1:9001: 2 in flight
    draining app/127.0.0.1:9001: 0 in flight
    ");
    insta::assert_snapshot!(writing(&sent(&port, "POST")), @r"
    POST /v1/pools/app/upstreams/127.0.0.1:9001/drain?wait=30s
    accept: application/x-ndjson, application/json;q=0.9
    content-length: 0
    ");
    let finished = told(&port, &[&arguments[..], &["--json"]].concat());
    assert_eq!(finished, format!("{none}--- exit code 0\n"), "the last line alone");
}

#[test]
fn a_drain_that_is_not_done_is_no_success() {
    let answer = r#"{"pool":"app","address":"/run/app.sock","in_flight":3,"safe_to_stop":false,"waited_ms":0,"also_in":["other"]}"#;
    let path = "POST /v1/pools/app/upstreams/unix:%2Frun%2Fapp.sock/drain?wait=0s";
    let port = side_port(vec![(path, json(200, answer))]);
    insta::assert_snapshot!(told(&port, &["drain", "app/unix:/run/app.sock"]), @r"
    app/unix:/run/app.sock: not safe to stop, 3 requests in flight
      pool other still sends there: `evener drain other/unix:/run/app.sock`
      it gets no new requests from this pool; the same command with --wait waits for the old ones
    --- exit code 1
    draining app/unix:/run/app.sock: 3 in flight
    ");
}

#[test]
fn one_upstream_is_changed_and_shown() {
    let applied = format!(",\"applied\":{{{APPLIED}}}");
    let ready = upstream("[::1]:9002", "ready", &applied);
    let port = side_port(vec![("PATCH /v1/pools/app/upstreams/%5B::1%5D:9002", json(200, &ready))]);
    insta::assert_snapshot!(told(&port, &["ready", "app/[::1]:9002"]), @r"
    app/[::1]:9002: state ready, weight 1, health up; it gets requests
      warning   line 3: odd; mend it
    --- exit code 0
    ");
    drop(told(&port, &["maintenance", "app/[::1]:9002"]));
    drop(told(&port, &["weight", "app/[::1]:9002", "5"]));
    let bodies: Vec<String> =
        port.requests().iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
    assert_eq!(bodies, [r#"{"state":"ready"}"#, r#"{"state":"maintenance"}"#, r#"{"weight":5}"#]);
}

// ── What all of them have in common ─────────────────────────────────────────────────────────────────────

/// Every command that asks the side port, with arguments that it takes.
const COMMANDS: [&[&str]; 15] = [
    &["status"],
    &["pools"],
    &["explain", "/"],
    &["reload"],
    &["plan", "new.toml"],
    &["apply", "new.toml"],
    &["confirm"],
    &["guard"],
    &["rollback"],
    &["history"],
    &["overrides"],
    &["drain", "app/a:1"],
    &["ready", "app/a:1"],
    &["maintenance", "app/a:1"],
    &["weight", "app/a:1", "2"],
];

/// One that reads, one that reads and then writes, one that follows.
const KINDS: [&[&str]; 3] = [&["status"], &["apply", "new.toml"], &["drain", "app/a:1"]];

#[test]
fn each_command_has_help_with_an_example() {
    for command in COMMANDS {
        let finished = run_to_end(&[command[0], "--help"], &[]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.contains("Example"), "{finished:?}");
        assert!(finished.stdout.contains(&format!("\n  evener {}", command[0])), "{finished:?}");
    }
}

#[test]
fn nobody_there_is_exit_code_4() {
    let admin = format!("http://127.0.0.1:{}", reserve_port());
    for command in COMMANDS {
        let arguments = [command, &["--admin", &admin]].concat();
        let finished = run_to_end(&arguments, &[("new.toml", "# new\n")]);
        assert_eq!(finished.code, Some(4), "{finished:?}");
        for part in [&admin, "connection refused", "help: ", "admin.address", "--admin", "EVENER_ADMIN"] {
            assert!(finished.stderr.contains(part), "`{part}` is not in {finished:?}");
        }
        assert_eq!(finished.stdout, "");
    }
}

#[test]
fn a_refusal_is_told_with_its_help() {
    let port = Origin::serving(|_| problem(403, "unknown_pool", ""));
    for command in COMMANDS {
        let said = told(&port, command);
        let expected = "--- exit code 1\nerror: what it is: what happened\n  = help: what to do\n  = help: `evener pools` lists them\n";
        assert_eq!(said, expected, "{command:?}");
        let said = told(&port, &[command, &["--json"]].concat());
        assert!(said.starts_with("{\"type\":") && said.ends_with(expected), "{said}");
    }
}

#[test]
fn json_is_the_apis_own_answer() {
    let status = STATUS.replace("GUARD", "\"guard\":null");
    let port = side_port(vec![("GET /v1/status", json(200, &status))]);
    assert_eq!(told(&port, &["status", "--json"]), format!("{status}\n--- exit code 0\n"));
}

#[test]
fn every_mistake_of_a_refused_file_is_told() {
    let errors = r#","errors":[{"line":6,"column":8,"message":"unknown pool `apii`","help":"did you mean `api`?"},{"line":9,"column":1,"message":"unknown key `wieght`","help":"did you mean `weight`?"}]"#;
    let put = ("PUT /v1/config", problem(422, "invalid_config", errors));
    insta::assert_snapshot!(told(&side_port(vec![config(), put]), &["apply", "new.toml"]), @r"
    --- exit code 1
    error: unknown pool `apii`
     --> new.toml:6:8
      = help: did you mean `api`?

    error: unknown key `wieght`
     --> new.toml:9:1
      = help: did you mean `weight`?

    error: what it is: what happened
      = help: what to do
    ");
    let port = side_port(vec![("POST /v1/config/check", problem(422, "invalid_config", errors))]);
    assert!(told(&port, &["plan", "new.toml"]).contains("--- exit code 1\nerror: unknown pool `apii`"));
}

#[test]
fn the_token_comes_from_a_file_or_the_environment() {
    let port = Origin::serving(|_| problem(401, "unauthorized", ""));
    let bearer = || port.requests().pop().unwrap().header("authorization").map(str::to_owned);
    let files = [("token", "of-the-file\n"), ("empty", "\n"), ("new.toml", "")];
    let environment = [("EVENER_ADMIN_TOKEN", "of-the-environment")];

    let said = told_of(&port, &["status"], &files, &environment);
    assert_eq!(bearer().as_deref(), Some("Bearer of-the-environment"));
    assert!(said.contains("EVENER_ADMIN_TOKEN") && !said.contains("of-the-environment"), "{said}");
    let said = told_of(&port, &["status", "--token-file", "token"], &files, &environment);
    assert_eq!(bearer().as_deref(), Some("Bearer of-the-file"));
    assert!(!said.contains("of-the-file"), "{said}");
    drop(told_of(&port, &["status"], &files, &[("EVENER_ADMIN_TOKEN", "")]));
    assert_eq!(bearer(), None);

    let asked = port.requests_seen();
    for file in ["empty", "missing", "."] {
        let said = told_of(&port, &["status", "--token-file", file], &files, &[]);
        assert!(said.contains("--- exit code 2\n") && said.contains("help: "), "{said}");
    }
    let said = told_of(&port, &["status"], &files, &[("EVENER_ADMIN_TOKEN", "two words")]);
    assert!(said.contains("--- exit code 2\n") && !said.contains("two words"), "{said}");
    assert_eq!(port.requests_seen(), asked, "nothing is asked without the token that was meant");
}

#[test]
fn wrong_usage_asks_nobody() {
    let port = Origin::answering("never asked");
    for arguments in [
        &["drain", "127.0.0.1:9001"][..],
        &["drain", "app/a:1", "--wait", "30"],
        &["ready", "app/"],
        &["weight", "app/a:1", "many"],
        &["apply", "new.toml", "--confirm"],
        &["apply", "new.toml", "--max-error-ratio", "0.1"],
        &["apply", "new.toml", "--guard", "60s", "--max-error-ratio", "2"],
        &["rollback", "first"],
        &["reload", "--why", "f\u{fc}r morgen"],
        &["status", "--admin", "https://127.0.0.1:9900"],
        &["status", "--admin", "http://me:secret@127.0.0.1:9900"],
        &["status", "--token", "secret"],
        &["explain"],
        &["explain", ""],
    ] {
        let said = told(&port, arguments);
        assert!(said.starts_with("--- exit code 2\n"), "{arguments:?}: {said}");
        assert!(!said.contains("me:secret"), "{said}");
    }
    for command in ["plan", "apply"] {
        let said = told(&port, &[command, "missing.toml"]);
        assert!(said.starts_with("--- exit code 1\nerror: cannot read missing.toml"), "{said}");
    }
    assert_eq!(port.requests_seen(), 0);
}

#[test]
fn a_file_can_come_by_standard_input() {
    let port = side_port(vec![("POST /v1/config/check", json(200, PLAN))]);
    let script = "printf '# by a pipe\\n' | \"$0\" plan -";
    let (output, _) = shell(script, &port);
    assert!(output.starts_with("stdin is valid: "), "{output}");
    assert_eq!(sent(&port, "POST").body, b"# by a pipe\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let long = "# a line of the file\n".repeat(100_000);
    let text = Reply::with_headers(200, "Content-Type: application/toml\r\n", &long);
    let port = side_port(vec![("GET /v1/config/history/7", text)]);
    // The code of the left side of a pipe, in a shell that knows that of the right side only.
    let output = shell("{ \"$0\" history 7; echo \"code $?\" >&2; } | head -n 1", &port);
    assert_eq!(output, ("# a line of the file\n".to_owned(), "code 0\n".to_owned()));
}

/// What the script writes to its standard output, and as errors; with the binary as `$0`, and the side port in
/// the environment.
fn shell(script: &str, port: &Origin) -> (String, String) {
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_evener")]).stdin(Stdio::null());
    command.env("EVENER_ADMIN", format!("http://{}", port.address())).env_remove("EVENER_ADMIN_TOKEN");
    let output = command.output().expect("a shell");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

// ── Side ports that are none ────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_not_the_side_port_is_told_so() {
    let html = |status| Reply::with_headers(status, "Content-Type: text/html\r\n", "<html>\u{1b}[31m</html>");
    let elsewhere = Reply::with_headers(302, "Location: http://127.0.0.1:1/v1/status\r\n", "");
    let of_another = r#"{"type":"about:blank","title":"a","detail":"b","help":"c"}"#;
    for reply in [
        html(200),
        html(404),
        elsewhere,
        json(200, "{}"),
        json(200, "[1"),
        json(404, of_another),
        Reply::raw("SSH-2.0-OpenSSH_9.2\r\n").then_close(),
        Reply::raw("\x00\x01\x02garbage\r\n\r\n").then_close(),
    ] {
        let port = Origin::serving(move |_| reply.clone());
        for command in KINDS {
            let said = told(&port, command);
            assert!(said.starts_with("--- exit code 4\n"), "{command:?}: {said}");
            assert!(said.contains("is not Evener's admin API: "), "{command:?}: {said}");
            assert!(said.contains("http://SIDE-PORT") && said.contains("help: "), "{command:?}: {said}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_is_told_so() {
    let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"half";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"hal";
    for reply in [Reply::close(), Reply::raw(half).then_close(), Reply::raw(chunks).then_close()] {
        let port = Origin::serving(move |_| reply.clone());
        for command in KINDS {
            let said = told(&port, command);
            assert!(said.starts_with("--- exit code 4\n"), "{command:?}: {said}");
            assert!(said.contains("the connection ended before the answer did"), "{command:?}: {said}");
        }
    }
    let port = Origin::serving(|_| Reply::close());
    let unsure = "may be done all the same";
    assert!(told(&port, &["rollback"]).contains(unsure) && !told(&port, &["status"]).contains(unsure));
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for() {
    let port = Origin::serving(|_| Reply::hang());
    for command in [&["status"][..], &["drain", "app/a:1"], &["rollback"]] {
        let said = told(&port, &[command, &["--timeout", "300ms"]].concat());
        assert!(said.starts_with("--- exit code 4\n"), "{said}");
        assert!(said.contains("no complete answer within 300ms") && said.contains("--timeout"), "{said}");
    }
}

#[test]
fn words_of_an_answer_cannot_steer_the_terminal() {
    let port = Origin::serving(|_| {
        let body = r#"{"type":"urn:evener:problem:x","title":"a\u001b[31m","status":400,"detail":"b\u0007","help":"c\rd"}"#;
        json(400, body)
    });
    assert!(told(&port, &["status"]).contains("error: a\u{fffd}[31m: b\u{fffd}\n  = help: c\u{fffd}d\n"));
}

// ── The real side port ──────────────────────────────────────────────────────────────────────────────────

/// A command for this Evener: what it said, and its exit code.
fn ask(evener: &Evener, arguments: &[&str], files: &[(&str, &str)]) -> (String, String, i32) {
    let admin = evener.admin_address().to_string();
    let finished = run_to_end_with_environment(arguments, files, &[("EVENER_ADMIN", &admin)]);
    (finished.stdout, finished.stderr, finished.code.expect("an exit code"))
}

fn start(origin: &Origin) -> Evener {
    let upstream = origin.address();
    Evener::start(&format!(
        "[routes.users]\npath_prefix = \"/users\"\npool = \"app\"\n[routes.rest]\npool = \"app\"\n[pools.app]\nupstreams = [\"{upstream}\"]"
    ))
}

#[test]
fn the_running_process_says_what_runs() {
    let origin = Origin::answering("ok");
    let evener = start(&origin);
    (0..3).for_each(|_| drop(evener.get("/").expect_status(200)));
    evener.admin().expect_metric("evener_upstream_requests_total", &["class=\"2xx\""], 3.0);

    let (said, complaint, code) = ask(&evener, &["status"], &[]);
    assert_eq!((complaint.as_str(), code), ("", 0));
    for part in ["is ok, up ", "evener.toml, generation 1\n", "2 routes, 1 pool, 1 upstream", "http "] {
        assert!(said.contains(part), "`{part}` is not in {said}");
    }
    let (said, _, code) = ask(&evener, &["pools", "app"], &[]);
    assert_eq!(code, 0);
    assert!(said.starts_with("app: round_robin, 1 of 1 eligible, 0 in flight\n"), "{said}");
    let (said, _, _) = ask(&evener, &["explain", "/users/1"], &[]);
    assert!(said.contains("takes the route users") && said.contains(&origin.address()), "{said}");
    let (said, _, _) = ask(&evener, &["status", "--json"], &[]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["generation"], 1);
}

#[test]
fn the_running_process_refuses_what_it_does_not_know() {
    let evener = start(&Origin::answering("ok"));
    let (said, complaint, code) = ask(&evener, &["pools", "nope"], &[]);
    assert_eq!((said.as_str(), code), ("", 1));
    insta::assert_snapshot!(complaint, @r"
    error: no pool has this name: there is no pool `nope`
      = help: GET /v1/pools lists them
      = help: `evener pools` lists them
    ");
}

#[test]
fn the_running_process_reloads_or_says_what_is_wrong() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = start(&one);
    evener.rewrite(&format!("[pools.app]\nupstreams = [\"{}\", \"{}\"]", one.address(), two.address()));
    let (said, complaint, code) = ask(&evener, &["reload", "--why", "one more"], &[]);
    assert_eq!((complaint.as_str(), code), ("", 0));
    assert!(said.starts_with("reloaded ") && said.contains(": generation 2\n"), "{said}");
    assert!(said.contains(&format!("  added     app/{}\n", two.address())), "{said}");

    evener.rewrite("[pools.app]\nstrategy = \"least_conn\"\nupstreams = [\"nowhere\"]");
    let (said, complaint, code) = ask(&evener, &["reload"], &[]);
    assert_eq!((said.as_str(), code, evener.generation()), ("", 1, 2));
    assert_eq!(complaint.matches("evener.toml:").count(), 2, "each with its place: {complaint}");
    assert!(complaint.contains("= help: did you mean `least_connections`?"), "{complaint}");
}

/// The port of the traffic is the mistake that people make.
#[test]
fn the_port_of_the_traffic_is_not_taken_for_the_side_port() {
    let evener = start(&Origin::answering("ok"));
    let admin = format!("http://{}", evener.address());
    let finished = run_to_end(&["status", "--admin", &admin], &[]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(finished.stderr.contains("apart from the traffic"), "{finished:?}");
}

#[test]
fn the_running_process_drains_and_readies_an_upstream() {
    let (busy, free) = (Origin::answering("busy"), Origin::answering("free"));
    let evener =
        Evener::start(&format!("[pools.app]\nupstreams = [\"{}\", \"{}\"]", busy.address(), free.address()));
    busy.hold();
    let held: Vec<_> = (0..2).map(|_| evener.get_in_background("/")).collect();
    busy.wait_for_requests(1);
    let member = format!("app/{}", busy.address());

    let (said, _, code) = ask(&evener, &["drain", &member], &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("not safe to stop, 1 request in flight"), "{said}");
    let admin = evener.admin_address().to_string();
    let waiting = crate::rig::Background::run({
        let member = member.clone();
        move || {
            let arguments = ["drain", member.as_str(), "--wait", "15s"];
            run_to_end_with_environment(&arguments, &[], &[("EVENER_ADMIN", &admin)])
        }
    });
    busy.release();
    let finished = waiting.join();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("safe to stop"), "{finished:?}");
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));

    let (said, _, code) = ask(&evener, &["overrides"], &[]);
    assert!(code == 0 && said.contains("drain"), "{said}");
    let (said, _, code) = ask(&evener, &["ready", &member], &[]);
    assert!(code == 0 && said.contains("it gets requests"), "{said}");
    let (said, _, code) = ask(&evener, &["weight", &member, "5"], &[]);
    assert!(code == 0 && said.contains("weight 5"), "{said}");
    let (said, _, code) = ask(&evener, &["maintenance", &member], &[]);
    assert!(code == 0 && said.contains("state maintenance"), "{said}");
    let (said, _, code) = ask(&evener, &["overrides", "--drop"], &[]);
    assert!(code == 0 && said.contains("dropped all overrides"), "{said}");
}

#[test]
fn the_running_process_plans_applies_and_rolls_back() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = start(&one);
    let text = evener.configuration().replace(&one.address(), &two.address());
    let files = [("new.toml", text.as_str())];

    let (said, complaint, code) = ask(&evener, &["plan", "new.toml"], &files);
    assert_eq!(code, 0, "{complaint}");
    for part in [format!("+ {}", two.address()), format!("- {}", one.address())] {
        assert!(said.contains(&part), "`{part}` is not in {said}");
    }
    let (said, complaint, code) = ask(&evener, &["apply", "new.toml", "--why", "a try"], &files);
    assert_eq!(code, 0, "{complaint}");
    assert!(said.starts_with("applied new.toml: generation 2\n"), "{said}");
    assert_eq!(evener.get("/").body(), "two");

    let (said, _, code) = ask(&evener, &["history"], &[]);
    assert!(code == 0 && said.contains("a try") && said.contains("(runs now)"), "{said}");
    let (said, complaint, code) = ask(&evener, &["rollback"], &[]);
    assert_eq!(code, 0, "{said}{complaint}");
    assert_eq!(evener.get("/").body(), "one");
    let (said, _, code) = ask(&evener, &["history", "2"], &[]);
    assert_eq!((said, code), (text, 0));

    let (_, complaint, code) = ask(&evener, &["apply", "wrong.toml"], &[("wrong.toml", "x = 1\n")]);
    assert_eq!(code, 1);
    assert!(complaint.contains("wrong.toml:1:1"), "{complaint}");
}

#[test]
fn the_running_process_watches_what_it_applied() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = start(&one);
    let text = evener.configuration().replace(&one.address(), &two.address());
    let arguments = ["apply", "new.toml", "--guard", "10s", "--confirm"];
    let (said, complaint, code) = ask(&evener, &arguments, &[("new.toml", &text)]);
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("watching generation 2 until ") && said.contains("evener confirm"), "{said}");
    let (_, complaint, code) = ask(&evener, &["reload"], &[]);
    assert!(code == 1 && complaint.contains("`evener confirm` keeps it"), "{complaint}");
    let (said, _, code) = ask(&evener, &["confirm"], &[]);
    assert!(code == 0 && said.starts_with("kept generation 2\n"), "{said}");
    let (said, _, code) = ask(&evener, &["guard"], &[]);
    assert!(code == 0 && said.starts_with("kept generation 2\n"), "{said}");
}
