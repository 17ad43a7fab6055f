# What is done by hand and by .ci/run. `make help` lists the targets.

SHELL = /bin/sh

# The debug binary as an absolute path, wherever cargo was told to put it.
HOLDFAST_BIN = "$$(d=$${CARGO_TARGET_DIR:-target}; case $$d in /*) ;; *) d=$$PWD/$$d ;; esac; echo "$$d")/debug/holdfast"

.PHONY: help build web deps test test-browser test-long test-all lint deny

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

build: ## the release binary: target/release/holdfast
	cargo build --release --locked

web: deps ## src/web/holdfast.min.js, of its source
	node tests/browser/minify.mjs

deps: ## install what the tests need and the machine lacks (apt-get, npm ci)
	@.ci/deps

test: deps ## everything that fits ten minutes: unit, doc, integration and browser tests
	cargo test --locked
	@$(MAKE) -s test-browser

# Explicit files: what a directory means to `node --test` changed between Node 20 and 22. Two at a time, as they wait more
# than they work.
test-browser: deps ## the browser tests alone
	cargo build --locked
	HOLDFAST_BIN=$(HOLDFAST_BIN) node --test --test-concurrency=2 --test-reporter=spec tests/browser/*.test.mjs

# Modules of the integration tests that ask `long()`: the others have done all they can in `make test`.
test-long: deps ## only the tests that have a long form, in that form
	@modules=$$(grep -rlw 'long()' tests/integration | sed -n '/support/!s,tests/integration/\([a-z0-9_]*\).*,\1::,p' | sort -u); \
	if [ -z "$$modules" ]; then echo 'no test has a long form'; exit 0; fi; \
	set -x; HOLDFAST_TEST_LONG=1 cargo test --locked --test integration -- $$modules

test-all: test test-long ## test, then the long forms

lint: ## formatting, clippy and docs, warnings denied
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

deny: ## licences, doubled versions, sources and, where it is reachable, the known weaknesses of what is built in
	@.ci/deny
