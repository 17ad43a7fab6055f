# The tasks of developers and of .ci/run. `make help` lists the targets.

SHELL = /bin/sh

.PHONY: help build web deps needs quick test test-tls test-http2 test-protocol loom test-protocol-long test-browser test-long test-schemas test-clients test-deb test-dist test-all lint deny fuzz deb dist

# The seconds for each fuzz target, and the targets.
FUZZ_SECONDS = 60
FUZZ_TARGETS = query key callback script set_body channel_body peer_answer redis_reply wire socket_message socket_frames proxy_header tls_stream

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

build: ## build the release binary, target/release/holdfast
	cargo build --release --locked

web: needs ## make the served files of the library from src/web/holdfast.js
	node tests/browser/minify.mjs

deps: ## install the missing programs and packages that the tests need (apt-get, npm ci)
	@.ci/deps

# With NO_DEPS=1, missing programs and packages are named, and nothing is installed.
needs:
	@.ci/deps $(if $(NO_DEPS),--check)

quick: ## run the unit tests and the contract's tests of one node, without a browser
	cargo test --locked --lib
	cargo test --locked --test integration -- $(THREADS) contract:: docs::

# Most tests wait more than they work, so more of them run at once than there are cores.
THREADS = --test-threads=8

test: needs ## run all tests that fit into ten minutes: unit, doc, integration, browser, protocol and loom
	cargo test --locked -- $(THREADS)
	@$(MAKE) -s test-tls
	@$(MAKE) -s test-http2
	@$(MAKE) -s test-protocol
	@$(MAKE) -s loom
	@$(MAKE) -s test-browser

# The tests whose clients speak to the public listener. They run three times: without TLS, over TLS, and over HTTP/2. Those that
# are skipped choose their listeners themselves.
PUBLIC_TESTS = contract:: races::one_node races::model abuse::bad_http abuse::hostile operate::drain \
	--skip contract::tls --skip contract::http2

# It gives its clients half a second, in which a busy machine may not complete a handshake.
NOT_OVER_TLS = --skip abuse::bad_http::random

# They are about the bytes of heads and bodies of HTTP/1.1, which no client of HTTP/2 can send. In the last but one, connections
# wait for requests during a drain: with HTTP/2 their clients are sent to others at once. The last one has half a second too.
NOT_OVER_HTTP2 = --skip abuse::bad_http::framing --skip abuse::bad_http::pace::a_head_ --skip abuse::bad_http::a_head_ \
	--skip abuse::bad_http::a_target_ --skip contract::sets::routes::a_set_that_is_sent_to --skip abuse::bad_http::a_request_has --skip abuse::bad_http::targets_of \
	--skip operate::drain::connections_from_before --skip abuse::bad_http::pace::an_idle_

test-tls: ## run the tests of the public listener over TLS
	HOLDFAST_TEST_TLS=1 cargo test --locked --test integration -- $(THREADS) $(PUBLIC_TESTS) $(NOT_OVER_TLS)

# WebSockets and requests of HTTP/1.0 are sent over TLS with HTTP/1.1, to the same listener.
test-http2: ## run the tests of the public listener over HTTP/2
	HOLDFAST_TEST_HTTP2=1 cargo test --locked --test integration -- $(THREADS) $(PUBLIC_TESTS) $(NOT_OVER_TLS) $(NOT_OVER_HTTP2)

test-protocol: ## check the model of the protocol only, in all orders of its steps
	cargo test --locked -p holdfast-protocol

# A feature and not loom's usual flag: a flag would concern all that is built, and build it once more.
loom: ## check a wait and everything that ends it, in all orders of their steps
	cargo test --locked -p holdfast --lib --features loom-tests loom_

# A test of cargo's and not `node --test` alone: so the program that is tested was built, and is the one of `make test`.
test-browser: needs ## run the browser tests only
	cargo test --locked --test browser

