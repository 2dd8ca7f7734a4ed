//! Every message, whole, as people see it.

// Whole outputs are long, and files look the same with and without quotes in them.
#![allow(clippy::too_many_lines, clippy::needless_raw_string_hashes)]

use insta::assert_snapshot;

use super::{checked, refused};

/// What is said about a whole file.
fn mistakes_in(text: &str) -> String {
    refused(text).to_string()
}

/// What is said about a listener with these keys.
fn in_listener(keys: &str) -> String {
    mistakes_in(&format!("[listeners.http]\n{keys}\n[pools.app]\nupstreams = []\n"))
}

/// What is said about a route with these keys; the pools are `app` and `api`.
fn in_route(keys: &str) -> String {
    mistakes_in(&format!(
        "[routes.users]\n{keys}\n[listeners.http]\naddress = \"127.0.0.1:8080\"\n\
         [pools.app]\nupstreams = []\n[pools.api]\nupstreams = []\n"
    ))
}

/// What is said about a pool with these keys.
fn in_pool(keys: &str) -> String {
    mistakes_in(&format!("[pools.app]\n{keys}\n[listeners.http]\naddress = \"127.0.0.1:8080\"\n"))
}

/// What is said about a valid file.
fn warnings_in(text: &str) -> String {
    checked(text).outcome.unwrap().1.to_string()
}

