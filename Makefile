# Entry points for development. `make` without a target lists them.

# The build profile of `make run`. `release` is the fully optimized one, `quick` builds in a fraction of its time.
PROFILE ?= quick

.DEFAULT_GOAL := help
.PHONY: help run release test test-partitions test-core test-server chaos fuzz lint bench bench-grow bench-scale replay prepare openapi reference

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

run: ## Install missing dependencies, then serve at http://127.0.0.1:8080 (PROFILE=release: fully optimized)
	@scripts/install-deps
	cargo run --profile $(PROFILE) -- serve

release: ## Build the fully optimized binary, target/release/passbook
	@scripts/install-deps
	cargo build --release --package passbook

test: ## Run every test, against a real Postgres (JOBS=1: one suite after the other)
	@scripts/install-deps --test
	cargo test --workspace --no-run
	@$(MAKE) --no-print-directory --jobs=$(JOBS) $(OUTPUT_SYNC) --keep-going $(SUITES)

# The suites of `make test`, the longest first, and the chaos tests beside the API tests, which leave them the most processor time.
# Two run at a time, because they wait more than they compute.
SUITES = suite-api suite-chaos suite-cli suite-console suite-partitions suite-benchmarks suite-newest-postgres suite-relay suite-units \
	suite-docs
JOBS ?= 2
# Prints the output of a suite when it ends (GNU make 4).
OUTPUT_SYNC = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Tests that run at once in a suite, for the same reason; the chaos tests compute more.
PROCESSORS := $(shell getconf _NPROCESSORS_ONLN)
THREADS ?= $(shell echo $$(($(PROCESSORS) * 2)))
suite-chaos: THREADS = $(PROCESSORS)

# The API tests that `make test` repeats on the newest Postgres that scripts/postgres-binaries.txt pins: what the versions of Postgres
# may do differently. These are plans, roles, locks, errors of lost connections, and every kind of command and view.
CORE = account_view:: as_of:: batch_atomic:: citus:: daily_balances:: event_log:: hash_chain:: hold_races:: holds:: idempotency:: \
	journal:: key_retention:: locked_reads:: new_views:: outage:: overview:: previous_release:: reversals:: selective_filters:: snapshots:: \
	statement:: tampering::service_ transaction_view:: transfers:: trial_balance:: two_instances:: upgraded_views::
CORE_CLI = roles:: startup::
# Where scripts/install-deps has put it.
NEWEST_POSTGRES = $(if $(filter 0,$(shell id -u)),/usr/local/lib,$(or $(XDG_DATA_HOME),$(HOME)/.local/share))/passbook-postgres/18/bin

suite-newest-postgres:
	PASSBOOK_PG_BIN=$(NEWEST_POSTGRES) $(MAKE) --no-print-directory suite-core

suite-core:
	cargo test --workspace --test api -- --test-threads=$(THREADS) $(CORE)
	cargo test --workspace --test cli -- --test-threads=$(THREADS) $(CORE_CLI)

suite-partitions:
	PASSBOOK_TEST_PARTITIONS=4 cargo test --workspace --test api -- --test-threads=$(THREADS) $(OVER_PARTITIONS)

# Without examples in comments there are no documentation tests, and rustdoc would compile every crate for nothing.
suite-units:
	cargo test --workspace --lib --bins --test architecture --test config --test domain --test openapi
	if grep -rqE '//[/!] *```' src crates bench/src; then cargo test --workspace --doc; fi

suite-%:
	cargo test --workspace --test $* -- --test-threads=$(THREADS)

# The API tests that `make test` repeats on a log with several partitions: those that involve several accounts.
OVER_PARTITIONS = account_view:: batch_access:: batch_atomic:: batch_each:: batch_equivalence:: batch_failures:: batch_input:: \
	batch_outages:: batch_races:: batch_stream:: batch_tampering:: hold_expiry:: hold_moments:: hold_races:: idempotency:: journal:: \
	many_expiries:: money_races:: outage:: races:: transfers:: trial_balance:: two_instances::
PARTITIONS ?= 4

test-partitions: ## Run the whole API test suite on a log with several partitions (PARTITIONS=16)
	@scripts/install-deps --test
	PASSBOOK_TEST_PARTITIONS=$(PARTITIONS) cargo test --workspace --test api