# Runs the modules of the integration tests that call `long()`: the others do all they can in `make test`. They test the
# release build, which does several times as much in the same time. The tests themselves are those of `make test`, so
# that nothing is built twice. Three run at once, because most of them wait more than they work.
test-long: needs ## run the tests that have a long form, in that form
	@modules=$$(grep -rlw --include='*.rs' 'long()' tests/abuse tests/contract tests/nodes* tests/operate tests/proxy* tests/races tests/zookeeper | \
		sed 's,^tests/,,;s,\.rs$$,::,;s,/,::,g' | sort -u); \
	if [ -z "$$modules" ]; then echo 'no test has a long form'; exit 0; fi; \
	set -x; cargo build --release --locked && \
	HOLDFAST_BIN="$$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/holdfast" \
		HOLDFAST_TEST_LONG=1 cargo test --locked --test integration -- --test-threads=3 $$modules

test-protocol-long: ## check the model of the protocol with wider bounds: about twenty minutes
	HOLDFAST_TEST_LONG=1 cargo test --locked -p holdfast-protocol

# These tools are not in Debian, so they have a place of their own below target/.
SCHEMAS = target/schemas
test-schemas: needs ## check docs/openapi.yaml and deploy/ by schemas and tools of others (installs them with pip)
	@[ -x $(SCHEMAS)/bin/pip ] || python3 -m venv $(SCHEMAS) || \
	{ echo 'test-schemas: Python makes no virtual environment. Install with: sudo apt-get install python3-venv' >&2; exit 1; }
	@$(SCHEMAS)/bin/pip install --quiet --requirement tests/docs/schemas/requirements.txt || \
	{ echo 'test-schemas: pip could not install the tools (see above)' >&2; exit 1; }
	$(SCHEMAS)/bin/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml
	$(SCHEMAS)/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	SCHEMATHESIS=$(SCHEMAS)/bin/schemathesis cargo test --locked --test integration -- --ignored docs::openapi::schemathesis

# The tools, and what the clients need, are in a place of their own below target/.
CLIENTS = target/clients
test-clients: needs ## generate the clients of docs/backend.md, and run them (installs the generators with pip and npm)
	@[ -x $(CLIENTS)/bin/pip ] || python3 -m venv $(CLIENTS) || \
	{ echo 'test-clients: Python makes no virtual environment. Install with: sudo apt-get install python3-venv' >&2; exit 1; }
	@$(CLIENTS)/bin/pip install --quiet --requirement tests/docs/clients/requirements.txt || \
	{ echo 'test-clients: pip could not install the generator (see above)' >&2; exit 1; }
	@cp tests/docs/clients/package*.json $(CLIENTS)/
	@npm ci --prefix $(CLIENTS) --no-audit --no-fund --loglevel=error
	CLIENTS=$(CLIENTS) JARS="$$(echo "$$PWD"/$(CLIENTS)/lib/python3.*/site-packages/openapi_generator_cli/openapi-generator.jar):/usr/share/java/jakarta-annotation-api.jar" \
		cargo test --locked --test integration -- --ignored docs::clients

test-deb: ## install, start, upgrade, remove and purge the Debian package in a fresh root; needs root
	@tests/packages/deb

test-dist: ## make the tarball, and start its program where nothing else is; needs root
	@tests/packages/dist

test-all: test test-long test-protocol-long test-schemas test-clients test-deb test-dist ## run make test, then all long forms

lint: ## check formatting, clippy and rustdoc; a warning fails
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null || \
	{ echo 'fuzz/Cargo.lock is out of date: cargo update --manifest-path fuzz/Cargo.toml -p holdfast'; exit 1; }

# Sanitizers are off: they find mistakes in unsafe code, and holdfast has none. Without them more inputs are tried in
# the time, and stable Rust is enough. A sanitizer needs nightly Rust or RUSTC_BOOTSTRAP=1.
# Inputs that reach new code stay in fuzz/corpus for the next run, and are not committed.
fuzz: ## run each fuzz target for FUZZ_SECONDS (60); choose targets by FUZZ_TARGETS='key query'
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fixtures/fuzz/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1; \
	done

deny: ## check the dependencies: licences, doubled versions, sources and (if online) known weaknesses
	@.ci/deny

deb: ## make the Debian package and that of its debug symbols, in target/packages
	@deploy/deb

dist: ## make a tarball with a static program for any Linux, in target/dist
	@deploy/dist
