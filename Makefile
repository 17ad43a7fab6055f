# What is done by hand and by .ci/run. `make help` lists the targets.

SHELL = /bin/sh

# The debug binary as an absolute path, wherever cargo was told to put it.
HOLDFAST_BIN = "$$(d=$${CARGO_TARGET_DIR:-target}; case $$d in /*) ;; *) d=$$PWD/$$d ;; esac; echo "$$d")/debug/holdfast"

.PHONY: help build web deps needs quick test test-protocol loom test-protocol-long test-browser test-long test-all lint deny fuzz

# How long each target is fuzzed, and which are.
FUZZ_SECONDS = 60
FUZZ_TARGETS = query key callback script set_body channel_body peer_answer redis_reply

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

build: ## the release binary: target/release/holdfast
	cargo build --release --locked

web: needs ## src/web/holdfast.min.js, of its source
	node tests/browser/minify.mjs

deps: ## install what the tests need and the machine lacks (apt-get, npm ci)
	@.ci/deps

# With NO_DEPS=1 what is missing is named, and nothing is installed.
needs:
	@.ci/deps $(if $(NO_DEPS),--check)

quick: ## what one node promises: unit tests and the contract's, without a browser
	cargo test --locked --lib
	cargo test --locked --test integration -- $(THREADS) contract:: docs::

# Most tests wait more than they work, so more of them run at a time than there are cores.
THREADS = --test-threads=6

test: needs ## everything that fits ten minutes: unit, doc, integration, browser, protocol and loom tests
	cargo test --locked -- $(THREADS)
	@$(MAKE) -s test-protocol
	@$(MAKE) -s loom
	@$(MAKE) -s test-browser

test-protocol: ## the model of the protocol alone: all orders of its steps
	cargo test --locked -p holdfast-protocol

# A target directory of its own, as the flag concerns all that is built. The flag has a name of our own: at `loom` tokio would
# leave out its sockets.
loom: ## loom alone: all orders of the steps of a wait and of what ends it
	CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/loom CARGO_PROFILE_DEV_DEBUG=0 RUSTFLAGS='--cfg holdfast_loom' \
		cargo test --locked -p holdfast --lib loom_

# Explicit files: what a directory means to `node --test` changed between Node 20 and 22. Two at a time, as they wait more
# than they work.
test-browser: needs ## the browser tests alone
	cargo build --locked
	HOLDFAST_BIN=$(HOLDFAST_BIN) node --test --test-concurrency=2 --test-reporter=spec tests/browser/*.test.mjs

# Modules of the integration tests that ask `long()`: the others have done all they can in `make test`. A release build does
# several times as much in the time, and is what a hostile world of full size is for. Three at a time, as most of them wait more
# than they work.
test-long: needs ## only the tests that have a long form, in that form
	@modules=$$(grep -rlw --include='*.rs' 'long()' tests/abuse tests/contract tests/nodes* tests/operate tests/proxy* tests/races | \
		sed 's,^tests/,,;s,\.rs$$,::,;s,/,::,g' | sort -u); \
	if [ -z "$$modules" ]; then echo 'no test has a long form'; exit 0; fi; \
	set -x; HOLDFAST_TEST_LONG=1 cargo test --release --locked --test integration -- --test-threads=3 $$modules

test-protocol-long: ## the model of the protocol with wider bounds: some twenty minutes
	HOLDFAST_TEST_LONG=1 cargo test --locked -p holdfast-protocol

test-all: test test-long test-protocol-long ## test, then all long forms

lint: ## formatting, clippy and docs, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null || \
	{ echo 'fuzz/Cargo.lock is behind: cargo update --manifest-path fuzz/Cargo.toml -p holdfast'; exit 1; }

# No sanitizer: what these find is in unsafe code, and we have none. So inputs are tried faster, and stable Rust will do, where
# a sanitizer needs a nightly one (or RUSTC_BOOTSTRAP=1).
# What is found to lead somewhere new stays in fuzz/corpus for the next run, and is not committed.
fuzz: ## each fuzz target for FUZZ_SECONDS (60): FUZZ_TARGETS='key query' for some of them
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fixtures/fuzz/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1; \
	done

deny: ## licences, doubled versions, sources and, where it is reachable, the known weaknesses of what is built in
	@.ci/deny
