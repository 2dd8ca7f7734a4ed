#!/usr/bin/env bash
# What `make run` starts: three demo app servers, and Evener in front of them. Ctrl-C stops all of it.
set -uo pipefail
cd "$(dirname "$0")/.."

binaries="${CARGO_TARGET_DIR:-target}/debug"
traffic=8080 admin=9900 apps=(9001 9002 9003)
children=() evener=

main() {
    refuse_taken_ports
    trap stop EXIT
    trap 'exit 0' INT TERM
    for port in "${apps[@]}"; do
        "$binaries/examples/app_server" --address "127.0.0.1:$port" &
        children+=($!)
    done
    "$binaries/evener" run --config examples/demo.toml &
    evener=$!
    wait_until_ready
    say_what_to_try
    # Nobody ends by himself; whoever does takes the others along.
    while all_run; do sleep 0.5; done
    echo "One of the processes ended; see above. Stopping the others." >&2
    exit 1
}

refuse_taken_ports() {
    local port taken=0
    for port in "$traffic" "$admin" "${apps[@]}"; do
        if is_open "$port"; then
            echo "Port $port is taken. Who holds it: ss -ltnp 'sport = :$port'   (or: lsof -i :$port)" >&2
            taken=1
        fi
    done
    [ "$taken" -eq 0 ] || exit 3
}

is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# A fresh machine may have no curl; bash can ask by itself.
ask() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$admin" || exit 1
        printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" "$admin" >&3
        cat <&3
    ) 2>/dev/null
}

is_ready() {
    [[ "$(ask /readyz)" == "HTTP/1.1 200"* ]]
}

wait_until_ready() {
    local turn
    for turn in $(seq 100); do
        is_ready && return
        all_run || { echo "A process ended at its start; see above." >&2; exit 1; }
        sleep 0.1
    done
    echo "Evener is not ready after 10 seconds; see above." >&2
    exit 1
}

all_run() {
    local child
    for child in "${children[@]}"; do
        kill -0 "$child" 2>/dev/null || return 1
    done
    kill -0 "$evener" 2>/dev/null || follow_successor
}

# After `evener upgrade` it is another process, and none of our children.
follow_successor() {
    evener="$(ask /v1/status | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')"
    [ -n "$evener" ]
}

say_what_to_try() {
    cat <<TEXT

Evener is up. In another terminal, try:

    curl 127.0.0.1:$traffic                        # answered by 9001, 9002, 9003 in turn
    curl -X POST 127.0.0.1:9002/sick           # make one sick, and watch the others take over
    curl 127.0.0.1:$admin/v1/pools/app           # who is eligible, and why others are not
    curl -X POST 127.0.0.1:9002/well           # and well again
    $binaries/evener top                     # all of it at a glance; in a browser: http://127.0.0.1:$admin/
    curl "127.0.0.1:$admin/v1/explain?path=/"    # which route, which pool, which upstream

The configuration is examples/demo.toml. Ctrl-C stops everything.

TEXT
}

# Evener first, so that it does not report its upstreams as lost. Ctrl-C has told it already, and a second
# signal would cut its drain short; so it has a moment to end by itself.
stop() {
    trap '' INT TERM
    [ ${#children[@]} -eq 0 ] && return
    for turn in 1 2 3 4 5 6 7 8 9 10; do
        all_run || break
        sleep 0.1
    done
    [ -n "$evener" ] && kill -TERM "$evener" 2>/dev/null
    while [ -n "$evener" ] && kill -0 "$evener" 2>/dev/null; do sleep 0.1; done
    kill -TERM "${children[@]}" 2>/dev/null
    wait "${children[@]}" 2>/dev/null
    echo "Stopped."
}

main
