# `make run`: try it. `make test`: everything CI checks. Both install what the machine lacks first.

.DEFAULT_GOAL := help
.PHONY: help run test fuzz bench bench-all setup setup-build setup-test setup-bench check-cargo

# Where rustup puts it, for shells that have not heard of it.
export PATH := $(HOME)/.cargo/bin:$(PATH)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: setup-build ## Build, start three demo app servers and Evener in front of them; Ctrl-C stops all
	cargo build --bin evener --example app_server
	@examples/demo.sh

test: setup-build setup-test ## Everything CI checks: format, lints, documentation, tests
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet
	cargo test --quiet
	FUZZ_SECONDS=$${FUZZ_SECONDS:-15} FUZZ_SEED=$${FUZZ_SEED:-1} .ci/fuzz

fuzz: setup-build ## Every parser against made-up input: FUZZ_SECONDS (60) for each, FUZZ_TARGETS names some of them
	.ci/fuzz

bench: setup-build setup-bench ## Strategies and other balancers compared, in ten minutes; then what a pick costs
	cargo build --release --bin evener
	target/release/evener bench --short --rounds 1 --against nginx,haproxy,caddy \
		--json target/bench.json --report target/bench
	cargo bench --quiet --bench functions

bench-all: setup-build setup-bench ## Every scenario three times over (about three hours), and every other benchmark
	cargo build --release --bin evener
	target/release/evener bench --against nginx,haproxy,caddy --json target/bench.json --report target/bench
	cargo bench --quiet --bench '*'

setup: setup-build setup-test setup-bench ## Install what build and tests need

setup-build: check-cargo
	@.ci/setup build

setup-test:
	@.ci/setup test

setup-bench:
	@.ci/setup bench

check-cargo:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs, then run make again." >&2; exit 1; }