#[test]
fn an_empty_file_is_told_what_to_add() {
    assert_snapshot!(mistakes_in(""), @r#"
    error: the file has no listener
     --> evener.toml
      |
      = help: add these lines:
                [listeners.http]
                address = "0.0.0.0:8080"

    error: the file has no pool
     --> evener.toml
      |
      = help: add these lines:
                [pools.app]
                upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn empty_sections_are_no_sections() {
    assert_snapshot!(mistakes_in(r#"listeners = {}
pools = {}
"#), @r#"
    error: the file has no listener
     --> evener.toml
      |
      = help: add these lines:
                [listeners.http]
                address = "0.0.0.0:8080"

    error: the file has no pool
     --> evener.toml
      |
      = help: add these lines:
                [pools.app]
                upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn several_pools_need_a_route() {
    assert_snapshot!(mistakes_in(r#"[listeners.http]
address = "127.0.0.1:8080"
[pools.app]
upstreams = []
[pools.api]
upstreams = []
"#), @r#"
    error: the file has no route, and 2 pools to choose from
     --> evener.toml
      |
      = help: add these lines:
                [routes.main]
                pool = "app"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn mistakes_in_all_tables_are_said_at_once() {
    assert_snapshot!(mistakes_in(r#"[server]
thraeds = 2

[listeners.http]
address = "127.0.0.1:8080"
header_timeout = 10

[routes.users]
path_prefix = "/users"
pool = "apii"

[pools.api]
strategy = "least_conn"
upstreams = ["127.0.0.1:9001"]
max_fails = 3
"#), @r#"
    error: unknown key `thraeds`
     --> evener.toml:2:1
      |
    2 | thraeds = 2
      | ^^^^^^^ not a key of `server`
      |
      = help: did you mean `threads`? Keys of `server`: threads, drain_timeout, pre_stop_delay, state_file

    error: the duration `10` has no unit
     --> evener.toml:6:18
      |
    6 | header_timeout = 10
      |                  ^^ seconds or milliseconds?
      |
      = help: write "10s" for seconds or "10ms" for milliseconds

    error: unknown pool `apii`
      --> evener.toml:10:8
       |
    10 | pool = "apii"
       |        ^^^^^^ no pool has this name
       |
       = help: did you mean `api`? Pools in this file: api

    error: unknown strategy `least_conn`
      --> evener.toml:13:12
       |
    13 | strategy = "least_conn"
       |            ^^^^^^^^^^^^ not a strategy
       |
       = help: did you mean `least_connections`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    error: unknown key `max_fails`
      --> evener.toml:15:1
       |
    15 | max_fails = 3
       | ^^^^^^^^^ not a key of a pool
       |
       = help: did you mean `ejection`? Keys of a pool: strategy, hash, upstreams, protocol, tls, timeouts, keepalive, slow_start, ejection, queue, health_check, proxy_protocol

    5 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_syntax_error_hides_no_other_mistake() {
    assert_snapshot!(mistakes_in(r#"[server]
threads: 4
[listeners.http]
address = 127.0.0.1:8080
header_timeout = 10
[pools.app]
upstreams = ["127.0.0.1:9001",, "127.0.0.1:9002"]
strategy = "rr
retries = 3
[pools.app]
slow_start = "1"
[log
level = "loud"
[admin]
address = "\q"
port = 3
"#), @r#"
    error: not valid TOML: invalid unquoted key, expected letters, numbers, `-`, `_`
     --> evener.toml:2:8
      |
    2 | threads: 4
      |        ^ here
      |
      = help: write `key = value`; a table begins with `[name]` on its own line

    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:4:11
      |
    4 | address = 127.0.0.1:8080
      |           ^^^^^^^^^^^^^^ no quotes
      |
      = help: write "127.0.0.1:8080", in double quotes

    error: the duration `10` has no unit
     --> evener.toml:5:18
      |
    5 | header_timeout = 10
      |                  ^^ seconds or milliseconds?
      |
      = help: write "10s" for seconds or "10ms" for milliseconds

    error: not valid TOML: extra comma in array, expected value
     --> evener.toml:7:31
      |
    7 | upstreams = ["127.0.0.1:9001",, "127.0.0.1:9002"]
      |                               ^ here
      |
      = help: remove one comma

    error: not valid TOML: invalid basic string, expected `"`
     --> evener.toml:8:15
      |
    8 | strategy = "rr
      |               ^ here
      |
      = help: end the text with a double quote, on the same line

    error: unknown key `retries`
     --> evener.toml:9:1
      |
    9 | retries = 3
      | ^^^^^^^ not a key of a pool
      |
      = help: Keys of a pool: strategy, hash, upstreams, protocol, tls, timeouts, keepalive, slow_start, ejection, queue, health_check, proxy_protocol

    error: not valid TOML: duplicate key
      --> evener.toml:10:8
       |
    10 | [pools.app]
       |        ^^^ here
       |
       = help: a key, and a table's heading, may stand once; merge the two

    error: the duration `1` has no unit
      --> evener.toml:11:14
       |
    11 | slow_start = "1"
       |              ^^^ seconds or milliseconds?
       |
       = help: write "1s" for seconds or "1ms" for milliseconds

    error: not valid TOML: unclosed table, expected `]`
      --> evener.toml:12:5
       |
    12 | [log
       |     ^ here
       |
       = help: end the heading of the table with `]`, on the same line

    error: not valid TOML: missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`
      --> evener.toml:15:13
       |
    15 | address = "\q"
       |             ^ here
       |
       = help: write a backslash as `\\`, or put the text in single quotes

    error: unknown key `port`
      --> evener.toml:16:1
       |
    16 | port = 3
       | ^^^^ not a key of `admin`
       |
       = help: Keys of `admin`: address, tokens

    11 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_value_that_is_not_closed_is_said_once_where_it_opens() {
    assert_snapshot!(mistakes_in(r#"[listeners.http]
address = "127.0.0.1:8080"
tiemout = 1

[pools.app]
upstreams = [
  "127.0.0.1:9001",
  "127.0.0.1:9002"

[routes.all]
pool = "other"
"#), @r"
    error: unknown key `tiemout`
     --> evener.toml:3:1
      |
    3 | tiemout = 1
      | ^^^^^^^ not a key of a listener
      |
      = help: Keys of a listener: address, trusted_proxies, header_timeout, keepalive_timeout, max_connections, max_header_size, max_body_size, http2_cleartext, http2, tls, proxy_protocol

    error: a value is not closed; nothing below it could be read
     --> evener.toml:6:13
      |
    6 | upstreams = [
      |             ^ opened here
      |
      = help: close it with `]`; look for a missing comma before that, too

    2 mistakes in evener.toml; nothing was applied
    ");
}

#[test]
fn text_in_three_quotes_that_is_not_closed_is_said_once() {
    assert_snapshot!(mistakes_in(r#"[log]
access = '''off
[server]
threads = 0
"#), @r"
    error: a value is not closed; nothing below it could be read
     --> evener.toml:2:10
      |
    2 | access = '''off
      |          ^^^^^^ opened here
      |
      = help: end it with three quotes, as it begins

    1 mistake in evener.toml; nothing was applied
    ");
}

#[test]
fn an_unknown_table_offers_the_nearest() {
    assert_snapshot!(mistakes_in(r#"[frontends.http]
address = "127.0.0.1:80"
[listeners.http]
address = "127.0.0.1:80"
[backends.app]
[pools.app]
upstreams = []
"#), @r"
    error: unknown key `frontends`
     --> evener.toml:1:2
      |
    1 | [frontends.http]
      |  ^^^^^^^^^ not a key of the file
      |
      = help: did you mean `listeners`? Keys of the file: server, admin, log, tracing, listeners, pools, routes

    error: unknown key `backends`
     --> evener.toml:5:2
      |
    5 | [backends.app]
      |  ^^^^^^^^ not a key of the file
      |
      = help: did you mean `pools`? Keys of the file: server, admin, log, tracing, listeners, pools, routes

    2 mistakes in evener.toml; nothing was applied
    ");
}

#[test]
fn a_table_is_not_a_value_and_a_value_is_no_table() {
    assert_snapshot!(mistakes_in(r#"server = 4
listeners = ["127.0.0.1:80"]
[pools]
app = "127.0.0.1:9001"
[log]
level = { a = 1 }
[routes.x]
hosts = "a"
pool = ["a"]
strip_prefix = "yes"
retry = { max_retries = "2", budget = "20%" }
"#), @r#"
    error: expected a table, found a whole number
     --> evener.toml:1:10
      |
    1 | server = 4
      |          ^ not a table
      |
      = help: write it like this: server = { … }

    error: expected a table, found a list
     --> evener.toml:2:13
      |
    2 | listeners = ["127.0.0.1:80"]
      |             ^^^^^^^^^^^^^^^^ not a table
      |
      = help: write it like this: listeners = { … }

    error: expected a table, found text
     --> evener.toml:4:7
      |
    4 | app = "127.0.0.1:9001"
      |       ^^^^^^^^^^^^^^^^ not a table
      |
      = help: write it like this: name = { … }

    error: expected text in double quotes, found a table
     --> evener.toml:6:9
      |
    6 | level = { a = 1 }
      |         ^^^^^^^^^ not text in double quotes
      |
      = help: write it like this: level = "…"

    error: expected a list, found text
     --> evener.toml:8:9
      |
    8 | hosts = "a"
      |         ^^^ not a list
      |
      = help: write it like this: hosts = ["…"]

    error: expected text in double quotes, found a list
     --> evener.toml:9:8
      |
    9 | pool = ["a"]
      |        ^^^^^ not text in double quotes
      |
      = help: write it like this: pool = "…"

    error: expected true or false, found text
      --> evener.toml:10:16
       |
    10 | strip_prefix = "yes"
       |                ^^^^^ not true or false
       |
       = help: write it like this: strip_prefix = true

    error: expected a whole number, found text
      --> evener.toml:11:25
       |
    11 | retry = { max_retries = "2", budget = "20%" }
       |                         ^^^ not a whole number
       |
       = help: write it like this: max_retries = 0

    error: expected a number from 0 to 1, found text
      --> evener.toml:11:39
       |
    11 | retry = { max_retries = "2", budget = "20%" }
       |                                       ^^^^^ not a number from 0 to 1
       |
       = help: write it like this: budget = 0.5

    9 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn names_stand_in_urls() {
    assert_snapshot!(mistakes_in(r#"[listeners."a b"]
address = "127.0.0.1:80"
[pools."-x"]
upstreams = []
"#), @r#"
    error: `a b` cannot be a name
     --> evener.toml:1:12
      |
    1 | [listeners."a b"]
      |            ^^^^^ it stands in URLs and metrics
      |
      = help: use 1 to 64 letters, digits, `-`, `_` or `.`, a letter or digit first

    error: `-x` cannot be a name
     --> evener.toml:3:8
      |
    3 | [pools."-x"]
      |        ^^^^ it stands in URLs and metrics
      |
      = help: use 1 to 64 letters, digits, `-`, `_` or `.`, a letter or digit first

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn no_route_is_called_like_the_lack_of_one() {
    assert_snapshot!(mistakes_in(r#"[listeners.http]
address = "127.0.0.1:80"
[routes.none]
pool = "app"
[pools.app]
upstreams = []
"#), @r#"
    error: `none` cannot be the name of a route
     --> evener.toml:3:9
      |
    3 | [routes.none]
      |         ^^^^ in metrics, it stands for requests without one
      |
      = help: give the route another name

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    assert_snapshot!(mistakes_in("[listeners.http]\naddress = \"\\u001b[31m\"\n\tx\u{7} = 1\n[pools.app]\nupstreams = []\n"), @r#"
    error: `�[31m` is no address to listen on
     --> evener.toml:2:11
      |
    2 | address = "\u001b[31m"
      |           ^^^^^^^^^^^^ not IP:port
      |
      = help: write an IP address and a port, such as "0.0.0.0:8080" or "[::1]:8080"

    error: not valid TOML: invalid unquoted key, expected letters, numbers, `-`, `_`
     --> evener.toml:3:3
      |
    3 |     x� = 1
      |      ^ here
      |
      = help: this is TOML: `key = value`, tables as `[name]`, text in double quotes (https://toml.io)

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_long_line_is_cut_around_the_mistake() {
    assert_snapshot!(in_pool(r#"upstreams = ["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003", "127.0.0.1:9004", "127.0.0.1:9005", "127.0.0.1:9006", "127.0.0.1:9007", "127.0.0.1:9008", "127.0.0.1:9009", "127.0.0.1:9010", "127.0.0.1:9011", "127.0.0.1:9000", "127.0.0.1:9100", "127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103", "127.0.0.1:9104", "127.0.0.1:9105", "127.0.0.1:9106", "127.0.0.1:9107", "127.0.0.1:9108", "127.0.0.1:9109", "127.0.0.1:9110", "127.0.0.1:9111"]"#), @r#"
    error: the upstream 127.0.0.1:9000 is in this pool twice
     --> evener.toml:2:230
      |
    2 | …008", "127.0.0.1:9009", "127.0.0.1:9010", "127.0.0.1:9011", "127.0.0.1:9000", "127.0.0.1:9100", "127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103", "127.0.0.1…
      |                                                              ^^^^^^^^^^^^^^^^ again
      |
      = help: it is also on line 2; keep one, with a larger `weight` for a larger share

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_process_tables_have_limits() {
    assert_snapshot!(mistakes_in(r#"[server]
threads = 0
drain_timeout = "25h"
pre_stop_delay = "5 seconds"
[admin]
address = "0.0.0.0:9900"
tokens = {}
[log]
level = "warning"
format = "xml"
access = "stdot"
[listeners.http]
address = "127.0.0.1:80"
[pools.app]
upstreams = []
"#), @r#"
    error: `0` is out of range
     --> evener.toml:2:11
      |
    2 | threads = 0
      |           ^ too small
      |
      = help: write a whole number from 1 to 1024

    error: `25h` is out of range
     --> evener.toml:3:17
      |
    3 | drain_timeout = "25h"
      |                 ^^^^^ too large
      |
      = help: write a value from 0s to 24h

    error: `5 seconds` is no duration
     --> evener.toml:4:18
      |
    4 | pre_stop_delay = "5 seconds"
      |                  ^^^^^^^^^^^ not a whole number with a unit
      |
      = help: write whole numbers with `ms`, `s`, `m` or `h`: "500ms", "30s", "1m30s", "2h"

    error: the admin address must be on loopback: without tokens, anyone could drain upstreams
     --> evener.toml:6:11
      |
    6 | address = "0.0.0.0:9900"
      |           ^^^^^^^^^^^^^^ reachable from other machines
      |
      = help: write "127.0.0.1:9900", or add a token: [admin.tokens.NAME] with `scope`, and `file` or `env`

    error: unknown log level `warning`
     --> evener.toml:9:9
      |
    9 | level = "warning"
      |         ^^^^^^^^^ not a log level
      |
      = help: did you mean `warn`? Accepted: error, warn, info, debug, trace

    error: unknown log format `xml`
      --> evener.toml:10:10
       |
    10 | format = "xml"
       |          ^^^^^ not a log format
       |
       = help: Accepted: text, json

    error: `stdot` is neither `off`, `stdout` nor a file
      --> evener.toml:11:10
       |
    11 | access = "stdot"
       |          ^^^^^^^ no place for an access log
       |
       = help: write "off", "stdout", or a path such as "/var/log/evener/access.log"

    7 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_token_has_a_scope_and_a_secret_of_its_own() {
    assert_snapshot!(mistakes_in(r#"[admin.tokens.one]
scope = "admin"
env = "OPS_TOKEN"
[admin.tokens.two]
env = "SHORT_TOKEN"
[admin.tokens.three]
scope = "read"
[admin.tokens.four]
scope = "write"
file = "/nonexistent/token"
[admin.tokens.five]
scope = "operate"
env = "OPS_TOKEN"
[admin.tokens.six]
scope = "operate"
env = "OPS_TOKEN"
[admin.tokens.seven]
scope = "operate"
file = "./token"
env = "OPS_TOKEN"
[admin.tokens.eight]
scope = "operate"
env = "BLANK_TOKEN"
[admin.tokens.nine]
scope = "operate"
env = "HEALTH_TOKEN"
[admin.tokens."t e n"]
scope = "operate"
env = "NOT_SET"
[listeners.http]
address = "127.0.0.1:80"
[pools.app]
upstreams = []
"#), @r#"
    error: unknown scope `admin`
     --> evener.toml:2:9
      |
    2 | scope = "admin"
      |         ^^^^^^^ not a scope
      |
      = help: Accepted: read, operate, write

    error: a token needs `scope`
     --> evener.toml:4:1
      |
    4 | [admin.tokens.two]
      | ^^^^^^^^^^^^^^^^^^ no `scope` here
      |
      = help: add what it allows: scope = "read", "operate" or "write"

    error: the secret of a token has less than 16 characters
     --> evener.toml:5:7
      |
    5 | env = "SHORT_TOKEN"
      |       ^^^^^^^^^^^^^ too short
      |
      = help: make a new one, such as by `openssl rand -hex 32`

    error: the token has no secret
     --> evener.toml:6:1
      |
    6 | [admin.tokens.three]
      | ^^^^^^^^^^^^^^^^^^^^ no `file` and no `env` here
      |
      = help: add where its secret is: file = "/etc/evener/ops.token", or env = "OPS_TOKEN"

    error: the secret file `/nonexistent/token` does not exist
      --> evener.toml:10:8
       |
    10 | file = "/nonexistent/token"
       |        ^^^^^^^^^^^^^^^^^^^^ no secret there
       |
       = help: name a readable text file of at most 8192 bytes

    error: the tokens `five` and `six` have the same secret
      --> evener.toml:16:7
       |
    16 | env = "OPS_TOKEN"
       |       ^^^^^^^^^^^ the same again
       |
       = help: give each a secret of its own, such as from `openssl rand -hex 32`

    error: a token has either `file` or `env`
      --> evener.toml:20:7
       |
    20 | env = "OPS_TOKEN"
       |       ^^^^^^^^^^^ both are given
       |
       = help: keep `file` for a secret in a file, or `env` for one in the environment

    error: the secret of a token is empty
      --> evener.toml:23:7
       |
    23 | env = "BLANK_TOKEN"
       |       ^^^^^^^^^^^^^ nothing there
       |
       = help: make a new one, such as by `openssl rand -hex 32`

    error: the secret of a token holds blanks, or what is not ASCII
      --> evener.toml:26:7
       |
    26 | env = "HEALTH_TOKEN"
       |       ^^^^^^^^^^^^^^ cannot be sent
       |
       = help: make a new one, such as by `openssl rand -hex 32`

    error: `t e n` cannot be a name
      --> evener.toml:27:15
       |
    27 | [admin.tokens."t e n"]
       |               ^^^^^^^ it stands in URLs and metrics
       |
       = help: use 1 to 64 letters, digits, `-`, `_` or `.`, a letter or digit first

    error: the environment variable `NOT_SET` is not set, or empty
      --> evener.toml:29:7
       |
    29 | env = "NOT_SET"
       |       ^^^^^^^^^ nothing there
       |
       = help: set it where Evener starts (systemd: `EnvironmentFile=`), or write file = "PATH"

    11 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_secret_of_a_token_is_not_repeated() {
    assert_snapshot!(mistakes_in(r#"[admin.tokens]
ops = { scope = "write", token = "s3cret" }
dev = { scope = "write", env = "s3cret/or+not" }
all = { scope = "write", file = "s3cret" }
[listeners.http]
address = "127.0.0.1:80"
[pools.app]
upstreams = []
"#), @r#"
    error: the token has no secret
     --> evener.toml:2:7
      |
    2 | ops = { scope = "write", token = ******** }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no `file` and no `env` here
      |
      = help: add where its secret is: file = "/etc/evener/ops.token", or env = "OPS_TOKEN"

    error: unknown key `token`
     --> evener.toml:2:26
      |
    2 | ops = { scope = "write", token = ******** }
      |                          ^^^^^ not a key of a token
      |
      = help: Keys of a token: scope, file, env

    error: this names no place for a secret, and a secret does not stand in this file
     --> evener.toml:3:32
      |
    3 | dev = { scope = "write", env = *************** }
      |                                ^^^^^^^^^^^^^^^ its value is not shown
      |
      = help: write the variable's name alone, such as "OPS_TOKEN"

    error: this names no place for a secret, and a secret does not stand in this file
     --> evener.toml:4:33
      |
    4 | all = { scope = "write", file = ******** }
      |                                 ^^^^^^^^ its value is not shown
      |
      = help: write a path such as "./ops.token"

    4 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_secret_that_all_can_read_is_an_oddity() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret-of-the-operators").unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        warnings_in(&format!(
            "[admin.tokens.ops]\nscope = \"write\"\nfile = \"{}\"\n{}",
            file.display(),
            super::MINIMAL
        ))
        .replace(&file.display().to_string(), "/etc/evener/ops.token")
    };
    assert_snapshot!(warnings(0o600), @"0 warnings in evener.toml");
    assert_snapshot!(warnings(0o640), @"0 warnings in evener.toml");
    let said = warnings(0o644);
    for part in [
        "warning: everybody on this machine can read the secret of this token",
        "evener.toml:3:8",
        "help: `chmod 600 /etc/evener/ops.token`, and let it belong to the user that runs Evener",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_mistake_in_a_token_does_not_put_the_address_in_doubt() {
    assert_snapshot!(mistakes_in(r#"[admin]
address = "0.0.0.0:9900"
tokens = 3
[listeners.http]
address = "127.0.0.1:80"
[pools.app]
upstreams = []
"#), @r#"
    error: expected a table, found a whole number
     --> evener.toml:3:10
      |
    3 | tokens = 3
      |          ^ not a table
      |
      = help: write it like this: tokens = { … }

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_listener_needs_an_address() {
    assert_snapshot!(in_listener(r#"max_connections = 5"#), @r#"
    error: a listener needs `address`
     --> evener.toml:1:1
      |
    1 | [listeners.http]
      | ^^^^^^^^^^^^^^^^ no `address` here
      |
      = help: add where it accepts connections: address = "0.0.0.0:8080"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_listener_whose_address_names_the_port_alone_is_offered_another() {
    assert_snapshot!(in_listener(r#"address = ":8080""#), @r#"
    error: `:8080` is no address to listen on
     --> evener.toml:2:11
      |
    2 | address = ":8080"
      |           ^^^^^^^ not IP:port
      |
      = help: write an IP address and a port, such as "0.0.0.0:8080"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_listener_whose_address_says_localhost_is_offered_another() {
    assert_snapshot!(in_listener(r#"address = "localhost:8080""#), @r#"
    error: `localhost:8080` is no address to listen on
     --> evener.toml:2:11
      |
    2 | address = "localhost:8080"
      |           ^^^^^^^^^^^^^^^^ not IP:port
      |
      = help: write an IP address and a port, such as "127.0.0.1:8080"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_listener_whose_address_has_no_port_is_offered_another() {
    assert_snapshot!(in_listener(r#"address = "127.0.0.1""#), @r#"
    error: `127.0.0.1` is no address to listen on
     --> evener.toml:2:11
      |
    2 | address = "127.0.0.1"
      |           ^^^^^^^^^^^ not IP:port
      |
      = help: write an IP address and a port, such as "127.0.0.1:8080"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_listener_whose_address_has_port_zero_is_offered_another() {
    assert_snapshot!(in_listener(r#"address = "[::1]:0""#), @r#"
    error: port 0 would be another port at each start
     --> evener.toml:2:11
      |
    2 | address = "[::1]:0"
      |           ^^^^^^^^^ no fixed port
      |
      = help: write an IP address and a port, such as "[::1]:8080"

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn two_sockets_cannot_have_one_address() {
    assert_snapshot!(mistakes_in(r#"[listeners.a]
address = "0.0.0.0:80"
[listeners.b]
address = "127.0.0.1:80"
[listeners.c]
address = "127.0.0.1:9900"
[listeners.d]
address = "[::1]:80"
[pools.app]
upstreams = []
"#), @r#"
    error: listener `a` on 0.0.0.0:80 already has this address
     --> evener.toml:4:11
      |
    4 | address = "127.0.0.1:80"
      |           ^^^^^^^^^^^^^^ taken
      |
      = help: give each an address or a port of its own; `0.0.0.0` covers every IPv4 address

    error: the admin API on 127.0.0.1:9900 already has this address
     --> evener.toml:6:11
      |
    6 | address = "127.0.0.1:9900"
      |           ^^^^^^^^^^^^^^^^ taken
      |
      = help: give each an address or a port of its own; `0.0.0.0` covers every IPv4 address

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_keys_of_a_listener_have_limits() {
    assert_snapshot!(in_listener(r#"address = "127.0.0.1:80"
trusted_proxies = ["10.0.0.0/33", "proxy", 5]
header_timeout = "0s"
keepalive_timeout = "1.5s"
max_connections = -1
max_header_size = "2MiB"
max_body_size = 1048576"#), @r#"
    error: `10.0.0.0/33` is no network
     --> evener.toml:3:20
      |
    3 | trusted_proxies = ["10.0.0.0/33", "proxy", 5]
      |                    ^^^^^^^^^^^^^ neither an IP address nor a CIDR block
      |
      = help: write "10.0.0.0/8", "192.0.2.7" or "fd00::/8"

    error: `proxy` is no network
     --> evener.toml:3:35
      |
    3 | trusted_proxies = ["10.0.0.0/33", "proxy", 5]
      |                                   ^^^^^^^ neither an IP address nor a CIDR block
      |
      = help: write "10.0.0.0/8", "192.0.2.7" or "fd00::/8"

    error: expected text in double quotes, found a whole number
     --> evener.toml:3:44
      |
    3 | trusted_proxies = ["10.0.0.0/33", "proxy", 5]
      |                                            ^ not text in double quotes
      |
      = help: write "5", in quotes

    error: `0s` is out of range
     --> evener.toml:4:18
      |
    4 | header_timeout = "0s"
      |                  ^^^^ too small
      |
      = help: write a value from 1ms to 24h

    error: `1.5s` is no duration
     --> evener.toml:5:21
      |
    5 | keepalive_timeout = "1.5s"
      |                     ^^^^^^ not a whole number with a unit
      |
      = help: write whole numbers with `ms`, `s`, `m` or `h`: "500ms", "30s", "1m30s", "2h"

    error: `-1` is out of range
     --> evener.toml:6:19
      |
    6 | max_connections = -1
      |                   ^^ too small
      |
      = help: write a whole number from 1 to 1048576

    error: `2MiB` is out of range
     --> evener.toml:7:19
      |
    7 | max_header_size = "2MiB"
      |                   ^^^^^^ too large
      |
      = help: write a value from 1KiB to 1MiB

    error: the size `1048576` has no unit
     --> evener.toml:8:17
      |
    8 | max_body_size = 1048576
      |                 ^^^^^^^ bytes or something else?
      |
      = help: write "1MiB" if bytes are meant, or another unit: `KiB`, `MiB`, `GiB`

    8 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_size_has_a_binary_unit() {
    assert_snapshot!(in_listener(r#"address = "127.0.0.1:80"
max_header_size = "64kb"
max_body_size = 0"#), @r#"
    error: `64kb` has a unit that is not used here
     --> evener.toml:3:19
      |
    3 | max_header_size = "64kb"
      |                   ^^^^^^ 1000 or 1024?
      |
      = help: write "64KiB" (1 KiB = 1024 B)

    error: a size stands in quotes, even 0
     --> evener.toml:4:17
      |
    4 | max_body_size = 0
      |                 ^ no quotes
      |
      = help: write "0"

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn proxy_headers_are_believed_from_somebody() {
    assert_snapshot!(in_listener(r#"address = "127.0.0.1:80"
proxy_protocol = true"#), @r#"
    error: `proxy_protocol` without `trusted_proxies`: nobody may send PROXY headers
     --> evener.toml:3:18
      |
    3 | proxy_protocol = true
      |                  ^^^^ whose headers are believed?
      |
      = help: name the proxies in front: trusted_proxies = ["10.0.0.0/8"]

    1 mistake in evener.toml; nothing was applied
    "#);
    assert_snapshot!(in_listener(r#"address = "127.0.0.1:80"
trusted_proxies = []
proxy_protocol = "v2""#), @r#"
    error: expected true or false, found text
     --> evener.toml:4:18
      |
    4 | proxy_protocol = "v2"
      |                  ^^^^ not true or false
      |
      = help: write it like this: proxy_protocol = true

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn an_unknown_pool_points_at_the_word_and_offers_the_nearest() {
    assert_snapshot!(in_route(r#"pool = "apii""#), @r#"
    error: unknown pool `apii`
     --> evener.toml:2:8
      |
    2 | pool = "apii"
      |        ^^^^^^ no pool has this name
      |
      = help: did you mean `api`? Pools in this file: app, api

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_route_needs_a_pool() {
    assert_snapshot!(in_route(r#"path_prefix = "/""#), @r#"
    error: the route names no pool
     --> evener.toml:1:1
      |
    1 | [routes.users]
      | ^^^^^^^^^^^^^^ no `pool` and no `split` here
      |
      = help: add pool = "NAME". Pools in this file: app, api

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_route_has_a_pool_or_a_split() {
    assert_snapshot!(in_route(r#"pool = "app"
split = []"#), @r"
    error: a route has either `pool` or `split`
     --> evener.toml:3:9
      |
    3 | split = []
      |         ^^ one too many
      |
      = help: keep `split` to share requests among pools, or `pool` for one

    1 mistake in evener.toml; nothing was applied
    ");
}

#[test]
fn a_split_has_known_pools_and_a_share_each() {
    assert_snapshot!(in_route(r#"split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]"#), @r#"
    error: unknown pool `ap`
     --> evener.toml:2:19
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                   ^^^^ no pool has this name
      |
      = help: did you mean `api`? Pools in this file: app, api

    error: an entry of `split` needs `weight`
     --> evener.toml:2:39
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                                       ^^^^^^^^^^^^^^^^ no `weight` here
      |
      = help: write { pool = "NAME", weight = 5 }

    error: `1001` is out of range
     --> evener.toml:2:82
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                                                                                  ^^^^ too large
      |
      = help: write a whole number from 0 to 1000

    error: an entry of `split` needs `pool`
     --> evener.toml:2:90
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                                                                                          ^^^^^^^^^^^^^^ no `pool` here
      |
      = help: write { pool = "NAME", weight = 5 }

    error: an entry of `split` needs `weight`
     --> evener.toml:2:90
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                                                                                          ^^^^^^^^^^^^^^ no `weight` here
      |
      = help: write { pool = "NAME", weight = 5 }

    error: unknown key `wieght`
     --> evener.toml:2:92
      |
    2 | split = [{ pool = "ap", weight = 1 }, { pool = "app" }, { pool = "api", weight = 1001 }, { wieght = 1 }]
      |                                                                                            ^^^^^^ not a key of an entry of `split`
      |
      = help: did you mean `weight`? Keys of an entry of `split`: pool, weight

    6 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_split_gives_somebody_a_share() {
    assert_snapshot!(in_route(r#"split = [{ pool = "app", weight = 0 }]"#), @r#"
    error: no pool gets a share of this split
     --> evener.toml:2:9
      |
    2 | split = [{ pool = "app", weight = 0 }]
      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no weight above 0
      |
      = help: name at least one pool with a weight above 0

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_split_names_each_pool_once() {
    assert_snapshot!(in_route(r#"split = [{ pool = "app", weight = 1 }, { pool = "app", weight = 2 }]"#), @r#"
    error: a pool has two shares of this split
     --> evener.toml:2:9
      |
    2 | split = [{ pool = "app", weight = 1 }, { pool = "app", weight = 2 }]
      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ named twice
      |
      = help: name it once, with the sum of its weights

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn conditions_that_never_match_are_refused() {
    assert_snapshot!(in_route(r#"hosts = ["example.com:80", "*", "a.*.com"]
path_prefix = "users"
methods = ["get", "G T"]
headers = { "x y" = "1", x-a = "\n", X-A = " b", x-b = 1 }
pool = "app""#), @r#"
    error: `example.com:80` is no host that a route can match
     --> evener.toml:2:10
      |
    2 | hosts = ["example.com:80", "*", "a.*.com"]
      |          ^^^^^^^^^^^^^^^^ not accepted
      |
      = help: a host has no port or scheme here (listeners have ports): write `example.com`

    error: `*` is no host that a route can match
     --> evener.toml:2:28
      |
    2 | hosts = ["example.com:80", "*", "a.*.com"]
      |                            ^^^ not accepted
      |
      = help: `*` would be every host; leave `hosts` out for that

    error: `a.*.com` is no host that a route can match
     --> evener.toml:2:33
      |
    2 | hosts = ["example.com:80", "*", "a.*.com"]
      |                                 ^^^^^^^^^ not accepted
      |
      = help: `*` stands for the whole first label only, as in `*.example.com`

    error: `users` is no path that a route can match
     --> evener.toml:3:15
      |
    3 | path_prefix = "users"
      |               ^^^^^^^ not accepted
      |
      = help: a path starts with a slash: write `/users`

    error: `get` is no method
     --> evener.toml:4:12
      |
    4 | methods = ["get", "G T"]
      |            ^^^^^ not a method in upper case
      |
      = help: write "GET"; the case of methods counts

    error: `G T` is no method
     --> evener.toml:4:19
      |
    4 | methods = ["get", "G T"]
      |                   ^^^^^ not a method in upper case
      |
      = help: write methods such as "GET", "HEAD", "POST"

    error: `x y` is no header name
     --> evener.toml:5:13
      |
    5 | headers = { "x y" = "1", x-a = "\n", X-A = " b", x-b = 1 }
      |             ^^^^^ not a token (RFC 9110, 5.6.2)
      |
      = help: use letters, digits and `-`, without colon or blanks: "x-served-by"

    error: a header value cannot hold control characters
     --> evener.toml:5:32
      |
    5 | headers = { "x y" = "1", x-a = "\n", X-A = " b", x-b = 1 }
      |                                ^^^^ control character
      |
      = help: use one line of visible characters, without blanks at its ends

    error: blanks around a header value are lost on the way
     --> evener.toml:5:44
      |
    5 | headers = { "x y" = "1", x-a = "\n", X-A = " b", x-b = 1 }
      |                                            ^^^^ blank at an end
      |
      = help: use one line of visible characters, without blanks at its ends

    error: expected text in double quotes, found a whole number
     --> evener.toml:5:56
      |
    5 | headers = { "x y" = "1", x-a = "\n", X-A = " b", x-b = 1 }
      |                                                        ^ not text in double quotes
      |
      = help: write "1", in quotes

    10 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn an_empty_list_of_conditions_is_ambiguous() {
    assert_snapshot!(in_route(r#"hosts = []
methods = []
pool = "app""#), @r"
    error: an empty list: every host, or none?
     --> evener.toml:2:9
      |
    2 | hosts = []
      |         ^^ empty
      |
      = help: leave it out for every host, or name one

    error: an empty list: every method, or none?
     --> evener.toml:3:11
      |
    3 | methods = []
      |           ^^ empty
      |
      = help: leave it out for every method, or name one

    2 mistakes in evener.toml; nothing was applied
    ");
}

#[test]
fn headers_that_frame_a_message_cannot_be_edited() {
    assert_snapshot!(in_route(r#"pool = "app"
request_headers = { set = { Content-Length = "0", expect = "100-continue" }, remove = ["host", "Connection"] }
response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }"#), @r#"
    error: `content-length` cannot be set: it frames the message or belongs to the connection
     --> evener.toml:3:29
      |
    3 | request_headers = { set = { Content-Length = "0", expect = "100-continue" }, remove = ["host", "Connection"] }
      |                             ^^^^^^^^^^^^^^ managed by Evener
      |
      = help: leave it out; Evener writes it as each connection needs it

    error: `expect` cannot be set: it frames the message or belongs to the connection
     --> evener.toml:3:51
      |
    3 | request_headers = { set = { Content-Length = "0", expect = "100-continue" }, remove = ["host", "Connection"] }
      |                                                   ^^^^^^ managed by Evener
      |
      = help: leave it out; Evener writes it as each connection needs it

    error: a request without `host` is no valid HTTP/1.1
     --> evener.toml:3:88
      |
    3 | request_headers = { set = { Content-Length = "0", expect = "100-continue" }, remove = ["host", "Connection"] }
      |                                                                                        ^^^^^^ cannot be removed
      |
      = help: leave it out, or give another one in `set`

    error: `connection` cannot be removed: it frames the message or belongs to the connection
     --> evener.toml:3:96
      |
    3 | request_headers = { set = { Content-Length = "0", expect = "100-continue" }, remove = ["host", "Connection"] }
      |                                                                                                ^^^^^^^^^^^^ managed by Evener
      |
      = help: leave it out; Evener writes it as each connection needs it

    error: `transfer-encoding` cannot be set: it frames the message or belongs to the connection
     --> evener.toml:4:30
      |
    4 | response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }
      |                              ^^^^^^^^^^^^^^^^^ managed by Evener
      |
      = help: leave it out; Evener writes it as each connection needs it

    error: the header `x-a` is given twice
     --> evener.toml:4:72
      |
    4 | response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }
      |                                                                        ^^^ again
      |
      = help: upper and lower case do not matter in header names; keep one

    error: `te` cannot be removed: it frames the message or belongs to the connection
     --> evener.toml:4:95
      |
    4 | response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }
      |                                                                                               ^^^^ managed by Evener
      |
      = help: leave it out; Evener writes it as each connection needs it

    error: `a:b` is no header name
     --> evener.toml:4:101
      |
    4 | response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }
      |                                                                                                     ^^^^^ not a token (RFC 9110, 5.6.2)
      |
      = help: use letters, digits and `-`, without colon or blanks: "x-served-by"

    error: unknown key `add`
     --> evener.toml:4:109
      |
    4 | response_headers = { set = { transfer-encoding = "chunked", x-a = "1", X-A = "2" }, remove = ["te", "a:b"], add = {} }
      |                                                                                                             ^^^ not a key of header edits
      |
      = help: did you mean `set`? Keys of header edits: set, remove

    9 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn retry_conditions_are_words_and_statuses() {
    assert_snapshot!(in_route(r#"pool = "app"
retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }"#), @r#"
    error: `16` is out of range
     --> evener.toml:3:25
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                         ^^ too large
      |
      = help: write a whole number from 0 to 15

    error: `conect_failure` is nothing to retry on
     --> evener.toml:3:35
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                   ^^^^^^^^^^^^^^^^ unknown condition
      |
      = help: did you mean `connect_failure`? Statuses from "400" to "599" are accepted, and: connect_failure, reset, timeout

    error: `5xx` is nothing to retry on
     --> evener.toml:3:53
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                                     ^^^^^ unknown condition
      |
      = help: name each status: "500", "502", "503", "504"

    error: `200` is nothing to retry on
     --> evener.toml:3:60
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                                            ^^^^^ unknown condition
      |
      = help: Statuses from "400" to "599" are accepted, and: connect_failure, reset, timeout

    error: expected text in double quotes, found a whole number
     --> evener.toml:3:67
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                                                   ^^^ not text in double quotes
      |
      = help: write "502", in quotes

    error: a ratio lies between 0 and 1
     --> evener.toml:3:82
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                                                                  ^^^ out of range
      |
      = help: write a share such as 0.2 for 20 %

    error: unknown key `attempts`
     --> evener.toml:3:87
      |
    3 | retry = { max_retries = 16, on = ["conect_failure", "5xx", "200", 502], budget = 1.5, attempts = 3 }
      |                                                                                       ^^^^^^^^ not a key of `retry`
      |
      = help: did you mean `max_retries`? Keys of `retry`: max_retries, on, budget

    7 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn two_routes_that_tie_are_both_named() {
    assert_snapshot!(mistakes_in(r#"[listeners.http]
address = "127.0.0.1:80"
[routes.first]
hosts = ["a.example.com", "b.example.com"]
path_prefix = "/v1"
pool = "app"
[routes.second]
hosts = ["b.example.com"]
path_prefix = "/v1/"
pool = "app"
[pools.app]
upstreams = []
"#), @r"
    error: routes `first` and `second` tie: one request could match both
     --> evener.toml:7:9
      |
    7 | [routes.second]
      |         ^^^^^^ not more specific than the other
      |
      = help: `first` is on line 3; give one of them another host, a longer `path_prefix` or one more condition

    1 mistake in evener.toml; nothing was applied
    ");
}

#[test]
fn a_pool_needs_upstreams() {
    assert_snapshot!(in_pool(r#"strategy = "random_two""#), @r#"
    error: a pool needs `upstreams`
     --> evener.toml:1:1
      |
    1 | [pools.app]
      | ^^^^^^^^^^^ no `upstreams` here
      |
      = help: add its members: upstreams = ["127.0.0.1:9001"], or [] for none yet

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_least_conn_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "least_conn"
upstreams = []"#), @r#"
    error: unknown strategy `least_conn`
     --> evener.toml:2:12
      |
    2 | strategy = "least_conn"
      |            ^^^^^^^^^^^^ not a strategy
      |
      = help: did you mean `least_connections`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_leastconn_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "leastconn"
upstreams = []"#), @r#"
    error: unknown strategy `leastconn`
     --> evener.toml:2:12
      |
    2 | strategy = "leastconn"
      |            ^^^^^^^^^^^ not a strategy
      |
      = help: did you mean `least_connections`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_p2c_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "p2c"
upstreams = []"#), @r#"
    error: unknown strategy `p2c`
     --> evener.toml:2:12
      |
    2 | strategy = "p2c"
      |            ^^^^^ not a strategy
      |
      = help: did you mean `random_two`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_ip_hash_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "ip_hash"
upstreams = []"#), @r#"
    error: unknown strategy `ip_hash`
     --> evener.toml:2:12
      |
    2 | strategy = "ip_hash"
      |            ^^^^^^^^^ not a strategy
      |
      = help: did you mean `consistent_hash`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_rounrobin_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "rounrobin"
upstreams = []"#), @r#"
    error: unknown strategy `rounrobin`
     --> evener.toml:2:12
      |
    2 | strategy = "rounrobin"
      |            ^^^^^^^^^^^ not a strategy
      |
      = help: did you mean `round_robin`? Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_strategy_banana_is_unknown() {
    assert_snapshot!(in_pool(r#"strategy = "banana"
upstreams = []"#), @r#"
    error: unknown strategy `banana`
     --> evener.toml:2:12
      |
    2 | strategy = "banana"
      |            ^^^^^^^^ not a strategy
      |
      = help: Accepted: round_robin, least_connections, latency_weighted, random_two, consistent_hash

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn consistent_hash_needs_something_to_hash() {
    assert_snapshot!(in_pool(r#"strategy = "consistent_hash"
upstreams = []"#), @r#"
    error: `consistent_hash` needs `hash`: what should stay with one upstream?
     --> evener.toml:2:12
      |
    2 | strategy = "consistent_hash"
      |            ^^^^^^^^^^^^^^^^^ no `hash` beside it
      |
      = help: add one: hash = { client_ip = true }, { header = "x-user" }, { cookie = "session" } or { path = true }

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn hash_belongs_to_consistent_hash() {
    assert_snapshot!(in_pool(r#"hash = { client_ip = true }
upstreams = []"#), @r#"
    error: `hash` has no meaning with `round_robin`
     --> evener.toml:2:8
      |
    2 | hash = { client_ip = true }
      |        ^^^^^^^^^^^^^^^^^^^^ only for `consistent_hash`
      |
      = help: write strategy = "consistent_hash", or remove `hash`

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn hash_names_one_thing() {
    assert_snapshot!(in_pool(r#"strategy = "consistent_hash"
hash = { client_ip = true, path = true }
upstreams = []"#), @r#"
    error: `hash` names exactly one thing to hash
     --> evener.toml:3:8
      |
    3 | hash = { client_ip = true, path = true }
      |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ none, or more than one
      |
      = help: write one of { header = "x-user" }, { cookie = "session" }, { client_ip = true }, { path = true }

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn hash_names_something_real() {
    assert_snapshot!(in_pool(r#"strategy = "consistent_hash"
hash = { cookie = "a=b", ip = true }
upstreams = []"#), @r#"
    error: `a=b` is no cookie name
     --> evener.toml:3:19
      |
    3 | hash = { cookie = "a=b", ip = true }
      |                   ^^^^^ not a token (RFC 6265, 4.1.1)
      |
      = help: write the name alone, without `=`: { cookie = "session" }

    error: unknown key `ip`
     --> evener.toml:3:26
      |
    3 | hash = { cookie = "a=b", ip = true }
      |                          ^^ not a key of `hash`
      |
      = help: did you mean `client_ip`? Keys of `hash`: header, cookie, client_ip, path

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn upstreams_are_addresses() {
    assert_snapshot!(in_pool(r#"upstreams = [
  "http://10.0.0.1:8080/",
  "http://app.internal",
  "http://app.internal/v1",
  "https://10.0.0.1:8443",
  "ftp://a",
  "10.0.0.1",
  "::1",
  "app.internal",
  "app.internal:http",
  "10.1:80",
  "unknown.internal:80",
  "0.0.0.0:80",
  "127.0.0.1:0",
  "224.0.0.1:80",
  "unix:app.sock",
  "a b:80",
  "",
  9001,
  { weight = 2 },
  { address = "127.0.0.1:9001", weight = 1001, max_conns = 5, backup = "yes" },
  { address = "127.0.0.1:9002", max_connections = 0 },
]"#), @r#"
    error: an upstream is an address, not a URL
     --> evener.toml:3:3
      |
    3 |   "http://10.0.0.1:8080/",
      |   ^^^^^^^^^^^^^^^^^^^^^^^ with scheme
      |
      = help: write "10.0.0.1:8080"

    error: an upstream is an address, not a URL
     --> evener.toml:4:3
      |
    4 |   "http://app.internal",
      |   ^^^^^^^^^^^^^^^^^^^^^ with scheme
      |
      = help: write "app.internal:80"

    error: an upstream is an address, not a URL
     --> evener.toml:5:3
      |
    5 |   "http://app.internal/v1",
      |   ^^^^^^^^^^^^^^^^^^^^^^^^ with scheme
      |
      = help: write "HOST:PORT" alone; paths are up to a route's `path_prefix` and `strip_prefix`

    error: an upstream is an address, not a URL
     --> evener.toml:6:3
      |
    6 |   "https://10.0.0.1:8443",
      |   ^^^^^^^^^^^^^^^^^^^^^^^ with scheme
      |
      = help: write "10.0.0.1:8443", and tls = { server_name = "…" } in the pool

    error: `ftp://` is no kind of upstream
     --> evener.toml:7:3
      |
    7 |   "ftp://a",
      |   ^^^^^^^^^ unknown scheme
      |
      = help: write "host:port", "[::1]:port" or "unix:/path"

    error: `10.0.0.1` is no address of an upstream
     --> evener.toml:8:3
      |
    8 |   "10.0.0.1",
      |   ^^^^^^^^^^ no port
      |
      = help: write "10.0.0.1:80"

    error: `::1` is no address of an upstream
     --> evener.toml:9:3
      |
    9 |   "::1",
      |   ^^^^^ no port
      |
      = help: write "[::1]:80"

    error: `app.internal` is no address of an upstream
      --> evener.toml:10:3
       |
    10 |   "app.internal",
       |   ^^^^^^^^^^^^^^ no port
       |
       = help: write "app.internal:80"

    error: `app.internal:http` is no address of an upstream
      --> evener.toml:11:3
       |
    11 |   "app.internal:http",
       |   ^^^^^^^^^^^^^^^^^^^ no port from 1 to 65535
       |
       = help: write "host:port", "[::1]:port" or "unix:/path"

    error: `10.1:80` is no address of an upstream
      --> evener.toml:12:3
       |
    12 |   "10.1:80",
       |   ^^^^^^^^^ no host name
       |
       = help: write "host:port", "[::1]:port" or "unix:/path"

    error: the host name `unknown.internal` has no address
      --> evener.toml:13:3
       |
    13 |   "unknown.internal:80",
       |   ^^^^^^^^^^^^^^^^^^^^^ cannot be resolved
       |
       = help: check its spelling and this machine's DNS (`getent hosts NAME`), or write the IP address

    error: nothing can be reached at `0.0.0.0:80`
      --> evener.toml:14:3
       |
    14 |   "0.0.0.0:80",
       |   ^^^^^^^^^^^^ an address to listen on, not to connect to
       |
       = help: for this machine, write "127.0.0.1:80"

    error: nothing can be reached at `127.0.0.1:0`
      --> evener.toml:15:3
       |
    15 |   "127.0.0.1:0",
       |   ^^^^^^^^^^^^^ port 0
       |
       = help: write the port that the upstream listens on, from 1 to 65535

    error: nothing can be reached at `224.0.0.1:80`
      --> evener.toml:16:3
       |
    16 |   "224.0.0.1:80",
       |   ^^^^^^^^^^^^^^ a multicast address
       |
       = help: write the address of one server

    error: the path of a Unix socket must be absolute
      --> evener.toml:17:3
       |
    17 |   "unix:app.sock",
       |   ^^^^^^^^^^^^^^^ no leading slash
       |
       = help: write "unix:/run/app.sock", an absolute path of at most 107 bytes

    error: `a b:80` is no address of an upstream
      --> evener.toml:18:3
       |
    18 |   "a b:80",
       |   ^^^^^^^^ no host name
       |
       = help: write "host:port", "[::1]:port" or "unix:/path"

    error: `` is no address of an upstream
      --> evener.toml:19:3
       |
    19 |   "",
       |   ^^ not host:port
       |
       = help: write "host:port", "[::1]:port" or "unix:/path"

    error: expected text in double quotes, found a whole number
      --> evener.toml:20:3
       |
    20 |   9001,
       |   ^^^^ not text in double quotes
       |
       = help: write "9001", in quotes

    error: an upstream needs `address`
      --> evener.toml:21:3
       |
    21 |   { weight = 2 },
       |   ^^^^^^^^^^^^^^ no `address` here
       |
       = help: add where it listens: { address = "127.0.0.1:9001" }

    error: `1001` is out of range
      --> evener.toml:22:42
       |
    22 |   { address = "127.0.0.1:9001", weight = 1001, max_conns = 5, backup = "yes" },
       |                                          ^^^^ too large
       |
       = help: write a whole number from 0 to 1000

    error: unknown key `max_conns`
      --> evener.toml:22:48
       |
    22 |   { address = "127.0.0.1:9001", weight = 1001, max_conns = 5, backup = "yes" },
       |                                                ^^^^^^^^^ not a key of an upstream
       |
       = help: did you mean `max_connections`? Keys of an upstream: address, weight, max_connections, backup

    error: expected true or false, found text
      --> evener.toml:22:72
       |
    22 |   { address = "127.0.0.1:9001", weight = 1001, max_conns = 5, backup = "yes" },
       |                                                                        ^^^^^ not true or false
       |
       = help: write it like this: backup = true

    error: `0` is out of range
      --> evener.toml:23:51
       |
    23 |   { address = "127.0.0.1:9002", max_connections = 0 },
       |                                                   ^ too small
       |
       = help: write a whole number from 1 to 1048576

    23 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn an_upstream_stands_in_a_pool_once() {
    assert_snapshot!(in_pool(r#"upstreams = [
  "app.internal:80",
  "10.0.0.3:80",
  { address = "other.internal:80" },
]"#), @r#"
    error: the upstream 10.0.0.3:80 is in this pool twice
     --> evener.toml:4:3
      |
    4 |   "10.0.0.3:80",
      |   ^^^^^^^^^^^^^ again
      |
      = help: it is also on line 3; keep one, with a larger `weight` for a larger share

    error: the upstream 10.0.0.3:80 is in this pool twice
     --> evener.toml:5:3
      |
    5 |   { address = "other.internal:80" },
      |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ again
      |
      = help: it is also on line 4; keep one, with a larger `weight` for a larger share

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_pool_of_backups_has_nobody_to_stand_in_for() {
    assert_snapshot!(in_pool(r#"upstreams = [{ address = "127.0.0.1:1", backup = true }]"#), @r#"
    error: every upstream of the pool is a backup
     --> evener.toml:2:13
      |
    2 | upstreams = [{ address = "127.0.0.1:1", backup = true }]
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ backup of whom?
      |
      = help: remove `backup = true` from at least one

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn an_upstream_is_not_our_own_listener() {
    assert_snapshot!(in_pool(r#"upstreams = ["127.0.0.1:8080"]"#), @r#"
    error: 127.0.0.1:8080 is listener `http` of this file
     --> evener.toml:2:14
      |
    2 | upstreams = ["127.0.0.1:8080"]
      |              ^^^^^^^^^^^^^^^^ requests would go in circles
      |
      = help: write the address of the server behind Evener; its port differs from the listener's

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_keys_of_a_pool_have_limits() {
    assert_snapshot!(in_pool(r#"upstreams = []
timeouts = { connect = "0s", read = 60, send = "1s" }
keepalive = { idle = "x", max_idle = 70000 }
slow_start = "1d"
ejection = { max_fails = 3, consecutive_failures = 0, base_duration = "0ms", max_ejected = 50 }
queue = { max = 1e3, timeout = "-1s" }
servers = []"#), @r#"
    error: `0s` is out of range
     --> evener.toml:3:24
      |
    3 | timeouts = { connect = "0s", read = 60, send = "1s" }
      |                        ^^^^ too small
      |
      = help: write a value from 1ms to 24h

    error: the duration `60` has no unit
     --> evener.toml:3:37
      |
    3 | timeouts = { connect = "0s", read = 60, send = "1s" }
      |                                     ^^ seconds or milliseconds?
      |
      = help: write "60s" for seconds or "60ms" for milliseconds

    error: unknown key `send`
     --> evener.toml:3:41
      |
    3 | timeouts = { connect = "0s", read = 60, send = "1s" }
      |                                         ^^^^ not a key of `timeouts`
      |
      = help: did you mean `write`? Keys of `timeouts`: connect, read, write, tunnel

    error: `x` is no duration
     --> evener.toml:4:22
      |
    4 | keepalive = { idle = "x", max_idle = 70000 }
      |                      ^^^ not a whole number with a unit
      |
      = help: write whole numbers with `ms`, `s`, `m` or `h`: "500ms", "30s", "1m30s", "2h"

    error: `70000` is out of range
     --> evener.toml:4:38
      |
    4 | keepalive = { idle = "x", max_idle = 70000 }
      |                                      ^^^^^ too large
      |
      = help: write a whole number from 0 to 65536

    error: `1d` is no duration
     --> evener.toml:5:14
      |
    5 | slow_start = "1d"
      |              ^^^^ not a whole number with a unit
      |
      = help: write whole numbers with `ms`, `s`, `m` or `h`: "500ms", "30s", "1m30s", "2h"

    error: unknown key `max_fails`
     --> evener.toml:6:14
      |
    6 | ejection = { max_fails = 3, consecutive_failures = 0, base_duration = "0ms", max_ejected = 50 }
      |              ^^^^^^^^^ not a key of `ejection`
      |
      = help: did you mean `consecutive_failures`? Keys of `ejection`: enabled, consecutive_failures, base_duration, max_ejected

    error: `0` is out of range
     --> evener.toml:6:52
      |
    6 | ejection = { max_fails = 3, consecutive_failures = 0, base_duration = "0ms", max_ejected = 50 }
      |                                                    ^ too small
      |
      = help: write a whole number from 1 to 2000

    error: `0s` is out of range
     --> evener.toml:6:71
      |
    6 | ejection = { max_fails = 3, consecutive_failures = 0, base_duration = "0ms", max_ejected = 50 }
      |                                                                       ^^^^^ too small
      |
      = help: write a value from 1ms to 24h

    error: a ratio lies between 0 and 1
     --> evener.toml:6:92
      |
    6 | ejection = { max_fails = 3, consecutive_failures = 0, base_duration = "0ms", max_ejected = 50 }
      |                                                                                            ^^ out of range
      |
      = help: write a share such as 0.2 for 20 %

    error: expected a whole number, found a fraction
     --> evener.toml:7:17
      |
    7 | queue = { max = 1e3, timeout = "-1s" }
      |                 ^^^ not a whole number
      |
      = help: write it like this: max = 0

    error: `-1s` is no duration
     --> evener.toml:7:32
      |
    7 | queue = { max = 1e3, timeout = "-1s" }
      |                                ^^^^^ not a whole number with a unit
      |
      = help: write whole numbers with `ms`, `s`, `m` or `h`: "500ms", "30s", "1m30s", "2h"

    error: unknown key `servers`
     --> evener.toml:8:1
      |
    8 | servers = []
      | ^^^^^^^ not a key of a pool
      |
      = help: did you mean `upstreams`? Keys of a pool: strategy, hash, upstreams, protocol, tls, timeouts, keepalive, slow_start, ejection, queue, health_check, proxy_protocol

    13 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_protocol_and_what_depends_on_it_fit_together() {
    assert_snapshot!(in_pool(r#"upstreams = []
protocol = "auto"
health_check = { grpc = true, path = "/", status = [200] }"#), @r#"
    error: `auto` needs `tls`: the handshake settles the protocol
     --> evener.toml:3:12
      |
    3 | protocol = "auto"
      |            ^^^^^^ no `tls` beside it
      |
      = help: add tls = { server_name = "…" }; in clear, write "http1" or "http2"

    error: a gRPC health check needs `protocol = "http2"`
     --> evener.toml:4:25
      |
    4 | health_check = { grpc = true, path = "/", status = [200] }
      |                         ^^^^ not over HTTP/1.1
      |
      = help: add protocol = "http2" to the pool, or check with `path`

    error: a probe asks by `path` or by `grpc`, not both
     --> evener.toml:4:38
      |
    4 | health_check = { grpc = true, path = "/", status = [200] }
      |                                      ^^^ the other way to ask
      |
      = help: remove `path`, or `grpc`; the gRPC service is named by `service`

    3 mistakes in evener.toml; nothing was applied
    "#);
    assert_snapshot!(in_pool(r#"upstreams = []
protocol = "h2"
health_check = { service = "a" }"#), @r#"
    error: unknown protocol `h2`
     --> evener.toml:3:12
      |
    3 | protocol = "h2"
      |            ^^^^ not a protocol
      |
      = help: Accepted: http1, http2, auto

    error: `service` has no meaning without `grpc`
     --> evener.toml:4:28
      |
    4 | health_check = { service = "a" }
      |                            ^^^ for gRPC only
      |
      = help: add grpc = true, or remove `service`

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn the_keys_of_a_health_check_have_limits() {
    assert_snapshot!(in_pool(r#"upstreams = []
[pools.app.health_check]
enabled = "off"
path = "healthz"
interval = "50ms"
timeout = 5
rise = 0
fall = 9999
status = [99, "200"]
host = "a b"
headers = { authorization = "env:NOT_SET", x-token = "file:/nonexistent/token" }
passes = 2"#), @r#"
    error: expected true or false, found text
     --> evener.toml:4:11
      |
    4 | enabled = "off"
      |           ^^^^^ not true or false
      |
      = help: write it like this: enabled = true

    error: `healthz` is no path
     --> evener.toml:5:8
      |
    5 | path = "healthz"
      |        ^^^^^^^^^ not a path of a URL
      |
      = help: begin with a slash and escape blanks: "/healthz", "/ready?full=1"

    error: `50ms` is out of range
     --> evener.toml:6:12
      |
    6 | interval = "50ms"
      |            ^^^^^^ too small
      |
      = help: write a value from 100ms to 24h

    error: the duration `5` has no unit
     --> evener.toml:7:11
      |
    7 | timeout = 5
      |           ^ seconds or milliseconds?
      |
      = help: write "5s" for seconds or "5ms" for milliseconds

    error: `0` is out of range
     --> evener.toml:8:8
      |
    8 | rise = 0
      |        ^ too small
      |
      = help: write a whole number from 1 to 2000

    error: `9999` is out of range
     --> evener.toml:9:8
      |
    9 | fall = 9999
      |        ^^^^ too large
      |
      = help: write a whole number from 1 to 2000

    error: `99` is out of range
      --> evener.toml:10:11
       |
    10 | status = [99, "200"]
       |           ^^ too small
       |
       = help: write a whole number from 200 to 599

    error: expected a whole number, found text
      --> evener.toml:10:15
       |
    10 | status = [99, "200"]
       |               ^^^^^ not a whole number
       |
       = help: write each like this: status = [200]

    error: `a b` is no host
      --> evener.toml:11:8
       |
    11 | host = "a b"
       |        ^^^^^ not a Host header
       |
       = help: write a host name, with a port if it needs one: "app.internal", "app.internal:8080"

    error: the environment variable `NOT_SET` is not set, or empty
      --> evener.toml:12:29
       |
    12 | headers = { authorization = "env:NOT_SET", x-token = "file:/nonexistent/token" }
       |                             ^^^^^^^^^^^^^ nothing there
       |
       = help: set it where Evener starts (systemd: `EnvironmentFile=`), or write "file:PATH"

    error: the secret file `/nonexistent/token` does not exist
      --> evener.toml:12:54
       |
    12 | headers = { authorization = "env:NOT_SET", x-token = "file:/nonexistent/token" }
       |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^ no secret there
       |
       = help: name a readable text file of at most 8192 bytes

    error: unknown key `passes`
      --> evener.toml:13:1
       |
    13 | passes = 2
       | ^^^^^^ not a key of `health_check`
       |
       = help: did you mean `rise`? Keys of `health_check`: enabled, path, grpc, host, status, headers, service, interval, fast_interval, timeout, rise, fall

    12 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_probe_without_a_path_sends_nothing() {
    assert_snapshot!(in_pool(r#"upstreams = []
health_check = { status = [200], host = "a", headers = {} }"#), @r#"
    error: `status` has no meaning without `path`
     --> evener.toml:3:27
      |
    3 | health_check = { status = [200], host = "a", headers = {} }
      |                           ^^^^^ a TCP connect has no such thing
      |
      = help: add path = "/healthz", or remove `status`

    error: `host` has no meaning without `path`
     --> evener.toml:3:41
      |
    3 | health_check = { status = [200], host = "a", headers = {} }
      |                                         ^^^ a TCP connect has no such thing
      |
      = help: add path = "/healthz", or remove `host`

    error: `headers` has no meaning without `path`
     --> evener.toml:3:56
      |
    3 | health_check = { status = [200], host = "a", headers = {} }
      |                                                        ^^ a TCP connect has no such thing
      |
      = help: add path = "/healthz", or remove `headers`

    3 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_fast_interval_is_not_slow() {
    assert_snapshot!(in_pool(r#"upstreams = []
health_check = { interval = "5s", fast_interval = "6s" }"#), @r#"
    error: `fast_interval` is longer than `interval` (5s)
     --> evener.toml:3:51
      |
    3 | health_check = { interval = "5s", fast_interval = "6s" }
      |                                                   ^^^^ not fast
      |
      = help: write at most "5s", or raise `interval`

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_probe_accepts_some_status() {
    assert_snapshot!(in_pool(r#"upstreams = []
health_check = { path = "/", status = [] }"#), @r#"
    error: no answer would count as healthy
     --> evener.toml:3:39
      |
    3 | health_check = { path = "/", status = [] }
      |                                       ^^ empty
      |
      = help: name what a healthy upstream answers: status = [200]

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_secret_is_hidden_in_its_line() {
    assert_snapshot!(in_pool(r#"upstreams = []
health_check = { path = "/", headers = { authorization = "Bearer s3cret" }, rise = 0 }"#), @r#"
    warning: a secret stands in the file
     --> evener.toml:3:42
      |
    3 | health_check = { path = "/", headers = { authorization = *************** }, rise = 0 }
      |                                          ^^^^^^^^^^^^^ its value is not shown
      |
      = help: write "env:NAME" or "file:PATH", so that the file can be shown to others

    error: `0` is out of range
     --> evener.toml:3:84
      |
    3 | health_check = { path = "/", headers = { authorization = *************** }, rise = 0 }
      |                                                                                    ^ too small
      |
      = help: write a whole number from 1 to 2000

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_secret_on_a_broken_line_is_hidden_too() {
    assert_snapshot!(in_pool(r#"upstreams = []
health_check = { path = "/", headers = { authorization = "Bearer s3cret }"#), @r#"
    error: a value is not closed; nothing below it could be read
     --> evener.toml:3:16
      |
    3 | health_check = { path = "/", headers = { authorization =*****************
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ opened here
      |
      = help: close it with `}`; look for a missing comma before that, too

    1 mistake in evener.toml; nothing was applied
    "#);
}

#[test]
fn oddities_are_warnings() {
    assert_snapshot!(warnings_in(r#"[listeners.http]
address = "127.0.0.1:80"
[routes.all]
pool = "app"
[pools.app]
upstreams = ["127.0.0.1:9001"]
queue = { max = 10 }
health_check = { interval = "2s", timeout = "5s", path = "/", headers = { cookie = "s3cret" } }
[pools.spare]
upstreams = []
"#), @r#"
    warning: requests will hardly ever wait in this queue
     --> evener.toml:7:9
      |
    7 | queue = { max = 10 }
      |         ^^^^^^^^^^^^ an upstream without `max_connections` is never full
      |
      = help: give every upstream a limit: { address = "…", max_connections = 200 }

    warning: a probe may take longer than the `interval` between probes (2s)
     --> evener.toml:8:45
      |
    8 | health_check = { interval = "2s", timeout = "5s", path = "/", headers = { cookie = ******** } }
      |                                             ^^^^ the next probe waits for this one
      |
      = help: write at most "2s", or raise `interval`

    warning: a secret stands in the file
     --> evener.toml:8:75
      |
    8 | health_check = { interval = "2s", timeout = "5s", path = "/", headers = { cookie = ******** } }
      |                                                                           ^^^^^^ its value is not shown
      |
      = help: write "env:NAME" or "file:PATH", so that the file can be shown to others

    warning: no route leads to pool `spare`
     --> evener.toml:9:8
      |
    9 | [pools.spare]
      |        ^^^^^ gets no requests
      |
      = help: name it in the `pool` or `split` of a route, or remove it

    4 warnings in evener.toml
    "#);
}

#[test]
fn text_without_quotes_is_shown_with_them() {
    assert_snapshot!(mistakes_in(
        "[listeners.http]\naddress = 0.0.0.0:8080 # everywhere\nheader_timeout = 10s\nmax_body_size =\n\
         trusted_proxies = [10.0.0.0/8, fd00::/8]\nkeepalive_timeout = 5 m\n"
    ), @r#"
    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:2:11
      |
    2 | address = 0.0.0.0:8080 # everywhere
      |           ^^^^^^^^^^^^ no quotes
      |
      = help: write "0.0.0.0:8080", in double quotes

    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:3:18
      |
    3 | header_timeout = 10s
      |                  ^^^ no quotes
      |
      = help: write "10s", in double quotes

    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:4:16
      |
    4 | max_body_size =
      |                ^ no value
      |
      = help: write a value after `=`; text stands in double quotes

    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:5:20
      |
    5 | trusted_proxies = [10.0.0.0/8, fd00::/8]
      |                    ^^^^^^^^^^ no quotes
      |
      = help: write "10.0.0.0/8", in double quotes

    error: not valid TOML: neither a number, true, false, nor text in quotes
     --> evener.toml:6:21
      |
    6 | keepalive_timeout = 5 m
      |                     ^^^ no quotes
      |
      = help: write "5 m", in double quotes

    5 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_word_of_a_sub_table_leads_to_it() {
    assert_snapshot!(in_pool("upstreams = []\nmax_fails = 3\ninterval = \"5s\""), @r#"
    error: unknown key `max_fails`
     --> evener.toml:3:1
      |
    3 | max_fails = 3
      | ^^^^^^^^^ not a key of a pool
      |
      = help: did you mean `ejection`? Keys of a pool: strategy, hash, upstreams, protocol, tls, timeouts, keepalive, slow_start, ejection, queue, health_check, proxy_protocol

    error: unknown key `interval`
     --> evener.toml:4:1
      |
    4 | interval = "5s"
      | ^^^^^^^^ not a key of a pool
      |
      = help: did you mean `health_check`? Keys of a pool: strategy, hash, upstreams, protocol, tls, timeouts, keepalive, slow_start, ejection, queue, health_check, proxy_protocol

    2 mistakes in evener.toml; nothing was applied
    "#);
}

#[test]
fn a_prefix_of_nothing_cannot_be_cut_off() {
    assert_snapshot!(warnings_in(
        "[listeners.http]\naddress = \"127.0.0.1:80\"\n[routes.all]\npool = \"app\"\nstrip_prefix = true\n\
         [pools.app]\nupstreams = []\n"
    ), @r"
    warning: `strip_prefix` has nothing to cut off
     --> evener.toml:5:16
      |
    5 | strip_prefix = true
      |                ^^^^ the route matches every path
      |
      = help: add the `path_prefix` to cut off, or remove `strip_prefix`

    1 warning in evener.toml
    ");
}

/// A name from the file may stand in the advice, too.
#[test]
fn what_steers_a_terminal_is_not_shown() {
    let label = format!("{}\\u0000\\u001B[31m", "x".repeat(100));
    let told = in_route(&format!("pool = \"app\"\nhosts = [\"{label}\"]"));
    assert!(told.contains("is longer than 63 bytes"), "{told}");
    assert!(!told.chars().any(|character| character.is_control() && character != '\n'), "{told:?}");
    assert!(told.len() < 2_000, "{told}");
}

/// The reader misses the value of a key at the end of the text, whatever stands there.
#[test]
fn a_broken_last_line_is_told_once() {
    let told = mistakes_in("a = 1\nr.'''\n");
    let places: Vec<_> = told.lines().filter(|line| line.trim_start().starts_with("-->")).collect();
    let mut different = places.clone();
    different.dedup();
    assert_eq!(places, different, "{told}");
}