test-core: ## Run a selection of the tests on the Postgres in a folder (PASSBOOK_PG_BIN=/usr/lib/postgresql/17/bin)
	@scripts/install-deps
	cargo test --workspace --no-run
	@$(MAKE) --no-print-directory suite-core

test-server: ## Run the tests that need only a database on another server (PASSBOOK_TEST_DATABASE_URL=postgres://…)
	@test -n "$$PASSBOOK_TEST_DATABASE_URL" || { echo "make test-server requires PASSBOOK_TEST_DATABASE_URL" >&2; exit 2; }
	@scripts/install-deps --test-server
	cargo test --workspace --no-run
	cargo test --workspace --test server

chaos: ## Inject faults for half an hour and check that no command is lost or applied twice (PASSBOOK_CHAOS_SEED, …_ROUNDS, …)
	@scripts/install-deps --test
	PASSBOOK_CHAOS_ROUNDS=$${PASSBOOK_CHAOS_ROUNDS:-12} PASSBOOK_CHAOS_TIMES=$${PASSBOOK_CHAOS_TIMES:-2} \
	PASSBOOK_CHAOS_CLUSTER_FAULTS=$${PASSBOOK_CHAOS_CLUSTER_FAULTS:-all} \
	PASSBOOK_CHAOS_PARALLEL_FAULTS=$${PASSBOOK_CHAOS_PARALLEL_FAULTS:-2} PASSBOOK_CHAOS_FREEZE_MS=$${PASSBOOK_CHAOS_FREEZE_MS:-5000} \
	cargo test --workspace --test chaos -- --nocapture

fuzz: ## Run the fuzz tests with more cases than `make test`, in about an hour (PASSBOOK_SCHEMATHESIS_CASES, PROPTEST_CASES, …)
	@scripts/install-deps --test
	PROPTEST_CASES=$${PROPTEST_CASES:-200000} cargo test --workspace --lib property_tests::
	PASSBOOK_SCHEMATHESIS_CASES=$${PASSBOOK_SCHEMATHESIS_CASES:-20000} \
	PASSBOOK_SCHEMATHESIS_SEED=$${PASSBOOK_SCHEMATHESIS_SEED:-$$(date +%j)} \
	PASSBOOK_HOSTILE_CONNECTIONS=$${PASSBOOK_HOSTILE_CONNECTIONS:-10000} \
	cargo test --workspace --test cli -- --nocapture --test-threads 1 openapi_conformance:: hostile::

lint: ## Check format, clippy, licences, sources, .sqlx, the OpenAPI document and ops/
	@scripts/install-deps --lint
	cargo fmt --all --check
	cargo deny check bans licenses sources
	scripts/sqlx-prepare --check
	scripts/lint-openapi
	scripts/lint-ops

bench: ## Benchmark Passbook, bare Postgres and a peer, and write docs/benchmarks.* (ARGS="--seconds 5")
	@scripts/install-deps --bench
	cargo build --release --package passbook
	cargo build --release --manifest-path bench/peers/cqrs-es/Cargo.toml
	cargo run --release --package bench -- run $(ARGS)

bench-grow: ## Compare a small log with one of ten million events and a million accounts, in one to two hours (ARGS="--events 1000000")
	@scripts/install-deps --bench
	cargo build --release --package passbook
	cargo run --release --package bench -- grow $(ARGS)

bench-scale: ## Benchmark several instances, partitions and tracing, in twelve minutes (ARGS="--rounds 5")
	@scripts/install-deps --bench
	cargo build --release --package passbook
	cargo run --release --package bench -- scale $(ARGS)

replay: ## Send the movements of a CSV file to a running service: make replay FILE=movements.csv.gz
	@test -n "$(FILE)" || { echo "make replay requires FILE, for example: make replay FILE=movements.csv.gz" >&2; exit 2; }
	cargo build --release --package passbook
	cargo run --release --package bench -- replay "$(FILE)"

prepare: ## Rewrite .sqlx after a change to a query or a migration
	@scripts/install-deps
	scripts/sqlx-prepare

openapi: ## Rewrite openapi/openapi.json after a change to a route
	@scripts/install-deps
	cargo run --quiet -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

reference: openapi ## Rewrite the generated pages of docs/ after a change to a route, an event, an error code, a metric or a decision
	PASSBOOK_WRITE_REFERENCE=yes cargo test --quiet --workspace --test docs -- reference::
